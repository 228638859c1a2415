import { DAY_MS, type Rng } from '@waggle/core';
import type { WorldIds } from './ids.js';
import { localPublicationTexts } from './local-texts.js';
import { LOCAL_LANGUAGES } from './local-topics.js';
import { MEAN_AUDIENCE, SCALES, type WorldConfig } from './scales.js';
import { advertiserCount, publisherOf } from './sizes.js';
import { evenly, normalQuantile, STREAM, streamOf } from './streams.js';
import { publicationTexts, publisherName } from './texts.js';
import { dirichlet, type Mixture, mixtureOf, PUBLICATION_CONCENTRATION } from './topic-space.js';
import { CATEGORIES, TOPIC_COUNT, TOPICS } from './topics.js';

export interface PublisherState {
  readonly id: string;
  readonly name: string;
  readonly createdMs: number;
}

/** What a publication is, the hidden part included. */
export interface PublicationState {
  readonly index: number;
  readonly id: string;
  readonly publisher: number;
  /** When it connected to the network: from then on its sends are known. */
  readonly createdMs: number;
  /** When it became eligible for ads; its sends before have no slots. */
  readonly joinedMs: number;
  /** It takes no ads from here … */
  readonly pausedFromMs: number;
  /** … to here. */
  readonly pausedToMs: number;
  readonly name: string;
  readonly description: string;
  readonly language: Language;
  readonly country: string;
  readonly timezone: string;
  readonly offsetHours: number;
  readonly tags: readonly string[];
  readonly category: string;
  readonly misTagged: boolean;
  readonly audience: 'consumer' | 'b2b';
  readonly cadencePerWeek: number;
  /** Local days of week on which it sends, 0 = Sunday; for sparse ones every second week. */
  readonly days: readonly number[];
  readonly sparse: boolean;
  readonly sendHour: number;
  /** Subscribers at the world's start (or when it joined, if later). */
  readonly subscribers: number;
  /** Growth of the list per day, net of unsubscribes. */
  readonly growthPerDay: number;
  readonly humanOpenRate: number;
  readonly mppShare: number;
  readonly scannerShare: number;
  readonly fraudRing: boolean;
  readonly mixture: Mixture;
  /** Log-odds effect of the publication: observable part and the rest. */
  readonly observedEffect: number;
  readonly latentEffect: number;
  /** Least payout that half of its answers would accept, dollars per thousand delivered. */
  readonly reservationCpm: number;
  readonly acceptEffect: number;
  readonly noShowRate: number;
  readonly allowedCategories: readonly string[];
  readonly blockedCategories: readonly string[];
  readonly blockedAdvertisers: readonly number[];
  readonly maxAds: number;
  readonly minPayoutMicros: number;
  readonly autoAccept: boolean;
}

const AUDIENCE_MEDIAN = 3_000;
const AUDIENCE_SIGMA = 1.6;
const MAX_AUDIENCE = 3_000_000;
/** Each week 3 % of a network's publications are new. */
const NEW_PER_WEEK = 0.03;
/** Publications that pause within two weeks of the world or in it. */
const PAUSED_SHARE = 0.02;
const MONTHLY_GROWTH = 0.035;
/** Share of recipients behind a scanner that follows every link. */
const SCANNER_MEDIAN = { consumer: 0.001, b2b: 0.011 } as const;
export const PUBLICATION_SIGMA = 0.55;
const OBSERVED_SIGMA = PUBLICATION_SIGMA * Math.SQRT1_2;

interface Place {
  readonly country: string;
  readonly timezone: string;
  readonly offsetHours: number;
}
const PLACES: Readonly<Record<Language, readonly (readonly [weight: number, place: Place])[]>> = {
  en: [
    [0.34, { country: 'US', timezone: 'America/New_York', offsetHours: -5 }],
    [0.14, { country: 'US', timezone: 'America/Chicago', offsetHours: -6 }],
    [0.2, { country: 'US', timezone: 'America/Los_Angeles', offsetHours: -8 }],
    [0.15, { country: 'GB', timezone: 'Europe/London', offsetHours: 0 }],
    [0.07, { country: 'CA', timezone: 'America/Toronto', offsetHours: -5 }],
    [0.05, { country: 'AU', timezone: 'Australia/Brisbane', offsetHours: 10 }],
    [0.05, { country: 'IN', timezone: 'Asia/Kolkata', offsetHours: 5.5 }],
  ],
  de: [
    [0.8, { country: 'DE', timezone: 'Europe/Berlin', offsetHours: 1 }],
    [0.2, { country: 'AT', timezone: 'Europe/Vienna', offsetHours: 1 }],
  ],
  fr: [[1, { country: 'FR', timezone: 'Europe/Paris', offsetHours: 1 }]],
  es: [
    [0.6, { country: 'ES', timezone: 'Europe/Madrid', offsetHours: 1 }],
    [0.4, { country: 'MX', timezone: 'America/Mexico_City', offsetHours: -6 }],
  ],
};
export const LANGUAGES = ['en', ...LOCAL_LANGUAGES] as const;
export type Language = (typeof LANGUAGES)[number];
const LANGUAGE_WEIGHTS = [0.85, 0.06, 0.05, 0.04] as const;

