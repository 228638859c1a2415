import { DAY_MS } from '@waggle/core';
import { defineFeatureSet, type FeatureDefinition, type FeatureSet } from '../definition.js';
import {
  add,
  attribute,
  candidate,
  clamp,
  coalesce,
  div,
  type Expression,
  effect,
  evidence,
  lastTime,
  log,
  log1p,
  logit,
  max,
  min,
  mul,
  param,
  request,
  sub,
  total,
  when,
} from '../expression.js';
import { offerOutcomes, offersShown, placementSends, sends } from '../sources.js';
import {
  C,
  calendar,
  contentFit,
  daysSince,
  fromNeighbours,
  kinds,
  meanDelivered,
  P,
  PC,
  shrunk,
  shrunkRates,
} from './shared.js';

const acceptRate = shrunkRates({
  source: 'offer_outcomes',
  successes: 'accepted',
  trials: 'decided',
  base: param('accept_base_rate'),
  baseStrength: 20,
  strength: param('accept_rate_strength'),
});

const LEVELS = [
  { name: 'publication', by: ['publication'], strength: 'accept_publication_strength' },
  { name: 'campaign', by: ['campaign'], strength: 'accept_campaign_strength' },
  {
    name: 'category_pair',
    by: ['pubCategory', 'campCategory'],
    strength: 'accept_category_pair_strength',
  },
] as const;

const payout = div(candidate('estPayoutMicros'), 1_000_000);
const logPayout = log1p(payout);
const thousands = div(attribute('publication', 'active_subscribers'), 1000);
const minimum = div(attribute('publication', 'min_payout_micros'), 1_000_000);

/**
 * What describes an offer before any answer is counted; training re-estimates the weights. Money counts per reader: what a
 * publisher asks for goes with the list.
 */
export const ACCEPT_OFFSET_TERMS = [
  { feature: 'log_payout_per_thousand', center: 1, weight: 'accept_weight_payout', default: 1.5 },
  { feature: 'states_minimum', center: 0, weight: 'accept_weight_minimum', default: 0 },
  {
    feature: 'log_minimum_per_thousand',
    center: 0,
    weight: 'accept_weight_minimum_level',
    default: 0,
  },
  {
    feature: 'cosine_publication_campaign',
    center: 0.5,
    weight: 'accept_weight_cosine',
    default: 1,
  },
  { feature: 'fit_publication_campaign', center: 0, weight: 'accept_weight_fit', default: 0 },
  { feature: 'same_category', center: 0, weight: 'accept_weight_same_category', default: 0 },
  { feature: 'log_list_size', center: 8, weight: 'accept_weight_list_size', default: 0 },
  { feature: 'audience_b2b', center: 0, weight: 'accept_weight_b2b', default: 0 },
  { feature: 'log_cadence', center: 0.7, weight: 'accept_weight_cadence', default: 0 },
  { feature: 'menu_size', center: 5, weight: 'accept_weight_menu', default: -0.1 },
  { feature: 'auto_accept', center: 0, weight: 'accept_weight_auto', default: 0.5 },
  { feature: 'auto_accept_payout', center: 0, weight: 'accept_weight_auto_payout', default: 0 },
] as const;

const logPerThousand = clamp(log(div(add(payout, 0.01), add(thousands, 0.01))), -5, 8);
const autoAccept = attribute('publication', 'auto_accept', 'flag');

/** Features that say something about an offer without any history. */
const DESCRIBING: readonly FeatureDefinition[] = [
  {
    name: 'log_payout_per_thousand',
    entity: ['publication', 'candidate'],
    value: logPerThousand,
    default: 1,
    description: 'ln of the estimated payout per thousand subscribers.',
  },
  {
    name: 'states_minimum',
    entity: P,
    value: when(minimum, 'gt', 0, 1, 0),
    default: 0,
    description: '1 when the publication states a least payout.',
  },
  {
    name: 'log_minimum_per_thousand',
    entity: P,
    value: when(minimum, 'gt', 0, clamp(log(div(minimum, add(thousands, 0.01))), -5, 5), 0),
    default: 0,
    description: 'ln of the stated least payout per thousand subscribers; 0 when none is stated.',
  },
  {
    name: 'auto_accept',
    entity: P,
    value: autoAccept,
    default: 0,
    description: '1 when the publication accepts automatically within its rules.',
  },
  {
    name: 'auto_accept_payout',
    entity: ['publication', 'candidate'],
    value: mul(autoAccept, sub(logPerThousand, 1)),
    default: 0,
    description: 'What the payout adds where acceptance is automatic.',
  },
  ...contentFit,
  {
    name: 'menu_size',
    entity: ['request'],
    value: clamp(request('menuSize'), 1, 50),
    default: 5,
    description: 'Number of offers on the menu, at most 50.',
  },
  ...kinds,
];

