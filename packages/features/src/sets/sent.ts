import { DAY_MS } from '@waggle/core';
import { defineFeatureSet, type FeatureDefinition, type FeatureSet } from '../definition.js';
import {
  add,
  attribute,
  clamp,
  coalesce,
  div,
  type Expression,
  effect,
  evidence,
  lastTime,
  log1p,
  logit,
  mul,
  param,
  request,
  sub,
  total,
} from '../expression.js';
import { sends } from '../sources.js';
import { acceptanceOutcomes, acceptances } from './sent-sources.js';
import { calendar, daysSince, kinds, P, shrunk } from './shared.js';

const lead = request('leadMs');
/** 1 where an issue was chosen: a missing lead stays missing until here. */
const scheduled = coalesce(add(mul(lead, 0), 1), 0);

/** Features that say something about an acceptance without any history. */
const DESCRIBING: readonly FeatureDefinition[] = [
  {
    name: 'is_scheduled',
    entity: ['request'],
    value: scheduled,
    default: 0,
    description: '1 when the publisher chose an issue for the ad.',
  },
  {
    name: 'log_lead_days',
    entity: ['request'],
    value: coalesce(log1p(div(clamp(lead, 0, 60 * DAY_MS), DAY_MS)), 0),
    default: 0,
    description: 'ln(1 + days from acceptance to the planned issue); 0 when none was chosen.',
  },
  ...kinds.filter(({ name }) => ['log_list_size', 'log_cadence', 'audience_b2b'].includes(name)),
];

/** What describes an acceptance before any outcome is counted; training re-estimates the weights. */
export const SENT_OFFSET_TERMS = [
  { feature: 'is_scheduled', center: 1, weight: 'sent_weight_scheduled', default: 6 },
  { feature: 'log_lead_days', center: 1.5, weight: 'sent_weight_lead', default: 0 },
  { feature: 'log_list_size', center: 8, weight: 'sent_weight_list_size', default: 0 },
  { feature: 'log_cadence', center: 0.7, weight: 'sent_weight_cadence', default: 0 },
] as const;

const sum = (terms: readonly Expression[]) => terms.reduce((all, next) => add(all, next));
const offset = sum(
  SENT_OFFSET_TERMS.map(({ feature, center, weight }) => {
    const { value, default: fallback } = DESCRIBING.find((f) => f.name === feature)!;
    return mul(param(weight), sub(coalesce(value, fallback), center));
  }),
);

const rateOf = (part: string, whole: string, usual: string) =>
  shrunk(
    total('acceptance_outcomes', part, ['publication'], 90),
    total('acceptance_outcomes', whole, ['publication'], 90),
    param(usual),
    param('sent_rate_strength'),
  );

/** Features of p(sent | accept): a row is an accepted offer, at the moment of its acceptance. */
export const sentFeatures: FeatureSet = defineFeatureSet({
  name: 'sent',
  row: 'acceptance',
  params: {
    // Of accepted ads that have an issue; no-shows are 7 % in the networks we know of.
    sent_base_rate: 0.93,
    sent_base_strength: 10,
    sent_scheduled_rate: 0.7,
    // 1 / variance of the publications' effects on the logit: no-show rates differ by a factor of about 1.6.
    sent_publication_strength: 4,
    sent_dispersion: 0,
    sent_rate_strength: 15,
    ...Object.fromEntries(SENT_OFFSET_TERMS.map((t) => [t.weight, t.default])),
  },
  sources: [acceptances, acceptanceOutcomes, sends],
  fits: [
    {
      name: 'sent',
      source: 'acceptance_outcomes',
      successes: 'sent',
      trials: 'accepted',
      link: 'logit',
      levels: [{ name: 'publication', by: ['publication'], strength: 'sent_publication_strength' }],
      offset,
      everyHours: 24,
      windowDays: 90,
      dispersion: 'sent_dispersion',
      baseRate: 'sent_base_rate',
      baseStrength: 'sent_base_strength',
    },
  ],
  features: [
    {
      name: 'prior_logit_sent',
      entity: ['publication', 'request'],
      value: clamp(sum([effect('sent', 'base'), effect('sent', 'publication'), offset]), -8, 8),
      default: 2,
      description:
        'Logit of the probability to go out that the hierarchical fit expects: a usable prediction by itself.',
    },
    {
      name: 'publication_effect',
      entity: P,
      value: effect('sent', 'publication'),
      default: 0,
      description: "Publication's effect on the logit of going out.",
    },
    {
      name: 'publication_evidence',
      entity: P,
      value: log1p(evidence('sent', 'publication')),
      default: 0,
      description: "ln(1 + information behind the publication's effect).",
    },
    ...DESCRIBING,
    {
      name: 'show_rate_publication',
      entity: P,
      value: logit(rateOf('scheduled_sent', 'scheduled', 'sent_base_rate')),
      default: 2.6,
      description:
        "Logit of the shrunk share of the publication's scheduled ads that went out, 90 days.",
    },
    {
      name: 'scheduled_rate_publication',
      entity: P,
      value: logit(rateOf('scheduled', 'accepted', 'sent_scheduled_rate')),
      default: 0.85,
      description:
        "Logit of the shrunk share of the publication's accepted ads that had an issue, 90 days.",
    },
    {
      name: 'log_open_acceptances',
      entity: P,
      value: log1p(total('acceptances', 'count', ['publication'], 7)),
      default: 0,
      description: 'ln(1 + ads that the publication accepted in the last 7 days).',
    },
    {
      name: 'cadence_kept',
      entity: P,
      value: clamp(
        div(
          total('sends', 'count', ['publication'], 28),
          add(mul(attribute('publication', 'cadence_per_week'), 4), 0.5),
        ),
        0,
        3,
      ),
      default: 0,
      description: 'Issues of the last 28 days over those that the stated cadence promises.',
    },
    {
      name: 'log_days_since_send',
      entity: ['publication', 'request'],
      value: log1p(daysSince(lastTime('sends', ['publication']), 60)),
      default: 4.11,
      description: "ln(1 + days since the publication's last issue); 60 days when never.",
    },
    ...calendar,
  ],
});
