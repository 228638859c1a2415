import { measurementError } from '../errors.js';
import { clusteredVariance } from './clustered-variance.js';
import { type BinomialSample, checkLength, checkSample, descendingOrder } from './sample.js';

export interface CalibrationBin {
  /** Least and greatest prediction in the bin. */
  readonly lower: number;
  readonly upper: number;
  /** Mean prediction and observed rate, weighted by trials. */
  readonly meanProbability: number;
  readonly observedRate: number;
  /** Weighted trials. */
  readonly mass: number;
}

/**
 * Reliability curve over bins of equal mass, ascending. Equal predictions are never split (so row order does
 * not matter and weight 2 equals repetition); a group of ties goes to the bin of its middle, bins that
 * receive none are left out. O(n log n).
 * @param nBins 1 … 10,000
 * @throws WAGGLE_MEASUREMENT_OUT_OF_RANGE for nBins, and what `checkSample` throws
 */
export function calibrationCurve(sample: BinomialSample, nBins = 10): CalibrationBin[] {
  return calibrationBins(sample, nBins).bins;
}

/** `calibrationCurve` and the bin of each row, −1 for rows without mass. */
export function calibrationBins(
  sample: BinomialSample,
  nBins: number,
): { bins: CalibrationBin[]; binOf: Int32Array } {
  if (!Number.isInteger(nBins) || nBins < 1 || nBins > 10_000) {
    throw measurementError(
      'WAGGLE_MEASUREMENT_OUT_OF_RANGE',
      `nBins is ${nBins}, allowed is 1 … 10000`,
    );
  }
  const checked = checkSample(sample);
  const { probability, positive, negative } = checked;
  const order = descendingOrder(probability).reverse();
  const total = checked.totalPositive + checked.totalNegative;
  const binOf = new Int32Array(checked.nRows).fill(-1);
  const bins: CalibrationBin[] = [];
  let open:
    | { bin: number; lower: number; upper: number; expected: number; hits: number; mass: number }
    | undefined;
  const close = (): void => {
    if (open === undefined) return;
    const { lower, upper, expected, hits, mass } = open;
    bins.push({ lower, upper, meanProbability: expected / mass, observedRate: hits / mass, mass });
  };
  let before = 0;
  for (let start = 0; start < order.length; ) {
    const p = probability[order[start]!]!;
    const first = start;
    let hits = 0;
    let mass = 0;
    let end = start;
    for (; end < order.length && probability[order[end]!] === p; end++) {
      hits += positive[order[end]!]!;
      mass += positive[order[end]!]! + negative[order[end]!]!;
    }
    start = end;
    if (mass === 0) continue;
    const bin = Math.min(nBins - 1, Math.floor((nBins * (before + mass / 2)) / total));
    before += mass;
    if (open === undefined || open.bin !== bin) {
      close();
      open = { bin, lower: p, upper: p, expected: 0, hits: 0, mass: 0 };
    }
    open.upper = p;
    open.expected += p * mass;
    open.hits += hits;
    open.mass += mass;
    for (let i = first; i < end; i++) {
      const row = order[i]!;
      if (positive[row]! + negative[row]! > 0) binOf[row] = bins.length;
    }
  }
  close();
  return { bins, binOf };
}

/**
 * Expected calibration error: mass-weighted mean of |observed − predicted| over equal-mass bins, in [0, 1].
 * Equal mass, because click probabilities crowd near 0 where equal-width bins would all be one. O(n log n).
 */
export function expectedCalibrationError(sample: BinomialSample, nBins = 10): number {
  let sum = 0;
  let total = 0;
  for (const bin of calibrationCurve(sample, nBins)) {
    sum += bin.mass * Math.abs(bin.observedRate - bin.meanProbability);
    total += bin.mass;
  }
  return sum / total;
}

export interface CalibrationRatio {
  /** Expected successes over observed ones: above 1 the model promises too much. */
  readonly ratio: number;
  readonly logRatio: number;
  /** Standard error of `logRatio`, see `calibrationRatio`. */
  readonly logStandardError: number;
  readonly expected: number;
  readonly observed: number;
  /** Clusters with mass, of the clustering with fewest. */
  readonly nClusters: number;
}

/**
 * Calibration in the large: Σ w·n·p / Σ w·s, with a standard error of its logarithm that does not believe in
 * independent trials. By the delta method ln R varies by u_g = E_g/E − O_g/O per cluster g, hence
 * SE² = G/(G−1)·Σ u_g²; clicks of one send, publication or campaign share their surprises and so enter as one.
 * With several clusterings (publication and campaign) the variances combine as in Cameron, Gelbach & Miller
 * 2011, V₁ + V₂ − V₁∩₂, and never fall below the greatest single one. O(n).
 *
 * @param clusters one code per row and clustering; absent = each row its own cluster
 * @throws WAGGLE_MEASUREMENT_SINGLE_CLASS without successes or when every prediction is 0,
 *   _TOO_FEW_CLUSTERS with fewer than two clusters, and what `checkSample` throws
 */
export function calibrationRatio(
  sample: BinomialSample,
  ...clusters: readonly ArrayLike<number>[]
): CalibrationRatio {
  const checked = checkSample(sample);
  const { nRows, probability, positive, negative } = checked;
  for (const codes of clusters) checkLength('clusters', codes, nRows);
  const expectedRow = new Float64Array(nRows);
  let expected = 0;
  for (let i = 0; i < nRows; i++) {
    expectedRow[i] = probability[i]! * (positive[i]! + negative[i]!);
    expected += expectedRow[i]!;
  }
  const observed = checked.totalPositive;
  if (!(observed > 0) || !(expected > 0)) {
    throw measurementError(
      'WAGGLE_MEASUREMENT_SINGLE_CLASS',
      `the calibration ratio is undefined: ${observed > 0 ? 'every prediction is 0' : 'there are no successes'}`,
    );
  }
  const influence = new Float64Array(nRows);
  for (let i = 0; i < nRows; i++) {
    influence[i] = expectedRow[i]! / expected - positive[i]! / observed;
  }
  const combined = clusteredVariance(influence, clusters, (i) => positive[i]! + negative[i]! > 0);
  const ratio = expected / observed;
  return {
    ratio,
    logRatio: Math.log(ratio),
    logStandardError: Math.sqrt(combined.variance),
    expected,
    observed,
    nClusters: combined.nClusters,
  };
}
