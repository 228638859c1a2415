import { isWaggleError } from '@waggle/core';
import { measurementError } from '../errors.js';
import { checkLength, descendingOrder, finite, outOfRange } from './sample.js';

/** One ranked list: higher score first, the lower row winning ties, which is the order Waggle serves. */
export interface RankedList {
  /** [nItems], finite. */
  readonly scores: ArrayLike<number>;
  /** [nItems], ≥ 0; for the binary metrics anything above 0 is relevant. */
  readonly gains: ArrayLike<number>;
  /** What the list counts in `meanOverQueries`, ≥ 0; 1 when absent. Weight 2 means the list twice. */
  readonly weight?: number | undefined;
}

function ranked(
  list: RankedList,
  k: number,
  metric: string,
): { gains: number[]; nRelevant: number; depth: number } {
  const { scores, gains } = list;
  checkLength('gains', gains, scores.length);
  if (!(k >= 1) || (!Number.isInteger(k) && k !== Number.POSITIVE_INFINITY)) {
    throw measurementError(
      'WAGGLE_MEASUREMENT_OUT_OF_RANGE',
      `k is ${k}, allowed is a whole number from 1 or Infinity`,
    );
  }
  let nRelevant = 0;
  for (let i = 0; i < scores.length; i++) {
    finite('scores', scores, i);
    const gain = finite('gains', gains, i);
    if (gain < 0) throw outOfRange('gains', i, gain, 'at least 0');
    if (gain > 0) nRelevant++;
  }
  if (scores.length === 0)
    throw measurementError('WAGGLE_MEASUREMENT_EMPTY', 'the list has no items');
  if (nRelevant === 0) {
    throw measurementError(
      'WAGGLE_MEASUREMENT_NO_RELEVANT',
      `${metric} is undefined: no item has a gain above 0`,
    );
  }
  return {
    gains: Array.from(descendingOrder(scores), (row) => gains[row]!),
    nRelevant,
    depth: Math.min(k, scores.length),
  };
}

const discount = (rank: number): number => 1 / Math.log2(rank + 2);

/**
 * Normalised discounted cumulative gain at k: Σ_{r≤k} g_r / log2(r+1) over the same sum in the ideal order
 * (Järvelin & Kekäläinen 2002; linear gains, pass 2^rel − 1 for the exponential form). In (0, 1]. O(n log n).
 * @param k a whole number ≥ 1, or Infinity for the whole list
 * @throws WAGGLE_MEASUREMENT_NO_RELEVANT, _EMPTY, _SHAPE, _NOT_FINITE, _OUT_OF_RANGE
 */
export function ndcgAtK(list: RankedList, k: number): number {
  const { gains, depth } = ranked(list, k, 'NDCG');
  const ideal = [...gains].sort((a, b) => b - a);
  let dcg = 0;
  let best = 0;
  for (let r = 0; r < depth; r++) {
    dcg += gains[r]! * discount(r);
    best += ideal[r]! * discount(r);
  }
  return dcg / best;
}

/** 1 / rank of the first relevant item, 0 when it lies beyond k. O(n log n). @throws as `ndcgAtK` */
export function reciprocalRank(list: RankedList, k = Number.POSITIVE_INFINITY): number {
  const { gains, depth } = ranked(list, k, 'the reciprocal rank');
  for (let r = 0; r < depth; r++) if (gains[r]! > 0) return 1 / (r + 1);
  return 0;
}

/**
 * Average precision at k: mean of precision at the rank of each relevant item in the first k, over
 * min(relevant, k). O(n log n). @throws as `ndcgAtK`
 */
export function averagePrecisionAtK(list: RankedList, k = Number.POSITIVE_INFINITY): number {
  const { gains, nRelevant, depth } = ranked(list, k, 'average precision');
  let hits = 0;
  let sum = 0;
  for (let r = 0; r < depth; r++) {
    if (gains[r]! > 0) {
      hits++;
      sum += hits / (r + 1);
    }
  }
  return sum / Math.min(nRelevant, k);
}

/** Share of the first k places that hold a relevant item; a list shorter than k leaves places empty. */
export function precisionAtK(list: RankedList, k: number): number {
  const { gains, depth } = ranked(list, k, 'precision');
  return hitsIn(gains, depth) / (k === Number.POSITIVE_INFINITY ? depth : k);
}

/** Share of the relevant items that stand in the first k places. */
export function recallAtK(list: RankedList, k: number): number {
  const { gains, nRelevant, depth } = ranked(list, k, 'recall');
  return hitsIn(gains, depth) / nRelevant;
}

function hitsIn(gains: readonly number[], depth: number): number {
  let hits = 0;
  for (let r = 0; r < depth; r++) if (gains[r]! > 0) hits++;
  return hits;
}

/**
 * Weighted mean of a metric over many lists (MRR, MAP, mean NDCG, mean recall@k). Lists without a relevant item are left
 * out and counted, since any value given to them would be a choice of the metric and not of the ranking.
 * @throws WAGGLE_MEASUREMENT_NO_RELEVANT when no list of weight has a relevant item, _OUT_OF_RANGE for a negative weight
 */
export function meanOverQueries(
  lists: Iterable<RankedList>,
  metric: (list: RankedList) => number,
): { mean: number; nLists: number; nSkipped: number } {
  let sum = 0;
  let mass = 0;
  let nLists = 0;
  let nSkipped = 0;
  for (const list of lists) {
    const { weight = 1 } = list;
    if (!(weight >= 0 && Number.isFinite(weight))) {
      throw outOfRange('weight', nLists + nSkipped, weight, 'at least 0');
    }
    if (weight === 0) continue;
    try {
      sum += weight * metric(list);
      mass += weight;
      nLists++;
    } catch (thrown) {
      if (!isWaggleError(thrown) || thrown.code !== 'WAGGLE_MEASUREMENT_NO_RELEVANT') throw thrown;
      nSkipped++;
    }
  }
  if (nLists === 0) {
    throw measurementError(
      'WAGGLE_MEASUREMENT_NO_RELEVANT',
      `none of ${nSkipped} lists has a relevant item`,
    );
  }
  return { mean: sum / mass, nLists, nSkipped };
}
