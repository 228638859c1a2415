/**
 * Spend and payout of a send are uncertain: a count scatters around its mean, and the mean itself is only
 * predicted. With clicks K | rate ~ Poisson(m·R) and a log-normal factor R of mean 1 and log-variance σ²
 * (model error and send noise together),
 *
 *   Var K / m² = 1/m + e^{σ²} − 1          (law of total variance; the overdispersed counts of domain §3)
 *
 * and the spend is summarised by the log-normal of that mean and variance: s² = ln(1 + Var/m²),
 * quantile(z) = mean · exp(z·s − s²/2). Closed form, monotone in z, never negative, and exact as σ² dominates;
 * below about one expected click the true distribution is mostly zero and this one only ranks.
 */

/** Standard normal quantile of 0.8. */
export const Z80 = 0.8416212335729143;

/** Relative variance of a click count. @param meanClicks m > 0 @param sigma σ ≥ 0 on the log scale */
export function clickRelativeVariance(meanClicks: number, sigma: number): number {
  return 1 / meanClicks + Math.expm1(sigma * sigma);
}

/** Relative variance of an open count, whose counting noise is negligible. */
export function openRelativeVariance(sigma: number): number {
  return Math.expm1(sigma * sigma);
}

/**
 * Quantile of the log-normal with a given mean and relative variance.
 * @param z standard normal quantile, 0 for the median; O(1)
 */
export function logNormalQuantile(mean: number, relativeVariance: number, z: number): number {
  if (!(mean > 0)) return 0;
  const variance = Math.log1p(relativeVariance);
  return mean * Math.exp(z * Math.sqrt(variance) - variance / 2);
}

export interface Interval {
  readonly p20: number;
  readonly p50: number;
  readonly p80: number;
}

/** P20, P50 and P80 of the log-normal with a given mean and relative variance; p20 ≤ p50 ≤ p80. */
export function logNormalInterval(mean: number, relativeVariance: number): Interval {
  if (!(mean > 0)) return { p20: 0, p50: 0, p80: 0 };
  const variance = Math.log1p(relativeVariance);
  const spread = Math.exp(Z80 * Math.sqrt(variance));
  const p50 = mean * Math.exp(-variance / 2);
  return { p20: p50 / spread, p50, p80: p50 * spread };
}
