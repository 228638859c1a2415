/**
 * Wilson's score interval for a rate seen in n trials (1927): inside [0, 1], and sensible at 0 and 1 where the
 * normal approximation has no width.
 * @param n trials, need not be whole
 * @param z standard normal quantile of the upper limit
 */
export function wilsonInterval(
  rate: number,
  n: number,
  z: number,
): { lower: number; upper: number } {
  const shrink = 1 + (z * z) / n;
  const center = (rate + (z * z) / (2 * n)) / shrink;
  const half = (z * Math.sqrt((rate * (1 - rate)) / n + (z * z) / (4 * n * n))) / shrink;
  return { lower: Math.max(0, center - half), upper: Math.min(1, center + half) };
}

/**
 * Inverse of the standard normal distribution function, p in (0, 1): Acklam's rational approximation, relative error
 * below 1.2e-9.
 */
export function normalQuantile(p: number): number {
  if (p > 0.5) return -normalQuantile(1 - p);
  if (p < 0.02425) {
    const q = Math.sqrt(-2 * Math.log(p));
    return (
      (((((-7.784894002430293e-3 * q - 3.223964580411365e-1) * q - 2.400758277161838) * q -
        2.549732539343734) *
        q +
        4.374664141464968) *
        q +
        2.938163982698783) /
      ((((7.784695709041462e-3 * q + 3.224671290700398e-1) * q + 2.445134137142996) * q +
        3.754408661907416) *
        q +
        1)
    );
  }
  const q = p - 0.5;
  const r = q * q;
  return (
    ((((((-3.969683028665376e1 * r + 2.209460984245205e2) * r - 2.759285104469687e2) * r +
      1.38357751867269e2) *
      r -
      3.066479806614716e1) *
      r +
      2.506628277459239) *
      q) /
    (((((-5.447609879822406e1 * r + 1.615858368580409e2) * r - 1.556989798598866e2) * r +
      6.680131188771972e1) *
      r -
      1.328068155288572e1) *
      r +
      1)
  );
}

/** Above this many degrees of freedom the expansion in 1/df is right to nine digits. */
const MANY_FREEDOMS = 200;

/**
 * Inverse of Student's distribution function with whole degrees of freedom, p in (0, 1). Bisection of the finite sums of Abramowitz
 * & Stegun 26.7.3–4, or their expansion 26.7.5 for many degrees; relative error below 1e-8. O(df).
 */
export function studentQuantile(p: number, df: number): number {
  if (p < 0.5) return -studentQuantile(1 - p, df);
  if (df > MANY_FREEDOMS) {
    const z = normalQuantile(p);
    const z2 = z * z;
    const g1 = (z * (z2 + 1)) / 4;
    const g2 = (z * ((5 * z2 + 16) * z2 + 3)) / 96;
    const g3 = (z * (((3 * z2 + 19) * z2 + 17) * z2 - 15)) / 384;
    return z + (g1 + (g2 + g3 / df) / df) / df;
  }
  // By the angle θ = atan(t/√df), whose tangent has no bound.
  let low = 0;
  let high = Math.PI / 2;
  for (let round = 0; round < 60; round++) {
    const middle = (low + high) / 2;
    if (massWithin(middle, df) < 2 * p - 1) low = middle;
    else high = middle;
  }
  return Math.sqrt(df) * Math.tan((low + high) / 2);
}

/** Mass of Student's distribution between −t and t, θ = atan(t/√df). */
function massWithin(theta: number, df: number): number {
  const cos = Math.cos(theta);
  const odd = df % 2;
  let term = odd === 1 ? cos : 1;
  let sum = df === 1 ? 0 : term;
  for (let k = 2 + odd; k <= df - 2; k += 2) {
    term *= ((k - 1) / k) * cos * cos;
    sum += term;
  }
  const mass = Math.sin(theta) * sum;
  return odd === 1 ? (2 / Math.PI) * (theta + mass) : mass;
}
