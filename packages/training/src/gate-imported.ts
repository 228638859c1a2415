import { silentLogger, throwIfAborted } from '@waggle/core';
import { PRIOR_FEATURE, SET_OF_MODEL, sigmoid } from '@waggle/ranking';
import {
  allRows,
  checkDataset,
  splitByTime,
  type TrainingDataset,
  takeCodes,
  takeFeatures,
} from './dataset.js';
import { type GateCheck, type GateReport, runGate } from './gate.js';
import { rowsToCut } from './rows-to-cut.js';
import { type SliceOfModel, sliceTable } from './suite/slice-table.js';
import { firstSeen } from './suite/suite-model.js';
import { column, judge, leakCheck, slice, type TrainOptions } from './train.js';

/** A model that was trained elsewhere, as its gate sees it. */
export interface ImportedScores {
  /** What the registry calls it. */
  readonly name: string;
  readonly decision: 'pctr' | 'accept';
  /** End of the data that it learned from. */
  readonly learnedUntilMs: number;
  /** Probabilities of feature rows. @param x float32 [nRows × nFeatures] */
  score(x: Float32Array, nRows: number): Promise<ArrayLike<number>>;
}

export interface ImportedVerdict {
  readonly gate: GateReport;
  readonly slices: readonly SliceOfModel[];
}

/** Rows that are scored at a time. */
const ROWS_AT_ONCE = 8_192;

/**
 * Holds a model that was trained elsewhere against the prior on rows that were decided after the data it learned from ended, by
 * the checks that our own models are released on. Pure. Rows that are too few are a failed gate.
 * @throws WAGGLE_TRAINING_SHAPE, _NOT_FINITE, _LABEL, _TIME for a dataset that is wrong; what `score` throws; WAGGLE_ABORTED
 */
export async function gateImported(
  { name, decision, learnedUntilMs, score }: ImportedScores,
  dataset: TrainingDataset,
  options: TrainOptions,
): Promise<ImportedVerdict> {
  const { featureSet, seed, signal, logger = silentLogger } = options;
  checkDataset(dataset, featureSet, options.asOfMs);
  const { rows } = rowsToCut(decision, dataset, options);
  const numbers = allRows(rows.nRows).filter((row) => rows.decisionTsMs[row]! >= learnedUntilMs);
  const later = slice(rows, numbers);
  const checks: GateCheck[] = [
    {
      name: 'later_rows',
      passed: later.nRows > 0,
      value: later.nRows,
      limit: 1,
      explanation: `${later.nRows} of ${rows.nRows} rows were decided after ${new Date(learnedUntilMs).toISOString()}, up to which it learned`,
    },
    leakCheck(featureSet.names, later).check,
  ];
  const model = new Float64Array(later.nRows);
  for (let from = 0; from < later.nRows; from += ROWS_AT_ONCE) {
    throwIfAborted(signal);
    const part = numbers.subarray(from, from + ROWS_AT_ONCE);
    model.set(await score(takeFeatures(rows, part), part.length), from);
  }
  // Of a young row only some of the outcomes have arrived.
  for (let i = 0; i < model.length; i++) model[i]! *= later.maturity[i]!;
  const prior = column(later, featureSet.names.indexOf(PRIOR_FEATURE[SET_OF_MODEL[decision]])).map(
    (logit, i) => sigmoid(logit) * later.maturity[i]!,
  );
  const { successes, trials, clusters: publications, decisionTsMs } = later;
  const seen = {
    publicationFirstMs: firstSeen(rows.publication, rows.decisionTsMs, numbers),
    campaignFirstMs: firstSeen(rows.campaign, rows.decisionTsMs, numbers),
  };
  const gate = runGate(
    {
      ...{ model, prior, successes, trials, publications, decisionTsMs },
      campaigns: takeCodes(rows.campaign, numbers),
      ...seen,
    },
    {
      ...{ name, seed, earlierChecks: checks, otherwise: 'unreleased' },
      ...(options.bootstrapReplicates !== undefined && {
        nReplicates: options.bootstrapReplicates,
      }),
    },
  );
  logger.info({ model: name, passed: gate.passed }, gate.summary);
  const judged = { ...judge(later, model, prior), publications, decisionTsMs, ...seen };
  return { gate, slices: sliceTable(judged, seed) };
}

/**
 * Until when rows may teach a model that is trained elsewhere, and from when on they are left for its gate: the same cut as of our
 * own models. Labels of earlier rows are final when the gate's begin.
 */
export function learnableUntil(decisionTsMs: Float64Array): {
  readonly learnUntilMs: number;
  readonly gateFromMs: number;
} {
  const { gateFromMs, gapMs } = splitByTime(decisionTsMs);
  return { learnUntilMs: gateFromMs - gapMs, gateFromMs };
}
