import type { RankItemBody, RankResponseBody } from '@waggle/core/contract';

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
export interface KeptAnswer<Chosen = unknown> {
  chosen?: Chosen;
  /** By level of explanation. */
  readonly items: { none?: KeptItems; summary?: KeptItems };
  logged?: LoggedTexts;
}
