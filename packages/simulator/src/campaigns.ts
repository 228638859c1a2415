import { DAY_MS, HOUR_MS, type Rng } from '@waggle/core';
import type { WorldIds } from './ids.js';
import { localCampaignTexts, localCreativeTexts } from './local-texts.js';
import { categoryEffect, type Language, type PublicationState } from './publications.js';
import type { WorldConfig } from './scales.js';
import { advertiserOf } from './sizes.js';
import { evenly, normalQuantile, STREAM, streamOf } from './streams.js';
import { brandName, campaignTexts, creativeTexts, slug } from './texts.js';
import { CAMPAIGN_CONCENTRATION, dirichlet, type Mixture, mixtureOf } from './topic-space.js';
import { CATEGORIES, TOPIC_COUNT, TOPICS } from './topics.js';

export interface AdvertiserState {
  readonly index: number;
  readonly id: string;
  readonly name: string;
  readonly domain: string;
  readonly topic: number;
  readonly competitorGroup: string;
  readonly createdMs: number;
}

export interface CreativeState {
  readonly id: string;
  readonly kind: string;
  readonly headline: string;
  readonly body: string;
  readonly landingUrl: string;
  /** Log-odds effect. */
  readonly effect: number;
}

/** Where a campaign may run in the simulated past. */
export type CampaignKind = 'open' | 'programmatic' | 'direct';

export interface CampaignState {
  readonly index: number;
  readonly id: string;
  readonly advertiser: number;
  readonly createdMs: number;
  readonly name: string;
  readonly description: string;
  readonly category: string;
  readonly goal: 'clicks' | 'opens' | 'conversions';
  readonly kind: CampaignKind;
  readonly pricing: 'cpc' | 'cpm' | 'flat';
  readonly bidMicros: number;
  readonly budgetMicros: number;
  readonly dailyBudgetMicros: number;
  readonly flightStartMs: number;
  readonly flightEndMs: number;
  readonly targetLanguages: readonly Language[];
  readonly targetCategories: readonly string[];
  readonly guaranteedUnits: number;
  readonly creatives: readonly CreativeState[];
  readonly mixture: Mixture;
  /** Log-odds effect. */
  readonly effect: number;
  readonly conversionRate: number;
  readonly conversionValue: number;
  readonly conversionKind: string;
}

export const COMPETITOR_GROUPS = 30;
export const CAMPAIGN_SIGMA = 0.45;
export const CREATIVE_SIGMA = 0.25;
const NEW_PER_WEEK = 0.08;
const MICROS = 1_000_000;
/** Languages of campaigns that are not for English readers. */
const LOCAL_TARGETS = [['de'], ['de'], ['fr'], ['es'], ['es'], ['fr', 'de', 'es']] as const;
/** Budgets follow what each kind of demand can buy. */
const BUDGET_LEVEL = { open: 1, programmatic: 0.12, direct: 0.7 } as const;

export function createAdvertiser(
  config: WorldConfig,
  ids: WorldIds,
  index: number,
): AdvertiserState {
  const rng = streamOf(config.seed, STREAM.advertiser, index);
  const topic = rng.integer(TOPIC_COUNT);
  const name = brandName(rng);
  const createdMs = config.startMs - Math.floor((60 + 500 * rng.uniform()) * DAY_MS);
  // Competitors sell in one field; one advertiser in five has none.
  const group = rng.bernoulli(0.2)
    ? ''
    : `cg_${String((topic * 7 + rng.integer(2)) % COMPETITOR_GROUPS).padStart(2, '0')}`;
  return {
    index,
    id: ids.id('advertiser', createdMs, 0, index, 0),
    name,
    domain: `${slug(name)}-${index}.example`,
    topic,
    competitorGroup: group,
    createdMs,
  };
}

