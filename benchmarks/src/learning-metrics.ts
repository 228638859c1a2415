/** Mean log-loss of probabilities against labels 0 and 1; probabilities are kept 1e-12 away from certainty. */
export function logLossOf(p: Float32Array, y: Float32Array): { readonly mean: number } {
  let sum = 0;
  for (let r = 0; r < y.length; r++) {
    const q = Math.min(Math.max(p[r]!, 1e-12), 1 - 1e-12);
    sum -= y[r] === 1 ? Math.log(q) : Math.log1p(-q);
  }
  return { mean: sum / y.length };
}

/** Chance that a random row of label 1 scores above one of label 0, ties half (Mann–Whitney); O(n log n). */
export function areaUnderRoc(p: Float32Array, y: Float32Array): number {
  const order = Uint32Array.from({ length: p.length }, (_, i) => i).sort((a, b) => p[a]! - p[b]!);
  let rankSum = 0;
  let positives = 0;
  for (let from = 0; from < order.length; ) {
    let to = from;
    let here = 0;
    while (to < order.length && p[order[to]!] === p[order[from]!]) here += y[order[to++]!]!;
    rankSum += here * ((from + 1 + to) / 2);
    positives += here;
    from = to;
  }
  const negatives = p.length - positives;
  return (rankSum - (positives * (positives + 1)) / 2) / (positives * negatives);
}

/** Mean of a − b over pairs, and its standard error. @throws RangeError when they do not pair up */
export function pairedDifference(
  a: readonly number[],
  b: readonly number[],
): { readonly difference: number; readonly standardError: number } {
  if (a.length !== b.length || a.length < 2) {
    throw new RangeError(`${a.length} and ${b.length} values do not pair up`);
  }
  const gaps = a.map((one, i) => one - b[i]!);
  const difference = gaps.reduce((sum, gap) => sum + gap, 0) / gaps.length;
  const variance = gaps.reduce((sum, gap) => sum + (gap - difference) ** 2, 0) / (gaps.length - 1);
  return { difference, standardError: Math.sqrt(variance / gaps.length) };
}
