import { DAY_MS } from '@waggle/core';
import { defineFeatureSet, type FeatureSet } from '../definition.js';
import {
  add,
  attribute,
  candidate,
  clamp,
  coalesce,
  div,
  effect,
  evidence,
  exp,
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
} from '../expression.js';
import { offerOutcomes, offersShown, placementSends, sends } from '../sources.js';
import {
  C,
  calendar,
  contentFit,
  daysSince,
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

const priorLogRate = LEVELS.map((l) => effect('accept', l.name)).reduce(
  (sum, next) => add(sum, next),
  effect('accept', 'base'),
);

const payout = div(candidate('estPayoutMicros'), 1_000_000);
const logPayout = log1p(payout);
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
    accept_dispersion: 0.3,
    accept_publication_strength: 4,
    accept_campaign_strength: 8,
    accept_category_pair_strength: 8,
    accept_rate_strength: 10,
  },
  sources: [offerOutcomes, offersShown, placementSends, sends],
  fits: [
    {
      name: 'accept',
      source: 'offer_outcomes',
      successes: 'accepted',
      trials: 'decided',
      levels: LEVELS,
      rounds: 2,
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
      entity: PC,
      value: logit(min(exp(priorLogRate), 0.95)),
      default: -0.85,
      description:
        'Logit of the acceptance rate that the joint hierarchical fit expects: a usable prediction by itself.',
    },
    {
      name: 'publication_effect',
      entity: P,
      value: effect('accept', 'publication'),
      default: 0,
      description: "Publication's log effect on acceptance, campaign mix taken out.",
    },
    {
      name: 'campaign_effect',
      entity: C,
      value: effect('accept', 'campaign'),
      default: 0,
      description: "Campaign's log effect on acceptance, publication mix taken out.",
    },
    {
      name: 'category_pair_effect',
      entity: PC,
      value: effect('accept', 'category_pair'),
      default: 0,
      description: 'Log effect of publication category × campaign category on acceptance.',
    },
    {
      name: 'publication_evidence',
      entity: P,
      value: log1p(evidence('accept', 'publication')),
      default: 0,
      description: "ln(1 + effective acceptances behind the publication's effect).",
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
    ...contentFit,
    {
      name: 'log_menu_size',
      entity: ['request'],
      value: log(max(request('menuSize'), 1)),
      default: 1.5,
      description: 'ln of the number of offers on the menu.',
    },
    {
      name: 'menu_size',
      entity: ['request'],
      value: clamp(request('menuSize'), 1, 50),
      default: 5,
      description: 'Number of offers on the menu, at most 50.',
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
    ...kinds,
    {
      name: 'auto_accept',
      entity: P,
      value: attribute('publication', 'auto_accept', 'flag'),
      default: 0,
      description: '1 when the publication accepts automatically within its rules.',
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
