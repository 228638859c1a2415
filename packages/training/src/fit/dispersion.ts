/**
 * Clicks of one send share the send's luck, and sends of one publication share what the model does not know of
 * it, so counts vary more than a binomial says. The variances of that shared luck on the logit scale are
 * estimated by moments and turned into weights; without them one giant send would count as a million
 * independent opinions.
 */
export interface Dispersion {
  /** Variance of a row's own logit shock. */
  readonly rowVariance: number;
  /** Variance of the logit shock that rows of one cluster share. */
  readonly clusterVariance: number;
}

export interface DispersionSample {
  /** [nRows] predicted probability of a visible success (maturity included). */
  readonly probability: Float64Array;
  readonly successes: Float64Array;
  readonly trials: Float64Array;
  /** [nRows] cluster codes. */
  readonly clusters: Uint32Array;
}

/** Beyond this a shock is not noise but a model that is wrong; keeps weights sane on broken data. */
const MAX_VARIANCE = 4;

/**
 * Moments: with v = n·p(1−p) and residual e = s − n·p, a logit shock of variance ω² makes
 * E[e²] ≈ v + v²ω²·(1 − 1/n), and two rows of a cluster have E[eᵢeⱼ] ≈ vᵢvⱼτ² (first order in the shock;
 * Williams 1982, "Extra-binomial variation in logistic linear models", §4). Rows are weighted by
 * 1/(1 + v·ω²)² so that neither giants nor dwarfs decide alone. Single trials vary as their probability says whatever
 * shock they had, so where there are no others rows have no variance of their own, but their products within
 * clusters still tell the shared one (Liang & Zeger 1986). O(n) per round, at most 30 rounds.
 */
export function estimateDispersion(sample: DispersionSample): Dispersion {
  const { probability, successes, trials, clusters } = sample;
  const n = probability.length;
  const v = new Float64Array(n);
  const e = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    v[i] = trials[i]! * probability[i]! * (1 - probability[i]!);
    e[i] = successes[i]! - trials[i]! * probability[i]!;
  }
  if (trials.some((count, i) => count > 1 && v[i]! > 0)) {
    const total = settle((before) => {
      let numerator = 0;
      let denominator = 0;
      for (let i = 0; i < n; i++) {
        if (!(v[i]! > 0 && trials[i]! > 1)) continue;
        const a = 1 / (1 + v[i]! * before) ** 2;
        numerator += a * (e[i]! * e[i]! - v[i]!);
        denominator += a * v[i]! * v[i]! * (1 - 1 / trials[i]!);
      }
      return ratio(numerator, denominator);
    });
    const shared = Math.min(sharedVariance({ v, e, clusters, row: total, cluster: total }), total);
    return { rowVariance: total - shared, clusterVariance: shared };
  }
  const shared = settle((before) => sharedVariance({ v, e, clusters, row: 0, cluster: before }));
  return { rowVariance: 0, clusterVariance: shared };
}

/** A variance that gives itself when its own weights are used. */
function settle(next: (before: number) => number): number {
  let value = 0.1;
  for (let round = 0; round < 30; round++) {
    const before = value;
    value = within(next(before));
    if (Math.abs(value - before) <= 1e-6 * (before + 1e-6)) break;
  }
  return value;
}

function ratio(numerator: number, denominator: number): number {
  return denominator > 0 ? numerator / denominator : 0;
}

function within(variance: number): number {
  return Math.min(Math.max(variance, 0), MAX_VARIANCE);
}

/** Variance that products of rows of one cluster tell, weighted by what rows and clusters are believed to vary by. O(n). */
function sharedVariance(o: {
  readonly v: Float64Array;
  readonly e: Float64Array;
  readonly clusters: Uint32Array;
  readonly row: number;
  readonly cluster: number;
}): number {
  const { v, e, clusters, row, cluster } = o;
  const nClusters = clusters.reduce((most, code) => Math.max(most, code + 1), 0);
  const sumE = new Float64Array(nClusters);
  const sumE2 = new Float64Array(nClusters);
  const sumV = new Float64Array(nClusters);
  const sumV2 = new Float64Array(nClusters);
  for (let i = 0; i < v.length; i++) {
    const b = 1 / (1 + v[i]! * row);
    const g = clusters[i]!;
    sumE[g] = sumE[g]! + b * e[i]!;
    sumE2[g] = sumE2[g]! + (b * e[i]!) ** 2;
    sumV[g] = sumV[g]! + b * v[i]!;
    sumV2[g] = sumV2[g]! + (b * v[i]!) ** 2;
  }
  let numerator = 0;
  let denominator = 0;
  for (let g = 0; g < nClusters; g++) {
    const pairs = sumV[g]! ** 2 - sumV2[g]!;
    // As for rows: a cluster's products are down-weighted by what their own spread would be.
    const a = 1 / (1 + sumV[g]! * cluster) ** 2;
    numerator += a * (sumE[g]! ** 2 - sumE2[g]!);
    denominator += a * pairs;
  }
  return within(ratio(numerator, denominator));
}

/**
 * Weight of each row: its information given the shocks over its binomial information,
 * 1 / ((1 + v·σ²)(1 + τ²·H)) with H = Σ v/(1 + v·σ²) over the cluster. In (0, 1]. O(n).
 */
export function dispersionWeights(
  sample: Pick<DispersionSample, 'probability' | 'trials' | 'clusters'>,
  dispersion: Dispersion,
): Float64Array {
  const { probability, trials, clusters } = sample;
  const { rowVariance, clusterVariance } = dispersion;
  const weights = new Float64Array(probability.length);
  const information = new Map<number, number>();
  for (let i = 0; i < weights.length; i++) {
    const v = trials[i]! * probability[i]! * (1 - probability[i]!);
    weights[i] = 1 / (1 + v * rowVariance);
    information.set(clusters[i]!, (information.get(clusters[i]!) ?? 0) + v * weights[i]!);
  }
  for (let i = 0; i < weights.length; i++) {
    weights[i] = weights[i]! / (1 + clusterVariance * information.get(clusters[i]!)!);
  }
  return weights;
}
