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
