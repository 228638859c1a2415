import { SCORE_TERMS } from '@waggle/core/contract';
import { rankCandidates, type ScoreColumns, type ScoreWeights } from '@waggle/ranking';
import type { BudgetState } from './budget-view.js';
import type { CandidateSet } from './candidates.js';
import {
  countBlocks,
  drawList,
  type ExplorationDraw,
  type ExplorationInput,
  propensityOf,
} from './exploration.js';
import type { RankingRelease } from './ranking-release.js';
import type { ScoredBlock } from './scored-block.js';

export interface DiversityRules {
  /** Competitors do not stand in one answer. */
  readonly separation: boolean;
  /** Undefined = no limit. */
  readonly maxPerAdvertiser: number | undefined;
}

/** The candidates chosen by one draw of the policy, in their order. */
export interface Choice {
  /** Candidates of the set, int32. */
  readonly rows: Int32Array;
  /** Terms of each, whole micros, in the order of SCORE_TERMS; float64 [rows × 9]. */
  readonly terms: Float64Array;
  /** Sum of the terms, float64 [rows]. */
  readonly scores: Float64Array;
  readonly propensities: Float64Array;
  /** p(accepted | offered), float32 [rows]. */
  readonly q: Float32Array;
  readonly explored: boolean;
}

/** Who competes once prices are known. */
export interface Field {
  /** Candidates that passed everything. */
  readonly nEligible: number;
  /** Left out here. */
  readonly belowFloor: number;
  /** Campaign rows that have money, but less than this send would set aside. */
  readonly unaffordable: readonly number[];
}

const NOTHING: readonly number[] = [];

/** Takes out of the set's mask what cannot pay or pays too little. O(n). @param floorMicros least expected payout */
export function compete(
  { mask, campaignRows, n }: CandidateSet,
  { payoutMicros, reserveMicros }: ScoredBlock,
  { available }: BudgetState,
  floorMicros: number,
): Field {
  const { words } = mask;
  let unaffordable: number[] | undefined;
  let belowFloor = 0;
  let nEligible = 0;
  for (let i = 0; i < n; i++) {
    if (((words[i >>> 5]! >>> (i & 31)) & 1) === 0) continue;
    const row = campaignRows[i]!;
    if (available[row]! < reserveMicros[i]!) {
      unaffordable ??= [];
      unaffordable.push(row);
      mask.delete(i);
    } else if (payoutMicros[i]! < floorMicros) {
      belowFloor++;
      mask.delete(i);
    } else {
      nEligible++;
    }
  }
  return { nEligible, belowFloor, unaffordable: unaffordable ?? NOTHING };
}

/**
 * One draw of the policy among what the set's mask holds: ranks, explores with probability ε. O(n + k·log n).
 * @param o.q p(accepted | offered), float32 [n]; read where somebody competes
 */
