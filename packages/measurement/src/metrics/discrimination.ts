import { areaByRank } from '@waggle/core';
import { type BinomialSample, checkSample, descendingOrder, requireBothClasses } from './sample.js';

/**
 * Area under the ROC curve: the chance that a random success is predicted higher than a random failure,
 * ties counting one half (Mann–Whitney). Counts and weights are masses. O(n log n).
 * @throws WAGGLE_MEASUREMENT_SINGLE_CLASS and what `checkSample` throws
 */
export function areaUnderRoc(sample: BinomialSample): number {
  const checked = checkSample(sample);
  requireBothClasses(checked, 'AUC');
  return areaByRank(checked.probability, checked.positive, checked.negative);
}

/**
 * Area under the precision–recall curve as average precision: Σ (R_k − R_{k−1})·P_k over the distinct
 * predictions in descending order, without interpolation (Davis & Goadrich 2006 show that linear
 * interpolation is too kind). O(n log n).
 * @throws WAGGLE_MEASUREMENT_SINGLE_CLASS when there are no successes or no failures
 */
export function areaUnderPrecisionRecall(sample: BinomialSample): number {
  const checked = checkSample(sample);
  requireBothClasses(checked, 'PR-AUC');
  const { probability, positive, negative } = checked;
  const order = descendingOrder(probability);
  let hits = 0;
  let misses = 0;
  let area = 0;
  for (let start = 0; start < order.length; ) {
    const value = probability[order[start]!]!;
    let groupPositive = 0;
    let end = start;
    for (; end < order.length && probability[order[end]!] === value; end++) {
      groupPositive += positive[order[end]!]!;
      misses += negative[order[end]!]!;
    }
    hits += groupPositive;
    if (groupPositive > 0) area += groupPositive * (hits / (hits + misses));
    start = end;
  }
  return area / checked.totalPositive;
}
