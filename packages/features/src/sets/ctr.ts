import { DAY_MS } from '@waggle/core';
import { defineFeatureSet, type FeatureDefinition, type FeatureSet } from '../definition.js';
import {
  add,
  attribute,
  attributeIs,
  centeredSimilarity,
  clamp,
  coalesce,
  div,
  type Expression,
  effect,
  evidence,
  exp,
  type Key,
  lastTime,
  log,
  log1p,
  logit,
  match,
  min,
  mul,
  param,
  request,
  similarity,
  sub,
  total,
} from '../expression.js';
import {
  placementOutcomes,
  placementProgress,
  placementSends,
  sendOutcomes,
  sends,
} from '../sources.js';
import {
  C,
  calendar,
  contentFit,
  daysSince,
  fromNeighbours,
  kinds,
  meanDelivered,
  openRate,
  P,
  PC,
  shrunk,
  shrunkRates,
} from './shared.js';

const clickRate = shrunkRates({
  source: 'placement_outcomes',
  successes: 'clicks',
  trials: 'delivered',
  base: param('ctr_base_rate'),
  baseStrength: param('rate_strength'),
  strength: param('rate_strength'),
});
/** ln of the verified click rate at some level over 28 days, shrunk to the network's. */
const logRate = (by: readonly Key[]) => log(clickRate(by));
const logEvidence = (level: string) => log1p(evidence('ctr', level));

const LEVELS = [
  { name: 'audience', by: ['pubAudience'], strength: 'ctr_audience_strength' },
  { name: 'pub_category', by: ['pubCategory'], strength: 'ctr_category_strength' },
  { name: 'campaign_category', by: ['campCategory'], strength: 'ctr_category_strength' },
  { name: 'campaign', by: ['campaign'], strength: 'ctr_campaign_strength' },
  { name: 'publication', by: ['publication'], strength: 'ctr_publication_strength' },
  {
    name: 'category_pair',
    by: ['pubCategory', 'campCategory'],
    strength: 'ctr_category_pair_strength',
  },
  { name: 'advertiser', by: ['advertiser'], strength: 'ctr_advertiser_strength' },
  { name: 'creative', by: ['creative'], strength: 'ctr_creative_strength' },
  { name: 'position', by: ['position'], strength: 'ctr_position_strength' },
  {
    name: 'publication_category',
    by: ['publication', 'campCategory'],
    strength: 'ctr_publication_category_strength',
  },
  {
    name: 'campaign_category_here',
    by: ['campaign', 'pubCategory'],
    strength: 'ctr_campaign_category_strength',
  },
  {
    name: 'campaign_language',
    by: ['campaign', 'pubLanguage'],
    strength: 'ctr_campaign_language_strength',
  },
  {
    name: 'publication_campaign',
    by: ['publication', 'campaign'],
    strength: 'ctr_publication_campaign_strength',
  },
] as const;

/**
 * What describes a placement before anything is counted: feature, the value around which it is centred, and the
 * parameter that weighs it. Training re-estimates the weights by regressing clicks on these features alone; those of time and place,
 * which a short history shows only in part, are believed to lie within `sd` of their defaults (domain §6: they spread by 0.15).
 */
