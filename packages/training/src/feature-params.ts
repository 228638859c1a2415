import { DAY_MS, throwIfAborted } from '@waggle/core';
import {
  ACCEPT_OFFSET_TERMS,
  acceptFeatures,
  buildDataset,
  CTR_OFFSET_TERMS,
  ctrFeatures,
  type DatasetOptions,
  defineFeatureSet,
  type EffectSolution,
  type FeatureSet,
  type FeatureStore,
  SENT_OFFSET_TERMS,
  sentFeatures,
  solveEffects,
} from '@waggle/features';
import type { LinearModelName } from '@waggle/ranking';
import {
  type SplitOptions,
  splitByTime,
  type TrainingDataset,
  take,
  takeCodes,
} from './dataset.js';
import { estimateEffectPriors } from './effect-priors.js';
import { trainingError } from './errors.js';
import { rowsToCut } from './rows-to-cut.js';

/** One term of a fit's offset: weight·(feature − center). */
export interface OffsetTerm {
  readonly feature: string;
  readonly center: number;
  /** Parameter of the feature set that holds the weight. */
  readonly weight: string;
  /** What the weight is believed to be before looking. */
  readonly default: number;
  /** How far from that it is believed to lie; without, as far as makes the term add 0.5 either way. */
  readonly sd?: number;
}

/** Which parameter holds the prior strength of which effect level, and the dispersion. */
export interface EffectParams {
  readonly dispersion?: string;
  readonly publication?: string;
  readonly campaign?: string;
  readonly creative?: string;
}

export interface FeatureParamsOptions {
  readonly terms: readonly OffsetTerm[];
  readonly effects?: EffectParams;
  /** Of the fit that the parameters are for: rare counts (`log`, the default) or answers (`logit`). */
  readonly link?: 'log' | 'logit';
  /** Only the split's training slice is looked at, so that the gate's rows stay unseen. Use the same as in training. */
  readonly split?: SplitOptions;
  readonly signal?: AbortSignal | undefined;
}

/** Below this many successes or rows in the training slice the declared defaults stand. */
const MIN_SUCCESSES = 500;
const MIN_ROWS = 200;

/** Believed spread of what a term adds to the logit, in standard deviations of the term. */
const TERM_SD = 0.5;
/** What effects are believed to spread by before looking, and how many groups that belief is worth. */
const FIRST_VARIANCE = { publication: 0.25, campaign: 0.15, creative: 0.05 } as const;
const BELIEVED_GROUPS = 20;
const FIRST_DISPERSION = 0.1;
const VARIANCE_ROUNDS = 12;
const SPREAD_PROBES = 4;
/** Days differ by more than counting: what three of them say about the week is hearsay. */
const DAY_VARIANCE = 0.01;

/**
 * What a network's own history says about the parameters of its hierarchical prior: weights of what describes a
 * decision (text fit, size, place, payout), fitted beside crossed effects of publication, campaign and creative so that a
 * few strong campaigns do not pass for a strong text fit, nor a few days for the week, and drawn towards their defaults; strengths of the
 * entity effects around that description by expectation-maximisation, drawn towards what is believed; the dispersion of
 * counts by moments. Empty where there is too little history: defaults stand. O(rounds · n · terms).
 * @param dataset holds at least the features that `terms` name; no history features are needed
 * @throws WAGGLE_TRAINING_SHAPE when a term's feature is missing, WAGGLE_ABORTED
 */
export async function estimateFeatureParams(
  dataset: TrainingDataset,
  options: FeatureParamsOptions,
): Promise<Record<string, number>> {
  const { terms, effects = {}, link = 'log', signal } = options;
  const nFeatures = dataset.featureNames.length;
  const columns = terms.map(({ feature }) => {
    const column = dataset.featureNames.indexOf(feature);
    if (column < 0) {
      throw trainingError('WAGGLE_TRAINING_SHAPE', `the dataset has no feature ${feature}`);
    }
    return column;
  });
  const { train } = splitByTime(dataset.decisionTsMs, undefined, options.split);
  const successes = take(dataset.successes, train);
  const trials = take(dataset.trials, train);
  const maturity = take(dataset.maturity, train);
  const clusters = takeCodes(dataset.publication, train);
  const total = successes.reduce((sum, s) => sum + s, 0);
  const failures = trials.reduce((sum, n) => sum + n, 0) - total;
  if (train.length < MIN_ROWS || total < MIN_SUCCESSES || failures < MIN_SUCCESSES) return {};

  throwIfAborted(signal);
  const x = terms.map((term, t) =>
    Float64Array.from(train, (row) => dataset.x[row * nFeatures + columns[t]!]! - term.center),
  );
  const levels = {
    publication: clusters,
    campaign: takeCodes(dataset.campaign, train),
    creative: takeCodes(dataset.creative, train),
  };
  const names = ['publication', 'campaign', 'creative'] as const;
  const variance: Record<(typeof names)[number], number> = { ...FIRST_VARIANCE };
  const rate = total / trials.reduce((sum, n, i) => sum + n * maturity[i]!, 0);
  const firstDay = Math.floor(dataset.decisionTsMs[train[0]!]! / DAY_MS);
  const days = Int32Array.from(
    train,
    (row) => Math.floor(dataset.decisionTsMs[row]! / DAY_MS) - firstDay,
  );
  const codes: ArrayLike<number>[] = [...names.map((name) => levels[name]), days];
  const sizes = codes.map((column) => {
    let size = 0;
    for (let i = 0; i < column.length; i++) size = Math.max(size, column[i]! + 1);
    return size;
  });
  const problem = {
    successes,
    exposure: trials.map((n, i) => n * maturity[i]!),
    offset: new Float64Array(train.length),
    codes: interleave(codes, new Int32Array(train.length * codes.length)),
    columns: interleave(x, new Float64Array(train.length * x.length)),
  };
  const fit = (dispersion: number, start?: Float64Array): Promise<EffectSolution> =>
    solveEffects(
      problem,
      {
        link,
        levels: sizes.map((size, l) => ({
          size,
          variance: l < names.length ? variance[names[l]!] : DAY_VARIANCE,
        })),
        columns: terms.map((term, t) => ({
          mean: term.default,
          variance: term.sd === undefined ? termVariance(x[t]!) : term.sd ** 2,
        })),
        base: { mean: link === 'log' ? Math.log(rate) : Math.log(rate / (1 - rate)), variance: 1 },
        dispersion,
      },
      { start, spreadProbes: SPREAD_PROBES, signal },
    );
  let dispersion = link === 'log' ? FIRST_DISPERSION : 0;
  let solution = await fit(dispersion);
  if (link === 'log') {
    // Around the description: trials count as often as the description says they succeed.
    const described = new Float64Array(train.length);
    for (let i = 0; i < train.length; i++) {
      let offset = 0;
      for (let t = 0; t < terms.length; t++) offset += solution.weights[t]! * x[t]![i]!;
      described[i] = Math.max(trials[i]! * maturity[i]! * Math.exp(offset), successes[i]!);
    }
    dispersion = estimateEffectPriors({
      successes,
      trials: described,
      levels: names.map((name) => ({ name, codes: levels[name] })),
    }).dispersion;
  }
  for (let round = 0; round < VARIANCE_ROUNDS; round++) {
    names.forEach((name, l) => {
      const { groups, square } = solution.spreads[l]!;
      variance[name] =
        (BELIEVED_GROUPS * FIRST_VARIANCE[name] + square) / (BELIEVED_GROUPS + groups);
    });
    solution = await fit(dispersion, solution.state);
  }
  const params: Record<string, number> = {};
  terms.forEach((term, t) => {
    params[term.weight] = solution.weights[t]!;
  });
  for (const name of names) {
    const param = effects[name];
    if (param !== undefined) params[param] = 1 / variance[name];
  }
  if (effects.dispersion !== undefined) params[effects.dispersion] = dispersion;
  return params;
}

