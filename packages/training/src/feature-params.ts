import {
  buildDataset,
  CTR_OFFSET_TERMS,
  ctrFeatures,
  type DatasetOptions,
  defineFeatureSet,
  type FeatureStore,
} from '@waggle/features';
import {
  type SplitOptions,
  splitByTime,
  type TrainingDataset,
  take,
  takeCodes,
} from './dataset.js';
import { estimateEffectPriors } from './effect-priors.js';
import { trainingError } from './errors.js';
import { fitLogistic } from './fit/logistic.js';

/** One term of a fit's offset: weight·(feature − center). */
export interface OffsetTerm {
  readonly feature: string;
  readonly center: number;
  /** Parameter of the feature set that holds the weight. */
  readonly weight: string;
  /** What the weight is believed to be before looking. */
  readonly default: number;
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
  /** Only the split's training slice is looked at, so that the gate's rows stay unseen. Use the same as in training. */
  readonly split?: SplitOptions;
  readonly signal?: AbortSignal | undefined;
}

/** Below this many successes or rows in the training slice the declared defaults stand. */
const MIN_SUCCESSES = 500;
const MIN_ROWS = 200;

/**
 * What a network's own history says about the parameters of its hierarchical prior: weights of what describes a
 * decision (text fit, size, place) by a logistic regression on those features alone, drawn towards their defaults, then strengths of
 * the entity effects around that description by moments. Empty where there is too little history: defaults stand.
 * O(n·terms²).
 * @param dataset holds at least the features that `terms` name; no history features are needed
 * @throws WAGGLE_TRAINING_SHAPE when a term's feature is missing, WAGGLE_TRAINING_FIT_FAILED, WAGGLE_ABORTED
 */
export async function estimateFeatureParams(
  dataset: TrainingDataset,
  options: FeatureParamsOptions,
): Promise<Record<string, number>> {
  const { terms, effects = {}, signal } = options;
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

  const x = new Float32Array(train.length * terms.length);
  const prior = new Float64Array(train.length).fill(Math.log(total / failures));
  for (let i = 0; i < train.length; i++) {
    terms.forEach((term, t) => {
      const value = dataset.x[train[i]! * nFeatures + columns[t]!]! - term.center;
      x[i * terms.length + t] = value;
      prior[i] = prior[i]! + term.default * value;
    });
  }
  const fit = await fitLogistic(
    {
      x,
      nRows: train.length,
      nFeatures: terms.length,
      decisionTsMs: take(dataset.decisionTsMs, train),
      successes,
      trials,
      maturity,
      clusters,
      prior,
    },
    // No gate stands behind these weights, and the defaults are guesses: one standard error moves them.
    { signal, levelSd: 10, rejection: 1 },
  );
  const params: Record<string, number> = {};
  const weights = terms.map((term, t) => term.default + fit.coefficients[t]!);
  terms.forEach((term, t) => {
    params[term.weight] = weights[t]!;
  });

  // Around the description: trials count as often as the description says they succeed.
  const described = new Float64Array(train.length);
  for (let i = 0; i < train.length; i++) {
    let offset = 0;
    for (let t = 0; t < terms.length; t++) offset += weights[t]! * x[i * terms.length + t]!;
    described[i] = Math.max(trials[i]! * maturity[i]! * Math.exp(offset), successes[i]!);
  }
  const levels = {
    publication: clusters,
    campaign: takeCodes(dataset.campaign, train),
    creative: takeCodes(dataset.creative, train),
  };
  const priors = estimateEffectPriors({
    successes,
    trials: described,
    levels: Object.entries(levels).map(([name, codes]) => ({ name, codes })),
  });
  for (const { name, strength } of priors.levels) {
    const param = effects[name as keyof typeof levels];
    if (param !== undefined) params[param] = strength;
  }
  if (effects.dispersion !== undefined) params[effects.dispersion] = priors.dispersion;
  return params;
}

export const CTR_EFFECT_PARAMS: EffectParams = {
  dispersion: 'ctr_dispersion',
  publication: 'ctr_publication_strength',
  campaign: 'ctr_campaign_strength',
  creative: 'ctr_creative_strength',
};

/** The described part of the click features alone: no counting, so its dataset costs next to nothing. */
const described = defineFeatureSet({
  ...ctrFeatures,
  fits: [],
  features: ctrFeatures.features.filter((f) => CTR_OFFSET_TERMS.some((t) => t.feature === f.name)),
});

/**
 * Parameters for `ctrFeatures` estimated from the tenant's own history; pass them to `buildDataset` and to
 * the snapshot of the release. See `estimateFeatureParams`.
 */
export async function estimateCtrParams(
  store: FeatureStore,
  options: DatasetOptions & { readonly split?: SplitOptions },
): Promise<Record<string, number>> {
  const { split, ...range } = options;
  const dataset = await buildDataset(store, described, range);
  return estimateFeatureParams(dataset, {
    terms: CTR_OFFSET_TERMS,
    effects: CTR_EFFECT_PARAMS,
    ...(split === undefined ? {} : { split }),
    signal: options.signal,
  });
}
