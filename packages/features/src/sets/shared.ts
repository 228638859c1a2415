import { DAY_MS } from '@waggle/core';
import type { FeatureDefinition } from '../definition.js';
import type { Dependency, Expression, Key } from '../expression.js';
import {
  add,
  attribute,
  attributeIs,
  centeredSimilarity,
  clamp,
  coalesce,
  cos,
  div,
  evidence,
  floor,
  log1p,
  match,
  mul,
  neighbours,
  type Operand,
  param,
  request,
  similarity,
  sin,
  sub,
  total,
} from '../expression.js';

/** Building blocks that several sets use. */

export const P = ['publication'] as const satisfies readonly Dependency[];
export const C = ['campaign'] as const satisfies readonly Dependency[];
export const PC = ['publication', 'campaign'] as const satisfies readonly Dependency[];

/** Empirical-Bayes rate: (successes + strength·prior) / (trials + strength), strength in trials. */
export const shrunk = (
  successes: Operand,
  trials: Operand,
  prior: Operand,
  strength: Operand,
): Expression => div(add(successes, mul(strength, prior)), add(trials, strength));

/**
 * What the neighbours by text suggest of a level's effect, as far as the entity's own history leaves it open: with ρ = evidence /
 * (evidence + strength), a believed mean m moves the posterior mean of a normal effect by (1 − ρ)·m.
 */
export const fromNeighbours = (fit: string, level: string, strength: string): Expression =>
  mul(div(param(strength), add(param(strength), evidence(fit, level))), neighbours(fit, level));

const RATE_WINDOW_DAYS = 28;

/**
 * Plain rates of a source over 28 days: the network's, shrunk to `base`, and that of any level, shrunk to the
 * network's by `strength` trials.
 */
export const shrunkRates = (o: {
  readonly source: string;
  readonly successes: string;
  readonly trials: string;
  readonly base: Operand;
  readonly baseStrength: Operand;
  readonly strength: Operand;
}): ((by: readonly Key[]) => Expression) => {
  const rate = (by: readonly Key[], prior: Operand, strength: Operand) =>
    shrunk(
      total(o.source, o.successes, by, RATE_WINDOW_DAYS),
      total(o.source, o.trials, by, RATE_WINDOW_DAYS),
      prior,
      strength,
    );
  const network = rate([], o.base, o.baseStrength);
  return (by) => rate(by, network, o.strength);
};

/** Whole and part days between an earlier time and the request, never negative, at most `most`. */
export const daysSince = (earlierMs: Expression, most: number): Expression =>
  clamp(div(sub(request('tsMs'), earlierMs), DAY_MS), 0, most);

const dayFraction = sub(div(request('tsMs'), DAY_MS), floor(div(request('tsMs'), DAY_MS)));
/** 1970-01-05 was a Monday. */
const weeks = div(sub(request('tsMs'), 4 * DAY_MS), 7 * DAY_MS);
const weekFraction = sub(weeks, floor(weeks));

/** UTC time of day and of week as points on circles. */
export const calendar: readonly FeatureDefinition[] = [
  {
    name: 'hour_sin',
    entity: ['request'],
    value: sin(mul(dayFraction, 2 * Math.PI)),
    default: 0,
    description: 'Sine of the UTC time of day; with hour_cos a point on the 24-hour circle.',
  },
  {
    name: 'hour_cos',
    entity: ['request'],
    value: cos(mul(dayFraction, 2 * Math.PI)),
    default: 0,
    description: 'Cosine of the UTC time of day.',
  },
  {
    name: 'weekday_sin',
    entity: ['request'],
    value: sin(mul(weekFraction, 2 * Math.PI)),
    default: 0,
    description: 'Sine of the UTC time of week, Monday 00:00 = 0.',
  },
  {
    name: 'weekday_cos',
    entity: ['request'],
    value: cos(mul(weekFraction, 2 * Math.PI)),
    default: 0,
    description: 'Cosine of the UTC time of week.',
  },
];

