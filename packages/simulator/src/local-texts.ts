import type { Rng } from '@waggle/core';
import {
  LOCAL_FRAMES,
  LOCAL_TOPICS,
  type LocalFrames,
  type LocalLanguage,
  type LocalTopic,
} from './local-topics.js';
import { type CampaignTexts, capitalise, one, pick, ranked, shareOut } from './texts.js';
import type { Mixture } from './topic-space.js';
import { TOPICS } from './topics.js';

/** The same texts as in English, from the phrases of another language. */

function topicOf(language: LocalLanguage, k: number): LocalTopic {
  return LOCAL_TOPICS[language].get(TOPICS[k]!.key)!;
}

function fill(frame: string, words: Readonly<Record<string, string>>): string {
  return frame.replace(/\{(\w+)\}/g, (_, key: string) => words[key]!);
}

export function localPublicationTexts(
  rng: Rng,
  language: LocalLanguage,
  mixture: Mixture,
): { name: string; description: string } {
  const frames = LOCAL_FRAMES[language];
  const main = topicOf(language, mixture.top);
  const name = capitalise(fill(one(rng, frames.names), { name: main.name }));
  const sections = fill(frames.sections, { sections: sectionList(rng, language, mixture) });
  return { name, description: `${sentences(rng, language, frames, mixture)} ${sections}` };
}

function sentences(
  rng: Rng,
  language: LocalLanguage,
  frames: LocalFrames,
  mixture: Mixture,
): string {
  const { sentences: counts } = shareOut(mixture);
  const out: string[] = [];
  for (const k of ranked(counts)) {
    const topic = topicOf(language, k);
    out.push(capitalise(fill(one(rng, frames.about), { name: topic.name })));
    for (const cover of pick(rng, topic.covers, Math.min(counts[k]! - 1, 3))) {
      out.push(fill(one(rng, frames.covers), { cover }));
    }
  }
  return out.join(' ');
}

function sectionList(rng: Rng, language: LocalLanguage, mixture: Mixture): string {
  const { phrases } = shareOut(mixture);
  return ranked(phrases)
    .map((k) => {
      const topic = topicOf(language, k);
      return `${topic.name} (${pick(rng, topic.covers, phrases[k]!).join(', ')})`;
    })
    .join('; ');
}

export function localPostTitle(
  rng: Rng,
  language: LocalLanguage,
  weights: ArrayLike<number>,
): string {
  const topic = topicOf(language, rng.weighted(weights));
  const frame = one(rng, LOCAL_FRAMES[language].titles);
  return capitalise(fill(frame, { cover: one(rng, topic.covers) }));
}

export function localCampaignTexts(
  rng: Rng,
  language: LocalLanguage,
  brand: string,
  mixture: Mixture,
): CampaignTexts {
  const frames = LOCAL_FRAMES[language];
  const { product } = topicOf(language, mixture.top);
  const description = [
    `${brand}: ${product[0]}. ${product[1]}.`,
    fill(frames.audience, { sections: sectionList(rng, language, mixture) }),
    sentences(rng, language, frames, mixture),
  ].join(' ');
  return { name: `${brand} ${product[0]}`, description, product };
}

export function localCreativeTexts(
  rng: Rng,
  language: LocalLanguage,
  brand: string,
  product: CampaignTexts['product'],
  weights: ArrayLike<number>,
): { headline: string; body: string } {
  const frames = LOCAL_FRAMES[language];
  const topic = topicOf(language, rng.weighted(weights));
  const [noun, pitch, headline] = product;
  const words = { brand, noun, pitch, call: one(rng, frames.calls), cover: one(rng, topic.covers) };
  const heading = one(rng, [headline, `${brand}: ${headline}`, fill(frames.interest, words)]);
  return { headline: capitalise(heading), body: capitalise(fill(one(rng, frames.bodies), words)) };
}