export function createCampaign(
  config: WorldConfig,
  ids: WorldIds,
  advertisers: readonly AdvertiserState[],
  index: number,
): CampaignState {
  const rng = streamOf(config.seed, STREAM.campaign, index);
  const layout = streamOf(config.seed, STREAM.layout, 1);
  const offsets = [layout.uniform(), layout.uniform(), layout.uniform()] as const;
  const advertiser = advertisers[advertiserOf(index)]!;

  const weights = dirichlet(rng, CAMPAIGN_CONCENTRATION);
  let top = 0;
  for (let k = 1; k < TOPIC_COUNT; k++) if (weights[k]! > weights[top]!) top = k;
  const most = weights[top]!;
  weights[top] = weights[advertiser.topic]!;
  weights[advertiser.topic] = most;
  const mixture = mixtureOf(weights);
  const topic = TOPICS[mixture.top]!;

  const languageDraw = rng.uniform();
  const targetLanguages: readonly Language[] =
    languageDraw < 0.4
      ? []
      : languageDraw < 0.88
        ? ['en']
        : languageDraw < 0.93
          ? ['en', 'de', 'fr']
          : LOCAL_TARGETS[rng.integer(LOCAL_TARGETS.length)]!;
  // Written in the first language that it targets; without a target it is English and runs anywhere.
  const language = targetLanguages[0] ?? 'en';
  const texts =
    language === 'en'
      ? campaignTexts(rng, advertiser.name, mixture)
      : localCampaignTexts(rng, language, advertiser.name, mixture);

  const isNew = rng.bernoulli(Math.min(0.6, (NEW_PER_WEEK * config.days) / 7));
  const flightDays = 7 + 38 * rng.uniform();
  const launch = rng.uniform();
  const startDay = isNew ? launch * config.days : -launch * Math.min(flightDays * 0.8, 10);
  const flightStartMs = roundHour(config.startMs + startDay * DAY_MS);
  const flightEndMs = roundHour(flightStartMs + flightDays * DAY_MS);
  const createdMs = flightStartMs - Math.floor((1 + 6 * rng.uniform()) * DAY_MS);

  const mode = evenly(0, offsets[0], index);
  const kind: CampaignKind = mode < 0.62 ? 'open' : mode < 0.84 ? 'programmatic' : 'direct';
  const priceZ = rng.normal();
  let pricing: CampaignState['pricing'];
  let bid: number;
  if (kind === 'open') {
    pricing = 'cpc';
    bid = 1.8 * Math.exp(0.5 * priceZ);
  } else if (kind === 'programmatic') {
    pricing = 'cpm';
    bid = Math.min(5, Math.max(1, 2.3 * Math.exp(0.5 * priceZ)));
  } else if (rng.bernoulli(0.7)) {
    pricing = 'cpm';
    bid = Math.min(20, Math.max(10, 14 * Math.exp(0.2 * priceZ)));
  } else {
    pricing = 'flat';
    bid = 180 * Math.exp(0.5 * priceZ);
  }
  const bidMicros = Math.max(10_000, Math.round(bid * 100) * 10_000);
  const budget =
    config.budgetMedian *
    BUDGET_LEVEL[kind] *
    Math.exp(normalQuantile(evenly(1, offsets[1], index)));
  const budgetMicros = Math.max(50, Math.round(budget)) * MICROS;
  const dailyBudgetMicros = rng.bernoulli(0.15)
    ? Math.round(((budget / flightDays) * (1 + rng.uniform()) + 1) * 100) * 10_000
    : 0;

  const targetCategories: string[] = [];
  const [targetShare, mostCategories] = config.targeting;
  if (rng.bernoulli(targetShare)) {
    const chosen = new Set([topic.category]);
    const fewest = Math.ceil(mostCategories / 2);
    const wanted = Math.min(CATEGORIES.length, fewest + rng.integer(mostCategories - fewest + 1));
    while (chosen.size < wanted) {
      chosen.add(
        TOPICS[rng.bernoulli(0.6) ? rng.weighted(mixture.smoothed) : rng.integer(TOPIC_COUNT)]!
          .category,
      );
    }
    targetCategories.push(...chosen);
  }
  const guaranteed = rng.bernoulli(0.2);
  const units =
    pricing === 'cpc'
      ? budgetMicros / bidMicros
      : pricing === 'cpm'
        ? (budgetMicros / bidMicros) * 1000
        : budgetMicros / bidMicros;
  const goal = pricing === 'cpc' ? (rng.bernoulli(0.25) ? 'conversions' : 'clicks') : 'opens';

  const createCreative = (
    draw: Rng,
    creativeId: string,
    number: number,
    words: Language,
  ): CreativeState => ({
    id: creativeId,
    kind: draw.bernoulli(0.6) ? 'native_text' : 'native_image',
    ...(words === 'en'
      ? creativeTexts(draw, advertiser.name, texts.product, weights)
      : localCreativeTexts(draw, words, advertiser.name, texts.product, weights)),
    landingUrl: `https://${advertiser.domain}/${slug(texts.product[0])}?v=${number + 1}`,
    effect: CREATIVE_SIGMA * draw.normal(),
  });
  const nCreatives = 2 + rng.integer(3);
  const id = ids.id('campaign', createdMs, 0, index, 0);
  const creatives: CreativeState[] = [];
  for (let j = 0; j < nCreatives; j++) {
    const rng = streamOf(config.seed, STREAM.creative, index, j);
    creatives.push(createCreative(rng, ids.id('creative', createdMs, j, index, 0), j, language));
  }
  return {
    index,
    id,
    advertiser: advertiser.index,
    createdMs,
    name: texts.name,
    description: texts.description,
    category: topic.category,
    goal,
    kind,
    pricing,
    bidMicros,
    budgetMicros,
    dailyBudgetMicros,
    flightStartMs,
    flightEndMs,
    targetLanguages,
    targetCategories,
    guaranteedUnits: guaranteed
      ? Math.min(4e9, Math.round(units * (0.3 + 0.4 * rng.uniform())))
      : 0,
    creatives,
    mixture,
    effect:
      CAMPAIGN_SIGMA *
      (0.45 * categoryEffect(topic.category) +
        Math.sqrt(1 - 0.45 ** 2) * normalQuantile(evenly(2, offsets[2], index))),
    conversionRate: Math.min(0.4, 0.02 * Math.exp(0.6 * rng.normal())),
    conversionValue: 40 * Math.exp(0.8 * rng.normal()),
    conversionKind: ['purchase', 'signup', 'trial', 'lead'][rng.integer(4)]!,
  };
}

function roundHour(ms: number): number {
  return Math.round(ms / HOUR_MS) * HOUR_MS;
}

/** The hard filters that never change during a flight. */
export function staticallyEligible(
  publication: PublicationState,
  campaign: CampaignState,
): boolean {
  if (
    campaign.targetLanguages.length > 0 &&
    !campaign.targetLanguages.includes(publication.language)
  )
    return false;
  if (
    campaign.targetCategories.length > 0 &&
    !campaign.targetCategories.includes(publication.category)
  )
    return false;
  if (
    publication.allowedCategories.length > 0 &&
    !publication.allowedCategories.includes(campaign.category)
  )
    return false;
  if (publication.blockedCategories.includes(campaign.category)) return false;
  return !publication.blockedAdvertisers.includes(campaign.advertiser);
}
