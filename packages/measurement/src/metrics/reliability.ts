import { measurementError } from '../errors.js';
import { type CalibrationBin, calibrationBins } from './calibration.js';
import { normalQuantile, studentQuantile, wilsonInterval } from './proportion.js';
import { type BinomialSample, checkLength, checkSample, finite } from './sample.js';

export interface ReliabilityBin extends CalibrationBin {
  /** Limits of the observed rate; null where all trials are of one cluster, which says nothing about others. */
  readonly lowerRate: number | null;
  readonly upperRate: number | null;
}

export interface ReliabilityOptions {
  /** 10 when absent. */
  readonly nBins?: number;
  /** [nRows] codes of rows that share their surprises (publications); absent = trials are independent. */
  readonly clusters?: ArrayLike<number> | undefined;
  /** Mass between the limits; 0.95 when absent. */
  readonly confidence?: number;
}

/**
 * `calibrationCurve` with limits for each observed rate: Wilson's interval (1927) for as many independent trials as
 * the clusters are worth, n = r(1 − r)/V with V the variance of the rate between clusters (Korn & Graubard 1998
 * take the same n), with Student's quantile of G − 1 degrees of freedom. Never more than the trials that are there. O(n log n).
 * @throws WAGGLE_MEASUREMENT_OUT_OF_RANGE for nBins and confidence, and what `checkSample` throws
 */
export function reliabilityCurve(
  sample: BinomialSample,
  options: ReliabilityOptions = {},
): ReliabilityBin[] {
  const { nBins = 10, clusters, confidence = 0.95 } = options;
  const upper = upperShare(confidence);
  const { bins, binOf } = calibrationBins(sample, nBins);
  const { positive, negative } = checkSample(sample);
  const between = new Map<string, { bin: number; hits: number; mass: number }>();
  if (clusters !== undefined) {
    checkLength('clusters', clusters, positive.length);
    for (let i = 0; i < positive.length; i++) {
      const bin = binOf[i]!;
      if (bin < 0) continue;
      const key = `${bin},${clusters[i]}`;
      const sums = between.get(key) ?? { bin, hits: 0, mass: 0 };
      sums.hits += positive[i]!;
      sums.mass += positive[i]! + negative[i]!;
      between.set(key, sums);
    }
  }
  const square = new Float64Array(bins.length);
  const nClusters = new Float64Array(bins.length);
  for (const { bin, hits, mass } of between.values()) {
    square[bin]! += (hits - bins[bin]!.observedRate * mass) ** 2;
    nClusters[bin]! += 1;
  }
  return bins.map((bin, b) => {
    const rate = bin.observedRate;
    const g = nClusters[b]!;
    if (clusters !== undefined && g < 2) return { ...bin, lowerRate: null, upperRate: null };
    const variance = g > 1 ? ((g / (g - 1)) * square[b]!) / bin.mass ** 2 : 0;
    const effective = variance > 0 ? (rate * (1 - rate)) / variance : bin.mass;
    const quantile = g > 1 ? studentQuantile(upper, g - 1) : normalQuantile(upper);
    const limits = wilsonInterval(rate, Math.min(effective, bin.mass), quantile);
    return { ...bin, lowerRate: limits.lower, upperRate: limits.upper };
  });
}

export interface PredictionBucket {
  readonly lower: number;
  readonly upper: number;
  /** Weighted trials predicted in [lower, upper). */
  readonly mass: number;
}

/**
 * Where the predictions lie: trials in buckets of equal width, in probability or in its logarithm. O(n).
 * @param log by logarithm; predictions of 0 then count in the lowest bucket
 * @throws WAGGLE_MEASUREMENT_OUT_OF_RANGE for nBuckets, and what `checkSample` throws
 */
export function predictionHistogram(
  sample: BinomialSample,
  { nBuckets = 40, log = false }: { readonly nBuckets?: number; readonly log?: boolean } = {},
): PredictionBucket[] {
  if (!Number.isInteger(nBuckets) || nBuckets < 1 || nBuckets > 10_000) {
    throw measurementError(
      'WAGGLE_MEASUREMENT_OUT_OF_RANGE',
      `nBuckets is ${nBuckets}, allowed is 1 … 10000`,
    );
  }
  const { nRows, probability, positive, negative } = checkSample(sample);
  let least = 1;
  let most = 0;
  for (let i = 0; i < nRows; i++) {
    const p = probability[i]!;
    if (positive[i]! + negative[i]! === 0 || (log && p === 0)) continue;
    least = Math.min(least, p);
    most = Math.max(most, p);
  }
  const to = log ? Math.log(Math.max(most, 1e-300)) : most;
  const from = log ? Math.log(Math.min(Math.max(least, 1e-300), Math.max(most, 1e-300))) : 0;
  const width = (to - from) / nBuckets;
  const mass = new Float64Array(nBuckets);
  for (let i = 0; i < nRows; i++) {
    const value = log ? Math.log(Math.max(probability[i]!, 1e-300)) : probability[i]!;
    const bucket = width > 0 ? Math.floor((value - from) / width) : 0;
    mass[Math.min(Math.max(bucket, 0), nBuckets - 1)]! += positive[i]! + negative[i]!;
  }
  const edge = (b: number): number => (log ? Math.exp(from + b * width) : from + b * width);
  return Array.from(mass, (m, b) => ({ lower: edge(b), upper: edge(b + 1), mass: m }));
}