/** Log-odds effect of each category, drawn once for all worlds: some subjects simply click more. */
const CATEGORY_EFFECT = new Map(
  CATEGORIES.map((category, i) => [category, normalQuantile(evenly(2, 0.37, i))] as const),
);

export function categoryEffect(category: string): number {
  return CATEGORY_EFFECT.get(category) ?? 0;
}

export function createPublisher(config: WorldConfig, ids: WorldIds, index: number): PublisherState {
  const rng = streamOf(config.seed, STREAM.publisher, index);
  const createdMs = config.startMs - Math.floor((60 + 700 * rng.uniform()) * DAY_MS);
  return { id: ids.id('publisher', createdMs, 0, index, 0), name: publisherName(rng), createdMs };
}

/** Where the low-discrepancy sequences of sizes and cadences begin. */
export interface SupplyLayout {
  readonly sizeOffset: number;
  readonly cadenceOffset: number;
}

const LAYOUTS_TRIED = 64;

/** Topics of a publication, and whether it is read at home or at work. */
function subjectOf(
  seed: number,
  index: number,
): { weights: Float64Array; audience: 'consumer' | 'b2b' } {
  const rng = streamOf(seed, STREAM.subject, index);
  const weights = dirichlet(rng, PUBLICATION_CONCENTRATION);
  let top = 0;
  for (let k = 1; k < TOPIC_COUNT; k++) if (weights[k]! > weights[top]!) top = k;
  return { weights, audience: rng.bernoulli(TOPICS[top]!.b2b) ? 'b2b' : 'consumer' };
}

/**
 * A few lists make most of a network's volume: whether the largest writes daily or weekly would move emails by
 * a fifth from seed to seed, and whether it is read at work, behind scanners, clicks by a third. Of 64 random
 * layouts the one is taken whose emails per week and whose share of them before scanners come nearest to what a
 * network of the scale's own size expects (overrides leave it alone, so that a further publication moves
 * nobody). O(64 × publications).
 */
export function supplyLayout(config: WorldConfig): SupplyLayout {
  const rng = streamOf(config.seed, STREAM.layout, 0);
  const n = SCALES[config.scale].publications;
  const scanned = new Float64Array(n);
  let scannedMean = 0;
  for (let i = 0; i < n; i++) {
    scanned[i] = SCANNER_MEDIAN[subjectOf(config.seed, i).audience];
    scannedMean += scanned[i]! / n;
  }
  const expected = n * MEAN_AUDIENCE * MEAN_CADENCE;
  let best: SupplyLayout = { sizeOffset: 0, cadenceOffset: 0 };
  let smallest = Number.POSITIVE_INFINITY;
  for (let attempt = 0; attempt < LAYOUTS_TRIED; attempt++) {
    const layout = { sizeOffset: rng.uniform(), cadenceOffset: rng.uniform() };
    let perWeek = 0;
    let scans = 0;
    for (let i = 0; i < n; i++) {
      const emails =
        audienceOf(normalQuantile(evenly(0, layout.sizeOffset, i))) *
        meanCadence(evenly(1, layout.cadenceOffset, i));
      perWeek += emails;
      scans += emails * scanned[i]!;
    }
    const volumeError = Math.log(perWeek / expected);
    const scannerError = Math.log(scans / perWeek / scannedMean);
    // Emails are counted on exactly, clicks roughly.
    const error = 9 * volumeError ** 2 + scannerError ** 2;
    if (error < smallest) {
      smallest = error;
      best = layout;
    }
  }
  return best;
}

function audienceOf(z: number): number {
  return Math.max(
    30,
    Math.min(MAX_AUDIENCE, Math.round(AUDIENCE_MEDIAN * Math.exp(AUDIENCE_SIGMA * z))),
  );
}