export const CTR_OFFSET_TERMS = [
  { feature: 'cosine_english', center: 0, weight: 'ctr_weight_cosine_english', default: 0.9 },
  { feature: 'fit_english', center: 0, weight: 'ctr_weight_fit_english', default: 0.8 },
  { feature: 'cosine_square_english', center: 0, weight: 'ctr_weight_cosine_square', default: 0 },
  { feature: 'fit_square_english', center: 0, weight: 'ctr_weight_fit_square', default: 0 },
  { feature: 'cosine_other', center: 0, weight: 'ctr_weight_cosine_other', default: 0.3 },
  { feature: 'fit_other', center: 0, weight: 'ctr_weight_fit_other', default: 0.3 },
  { feature: 'same_category', center: 0, weight: 'ctr_weight_same_category', default: 0.2 },
  { feature: 'same_category_other', center: 0, weight: 'ctr_weight_same_other', default: 0.3 },
  { feature: 'tag_match', center: 0, weight: 'ctr_weight_tag_match', default: 0 },
  { feature: 'category_targeted', center: 0, weight: 'ctr_weight_category_targeted', default: 0 },
  { feature: 'audience_b2b', center: 0, weight: 'ctr_weight_b2b', default: 0.4 },
  { feature: 'language_english', center: 1, weight: 'ctr_weight_english', default: 0.15 },
  { feature: 'log_list_size', center: 8, weight: 'ctr_weight_list_size', default: -0.14 },
  { feature: 'log_cadence', center: 0.7, weight: 'ctr_weight_cadence', default: -0.28 },
  { feature: 'is_first_position', center: 1, weight: 'ctr_weight_first', default: 0.12, sd: 0.1 },
  { feature: 'position', center: 1, weight: 'ctr_weight_position', default: -0.03, sd: 0.05 },
  { feature: 'n_ads', center: 1, weight: 'ctr_weight_n_ads', default: -0.07, sd: 0.05 },
  { feature: 'hour_sin', center: 0, weight: 'ctr_weight_hour_sin', default: 0, sd: 0.1 },
  { feature: 'hour_cos', center: 0, weight: 'ctr_weight_hour_cos', default: 0, sd: 0.1 },
  { feature: 'weekday_sin', center: 0, weight: 'ctr_weight_weekday_sin', default: 0.08, sd: 0.1 },
  { feature: 'weekday_cos', center: 0, weight: 'ctr_weight_weekday_cos', default: 0, sd: 0.1 },
] as const;

const english = coalesce(attributeIs('publication', 'language', 'en'), 1);
const other = sub(1, english);
const cosine = coalesce(similarity('publication', 'campaign'), 0);
const centered = coalesce(centeredSimilarity('publication', 'campaign'), 0);
const sameCategory = match(
  'equal',
  { entity: 'publication', column: 'category' },
  { entity: 'campaign', column: 'category' },
);

/**
 * Text fit by language: sentence embeddings know English best, and two texts of other languages first of all that
 * they are foreign. Plain and centred cosine err in different ways, so each has its weight.
 */
const fitByLanguage: readonly FeatureDefinition[] = [
  {
    name: 'cosine_english',
    entity: PC,
    value: mul(cosine, english),
    default: 0,
    description:
      'Cosine of publication and campaign embeddings where the publication is in English.',
  },
  {
    name: 'fit_english',
    entity: PC,
    value: mul(centered, english),
    default: 0,
    description: 'Centred cosine where the publication is in English.',
  },
  {
    name: 'cosine_square_english',
    entity: PC,
    value: mul(mul(cosine, cosine), english),
    default: 0,
    description: 'Square of the cosine where the publication is in English.',
  },
  {
    name: 'fit_square_english',
    entity: PC,
    value: mul(mul(centered, centered), english),
    default: 0,
    description: 'Square of the centred cosine where the publication is in English.',
  },
  {
    name: 'cosine_other',
    entity: PC,
    value: mul(cosine, other),
    default: 0,
    description:
      'Cosine of publication and campaign embeddings where the publication is in another language.',
  },
  {
    name: 'fit_other',
    entity: PC,
    value: mul(centered, other),
    default: 0,
    description: 'Centred cosine where the publication is in another language.',
  },
  {
    name: 'same_category_other',
    entity: PC,
    value: mul(sameCategory, other),
    default: 0,
    description:
      '1 when a publication in another language and the campaign state the same category.',
  },
];

/** Features that say something about a placement without any history. */
const DESCRIBING: readonly FeatureDefinition[] = [
  ...contentFit,
  ...fitByLanguage,
  ...kinds,
  {
    name: 'is_first_position',
    entity: ['request'],
    value: sub(1, clamp(sub(request('position'), 1), 0, 1)),
    default: 0,
    description: '1 at the top of the email.',
  },
  {
    name: 'position',
    entity: ['request'],
    value: clamp(request('position'), 1, 6),
    default: 1,
    description: 'Place in the email, 1 = top, at most 6.',
  },
  {
    name: 'n_ads',
    entity: ['request'],
    value: clamp(request('nAds'), 1, 6),
    default: 1,
    description: 'Ads in the same email, this one included, at most 6.',
  },
  ...calendar,
];

const sum = (terms: readonly Expression[]) => terms.reduce((all, next) => add(all, next));
/** Terms that change with the request are kept together, so that online they are one number per request. */
const offsetPart = (ofRequest: boolean) =>
  CTR_OFFSET_TERMS.flatMap(({ feature, center, weight }) => {
    const found = DESCRIBING.find((f) => f.name === feature)!;
    return found.entity.includes('request') === ofRequest
      ? [mul(param(weight), sub(coalesce(found.value, found.default), center))]
      : [];
  });
