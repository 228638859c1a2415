import type { Rng } from '@waggle/core';
import { type Mixture, sharpen } from './topic-space.js';
import { TOPIC_COUNT, TOPICS } from './topics.js';

/** Whole mentions per topic in proportion to its weight (largest remainders). */
export function apportion(weights: ArrayLike<number>, units: number): Uint8Array {
  const counts = new Uint8Array(TOPIC_COUNT);
  const remainders: [number, number][] = [];
  let given = 0;
  for (let k = 0; k < TOPIC_COUNT; k++) {
    const share = weights[k]! * units;
    counts[k] = Math.floor(share);
    given += counts[k]!;
    remainders.push([share - counts[k]!, k]);
  }
  remainders.sort((a, b) => b[0] - a[0] || a[1] - b[1]);
  for (let i = 0; given < units; i++, given++) counts[remainders[i]![1]]!++;
  return counts;
}

/** `count` different items, in random order. */
export function pick<T>(rng: Rng, items: readonly T[], count: number): T[] {
  const pool = [...items];
  const out: T[] = [];
  for (let i = 0; i < count && pool.length > 0; i++) {
    out.push(pool.splice(rng.integer(pool.length), 1)[0]!);
  }
  return out;
}

export function one<T>(rng: Rng, items: readonly T[]): T {
  return items[rng.integer(items.length)]!;
}

export function capitalise(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

const NAME_SHAPES = [
  (w: string) => `The ${w}`,
  (w: string) => `${w} Weekly`,
  (w: string) => `The Daily ${w}`,
  (w: string) => `${w} Letter`,
  (w: string) => `${w} & Co.`,
  (w: string) => `Morning ${w}`,
  (w: string) => `The ${w} Report`,
  (w: string) => `${w} Notes`,
  (w: string) => `Beyond ${w}`,
  (w: string) => `${w} Digest`,
] as const;

const FIRST_NAMES = [
  'Ada',
  'Ben',
  'Carla',
  'Dmitri',
  'Elena',
  'Farid',
  'Grace',
  'Hugo',
  'Ines',
  'Jonas',
  'Kemi',
  'Lars',
  'Maya',
  'Noah',
  'Olga',
  'Priya',
  'Quentin',
  'Rosa',
  'Sami',
  'Tara',
  'Uma',
  'Viktor',
  'Wen',
  'Yara',
] as const;
const LAST_NAMES = [
  'Adler',
  'Brandt',
  'Castillo',
  'Dubois',
  'Engel',
  'Ferreira',
  'Gupta',
  'Hoffman',
  'Ivanov',
  'Jensen',
  'Kowalski',
  'Lindqvist',
  'Moreau',
  'Nakamura',
  'Okafor',
  'Petrov',
  'Quinn',
  'Rossi',
  'Silva',
  'Tanaka',
] as const;

export function publisherName(rng: Rng): string {
  const person = `${one(rng, FIRST_NAMES)} ${one(rng, LAST_NAMES)}`;
  return rng.bernoulli(0.3) ? `${person.split(' ')[1]} Media` : person;
}

const SECTION_LEADS = ['Sections', 'Regular topics', 'In every issue', 'What we cover'] as const;
/** Phrases and whole sentences shared out among the topics of a text. */
const PHRASES = 16;
const SENTENCES = 8;

/** How many phrases and how many sentences of a text each topic gets; main topics are emphasised. */
export function shareOut(mixture: Mixture): { phrases: Uint8Array; sentences: Uint8Array } {
  return {
    phrases: apportion(mixture.emphasis, PHRASES),
    sentences: apportion(sharpen(mixture.weights, 2), SENTENCES),
  };
}

/**
 * Name and description of a publication: sentences and phrases about its topics in proportion to their
 * weight, main topics emphasised.
 */
export function publicationTexts(
  rng: Rng,
  mixture: Mixture,
): { name: string; description: string } {
  const { phrases } = shareOut(mixture);
  const order = ranked(phrases);
  const main = TOPICS[mixture.top]!;
  const name = one(rng, NAME_SHAPES)(one(rng, main.names));
  const sentences = [...angles(rng, mixture)];
  sentences.push(`${one(rng, SECTION_LEADS)}: ${sections(rng, order, phrases)}.`);
  return { name, description: sentences.join(' ') };
}

function angles(rng: Rng, mixture: Mixture): string[] {
  const counts = shareOut(mixture).sentences;
  return ranked(counts).flatMap((k) => pick(rng, TOPICS[k]!.angles, counts[k]!));
}

/** `real estate (mortgage rates, landlord stories); travel (cheap flights)`. */
function sections(rng: Rng, order: readonly number[], counts: Uint8Array): string {
  return order
    .map((k) => {
      const topic = TOPICS[k]!;
      return `${topic.name} (${pick(rng, topic.covers, counts[k]!).join(', ')})`;
    })
    .join('; ');
}

export function postTitle(rng: Rng, weights: ArrayLike<number>): string {
  const topic = TOPICS[rng.weighted(weights)]!;
  return rng.bernoulli(0.5)
    ? one(rng, topic.subjects)
    : capitalise(
        `${one(rng, topic.covers)}${one(rng, [', explained', ': what changed', ' this week', ' and you', ': five notes'])}`,
      );
}

const BRAND_HEADS = [
  'Lumo',
  'North',
  'Vela',
  'Bright',
  'Terra',
  'Quill',
  'Nova',
  'Hearth',
  'Kite',
  'Cobalt',
  'Maple',
  'Rivet',
  'Sable',
  'Orbit',
  'Fern',
  'Atlas',
  'Juno',
  'Pebble',
  'Marlow',
  'Zephyr',
  'Birch',
  'Clover',
  'Ember',
  'Flint',
] as const;
const BRAND_TAILS = [
  'ra',
  'beam',
  'ly',
  'works',
  'well',
  'stack',
  'path',
  'side',
  'craft',
  'leaf',
  'port',
  'wise',
  'field',
  'spark',
  'bridge',
  'nest',
  'wave',
  'mint',
] as const;

export function brandName(rng: Rng): string {
  return `${one(rng, BRAND_HEADS)}${one(rng, BRAND_TAILS)}`;
}

export function slug(text: string): string {
  return text
    .normalize('NFKD')
    .replace(/\p{M}/gu, '')
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-|-$/g, '');
}

