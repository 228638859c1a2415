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