export function choose(
  release: RankingRelease,
  set: CandidateSet,
  block: ScoredBlock,
  o: {
    nEligible: number;
    q: Float32Array;
    k: number;
    diversity: DiversityRules;
    exploration: ExplorationDraw;
  },
): Choice {
  const { policy } = release;
  const { maskBytes, n } = set;
  const empty = o.nEligible === 0;
  const columns = scoreColumns(set, block, o.q);
  const weights = scoreWeights(release, block);
  const { separation, maxPerAdvertiser } = o.diversity;
  const diverse = separation || maxPerAdvertiser !== undefined;
  const greedy = empty
    ? { rows: new Int32Array(0), terms: new Float64Array(0) }
    : rankCandidates({
        nCandidates: n,
        k: Math.min(o.k, n),
        columns,
        weights,
        filter: maskBytes,
        diversity: diverse
          ? {
              advertiser: set.advertiser,
              maxPerAdvertiser,
              competitorGroup: separation ? set.competitorGroup : undefined,
            }
          : undefined,
      });

  let rows = greedy.rows;
  let { terms } = greedy;
  const { epsilon } = policy;
  let explored = false;
  const propensities = new Float64Array(rows.length).fill(1);
  if (epsilon > 0 && !empty) {
    const { rng, explore } = o.exploration;
    const input = explorationInput(set, o.diversity);
    const present = countBlocks(input);
    if (explore) {
      explored = true;
      rows = drawList(input, o.k, rng);
      terms = termsInOrder(rows, n, columns, weights);
    }
    const out = rows.length === propensities.length ? propensities : new Float64Array(rows.length);
    for (let i = 0; i < rows.length; i++) {
      const row = rows[i]!;
      out[i] = propensityOf({
        epsilon,
        atGreedyRank: greedy.rows[i] === row,
        nBlocks: present,
        blockSize: input.sizes[input.blocks[row]!]!,
        rank: i,
      });
    }
    return finish(out);
  }
  return finish(propensities);

  function finish(chances: Float64Array): Choice {
    const width = SCORE_TERMS.length;
    const scores = new Float64Array(rows.length);
    // Whole micros: a part of a micro means nothing, and whole numbers add up exactly in any order.
    for (let i = 0, at = 0; i < rows.length; i++) {
      let sum = 0;
      for (let t = 0; t < width; t++, at++) {
        const term = Math.round(terms[at]!) + 0;
        terms[at] = term;
        sum += term;
      }
      scores[i] = sum;
    }
    return {
      rows,
      terms,
      scores,
      propensities: chances,
      q: Float32Array.from(rows, (row) => o.q[row]!),
      explored,
    };
  }
}

function scoreColumns(set: CandidateSet, block: ScoredBlock, q: Float32Array): ScoreColumns {
  return {
    q,
    spend: block.spend,
    payout: block.payout,
    fit: set.fit,
    mu: set.mu,
    omega: set.omega,
    goalUnits: block.goalUnits,
    rho: block.rho,
  };
}

function scoreWeights(release: RankingRelease, block: ScoredBlock): ScoreWeights {
  const { take_rate, weights } = release.policy;
  return {
    margin: take_rate,
    fit: (weights.fit_per_mille * block.context.delivered) / 1000,
    advertiser: weights.advertiser,
    payout: weights.payout,
    explore: 0,
  };
}

/** The terms of given candidates in their own order. */
function termsInOrder(
  rows: Int32Array,
  n: number,
  columns: ScoreColumns,
  weights: ScoreWeights,
): Float64Array {
  const filter = new Uint8Array((n + 7) >>> 3);
  for (const row of rows) filter[row >>> 3]! |= 1 << (row & 7);
  const ranked = rankCandidates({ nCandidates: n, k: rows.length, columns, weights, filter });
  const width = SCORE_TERMS.length;
  const out = new Float64Array(rows.length * width);
  ranked.rows.forEach((row, i) => {
    out.set(ranked.terms.subarray(i * width, (i + 1) * width), rows.indexOf(row) * width);
  });
  return out;
}

/** Who may not stand beside whom, as blocks; kept on the set per combination of rules. */
function explorationInput(set: CandidateSet, rules: DiversityRules): ExplorationInput {
  const key = (rules.separation ? 1 : 0) | (rules.maxPerAdvertiser === undefined ? 0 : 2);
  let kept = set.diversityBlocks.get(key);
  if (kept === undefined) {
    // Competitor groups, advertisers and lone candidates are numbered in ranges of their own.
    const names = new Map<number, number>();
    const blocks = Int32Array.from({ length: set.n }, (_, i) => {
      const group = set.competitorGroup[i]!;
      const name =
        rules.separation && group >= 0
          ? -1 - group
          : rules.maxPerAdvertiser !== undefined
            ? set.advertiser[i]!
            : i;
      let block = names.get(name);
      if (block === undefined) {
        block = names.size;
        names.set(name, block);
      }
      return block;
    });
    kept = { blocks, nBlocks: names.size, sizes: new Int32Array(names.size) };
    set.diversityBlocks.set(key, kept);
  }
  return { ...kept, eligible: set.maskBytes, nCandidates: set.n };
}