export interface ResidualBucket {
  /** UTC ms, half open. */
  readonly fromMs: number;
  readonly toMs: number;
  /** Weighted successes expected and observed. */
  readonly expected: number;
  readonly observed: number;
  /** observed / expected − 1: above 0 the model promised too little. */
  readonly residual: number;
  /** Null where all trials are of one cluster, which says nothing about others. */
  readonly standardError: number | null;
  /** Half the width of the residual's 95 % limits: by Student's quantile where there are clusters. */
  readonly margin: number | null;
  readonly nRows: number;
}

export interface ResidualOptions {
  /** Length of a bucket. */
  readonly bucketMs: number;
  /** [nRows] codes of rows that share their surprises; absent = trials are independent. */
  readonly clusters?: ArrayLike<number> | undefined;
}

/**
 * Relative residuals by time: what was observed over what was expected, bucket by bucket, so that drift and broken
 * days show. Standard error by cluster, √(G/(G−1)·Σ(o_g − R·e_g)²)/E, or of independent trials, √(Σ n·p·(1−p))/E.
 * Buckets without expected successes are left out. O(n).
 * @param tsMs [nRows] UTC ms of the decisions
 * @throws WAGGLE_MEASUREMENT_OUT_OF_RANGE for bucketMs, and what `checkSample` throws
 */
export function residualsOverTime(
  sample: BinomialSample,
  tsMs: ArrayLike<number>,
  options: ResidualOptions,
): ResidualBucket[] {
  const { bucketMs, clusters } = options;
  if (!(bucketMs > 0) || !Number.isFinite(bucketMs)) {
    throw measurementError(
      'WAGGLE_MEASUREMENT_OUT_OF_RANGE',
      `bucketMs is ${bucketMs}, allowed is above 0`,
    );
  }
  const { nRows, probability, positive, negative } = checkSample(sample);
  checkLength('tsMs', tsMs, nRows);
  if (clusters !== undefined) checkLength('clusters', clusters, nRows);
  interface Bucket {
    expected: number;
    observed: number;
    variance: number;
    nRows: number;
    readonly clusters: Map<number, { expected: number; observed: number }>;
  }
  const buckets = new Map<number, Bucket>();
  for (let i = 0; i < nRows; i++) {
    const mass = positive[i]! + negative[i]!;
    if (mass === 0) continue;
    const number = Math.floor(finite('tsMs', tsMs, i) / bucketMs);
    let bucket = buckets.get(number);
    if (bucket === undefined) {
      bucket = { expected: 0, observed: 0, variance: 0, nRows: 0, clusters: new Map() };
      buckets.set(number, bucket);
    }
    const p = probability[i]!;
    bucket.expected += p * mass;
    bucket.observed += positive[i]!;
    bucket.variance += p * (1 - p) * mass;
    bucket.nRows++;
    if (clusters === undefined) continue;
    const own = bucket.clusters.get(clusters[i]!) ?? { expected: 0, observed: 0 };
    own.expected += p * mass;
    own.observed += positive[i]!;
    bucket.clusters.set(clusters[i]!, own);
  }
  return [...buckets]
    .filter(([, bucket]) => bucket.expected > 0)
    .sort(([a], [b]) => a - b)
    .map(([number, { expected, observed, variance, nRows: n, clusters: groups }]) => {
      let v = variance;
      if (groups.size > 1) {
        let square = 0;
        for (const g of groups.values()) {
          square += (g.observed - (observed / expected) * g.expected) ** 2;
        }
        v = Math.max(variance, (square * groups.size) / (groups.size - 1));
      }
      const alone = clusters !== undefined && groups.size < 2;
      const standardError = alone ? null : Math.sqrt(v) / expected;
      const quantile =
        groups.size > 1 ? studentQuantile(0.975, groups.size - 1) : normalQuantile(0.975);
      return {
        fromMs: number * bucketMs,
        toMs: (number + 1) * bucketMs,
        expected,
        observed,
        residual: observed / expected - 1,
        standardError,
        margin: standardError === null ? null : standardError * quantile,
        nRows: n,
      };
    });
}

function upperShare(confidence: number): number {
  if (!(confidence > 0 && confidence < 1)) {
    throw measurementError(
      'WAGGLE_MEASUREMENT_OUT_OF_RANGE',
      `confidence is ${confidence}, allowed is 0 … 1`,
    );
  }
  return (1 + confidence) / 2;
}
