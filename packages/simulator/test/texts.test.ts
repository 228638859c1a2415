import { Rng } from '@waggle/core';
import { describe, expect, test } from 'vitest';
import { simulateWorld } from '../src/index.js';
import { LOCAL_TOPICS, type LocalLanguage } from '../src/local-topics.js';
import { apportion } from '../src/texts.js';
import {
  affinity,
  CAMPAIGN_CONCENTRATION,
  dirichlet,
  mixtureOf,
  PUBLICATION_CONCENTRATION,
  resemblance,
} from '../src/topic-space.js';
import { TOPIC_COUNT, TOPICS } from '../src/topics.js';

describe('topics', () => {
  test('there are forty, each with the words that every template needs', () => {
    expect(TOPIC_COUNT).toBe(40);
    expect(new Set(TOPICS.map((topic) => topic.key)).size).toBe(40);
    for (const topic of TOPICS) {
      expect(topic.covers).toHaveLength(8);
      expect(topic.angles).toHaveLength(3);
      expect(topic.names).toHaveLength(5);
      expect(topic.subjects).toHaveLength(4);
      expect(topic.tags).toHaveLength(3);
      expect(topic.products).toHaveLength(4);
      for (const product of topic.products) for (const part of product) expect(part).toBeTruthy();
    }
  });

  test('affinity is standardised over independent pairs and highest for a mixture with itself', () => {
    const rng = new Rng(99);
    const values: number[] = [];
    for (let i = 0; i < 3_000; i++) {
      const a = mixtureOf(dirichlet(rng, PUBLICATION_CONCENTRATION));
      const b = mixtureOf(dirichlet(rng, CAMPAIGN_CONCENTRATION));
      values.push(affinity(a, b));
      expect(resemblance(a, a)).toBeCloseTo(1, 12);
      expect(resemblance(a, b)).toBeCloseTo(resemblance(b, a), 12);
    }
    const mean = values.reduce((x, y) => x + y) / values.length;
    const variance = values.reduce((x, y) => x + (y - mean) ** 2, 0) / values.length;
    expect(Math.abs(mean)).toBeLessThan(0.1);
    expect(Math.abs(variance - 1)).toBeLessThan(0.12);
  });
});

describe('texts', () => {
  test('mentions are shared out in proportion and add up', () => {
    const rng = new Rng(5);
    for (let i = 0; i < 200; i++) {
      const weights = dirichlet(rng, 0.15);
      const counts = apportion(weights, 12);
      let total = 0;
      for (let k = 0; k < 40; k++) {
        total += counts[k]!;
        expect(Math.abs(counts[k]! - 12 * weights[k]!)).toBeLessThan(1);
      }
      expect(total).toBe(12);
    }
  });

  test('descriptions name their main topics, fit their columns and say nothing undefined', () => {
    const world = simulateWorld({ scale: 'ci', seed: 6, overrides: { labels: false } });
    const topics = new Map(
      [...world.truth.publications.rows<{ publication_id: string; topics: string }>()].map(
        (row) => [row.publication_id, row.topics],
      ),
    );
    let named = 0;
    let total = 0;
    for (const row of world.tables['publications']!.rows<{
      publication_id: string;
      name: string;
      description: string;
      language: string;
    }>()) {
      const top = topics.get(row.publication_id)!.split(':')[0]!;
      const name =
        row.language === 'en'
          ? TOPICS.find((topic) => topic.key === top)!.name
          : LOCAL_TOPICS[row.language as LocalLanguage].get(top)!.name;
      if (row.description.includes(name)) named++;
      total++;
      expect(row.description).not.toMatch(/undefined|null|\bNaN\b| {2}|\(\)/);
      expect(row.name.length).toBeGreaterThan(3);
    }
    expect(named).toBe(total);
    for (const table of ['campaigns', 'creatives', 'posts']) {
      for (const row of world.tables[table]!.rows()) {
        expect(JSON.stringify(row)).not.toMatch(/undefined|\bNaN\b/);
      }
    }
  });
});
