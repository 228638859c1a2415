import { isWaggleError } from '@waggle/core';
import { measurementError } from './errors.js';
import { type BootstrapInterval, type BootstrapOptions, clusterBootstrap } from './intervals.js';
import { checkLength } from './metrics/sample.js';

/** Any sample of this room: columns by row, weights among them. */
export interface WeightedSample {
  readonly weights?: ArrayLike<number> | undefined;
}

/** A metric of a whole sample, weights included. */
export type SampleMetric<S extends WeightedSample> = (sample: S) => number;

/** Codes of a resample on which a metric has no value, though the metric as such is sound. */
const UNDEFINED_HERE = new Set([
  'WAGGLE_MEASUREMENT_EMPTY',
  'WAGGLE_MEASUREMENT_SINGLE_CLASS',
  'WAGGLE_MEASUREMENT_NO_RELEVANT',
  'WAGGLE_MEASUREMENT_TOO_FEW_CLUSTERS',
]);

/** What is computed of a sample, or why it has no value there; wrong input still throws. */
export function valueOrReason<S extends WeightedSample, T>(
  metric: (sample: S) => T,
  sample: S,
): { value: T } | { reason: string } {
  try {
    return { value: metric(sample) };
  } catch (thrown) {
    if (isWaggleError(thrown) && UNDEFINED_HERE.has(thrown.code)) return { reason: thrown.message };
    throw thrown;
  }
}

/** Draws of whole clusters as weights; see `metricInterval`. */
function resample<S extends WeightedSample>(
  sample: S,
  clusters: ArrayLike<number>,
  statistic: (weights: Float64Array) => number,
  options: BootstrapOptions,
): BootstrapInterval {
  const nRows = clusters.length;
  const own = sample.weights;
  if (own !== undefined) checkLength('weights', own, nRows);
  const numbers = new Map<number, number>();
  const clusterOf = Int32Array.from({ length: nRows }, (_, i) => {
    if (own !== undefined && own[i] === 0) return -1;
    const code = clusters[i]!;
    if (!numbers.has(code)) numbers.set(code, numbers.size);
    return numbers.get(code)!;
  });
  const weights = new Float64Array(nRows);
  return clusterBootstrap(
    numbers.size,
    (multiplicity) => {
      for (let i = 0; i < nRows; i++) {
        const g = clusterOf[i]!;
        weights[i] = g < 0 ? 0 : multiplicity[g]! * (own === undefined ? 1 : own[i]!);
      }
      return statistic(weights);
    },
    options,
  );
}

/**
 * Confidence limits of any weighted metric by the percentile bootstrap over clusters (publications): each resample
 * draws clusters with replacement and weighs their rows by how often they were drawn. Resamples on which the metric is
 * undefined (one class only) are drawn again. O(replicates × cost of the metric).
 * @param clusters [nRows] codes: any numbers, equal for rows that belong together
 * @throws WAGGLE_MEASUREMENT_TOO_FEW_CLUSTERS, and what the metric throws on the sample itself
 */
export function metricInterval<S extends WeightedSample>(
  sample: S,
  clusters: ArrayLike<number>,
  metric: SampleMetric<S>,
  options: BootstrapOptions,
): BootstrapInterval {
  // On the sample itself an undefined metric is the caller's error, with its own message.
  metric(sample);
  return resample(
    sample,
    clusters,
    (weights) => {
      const result = valueOrReason(metric, { ...sample, weights });
      return 'value' in result ? result.value : Number.NaN;
    },
    options,
  );
}

/**
 * Limits of metric(model) − metric(baseline) where both predict the same rows: both are measured on the same resamples, so
 * that what makes a resample hard for both cancels. Weights are the model sample's. O(2 × replicates × cost of the metric).
 * @throws as `metricInterval`
 */
export function metricDifferenceInterval<S extends WeightedSample>(
  samples: { readonly model: S; readonly baseline: S },
  clusters: ArrayLike<number>,
  metric: SampleMetric<S>,
  options: BootstrapOptions,
): BootstrapInterval {
  const { model, baseline } = samples;
  if (model.weights !== baseline.weights) {
    throw measurementError(
      'WAGGLE_MEASUREMENT_SHAPE',
      'model and baseline carry different weights: a paired difference needs the same rows',
    );
  }
  metric(model);
  metric(baseline);
  return resample(
    model,
    clusters,
    (weights) => {
      const a = valueOrReason(metric, { ...model, weights });
      const b = valueOrReason(metric, { ...baseline, weights });
      return 'value' in a && 'value' in b ? a.value - b.value : Number.NaN;
    },
    options,
  );
}
