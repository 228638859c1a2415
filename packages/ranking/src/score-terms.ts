import { SCORE_TERMS, type ScoreTerm } from '@waggle/core/contract';
import { type ScoreRankInput, type ScoreRankResult, scoreRankSync } from '@waggle/native';

/** λ of each term of the score; `margin` is the network's share m of the spend. */
export type ScoreWeights = ScoreRankInput['weights'];

/** What keeps one list from being all alike. */
export interface Diversity {
  /** Advertiser of each candidate, int32 [n]. */
  readonly advertiser: Int32Array;
  /** At most so many items of one advertiser; absent = no limit. */
  readonly maxPerAdvertiser?: number | undefined;
  /** Competitor group of each candidate, −1 for none; absent = competitors may stand together. */
  readonly competitorGroup?: Int32Array | undefined;
}

/** Columns of n candidates; see `ScoreRankInput` of @waggle/native for units. */
export type ScoreColumns = Omit<
  ScoreRankInput,
  'nCandidates' | 'k' | 'weights' | 'filter' | 'group' | 'maxPerGroup' | 'separation'
>;

/**
 * The k best candidates with their terms, by the one scoring function that serving and allocation share.
 * Best first, ties to the lower row.
 * @param filter bitmap of allowed candidates, bit r of byte r >>> 3
 * @throws WAGGLE_NATIVE_NAN, WAGGLE_NATIVE_SHAPE; O(n + k·log n), n ≤ 5,000
 */
export function rankCandidates(o: {
  nCandidates: number;
  k: number;
  columns: ScoreColumns;
  weights: ScoreWeights;
  filter?: Uint8Array | undefined;
  diversity?: Diversity | undefined;
}): ScoreRankResult {
  const { columns, diversity } = o;
  return scoreRankSync({
    nCandidates: o.nCandidates,
    k: o.k,
    q: columns.q,
    spend: columns.spend,
    payout: columns.payout,
    fit: columns.fit,
    advertiser: columns.advertiser,
    explore: columns.explore,
    goalUnits: columns.goalUnits,
    frequency: columns.frequency,
    mu: columns.mu,
    omega: columns.omega,
    rho: columns.rho,
    weights: o.weights,
    filter: o.filter,
    group: diversity?.advertiser,
    maxPerGroup: diversity?.maxPerAdvertiser,
    separation: diversity?.competitorGroup,
  });
}

/** The terms of the item at `index` of a result by name; their left-to-right sum is its score. */
export function termsOf(
  result: Pick<ScoreRankResult, 'terms'>,
  index: number,
): Record<ScoreTerm, number> {
  const { terms } = result;
  const at = index * SCORE_TERMS.length;
  // Written out: this runs for every item of every explained answer.
  return {
    margin: terms[at]!,
    fit: terms[at + 1]!,
    advertiser: terms[at + 2]!,
    payout: terms[at + 3]!,
    budget: terms[at + 4]!,
    delivery: terms[at + 5]!,
    fairness: terms[at + 6]!,
    explore: terms[at + 7]!,
    frequency: terms[at + 8]!,
  };
}