const staticOffset = sum(offsetPart(false));
const requestOffset = sum(offsetPart(true));
const offset = add(staticOffset, requestOffset);

const priorLogRate = add(
  sum([
    effect('ctr', 'base'),
    ...LEVELS.filter((l) => l.name !== 'position').map((l) => effect('ctr', l.name)),
    staticOffset,
  ]),
  add(requestOffset, effect('ctr', 'position')),
);

/** Features of pCTR: a row is a placement decision. */
export const ctrFeatures: FeatureSet = defineFeatureSet({
  name: 'ctr',
  row: 'placement',
  params: {
    // Network rate of unique verified clicks per delivered email before any fact, and its worth in clicks.
    ctr_base_rate: 0.002,
    ctr_base_strength: 10,
    // Variance of one placement's log rate beyond counting: send noise and what no level explains.
    ctr_dispersion: 0.15,
    // Prior successes of each level = 1 / variance of its log effects.
    ctr_campaign_strength: 5,
    ctr_publication_strength: 3.5,
    ctr_audience_strength: 10,
    ctr_category_strength: 10,
    ctr_category_pair_strength: 40,
    ctr_advertiser_strength: 20,
    ctr_creative_strength: 16,
    ctr_position_strength: 20,
    ctr_publication_category_strength: 40,
    ctr_campaign_category_strength: 50,
    ctr_campaign_language_strength: 45,
    ctr_publication_campaign_strength: 28,
    // Delivered emails that a plain shrunk rate needs to weigh as much as its prior.
    rate_strength: 2000,
    opens_strength: 500,
    ...Object.fromEntries(CTR_OFFSET_TERMS.map((t) => [t.weight, t.default])),
  },
  sources: [placementOutcomes, placementProgress, placementSends, sends, sendOutcomes],
  fits: [
    {
      name: 'ctr',
      source: 'placement_progress',
      successes: 'clicks',
      trials: 'delivered',
      link: 'log',
      levels: LEVELS,
      offset,
      everyHours: 24,
      windowDays: 90,
      dispersion: 'ctr_dispersion',
      baseRate: 'ctr_base_rate',
      baseStrength: 'ctr_base_strength',
    },
  ],
  features: [
    {
      name: 'prior_logit_ctr',
      entity: ['publication', 'campaign', 'creative', 'request'],
      value: logit(min(exp(priorLogRate), 0.5)),
      default: -6.2,
      description:
        'Logit of the click rate that the joint hierarchical fit expects: a usable prediction by itself.',
    },
    {
      name: 'publication_effect',
      entity: P,
      value: effect('ctr', 'publication'),
      default: 0,
      description: "Publication's log effect on the click rate, campaign mix taken out.",
    },
    {
      name: 'campaign_effect',
      entity: C,
      value: effect('ctr', 'campaign'),
      default: 0,
      description: "Campaign's log effect on the click rate, publication mix taken out.",
    },
    {
      name: 'advertiser_effect',
      entity: C,
      value: effect('ctr', 'advertiser'),
      default: 0,
      description: "Advertiser's log effect beyond its campaigns' own.",
    },
    {
      name: 'creative_effect',
      entity: ['creative'],
      value: effect('ctr', 'creative'),
      default: 0,
      description: "Creative's log effect beyond its campaign's.",
    },
    {
      name: 'category_pair_effect',
      entity: PC,
      value: effect('ctr', 'category_pair'),
      default: 0,
      description: 'Log effect of publication category × campaign category.',
    },
    {
      name: 'audience_effect',
      entity: P,
      value: effect('ctr', 'audience'),
      default: 0,
      description: "Log effect of the publication's kind of audience.",
    },
    {
      name: 'pub_category_effect',
      entity: P,
      value: effect('ctr', 'pub_category'),
      default: 0,
      description: "Log effect of the publication's category.",
    },
    {
      name: 'campaign_category_effect',
      entity: C,
      value: effect('ctr', 'campaign_category'),
      default: 0,
      description: "Log effect of the campaign's category.",
    },
    {
      name: 'described_log_odds',
      entity: ['publication', 'campaign', 'request'],
      value: offset,
      default: 0,
      description: 'What text fit, attributes, place and time alone say about the log click rate.',
    },
    {
      name: 'position_effect',
      entity: ['request'],
      value: effect('ctr', 'position'),
      default: 0,
      description: 'Log effect of the place in the email.',
    },
    {
      name: 'publication_campaign_effect',
      entity: PC,
      value: effect('ctr', 'publication_campaign'),
      default: 0,
      description: 'Log effect left over for this very publication and campaign.',
    },
    {
      name: 'publication_neighbours',
      entity: P,
      value: fromNeighbours('ctr', 'publication', 'ctr_publication_strength'),
      default: 0,
      description:
        "Log effects of the publications nearest by text, as far as the publication's own clicks leave it open.",
    },
    {
      name: 'campaign_neighbours',
      entity: C,
      value: fromNeighbours('ctr', 'campaign', 'ctr_campaign_strength'),
      default: 0,
      description:
        "Log effects of the campaigns nearest by text, as far as the campaign's own clicks leave it open.",
    },
    {
      name: 'creative_neighbours',
      entity: ['creative'],
      value: fromNeighbours('ctr', 'creative', 'ctr_creative_strength'),
      default: 0,
      description:
        "Log effects of the creatives nearest by text, as far as the creative's own clicks leave it open.",
    },
    {
      name: 'publication_evidence',
      entity: P,
      value: logEvidence('publication'),
      default: 0,
      description: "ln(1 + effective clicks behind the publication's effect).",
    },
    {
      name: 'campaign_evidence',
      entity: C,
      value: logEvidence('campaign'),
      default: 0,
      description: "ln(1 + effective clicks behind the campaign's effect).",
    },
    {
      name: 'creative_evidence',
      entity: ['creative'],
      value: logEvidence('creative'),
      default: 0,
      description: "ln(1 + effective clicks behind the creative's effect).",
    },
    {
      name: 'publication_campaign_evidence',
      entity: PC,
      value: logEvidence('publication_campaign'),
      default: 0,
      description: 'ln(1 + effective clicks of this campaign in this publication).',
    },
    {
      name: 'log_rate_publication',
      entity: P,
      value: logRate(['publication']),
      default: -6.2,
      description: "ln of the publication's shrunk click rate, 28 days.",
    },
    {
      name: 'log_rate_campaign',
      entity: C,
      value: logRate(['campaign']),
      default: -6.2,
      description: "ln of the campaign's shrunk click rate, 28 days.",
    },
    {
      name: 'log_rate_advertiser',
      entity: C,
      value: logRate(['advertiser']),
      default: -6.2,
      description: "ln of the advertiser's shrunk click rate, 28 days.",
    },
    {
      name: 'log_rate_creative',
      entity: ['creative'],
      value: logRate(['creative']),
      default: -6.2,
      description: "ln of the creative's shrunk click rate, 28 days.",
    },
    {
      name: 'log_rate_category_pair',
      entity: PC,
      value: logRate(['pubCategory', 'campCategory']),
      default: -6.2,
      description:
        'ln of the shrunk click rate of publication category × campaign category, 28 days.',
    },
    {
      name: 'log_rate_publication_advertiser',
      entity: PC,
      value: logRate(['publication', 'advertiser']),
      default: -6.2,
      description: 'ln of the shrunk click rate of this advertiser in this publication, 28 days.',
    },
    {
      name: 'recent_trend_publication',
      entity: P,
      value: sub(
        log(
          shrunk(
            total('placement_outcomes', 'clicks', ['publication'], 10),
            total('placement_outcomes', 'delivered', ['publication'], 10),
            exp(logRate(['publication'])),
            param('rate_strength'),
          ),
        ),
        logRate(['publication']),
      ),
      default: 0,
      description: "ln ratio of the publication's last 10 days to its 28-day click rate, shrunk.",
    },
    ...DESCRIBING,
    {
      name: 'cosine_campaign_creative',
      entity: ['campaign', 'creative'],
      value: similarity('campaign', 'creative'),
      default: 0,
      description:
        'Cosine of campaign and creative embeddings: how much the creative talks about the offer.',
    },
    {
      name: 'campaign_exposures_here',
      entity: PC,
      value: min(total('placement_sends', 'count', ['publication', 'campaign']), 8),
      default: 0,
      description: 'How often the campaign has run in this publication, at most 8.',
    },
    {
      name: 'advertiser_exposures_here',
      entity: PC,
      value: min(total('placement_sends', 'count', ['publication', 'advertiser'], 28), 8),
      default: 0,
      description: 'How often the advertiser ran in this publication within 28 days, at most 8.',
    },
    {
      name: 'log_days_since_campaign_here',
      entity: ['publication', 'campaign', 'request'],
      value: log1p(daysSince(lastTime('placement_sends', ['publication', 'campaign']), 60)),
      default: 4.11,
      description:
        'ln(1 + days since the campaign last ran in this publication); 60 days when never.',
    },
    {
      name: 'log_days_since_advertiser_here',
      entity: ['publication', 'campaign', 'request'],
      value: log1p(daysSince(lastTime('placement_sends', ['publication', 'advertiser']), 60)),
      default: 4.11,
      description:
        'ln(1 + days since the advertiser last ran in this publication); 60 days when never.',
    },
    {
      name: 'log_days_since_send',
      entity: ['publication', 'request'],
      value: log1p(daysSince(lastTime('sends', ['publication']), 60)),
      default: 2,
      description: "ln(1 + days since the publication's last issue).",
    },
    {
      name: 'sends_28d',
      entity: P,
      value: log1p(total('sends', 'count', ['publication'], 28)),
      default: 0,
      description: 'ln(1 + issues sent in 28 days).',
    },
    {
      name: 'log_mean_delivered',
      entity: P,
      value: log1p(meanDelivered),
      default: 8,
      description:
        'ln(1 + delivered emails per issue, 28 days; the list size before the first issue).',
    },
    {
      name: 'log_list_age',
      entity: ['publication', 'request'],
      value: log1p(daysSince(attribute('publication', 'created_at', 'timeMs'), 3650)),
      default: 3,
      description: 'ln(1 + days since the publication was created).',
    },
    {
      name: 'human_open_rate',
      entity: P,
      value: openRate('human_opens', 0.27),
      default: 0.27,
      description: 'Human unique opens within 72 h per delivered email, 28 days, shrunk.',
    },
    {
      name: 'mpp_share',
      entity: P,
      value: openRate('mpp_opens', 0.22),
      default: 0.22,
      description: 'Apple prefetch opens per delivered email, 28 days, shrunk.',
    },
    {
      name: 'proxy_share',
      entity: P,
      value: openRate('proxy_opens', 0.02),
      default: 0.02,
      description: 'Proxy and scanner opens per delivered email, 28 days, shrunk.',
    },
    {
      name: 'unsubscribe_rate_permille',
      entity: P,
      value: mul(1000, openRate('unsubscribes', 0.002)),
      default: 2,
      description: 'Unsubscribes per thousand delivered emails, 28 days, shrunk.',
    },
    {
      name: 'bot_click_share',
      entity: P,
      value: shrunk(
        sub(
          total('placement_outcomes', 'raw_clicks', ['publication'], 28),
          total('placement_outcomes', 'clicks', ['publication'], 28),
        ),
        total('placement_outcomes', 'raw_clicks', ['publication'], 28),
        0.6,
        20,
      ),
      default: 0.6,
      description: 'Share of unique ad clicks that is not verified, 28 days, shrunk.',
    },
    {
      name: 'log_campaign_age',
      entity: ['campaign', 'request'],
      value: log1p(daysSince(attribute('campaign', 'flight_start', 'timeMs'), 90)),
      default: 1,
      description: 'ln(1 + days since the flight began).',
    },
    {
      name: 'days_to_flight_end',
      entity: ['campaign', 'request'],
      value: clamp(
        div(sub(attribute('campaign', 'flight_end', 'timeMs'), request('tsMs')), DAY_MS),
        0,
        60,
      ),
      default: 20,
      description: 'Days until the flight ends, 0 … 60.',
    },
    {
      name: 'log_headline_length',
      entity: ['creative'],
      value: log1p(attribute('creative', 'headline', 'length')),
      default: 3.8,
      description: 'ln(1 + characters of the headline).',
    },
    {
      name: 'log_body_length',
      entity: ['creative'],
      value: log1p(attribute('creative', 'body', 'length')),
      default: 5,
      description: 'ln(1 + characters of the body).',
    },
  ],
});
