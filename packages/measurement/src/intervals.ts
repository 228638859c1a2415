import type { Rng } from '@waggle/core';
import { measurementError } from './errors.js';
import { clusteredVariance } from './metrics/clustered-variance.js';
import { rowLogLoss } from './metrics/log-loss.js';
import { studentQuantile } from './metrics/proportion.js';
import { type BinomialSample, checkLength, checkSample } from './metrics/sample.js';

export interface BootstrapOptions {
  readonly rng: Rng;
  /** Resamples; 1,000 when absent. */
  readonly nReplicates?: number;
  /** Mass between the two-sided limits, and below the one-sided one; 0.95 when absent. */
  readonly confidence?: number;
}

export interface BootstrapInterval {
  /** The statistic on the sample itself. */
  readonly estimate: number;
  /** Two-sided percentile limits. */
  readonly lower: number;
  readonly upper: number;
  /** One-sided upper limit: below it with probability `confidence`. */
  readonly upperLimit: number;
  readonly standardError: number;
  readonly nClusters: number;
  readonly nReplicates: number;
}

/**
 * Percentile bootstrap that draws whole clusters with replacement, for rows that share a publication and so
 * their surprises. The statistic sees how often each cluster was drawn, not rows, so that sums per cluster can
 * be prepared once: cost is nReplicates × (nClusters + cost of the statistic).
 *
 * @param statistic of multiplicities float64 [nClusters]; all ones gives the estimate. NaN (a resample on which
 *   it is undefined) is drawn again, at most nReplicates times altogether.
 * @throws WAGGLE_MEASUREMENT_TOO_FEW_CLUSTERS below two clusters or when the statistic is hardly ever defined
 */
export function clusterBootstrap(
  nClusters: number,
  statistic: (multiplicity: Float64Array) => number,
  options: BootstrapOptions,
): BootstrapInterval {
  const { rng, nReplicates = 1_000, confidence = 0.95 } = options;
  if (!Number.isInteger(nReplicates) || nReplicates < 20 || nReplicates > 1_000_000) {
    throw measurementError(
      'WAGGLE_MEASUREMENT_OUT_OF_RANGE',
      `nReplicates is ${nReplicates}, allowed is 20 … 1000000`,
    );
  }
  if (!(confidence > 0 && confidence < 1)) {
    throw measurementError(
      'WAGGLE_MEASUREMENT_OUT_OF_RANGE',
      `confidence is ${confidence}, allowed is 0 … 1`,
    );
  }
  if (!(nClusters >= 2)) {
    throw measurementError(
      'WAGGLE_MEASUREMENT_TOO_FEW_CLUSTERS',
      `${nClusters} cluster, two are needed to resample`,
    );
  }
  const multiplicity = new Float64Array(nClusters).fill(1);
  const estimate = statistic(multiplicity);
  const values = new Float64Array(nReplicates);
  let undefinedDraws = 0;
  for (let r = 0; r < nReplicates; ) {
    multiplicity.fill(0);
    for (let g = 0; g < nClusters; g++) {
      const drawn = rng.integer(nClusters);
      multiplicity[drawn] = multiplicity[drawn]! + 1;
    }
    const value = statistic(multiplicity);
    if (Number.isNaN(value)) {
      if (++undefinedDraws > nReplicates) {
        throw measurementError(
          'WAGGLE_MEASUREMENT_TOO_FEW_CLUSTERS',
          'the statistic is undefined on most resamples',
        );
      }
      continue;
    }
    values[r++] = value;
  }
  values.sort();
  let mean = 0;
  for (const v of values) mean += v / nReplicates;
  let variance = 0;
  for (const v of values) variance += (v - mean) ** 2 / (nReplicates - 1);
  const tail = (1 - confidence) / 2;
  return {
    estimate,
    lower: quantileOfSorted(values, tail),
    upper: quantileOfSorted(values, 1 - tail),
    upperLimit: quantileOfSorted(values, confidence),
    standardError: Math.sqrt(variance),
    nClusters,
    nReplicates,
  };
}

/** Linear interpolation between order statistics (Hyndman & Fan 1996, type 7). `q` in [0, 1]. */
export function quantileOfSorted(sorted: ArrayLike<number>, q: number): number {
  if (sorted.length === 0)
    throw measurementError('WAGGLE_MEASUREMENT_EMPTY', 'no values to take a quantile of');
  const place = q * (sorted.length - 1);
  const below = Math.floor(place);
  const low = sorted[below]!;
  const high = sorted[Math.min(below + 1, sorted.length - 1)]!;
  return low + (place - below) * (high - low);
}

export interface PairedSample extends BinomialSample {
  /** [nRows] predictions of the model that `probability` is compared with. */
  readonly baseline: ArrayLike<number>;
  /** [nRows] cluster codes: any numbers, equal for rows that belong together. */
  readonly clusters: ArrayLike<number>;
}

/**
 * Relative log-loss difference (LL(model) − LL(baseline)) / LL(baseline) on the same rows, with bootstrap limits
 * by cluster. Negative = the model is better; its `upperLimit` is the worst that the data allows at that
 * confidence. O(n + nReplicates × nClusters).
 * @throws WAGGLE_MEASUREMENT_TOO_FEW_CLUSTERS, and what `checkSample` throws
 */