export function createPublication(
  config: WorldConfig,
  ids: WorldIds,
  index: number,
  layout: SupplyLayout,
): PublicationState {
  const rng = streamOf(config.seed, STREAM.publication, index);
  const life = streamOf(config.seed, STREAM.publicationLife, index);

  // New ones connect first, with their issues going out as ever, and join one to three weeks later.
  const isNew = rng.bernoulli(Math.min(0.5, (NEW_PER_WEEK * config.days) / 7));
  const age = rng.uniform();
  const onboardingMs = Math.floor((7 + 14 * life.uniform()) * DAY_MS);
  const joinedMs = isNew
    ? config.startMs + Math.floor(age * config.days * DAY_MS)
    : config.startMs - Math.floor((5 + 900 * age) * DAY_MS);
  const createdMs = joinedMs - onboardingMs;
  const pauses = life.bernoulli(PAUSED_SHARE);
  const pauseLengthMs = Math.floor((7 + 21 * life.uniform()) * DAY_MS);
  const pausedFromMs = pauses
    ? Math.max(
        joinedMs + DAY_MS,
        config.startMs + Math.floor((life.uniform() * (config.days + 14) - 14) * DAY_MS),
      )
    : Number.POSITIVE_INFINITY;

  const { weights, audience } = subjectOf(config.seed, index);
  const mixture = mixtureOf(weights);
  const misTagged = rng.bernoulli(0.05);
  const tagged = TOPICS[misTagged ? rng.integer(TOPIC_COUNT) : mixture.top]!;
  const runnerUp = secondTopic(weights, mixture.top);
  const tags = [tagged.tags[rng.integer(3)]!];
  for (const tag of [tagged.tags[rng.integer(3)]!, TOPICS[runnerUp]!.tags[rng.integer(3)]!]) {
    if (!tags.includes(tag)) tags.push(tag);
  }
  const language = LANGUAGES[rng.weighted(LANGUAGE_WEIGHTS)]!;
  const places = PLACES[language];
  const place = places[rng.weighted(places.map(([weight]) => weight))]![1];

  const sizeZ = normalQuantile(evenly(0, layout.sizeOffset, index));
  const subscribers = audienceOf(sizeZ);

  const cadence = drawCadence(rng, evenly(1, layout.cadenceOffset, index));
  const humanOpenRate = 1 / (1 + Math.exp(-(-1.02 + 0.25 * rng.normal())));
  const mppShare = rng.beta(3, 9);
  const scannerShare = Math.min(
    0.06,
    SCANNER_MEDIAN[audience] * Math.exp(0.4 * rng.normal() - 0.08),
  );

  // Half of the publication effect can be read off its attributes.
  const observed =
    -0.2 * sizeZ +
    0.6 * categoryEffect(TOPICS[mixture.top]!.category) +
    (audience === 'b2b' ? 0.75 : -0.17) +
    (cadence.perWeek >= 5 ? -0.75 : cadence.perWeek >= 2 ? -0.1 : 0.25) +
    (language === 'en' ? 0.06 : -0.34);
  const observedEffect = OBSERVED_SIGMA * (observed / OBSERVED_SCALE);
  const latentEffect = OBSERVED_SIGMA * rng.normal();

  const picky = rng.uniform();
  const allowedCategories = picky < 0.12 ? nearCategories(rng, mixture, 3 + rng.integer(4)) : [];
  const blockedCategories =
    picky >= 0.12 && picky < 0.5 ? someCategories(rng, 1 + rng.integer(3), mixture) : [];
  const blockedAdvertisers = rng.bernoulli(0.1)
    ? [rng.integer(advertiserCount(SCALES[config.scale].campaigns))]
    : [];
  const maxAds = 1 + rng.weighted([0.05, 0.25, 0.7]);
  const reservationCpm = 2.6 * Math.exp(0.45 * rng.normal() - 0.12 * sizeZ);
  const minPayout = rng.bernoulli(0.3) ? (subscribers / 1000) * reservationCpm * 0.15 : 0;
  const words = streamOf(config.seed, STREAM.audienceText, index);
  const text =
    language === 'en'
      ? publicationTexts(words, mixture)
      : localPublicationTexts(words, language, mixture);

  return {
    index,
    id: ids.id('publication', createdMs, 0, index, 0),
    publisher: publisherOf(index),
    createdMs,
    joinedMs,
    pausedFromMs,
    pausedToMs: pausedFromMs + pauseLengthMs,
    name: text.name,
    description: text.description,
    language,
    ...place,
    tags: tags.slice(0, 3),
    category: tagged.category,
    misTagged,
    audience,
    cadencePerWeek: cadence.perWeek,
    days: cadence.days,
    sparse: cadence.sparse,
    sendHour: cadence.hour,
    subscribers,
    growthPerDay: Math.log1p(MONTHLY_GROWTH) / 30 + (0.3 * MONTHLY_GROWTH * rng.normal()) / 30,
    humanOpenRate,
    mppShare,
    scannerShare,
    fraudRing: rng.bernoulli(0.005),
    mixture,
    observedEffect,
    latentEffect,
    reservationCpm,
    acceptEffect: 0.5 * rng.normal(),
    noShowRate: Math.min(0.5, 0.07 * Math.exp(0.5 * rng.normal() - 0.125)),
    allowedCategories,
    blockedCategories,
    blockedAdvertisers,
    maxAds,
    minPayoutMicros: Math.round(minPayout * 100) * 10_000,
    autoAccept: rng.bernoulli(0.1),
  };
}

