import type { BudgetState } from './budget-view.js';

/** All that a greedy draw among a block's candidates depends on, when the request restricts nothing. */
export interface DrawQuestion {
  readonly budget: BudgetState;
  /** Of the budget: money moves under the same object. */
  readonly version: number;
  readonly k: number;
  readonly floorMicros: number;
  readonly separation: boolean;
  readonly maxPerAdvertiser: number | undefined;
}

/** A draw with the question it answers; `Drawn` is the stages' own, which this file need not know. */
export interface KeptDraw<Drawn = unknown> {
  readonly question: DrawQuestion;
  readonly drawn: Drawn;
}

/** Longer lists are rare and their texts large: they are drawn each time. */
export const MAX_KEPT_K = 20;
/** Draws kept per block: their texts are some 10 kB each. */
const DRAWS_PER_BLOCK = 2;
/** What they add to a block in the units of `CandidateCache.charge`. */
export const KEPT_DRAW_CELLS = 400;

export function findDraw<Drawn>(
  draws: readonly KeptDraw<Drawn>[],
  wanted: DrawQuestion,
): Drawn | undefined {
  for (const { question, drawn } of draws) {
    if (
      question.budget === wanted.budget &&
      question.version === wanted.version &&
      question.k === wanted.k &&
      question.floorMicros === wanted.floorMicros &&
      question.separation === wanted.separation &&
      question.maxPerAdvertiser === wanted.maxPerAdvertiser
    ) {
      return drawn;
    }
  }
  return undefined;
}

export function keepDraw<Drawn>(
  draws: KeptDraw<Drawn>[],
  question: DrawQuestion,
  drawn: Drawn,
): void {
  draws.unshift({ question, drawn });
  if (draws.length > DRAWS_PER_BLOCK) draws.pop();
}
