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
 * 1/(1 + v·ω²)² so that neither giants nor dwarfs decide alone. O(n) per round, at most 30 rounds.
 */
export function estimateDispersion(sample: DispersionSample): Dispersion {
  const { probability, successes, trials, clusters } = sample;
  const n = probability.length;
  const v = new Float64Array(n);
  const e = new Float64Array(n);
  let nClusters = 0;
  for (let i = 0; i < n; i++) {
    v[i] = trials[i]! * probability[i]! * (1 - probability[i]!);
    e[i] = successes[i]! - trials[i]! * probability[i]!;
    if (clusters[i]! >= nClusters) nClusters = clusters[i]! + 1;
  }
  let total = 0.1;
  for (let round = 0; round < 30; round++) {
    let numerator = 0;
    let denominator = 0;
    for (let i = 0; i < n; i++) {
      if (!(v[i]! > 0)) continue;
      const a = 1 / (1 + v[i]! * total) ** 2;
      numerator += a * (e[i]! * e[i]! - v[i]!);
      denominator += a * v[i]! * v[i]! * Math.max(0, 1 - 1 / trials[i]!);
    }
    const next = denominator > 0 ? Math.min(Math.max(numerator / denominator, 0), MAX_VARIANCE) : 0;
    const settled = Math.abs(next - total) <= 1e-6 * (total + 1e-6);
    total = next;
    if (settled) break;
  }
  const sumE = new Float64Array(nClusters);
  const sumE2 = new Float64Array(nClusters);
  const sumV = new Float64Array(nClusters);
  const sumV2 = new Float64Array(nClusters);
  for (let i = 0; i < n; i++) {
    const b = 1 / (1 + v[i]! * total);
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
    const a = 1 / (1 + sumV[g]! * total) ** 2;
    numerator += a * (sumE[g]! ** 2 - sumE2[g]!);
    denominator += a * pairs;
  }
  const clusterVariance =
    denominator > 0 ? Math.min(Math.max(numerator / denominator, 0), total) : 0;
  return { rowVariance: total - clusterVariance, clusterVariance };
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