export interface CampaignTexts {
  readonly name: string;
  readonly description: string;
  /** Product of the top topic. */
  readonly product: readonly [noun: string, pitch: string, headline: string];
}

/** Texts of a campaign: its product comes from the top topic, then whom it is for. */
export function campaignTexts(rng: Rng, brand: string, mixture: Mixture): CampaignTexts {
  const { phrases } = shareOut(mixture);
  const main = TOPICS[mixture.top]!;
  const product = one(rng, main.products);
  const sentences = [
    `${brand}: ${product[0]} that ${product[1]}.`,
    `${capitalise(sections(rng, ranked(phrases), phrases))}.`,
    ...angles(rng, mixture),
  ];
  return { name: `${brand} ${product[0]}`, description: sentences.join(' '), product };
}

const CALLS = [
  'Try it free for two weeks.',
  'Readers get 20 % off.',
  'See how it works.',
  'Start today.',
  'No card needed.',
  'Order by Friday.',
] as const;

export function creativeTexts(
  rng: Rng,
  brand: string,
  product: CampaignTexts['product'],
  weights: ArrayLike<number>,
): { headline: string; body: string } {
  const topic = TOPICS[rng.weighted(weights)]!;
  const headline = one(rng, [
    product[2],
    `${brand}: ${product[2]}`,
    `${product[2]} with ${brand}`,
    capitalise(`${product[0]} for people who love ${one(rng, topic.covers)}`),
  ]);
  const body = one(rng, [
    `${brand} ${product[1]}. ${one(rng, CALLS)}`,
    `Meet ${brand}, the ${product[0]} that ${product[1]}. ${one(rng, CALLS)}`,
    `If you read about ${one(rng, topic.covers)}, you will like ${brand}: ${product[0]} that ${product[1]}.`,
  ]);
  return { headline, body };
}

export function ranked(counts: Uint8Array): number[] {
  const order: number[] = [];
  for (let k = 0; k < counts.length; k++) if (counts[k]! > 0) order.push(k);
  return order.sort((a, b) => counts[b]! - counts[a]! || a - b);
}
