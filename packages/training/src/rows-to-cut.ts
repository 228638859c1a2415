import { DAY_MS } from '@waggle/core';
import type { LinearModelName } from '@waggle/ranking';
import {
  allRows,
  LABEL_HORIZON_MS,
  type SplitOptions,
  selectRows,
  type TrainingDataset,
} from './dataset.js';

/** Outcomes of acceptances are final when their issues are due, which most are within a week. */
const SENT_HORIZON_MS = 7 * DAY_MS;

export interface CutOptions {
  /** Absent = the last decision. */
  readonly asOfMs?: number;
  readonly split?: SplitOptions;
}

/**
 * The rows of a model that `splitByTime` cuts, and how: whatever is estimated for the model from its training slice must come from
 * the same cut, or it has seen rows that calibrate and gate. Offers count when they are old enough for every answer to have come.
 */
export function rowsToCut(
  name: LinearModelName,
  dataset: TrainingDataset,
  { asOfMs, split = {} }: CutOptions,
): { readonly rows: TrainingDataset; readonly split: SplitOptions } {
  if (name === 'sent') {
    return { rows: dataset, split: { labelHorizonMs: SENT_HORIZON_MS, ...split } };
  }
  if (name === 'pctr') return { rows: dataset, split };
  const { decisionTsMs } = dataset;
  const nowMs = asOfMs ?? decisionTsMs.reduce((latest, ts) => Math.max(latest, ts), 0);
  const ripeUntilMs = nowMs - (split.labelHorizonMs ?? LABEL_HORIZON_MS);
  const ripe = allRows(dataset.nRows).filter((row) => decisionTsMs[row]! <= ripeUntilMs);
  return { rows: selectRows(dataset, ripe), split };
}
