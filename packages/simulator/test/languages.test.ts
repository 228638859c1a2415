import type { CampaignRow, PublicationRow } from '@waggle/core/contract';
import { describe, expect, test } from 'vitest';
import { simulateWorld } from '../src/index.js';
import { LOCAL_FRAMES, LOCAL_LANGUAGES, LOCAL_TOPICS } from '../src/local-topics.js';
import { TOPICS } from '../src/topics.js';

/** Words that nearly every text of a language contains and texts of the others do not. */
const MARKS: Readonly<Record<string, RegExp>> = {
  en: /\b(the|and|for|that|with|you|your|of|to)\b/i,
  de: /\b(zum|für|und|Wir|jeder|verständlich|Rubriken|interessieren|Dazu)\b/,
  fr: /\b(le|la|les|des|du|pour|dans|sur)\b/i,
  es: /\b(el|las|los|para|sobre|con|Secciones|esto)\b/i,
};

describe('languages', () => {
  const world = simulateWorld({ scale: 'ci', seed: 3 });
  const publications = [...world.tables['publications']!.rows<PublicationRow>()];
  const campaigns = [...world.tables['campaigns']!.rows<CampaignRow>()];

  test('every topic has its words in every language', () => {
    for (const language of LOCAL_LANGUAGES) {
      expect([...LOCAL_TOPICS[language].keys()].sort()).toEqual(TOPICS.map((t) => t.key).sort());
      for (const topic of LOCAL_TOPICS[language].values()) {
        expect(topic.covers).toHaveLength(4);
        for (const text of [topic.name, ...topic.covers, ...topic.product]) {
          expect(text).toMatch(/^\S.*\S$/);
          expect(text).not.toMatch(/[{}|>;]/);
        }
      }
      for (const list of Object.values(LOCAL_FRAMES[language]).flat()) expect(list).toBeTruthy();
    }
  });

  test('the language of a publication is the language of its texts', () => {
    const used = new Set(publications.map((p) => p.language));
    expect([...used].sort()).toEqual(['de', 'en', 'es', 'fr']);
    const english = publications.filter((p) => p.language === 'en').length / publications.length;
    expect(english).toBeGreaterThan(0.8);
    expect(english).toBeLessThan(0.9);
    for (const p of publications) {
      expect(p.description, p.description).toMatch(MARKS[p.language]!);
      expect(p.description).not.toMatch(/[{}]|undefined/);
      if (p.language !== 'en') expect(p.description).not.toMatch(/\b(the|with|that)\b/);
    }
    const languageOf = new Map(publications.map((p) => [p.publication_id, p.language]));
    for (const post of world.tables['posts']!.rows<{ publication_id: string; title: string }>()) {
      expect(post.title).not.toMatch(/[{}]|undefined/);
      if (languageOf.get(post.publication_id) !== 'en') {
        expect(post.title).not.toMatch(/\b(the|you|this week|explained)\b/);
      }
    }
  });

  test('a campaign is written in the first language that it targets', () => {
    const creatives = new Map<string, string[]>();
    for (const row of world.tables['creatives']!.rows<{
      campaign_id: string;
      headline: string;
      body: string;
    }>()) {
      const texts = creatives.get(row.campaign_id) ?? [];
      creatives.set(row.campaign_id, [...texts, `${row.headline} ${row.body}`]);
    }
    const many = simulateWorld({ scale: 'serving', seed: 1 });
    const local = [...many.tables['campaigns']!.rows<CampaignRow>()].filter(
      (c) => c.target_languages.length > 0 && c.target_languages[0] !== 'en',
    );
    expect(local.length).toBeGreaterThan(100);
    for (const c of local) {
      expect(c.description, c.description).toMatch(MARKS[c.target_languages[0]!]!);
      expect(c.description).not.toMatch(/\b(the|with|that)\b/);
    }
    for (const c of campaigns) {
      const language = c.target_languages[0] ?? 'en';
      expect(c.description).toMatch(MARKS[language]!);
      for (const text of creatives.get(c.campaign_id)!) expect(text).not.toMatch(/[{}]|undefined/);
    }
  });

  test('the language filter has something to keep out and something to let in', () => {
    const target = (c: CampaignRow, language: string) =>
      c.target_languages.length === 0 || c.target_languages.includes(language);
    for (const language of ['en', 'de', 'fr', 'es']) {
      const open = campaigns.filter((c) => target(c, language)).length / campaigns.length;
      expect(open).toBeGreaterThan(0.2);
      expect(open).toBeLessThan(0.99);
    }
  });
});