const sum = (terms: readonly Expression[]) => terms.reduce((all, next) => add(all, next));
/** Terms that change with the request or the candidate are kept apart, so that online the others are one number per pair. */
const offsetPart = (changing: boolean) =>
  sum(
    ACCEPT_OFFSET_TERMS.flatMap(({ feature, center, weight }) => {
      const { entity, value, default: fallback } = DESCRIBING.find((f) => f.name === feature)!;
      return (entity.includes('request') || entity.includes('candidate')) === changing
        ? [mul(param(weight), sub(coalesce(value, fallback), center))]
        : [];
    }),
  );
const staticOffset = offsetPart(false);
const requestOffset = offsetPart(true);
const offset = add(staticOffset, requestOffset);

const priorLogit = add(
  sum([effect('accept', 'base'), ...LEVELS.map((l) => effect('accept', l.name)), staticOffset]),
  requestOffset,
);

/** Mean of a sum kept in millionths. */
const mean = (millionths: string, count: string) =>
  div(
    total('offer_outcomes', millionths, ['publication'], 28),
    mul(total('offer_outcomes', count, ['publication'], 28), 1_000_000),
  );
const publicationLogPayout = mean('log_payout_millionths', 'decided');

/** Features of p(accept): a row is an offer shown to a publisher. */
export const acceptFeatures: FeatureSet = defineFeatureSet({
  name: 'accept',
  row: 'offer',
  params: {
    accept_base_rate: 0.3,
    accept_base_strength: 10,
    // Answers are single trials: there is nothing beyond their own chance.
    accept_dispersion: 0,
    // Inverse variances of each level's effects on the logit.
    accept_publication_strength: 1.5,
    accept_campaign_strength: 8,
    accept_category_pair_strength: 30,
    accept_rate_strength: 10,
    ...Object.fromEntries(ACCEPT_OFFSET_TERMS.map((t) => [t.weight, t.default])),
  },
  sources: [offerOutcomes, offersShown, placementSends, sends],
  fits: [
    {
      name: 'accept',
      source: 'offer_outcomes',
      successes: 'accepted',
      trials: 'decided',
      link: 'logit',
      levels: LEVELS,
      offset,
      everyHours: 24,
      windowDays: 90,
      dispersion: 'accept_dispersion',
      baseRate: 'accept_base_rate',
      baseStrength: 'accept_base_strength',
    },
  ],
  features: [
    {
      name: 'prior_logit_accept',
      entity: ['publication', 'campaign', 'request', 'candidate'],
      value: clamp(priorLogit, -8, 8),
      default: -0.85,
      description:
        'Logit of the acceptance probability that the joint hierarchical fit expects: a usable prediction by itself.',
    },
    {
      name: 'publication_effect',
      entity: P,
      value: effect('accept', 'publication'),
      default: 0,
      description:
        "Publication's effect on the logit of acceptance, campaign mix and payouts taken out.",
    },
    {
      name: 'campaign_effect',
      entity: C,
      value: effect('accept', 'campaign'),
      default: 0,
      description:
        "Campaign's effect on the logit of acceptance, publication mix and payouts taken out.",
    },
    {
      name: 'category_pair_effect',
      entity: PC,
      value: effect('accept', 'category_pair'),
      default: 0,
      description: 'Effect of publication category × campaign category on the logit of acceptance.',
    },
    {
      name: 'publication_neighbours',
      entity: P,
      value: fromNeighbours('accept', 'publication', 'accept_publication_strength'),
      default: 0,
      description:
        "Effects of the publications nearest by text, as far as the publication's own answers leave it open.",
    },
    {
      name: 'campaign_neighbours',
      entity: C,
      value: fromNeighbours('accept', 'campaign', 'accept_campaign_strength'),
      default: 0,
      description:
        "Effects of the campaigns nearest by text, as far as the campaign's own answers leave it open.",
    },
    {
      name: 'publication_evidence',
      entity: P,
      value: log1p(evidence('accept', 'publication')),
      default: 0,
      description: "ln(1 + information behind the publication's effect).",
    },
    {
      name: 'log_est_payout',
      entity: ['candidate'],
      value: logPayout,
      default: 3,
      description: 'ln(1 + estimated payout in currency units).',
    },
    {
      name: 'log_payout_per_mille',
      entity: ['publication', 'candidate'],
      value: log(div(add(payout, 0.01), add(div(meanDelivered, 1000), 0.01))),
      default: 1,
      description: 'ln of the estimated payout per thousand delivered emails.',
    },
    {
      name: 'log_payout_vs_history',
      entity: ['publication', 'candidate'],
      value: clamp(sub(logPayout, publicationLogPayout), -5, 5),
      default: 0,
      description: "ln payout minus the mean ln payout of the publication's offers, 28 days.",
    },
    {
      name: 'log_payout_vs_accepted',
      entity: ['publication', 'candidate'],
      value: clamp(sub(logPayout, mean('accepted_log_payout_millionths', 'accepted')), -5, 5),
      default: 0,
      description:
        'ln payout minus the mean ln payout of the offers that the publication accepted, 28 days.',
    },
    {
      name: 'log_payout_vs_minimum',
      entity: ['publication', 'candidate'],
      value: clamp(
        log(
          div(
            add(payout, 0.01),
            add(div(attribute('publication', 'min_payout_micros'), 1_000_000), 0.01),
          ),
        ),
        -5,
        8,
      ),
      default: 2,
      description: "ln of the payout over the publication's stated minimum.",
    },
    {
      name: 'price_vs_bid',
      entity: ['campaign', 'candidate'],
      value: clamp(
        log(div(add(candidate('priceMicros'), 1), add(attribute('campaign', 'bid_micros'), 1))),
        -3,
        3,
      ),
      default: 0,
      description: "ln of the offered price over the campaign's bid.",
    },
    ...DESCRIBING,
    {
      name: 'log_menu_size',
      entity: ['request'],
      value: log(max(request('menuSize'), 1)),
      default: 1.5,
      description: 'ln of the number of offers on the menu.',
    },
    {
      name: 'log_rank',
      entity: ['candidate'],
      value: log(max(candidate('rank'), 1)),
      default: 1,
      description: 'ln of the place on the menu, 1 = first.',
    },
    {
      name: 'accept_rate_publication',
      entity: P,
      value: logit(acceptRate(['publication'])),
      default: -0.85,
      description: "Logit of the publication's shrunk acceptance rate, 28 days.",
    },
    {
      name: 'accept_rate_campaign',
      entity: C,
      value: logit(acceptRate(['campaign'])),
      default: -0.85,
      description: "Logit of the campaign's shrunk acceptance rate, 28 days.",
    },
    {
      name: 'accept_rate_advertiser',
      entity: C,
      value: logit(acceptRate(['advertiser'])),
      default: -0.85,
      description: "Logit of the advertiser's shrunk acceptance rate, 28 days.",
    },
    {
      name: 'accept_rate_category_pair',
      entity: PC,
      value: logit(acceptRate(['pubCategory', 'campCategory'])),
      default: -0.85,
      description:
        'Logit of the shrunk acceptance rate of publication category × campaign category, 28 days.',
    },
    {
      name: 'accept_rate_publication_pricing',
      entity: PC,
      value: logit(acceptRate(['publication', 'campPricing'])),
      default: -0.85,
      description:
        "Logit of the publication's shrunk acceptance rate for this pricing model, 28 days.",
    },
    {
      name: 'downvote_rate_publication',
      entity: P,
      value: shrunk(
        total('offer_outcomes', 'downvoted', ['publication'], 28),
        total('offer_outcomes', 'decided', ['publication'], 28),
        0.05,
        20,
      ),
      default: 0.05,
      description: "Share of the publication's offers that it downvoted, 28 days, shrunk.",
    },
    {
      name: 'offers_shown_here',
      entity: PC,
      value: min(total('offers_shown', 'count', ['publication', 'campaign'], 28), 12),
      default: 0,
      description:
        'How often this campaign was offered to this publication within 28 days, at most 12.',
    },
    {
      name: 'log_offers_shown_publication',
      entity: P,
      value: log1p(total('offers_shown', 'count', ['publication'], 28)),
      default: 0,
      description: 'ln(1 + offers that the publication saw in 28 days).',
    },
    {
      name: 'accepted_here',
      entity: PC,
      value: min(total('offer_outcomes', 'accepted', ['publication', 'campaign']), 6),
      default: 0,
      description: 'How often this publication accepted this campaign, at most 6.',
    },
    {
      name: 'campaign_exposures_here',
      entity: PC,
      value: min(total('placement_sends', 'count', ['publication', 'campaign']), 8),
      default: 0,
      description: 'How often the campaign has run in this publication, at most 8.',
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
    ...calendar,
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
      name: 'payout_times_fit',
      entity: ['publication', 'campaign', 'candidate'],
      value: mul(
        coalesce(contentFit[0]!.value, 0),
        clamp(sub(logPayout, publicationLogPayout), -5, 5),
      ),
      default: 0,
      description:
        'Cosine times relative ln payout: whether money matters more where the fit is good.',
    },
  ],
});