export function relativeLogLossDifference(
  sample: PairedSample,
  options: BootstrapOptions,
): BootstrapInterval {
  const model = checkSample(sample);
  const baseline = checkSample({ ...sample, probability: sample.baseline });
  checkLength('clusters', sample.clusters, model.nRows);
  const index = new Map<number, number>();
  const modelLoss: number[] = [];
  const baselineLoss: number[] = [];
  for (let i = 0; i < model.nRows; i++) {
    const positive = model.positive[i]!;
    const negative = model.negative[i]!;
    if (positive + negative === 0) continue;
    let g = index.get(sample.clusters[i]!);
    if (g === undefined) {
      g = index.size;
      index.set(sample.clusters[i]!, g);
      modelLoss.push(0);
      baselineLoss.push(0);
    }
    modelLoss[g] = modelLoss[g]! + rowLogLoss(model.probability[i]!, positive, negative);
    baselineLoss[g] = baselineLoss[g]! + rowLogLoss(baseline.probability[i]!, positive, negative);
  }
  const difference = Float64Array.from(modelLoss, (loss, g) => loss - baselineLoss[g]!);
  const base = Float64Array.from(baselineLoss);
  return clusterBootstrap(
    index.size,
    (multiplicity) => {
      let sum = 0;
      let total = 0;
      for (let g = 0; g < multiplicity.length; g++) {
        const m = multiplicity[g]!;
        sum += m * difference[g]!;
        total += m * base[g]!;
      }
      return total > 0 ? sum / total : sum === 0 ? 0 : Number.NaN;
    },
    options,
  );
}

export interface CrossedLimit {
  readonly estimate: number;
  readonly standardError: number;
  /** One-sided upper limit. */
  readonly upperLimit: number;
  /** Of the clustering with fewest. */
  readonly nClusters: number;
}

/**
 * Upper limit of the same difference where rows share their surprises in two ways that cross, by publication and by campaign.
 * Drawing whole publications keeps all campaigns in every resample, so that an error which all ads of a campaign share does not show
 * and the limit above is too low. Here the variance is `clusteredVariance` of the ratio's influence, (d_i − R·b_i)/Σb, and the limit
 * takes Student's quantile for the clusters of the clustering with fewest. O(n).
 * @param crossed [nRows] codes of the other clustering
 * @throws WAGGLE_MEASUREMENT_TOO_FEW_CLUSTERS, WAGGLE_MEASUREMENT_SINGLE_CLASS when the baseline loses nothing, and what `checkSample` throws
 */
export function crossedLogLossLimit(
  sample: PairedSample & { readonly crossed: ArrayLike<number> },
  confidence = 0.95,
): CrossedLimit {
  const { clusters, crossed } = sample;
  const { nRows, probability, positive, negative } = checkSample(sample);
  const baseline = checkSample({ ...sample, probability: sample.baseline });
  const losses = (p: ArrayLike<number>) =>
    Float64Array.from({ length: nRows }, (_, i) => rowLogLoss(p[i]!, positive[i]!, negative[i]!));
  return crossedLossLimit(
    {
      ...{ loss: losses(probability), baselineLoss: losses(baseline.probability) },
      ...{ mass: positive.map((n, i) => n + negative[i]!), clusters, crossed },
    },
    confidence,
  );
}

/** Rows with what each cost a model and its baseline. */
export interface PairedLosses {
  /** [nRows] loss of the row times its mass. */
  readonly loss: ArrayLike<number>;
  readonly baselineLoss: ArrayLike<number>;
  /** [nRows] rows without are left out. */
  readonly mass: ArrayLike<number>;
  /** [nRows] codes of either clustering. */
  readonly clusters: ArrayLike<number>;
  readonly crossed: ArrayLike<number>;
}

/**
 * As `crossedLogLossLimit`, of losses of any kind.
 * @throws WAGGLE_MEASUREMENT_TOO_FEW_CLUSTERS, WAGGLE_MEASUREMENT_SINGLE_CLASS when the baseline loses nothing
 */
export function crossedLossLimit(
  { loss, baselineLoss, mass, clusters, crossed }: PairedLosses,
  confidence = 0.95,
): CrossedLimit {
  const nRows = loss.length;
  for (const [name, column] of Object.entries({ baselineLoss, mass, clusters, crossed })) {
    checkLength(name, column, nRows);
  }
  if (!(confidence > 0 && confidence < 1)) {
    throw measurementError(
      'WAGGLE_MEASUREMENT_OUT_OF_RANGE',
      `confidence is ${confidence}, allowed is 0 … 1`,
    );
  }
  const difference = new Float64Array(nRows);
  const base = new Float64Array(nRows);
  let sum = 0;
  let total = 0;
  for (let i = 0; i < nRows; i++) {
    if (!(mass[i]! > 0)) continue;
    base[i] = baselineLoss[i]!;
    difference[i] = loss[i]! - base[i]!;
    sum += difference[i]!;
    total += base[i]!;
  }
  if (!(total > 0)) {
    throw measurementError(
      'WAGGLE_MEASUREMENT_SINGLE_CLASS',
      'a relative difference is undefined: the baseline loses nothing',
    );
  }
  const estimate = sum / total;
  const { variance, nClusters } = clusteredVariance(
    difference.map((d, i) => (d - estimate * base[i]!) / total),
    [clusters, crossed],
    (i) => mass[i]! > 0,
  );
  const standardError = Math.sqrt(variance);
  const upperLimit = estimate + studentQuantile(confidence, nClusters - 1) * standardError;
  return { estimate, standardError, upperLimit, nClusters };
}
