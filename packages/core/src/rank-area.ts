/**
 * Area under the ROC curve of weighted two-class data: the chance that a random positive scores higher than a
 * random negative, ties counting one half (Mann & Whitney 1947).
 * @param scores [n], no NaN
 * @param positives,negatives [n] mass of each class in a row, ≥ 0: counts, or counts times weights
 * @returns 0 … 1; NaN when either class has no mass. O(n log n)
 */
export function areaByRank(
  scores: ArrayLike<number>,
  positives: ArrayLike<number>,
  negatives: ArrayLike<number>,
): number {
  const order = Int32Array.from({ length: scores.length }, (_, i) => i).sort(
    (a, b) => scores[a]! - scores[b]!,
  );
  let positive = 0;
  let negativeBelow = 0;
  let won = 0;
  for (let i = 0; i < order.length; ) {
    const score = scores[order[i]!]!;
    let tiedPositive = 0;
    let tiedNegative = 0;
    for (; i < order.length && scores[order[i]!] === score; i++) {
      tiedPositive += positives[order[i]!]!;
      tiedNegative += negatives[order[i]!]!;
    }
    won += tiedPositive * (negativeBelow + tiedNegative / 2);
    positive += tiedPositive;
    negativeBelow += tiedNegative;
  }
  return positive > 0 && negativeBelow > 0 ? won / (positive * negativeBelow) : Number.NaN;
}