export const CTR_EFFECT_PARAMS: EffectParams = {
  dispersion: 'ctr_dispersion',
  publication: 'ctr_publication_strength',
  campaign: 'ctr_campaign_strength',
  creative: 'ctr_creative_strength',
};

export const ACCEPT_EFFECT_PARAMS: EffectParams = {
  publication: 'accept_publication_strength',
  campaign: 'accept_campaign_strength',
};

const SENT_EFFECT_PARAMS: EffectParams = { publication: 'sent_publication_strength' };

function termVariance(column: Float64Array): number {
  let sum = 0;
  let square = 0;
  for (const v of column) {
    sum += v;
    square += v * v;
  }
  const n = Math.max(column.length, 1);
  const spread = square / n - (sum / n) ** 2;
  return spread > 1e-12 ? TERM_SD ** 2 / spread : 1e-6;
}

/** Columns into rows. */
function interleave<T extends Float64Array | Int32Array>(
  columns: readonly ArrayLike<number>[],
  out: T,
): T {
  columns.forEach((column, c) => {
    for (let i = 0; i < column.length; i++) out[i * columns.length + c] = column[i]!;
  });
  return out;
}

/** The described part of a set's features alone: no counting, so its dataset costs next to nothing. */
export function describedPart(set: FeatureSet, terms: readonly OffsetTerm[]): FeatureSet {
  return defineFeatureSet({
    ...set,
    fits: [],
    features: set.features.filter((f) => terms.some((t) => t.feature === f.name)),
  });
}

type EstimateOptions = DatasetOptions & { readonly split?: SplitOptions };

async function estimateFor(
  store: FeatureStore,
  { name, set }: { readonly name: LinearModelName; readonly set: FeatureSet },
  how: Pick<FeatureParamsOptions, 'terms' | 'effects' | 'link'>,
  options: EstimateOptions,
): Promise<Record<string, number>> {
  const { split: asked, ...range } = options;
  const dataset = await buildDataset(store, describedPart(set, how.terms), range);
  const { rows, split } = rowsToCut(name, dataset, {
    asOfMs: range.asOfMs,
    ...(asked !== undefined && { split: asked }),
  });
  return estimateFeatureParams(rows, { ...how, split, signal: options.signal });
}

/**
 * Parameters for `ctrFeatures` estimated from the tenant's own history, from the rows that the model of the same options is fitted on;
 * pass them to `buildDataset` and to the snapshot of the release. See `estimateFeatureParams`.
 */
export function estimateCtrParams(
  store: FeatureStore,
  options: EstimateOptions,
): Promise<Record<string, number>> {
  const how = { terms: CTR_OFFSET_TERMS, effects: CTR_EFFECT_PARAMS, link: 'log' } as const;
  return estimateFor(store, { name: 'pctr', set: ctrFeatures }, how, options);
}

/** The same for `acceptFeatures`. */
export function estimateAcceptParams(
  store: FeatureStore,
  options: EstimateOptions,
): Promise<Record<string, number>> {
  const how = { terms: ACCEPT_OFFSET_TERMS, effects: ACCEPT_EFFECT_PARAMS, link: 'logit' } as const;
  return estimateFor(store, { name: 'accept', set: acceptFeatures }, how, options);
}

/** The same for `sentFeatures`. */
export function estimateSentParams(
  store: FeatureStore,
  options: EstimateOptions,
): Promise<Record<string, number>> {
  const how = { terms: SENT_OFFSET_TERMS, effects: SENT_EFFECT_PARAMS, link: 'logit' } as const;
  return estimateFor(store, { name: 'sent', set: sentFeatures }, how, options);
}
