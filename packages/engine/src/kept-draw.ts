import type { RankItemBody, RankResponseBody } from '@waggle/core/contract';
import type { BudgetState } from './budget-view.js';
import type { ChosenItem, DrawMoney } from './decision.js';
import type { Drawn } from './stages.js';

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

export interface KeptDraw {
  readonly question: DrawQuestion;
  readonly drawn: Drawn;
}

/** Items of an answer, frozen because answers share them, and their JSON. */
export interface KeptItems {
  readonly items: readonly RankItemBody[];
  readonly json: string;
  readonly filtered: RankResponseBody['filtered'];
  readonly filteredJson: string;
  readonly versions: RankResponseBody['versions'];
  readonly versionsJson: string;
}

/** Columns of the decision log, and what they look like as strings within a JSON document. */
export interface LoggedTexts {
  readonly items: string;
  readonly itemsQuoted: string;
  readonly filtered: string;
  readonly filteredQuoted: string;
}

/** The parts of `offers` answers that follow from the draw alone, filled in as they are first needed. */
export interface KeptAnswer {
  chosen?: { readonly items: readonly ChosenItem[]; readonly draws: readonly DrawMoney[] };
  /** By level of explanation. */
  readonly items: { none?: KeptItems; summary?: KeptItems };
  logged?: LoggedTexts;
}

/** Longer lists are rare and their texts large: they are drawn each time. */
export const MAX_KEPT_K = 20;
/** Draws kept per block: their texts are some 10 kB each. */
const DRAWS_PER_BLOCK = 2;
/** What they add to a block in the units of `CandidateCache.charge`. */
export const KEPT_DRAW_CELLS = 400;

export function findDraw(draws: readonly KeptDraw[], wanted: DrawQuestion): Drawn | undefined {
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

export function keepDraw(draws: KeptDraw[], question: DrawQuestion, drawn: Drawn): void {
  draws.unshift({ question, drawn });
  if (draws.length > DRAWS_PER_BLOCK) draws.pop();
}
