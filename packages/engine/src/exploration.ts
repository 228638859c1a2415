import { hash32, Rng } from '@waggle/core';

/**
 * ε-greedy over whole lists with exact propensities. With probability 1 − ε the greedy list is served. With
 * probability ε a list is drawn that cannot break the diversity rules: candidates fall into blocks of which
 * one may stand in a list (a competitor group where separation is on, an advertiser where it is limited, else
 * the candidate itself); blocks are drawn uniformly without replacement and a member uniformly within each.
 * By symmetry
 *
 *   P(i at rank r) = (1 − ε)·[greedy has i at r] + ε / (B·|block(i)|)      for r ≤ min(k, B)
 *
 * with B non-empty blocks; without diversity rules this is (1 − ε)·[…] + ε/n. Every eligible candidate keeps
 * a positive probability, which is what off-policy evaluation needs.
 */

/** The seed of a decision: the same request on the same release explores in the same way. */
export function decisionSeed(requestId: string, releaseId: string): number {
  return hash32(requestId, hash32(releaseId));
}

export interface ExplorationInput {
  /** Candidates in play: bit r of byte r >>> 3. */
  readonly eligible: Uint8Array;
  readonly nCandidates: number;
  /** Block of each candidate, int32 [nCandidates] in [0, nBlocks). */
  readonly blocks: Int32Array;
  readonly nBlocks: number;
  /** Scratch int32 [nBlocks]; left holding the size of each block. */
  readonly sizes: Int32Array;
}

/** Counts the eligible members of each block into `sizes`. @returns number of non-empty blocks; O(n) */
export function countBlocks(input: ExplorationInput): number {
  const { eligible, nCandidates, blocks, sizes } = input;
  sizes.fill(0);
  let present = 0;
  for (let r = 0; r < nCandidates; r++) {
    if (((eligible[r >>> 3]! >>> (r & 7)) & 1) === 0) continue;
    if (sizes[blocks[r]!]!++ === 0) present++;
  }
  return present;
}

export interface ExplorationDraw {
  /** For what follows. */
  readonly rng: Rng;
  readonly explore: boolean;
}

/** Whether this draw explores. `stream` tells a decision's slots apart. */
export function explorationDraw(seed: number, stream: number, epsilon: number): ExplorationDraw {
  const rng = new Rng(seed, stream);
  return { rng, explore: epsilon > 0 && rng.uniform() < epsilon };
}

/**
 * A uniformly drawn list as described above. `sizes` must hold the block sizes.
 * @returns int32, min(k, B) candidate rows in their order; O(n + k·n)
 */
export function drawList(input: ExplorationInput, k: number, rng: Rng): Int32Array {
  const { eligible, nCandidates, blocks, nBlocks, sizes } = input;
  const present: number[] = [];
  for (let b = 0; b < nBlocks; b++) if (sizes[b]! > 0) present.push(b);
  const length = Math.min(k, present.length);
  const rows = new Int32Array(length);
  for (let i = 0; i < length; i++) {
    const j = i + rng.integer(present.length - i);
    const block = present[j]!;
    present[j] = present[i]!;
    let nth = rng.integer(sizes[block]!);
    for (let r = 0; r < nCandidates; r++) {
      if (blocks[r] !== block || ((eligible[r >>> 3]! >>> (r & 7)) & 1) === 0) continue;
      if (nth-- === 0) {
        rows[i] = r;
        break;
      }
    }
  }
  return rows;
}

/**
 * P(candidate at rank), see above.
 * @param atGreedyRank whether the greedy list has it at this very rank
 * @param rank 0-based; ranks past B are reached by the greedy list alone
 */
export function propensityOf(o: {
  epsilon: number;
  atGreedyRank: boolean;
  nBlocks: number;
  blockSize: number;
  rank: number;
}): number {
  const greedy = o.atGreedyRank ? 1 - o.epsilon : 0;
  return o.rank < o.nBlocks ? greedy + o.epsilon / (o.nBlocks * o.blockSize) : greedy;
}
