/** Quantile by linear interpolation between order statistics. @throws RangeError without values */
export function quantile(values: readonly number[], p: number): number {
  if (values.length === 0) throw new RangeError('no values');
  // In order, −0 before 0.
  const sorted = Float64Array.from(values).sort();
  const at = (sorted.length - 1) * p;
  const low = sorted[Math.floor(at)]!;
  const high = sorted[Math.ceil(at)]!;
  if (low === high) return low;
  // The difference rounds, so that the sum may come to lie an ulp beyond.
  return Math.min(high, low + (high - low) * (at - Math.floor(at)));
}

export const median = (values: readonly number[]): number => quantile(values, 0.5);

/** Median and interquartile range. */
export function summarize(values: readonly number[]): { value: number; runs: number; iqr: number } {
  return {
    value: median(values),
    runs: values.length,
    iqr: quantile(values, 0.75) - quantile(values, 0.25),
  };
}

/**
 * How many times as long the first took as the second, round by round: both of a round met the same moment of the
 * machine, so the median over rounds is steadier than the ratio of two medians.
 * @throws RangeError when the rounds do not pair up
 */
export function pairedRatios(a: readonly number[], b: readonly number[]): number[] {
  if (a.length !== b.length || a.length === 0) {
    throw new RangeError(`${a.length} and ${b.length} runs do not pair up`);
  }
  return a.map((one, i) => one / b[i]!);
}

/** Share of the true nearest rows that were found; both int32 [nQueries × k], −1 pads. */
export function recall(found: Int32Array, truth: Int32Array, k: number): number {
  if (found.length !== truth.length || truth.length % k !== 0) {
    throw new RangeError(`${found.length} and ${truth.length} rows with k = ${k}`);
  }
  let hits = 0;
  let wanted = 0;
  for (let at = 0; at < truth.length; at += k) {
    const real = new Set(truth.subarray(at, at + k));
    real.delete(-1);
    wanted += real.size;
    for (const row of new Set(found.subarray(at, at + k))) if (real.has(row)) hits++;
  }
  return wanted === 0 ? 1 : hits / wanted;
}