/** Deviation of the unscaled observable effect over the generator's own publications. */
const OBSERVED_SCALE = 0.82;

function drawCadence(
  rng: Rng,
  u: number,
): { perWeek: number; days: number[]; sparse: boolean; hour: number } {
  // Middle-of-week mornings are the common time.
  const dayWeights = [0.08, 0.14, 0.24, 0.2, 0.18, 0.12, 0.04];
  const hour = [6, 7, 8, 9, 10, 11, 12, 14, 16, 17, 18, 20][
    rng.weighted([0.1, 0.18, 0.17, 0.15, 0.1, 0.07, 0.05, 0.04, 0.04, 0.05, 0.03, 0.02])
  ]!;
  if (u < DAILY) return { perWeek: 7, days: [0, 1, 2, 3, 4, 5, 6], sparse: false, hour };
  if (u < WEEKLY) return { perWeek: 1, days: [rng.weighted(dayWeights)], sparse: false, hour };
  if (u < SEVERAL) {
    const perWeek = rng.bernoulli(THREE_SHARE) ? 3 : 2;
    const days =
      perWeek === 3
        ? rng.bernoulli(0.65)
          ? [1, 3, 5]
          : [0, 2, 4]
        : [
            [2, 4],
            [1, 4],
            [0, 3],
          ][rng.weighted([0.45, 0.35, 0.2])]!;
    return { perWeek, days, sparse: false, hour };
  }
  return { perWeek: SPARSE_CADENCE, days: [rng.weighted(dayWeights)], sparse: true, hour };
}

/** 16 % write daily, 50 % weekly, 25 % two or three times a week, 9 % every second week. */
const DAILY = 0.16;
const WEEKLY = 0.66;
const SEVERAL = 0.91;
const THREE_SHARE = 0.7;
const SPARSE_CADENCE = 0.5;

/** Expected issues a week of a publication at the cadence axis' point `u`. */
function meanCadence(u: number): number {
  return u < DAILY ? 7 : u < WEEKLY ? 1 : u < SEVERAL ? 2 + THREE_SHARE : SPARSE_CADENCE;
}

/** Expected issues a week of any publication: about 10 in thirty days. */
const MEAN_CADENCE =
  7 * DAILY +
  (WEEKLY - DAILY) +
  (2 + THREE_SHARE) * (SEVERAL - WEEKLY) +
  SPARSE_CADENCE * (1 - SEVERAL);

function secondTopic(weights: Float64Array, top: number): number {
  let second = top === 0 ? 1 : 0;
  for (let k = 0; k < weights.length; k++) {
    if (k !== top && weights[k]! > weights[second]!) second = k;
  }
  return second;
}

function nearCategories(rng: Rng, mixture: Mixture, count: number): string[] {
  const chosen = new Set([TOPICS[mixture.top]!.category]);
  while (chosen.size < count) chosen.add(TOPICS[rng.weighted(mixture.smoothed)]!.category);
  return [...chosen];
}

function someCategories(rng: Rng, count: number, mixture: Mixture): string[] {
  const own = TOPICS[mixture.top]!.category;
  const chosen = new Set<string>();
  while (chosen.size < count) {
    const category = CATEGORIES[rng.integer(CATEGORIES.length)]!;
    if (category !== own) chosen.add(category);
  }
  return [...chosen];
}

export function statusAt(publication: PublicationState, timeMs: number): string {
  const { joinedMs, pausedFromMs, pausedToMs } = publication;
  if (timeMs < joinedMs) return 'onboarding';
  return timeMs >= pausedFromMs && timeMs < pausedToMs ? 'paused' : 'eligible';
}

/** Subscribers of a publication at a time; 0 before it joined. */
export function subscribersAt(
  publication: PublicationState,
  config: WorldConfig,
  timeMs: number,
): number {
  const from = Math.max(config.startMs, publication.createdMs);
  const days = (timeMs - from) / DAY_MS;
  return Math.max(
    20,
    Math.round(publication.subscribers * Math.exp(publication.growthPerDay * days)),
  );
}