/** What the two texts say about each other. */
export const contentFit: readonly FeatureDefinition[] = [
  {
    name: 'cosine_publication_campaign',
    entity: PC,
    value: similarity('publication', 'campaign'),
    default: 0,
    description: 'Cosine of publication and campaign embeddings.',
  },
  {
    name: 'cosine_publication_creative',
    entity: ['publication', 'creative'],
    value: similarity('publication', 'creative'),
    default: 0,
    description: 'Cosine of publication and creative embeddings.',
  },
  {
    name: 'fit_publication_campaign',
    entity: PC,
    value: centeredSimilarity('publication', 'campaign'),
    default: 0,
    description:
      'Cosine of publication and campaign embeddings after taking away the mean of each kind.',
  },
  {
    name: 'fit_publication_creative',
    entity: ['publication', 'creative'],
    value: centeredSimilarity('publication', 'creative'),
    default: 0,
    description:
      'Cosine of publication and creative embeddings after taking away the mean of each kind.',
  },
  {
    name: 'same_category',
    entity: PC,
    value: match(
      'equal',
      { entity: 'publication', column: 'category' },
      { entity: 'campaign', column: 'category' },
    ),
    default: 0,
    description: '1 when publication and campaign state the same category.',
  },
  {
    name: 'tag_match',
    entity: PC,
    value: match(
      'contains',
      { entity: 'publication', column: 'tags' },
      { entity: 'campaign', column: 'category' },
    ),
    default: 0,
    description: "1 when one of the publication's tags is the campaign's category.",
  },
  {
    name: 'category_targeted',
    entity: PC,
    value: match(
      'contains',
      { entity: 'campaign', column: 'target_categories' },
      { entity: 'publication', column: 'category' },
    ),
    default: 0,
    description: "1 when the campaign names the publication's category as a target.",
  },
];

export const logListSize = log1p(attribute('publication', 'active_subscribers'));

/** What kind of publication and campaign this is. */
export const kinds: readonly FeatureDefinition[] = [
  {
    name: 'log_list_size',
    entity: P,
    value: logListSize,
    default: 8,
    description: 'ln(1 + active subscribers).',
  },
  {
    name: 'log_cadence',
    entity: P,
    value: log1p(attribute('publication', 'cadence_per_week')),
    default: 0.7,
    description: 'ln(1 + stated issues per week).',
  },
  {
    name: 'audience_b2b',
    entity: P,
    value: attributeIs('publication', 'audience', 'b2b'),
    default: 0,
    description: '1 for a business audience.',
  },
  {
    name: 'language_english',
    entity: P,
    value: attributeIs('publication', 'language', 'en'),
    default: 1,
    description: '1 when the publication is in English.',
  },
  {
    name: 'is_cpm',
    entity: C,
    value: attributeIs('campaign', 'pricing', 'cpm'),
    default: 0,
    description: '1 when the campaign pays per thousand opens.',
  },
  {
    name: 'is_flat',
    entity: C,
    value: attributeIs('campaign', 'pricing', 'flat'),
    default: 0,
    description: '1 when the campaign pays per placement.',
  },
  {
    name: 'log_bid',
    entity: C,
    value: log1p(div(attribute('campaign', 'bid_micros'), 1_000_000)),
    default: 1,
    description: 'ln(1 + bid in currency units, per click, per mille or per placement).',
  },
];

/** Share of human opens in what was delivered, shrunk to its usual value. */
export const openRate = (measure: string, usual: number): Expression =>
  shrunk(
    total('send_outcomes', measure, ['publication'], 28),
    total('send_outcomes', 'delivered', ['publication'], 28),
    usual,
    param('opens_strength'),
  );

export const meanDelivered = coalesce(
  div(
    total('sends', 'delivered', ['publication'], 28),
    total('sends', 'count', ['publication'], 28),
  ),
  attribute('publication', 'active_subscribers'),
);
