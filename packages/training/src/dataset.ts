import { DAY_MS, type StringColumn, stringAt } from '@waggle/core';
import type { Dataset } from '@waggle/features';
import type { FeatureSetShape } from '@waggle/ranking';
import { trainingError } from './errors.js';

/** Clicks count for 72 h after the send (domain §1.1); a label is final that long after its decision. */
export const LABEL_HORIZON_MS = 3 * DAY_MS;

/**
 * What a model learns from: one row per decision, as known at some time; `buildDataset` of @waggle/features makes
 * it. Which features' parameters and embeddings it was built with travels along into the model's lineage.
 */
export type TrainingDataset = Pick<
  Dataset,
  | 'nRows'
  | 'x'
  | 'featureNames'
  | 'decisionTsMs'
  | 'successes'
  | 'trials'
  | 'maturity'
  | 'publication'
  | 'campaign'
  | 'creative'
  | 'rowIds'
> &
  Partial<Pick<Dataset, 'fingerprint' | 'params' | 'embeddingModel'>>;

/**
 * Checks a dataset against its feature set, so that nothing below has to. O(nRows·nFeatures).
 * @param asOfMs when given, no decision may be later
 * @throws WAGGLE_TRAINING_SHAPE, _NOT_FINITE (feature and row named), _LABEL, _TIME, _DUPLICATE
 */
export function checkDataset(
  dataset: TrainingDataset,
  featureSet: FeatureSetShape,
  asOfMs = Number.POSITIVE_INFINITY,
): void {
  const { nRows, x, featureNames, decisionTsMs, successes, trials, maturity } = dataset;
  const nFeatures = featureNames.length;
  const shape = (message: string) => trainingError('WAGGLE_TRAINING_SHAPE', message);
  if (!Number.isSafeInteger(nRows) || nRows < 0) throw shape(`nRows is ${nRows}`);
  if (dataset.fingerprint !== undefined && dataset.fingerprint !== featureSet.fingerprint) {
    throw shape(
      `the dataset was built with ${dataset.fingerprint}, the model is for ${featureSet.fingerprint}`,
    );
  }
  if (
    nFeatures !== featureSet.names.length ||
    featureNames.some((n, i) => n !== featureSet.names[i])
  ) {
    throw shape(
      `the dataset's features are not those of feature set ${featureSet.name} (${featureSet.fingerprint})`,
    );
  }
  if (x.length !== nRows * nFeatures) {
    throw shape(`${x.length} feature values for ${nRows} rows of ${nFeatures}`);
  }
  const lengths = {
    decisionTsMs: decisionTsMs.length,
    successes: successes.length,
    trials: trials.length,
    maturity: maturity.length,
    publication: dataset.publication.codes.length,
    campaign: dataset.campaign.codes.length,
    creative: dataset.creative.codes.length,
    rowIds: dataset.rowIds.codes.length,
  };
  for (const [name, length] of Object.entries(lengths)) {
    if (length !== nRows) throw shape(`${name} has ${length} rows where ${nRows} are expected`);
  }
  /** Of a row id, the row it stood in plus one. */
  const rowOfId = new Uint32Array(dataset.rowIds.dictionary.length);
  for (let i = 0; i < nRows; i++) {
    const id = dataset.rowIds.codes[i]!;
    const before = rowOfId[id]! - 1;
    if (before >= 0) {
      throw trainingError(
        'WAGGLE_TRAINING_DUPLICATE',
        `rows ${before} and ${i} are the same decision, ${stringAt(dataset.rowIds, i)}`,
        { details: { row: i, before } },
      );
    }
    rowOfId[id] = i + 1;
    const ts = decisionTsMs[i]!;
    const s = successes[i]!;
    const n = trials[i]!;
    const f = maturity[i]!;
    if (!Number.isFinite(ts)) {
      throw trainingError('WAGGLE_TRAINING_NOT_FINITE', `decisionTsMs[${i}] is ${ts}`, {
        details: { row: i },
      });
    }
    if (ts > asOfMs) {
      throw trainingError(
        'WAGGLE_TRAINING_TIME',
        `row ${i} (${stringAt(dataset.rowIds, i)}) was decided at ${new Date(ts).toISOString()}, after ${new Date(asOfMs).toISOString()}`,
        { details: { row: i } },
      );
    }
    if (!(n >= 0 && Number.isFinite(n)) || !(s >= 0 && s <= n)) {
      throw trainingError(
        'WAGGLE_TRAINING_LABEL',
        `row ${i} (${stringAt(dataset.rowIds, i)}) has ${s} successes of ${n} trials`,
        { details: { row: i } },
      );
    }
    if (!(f > 0 && f <= 1)) {
      throw trainingError(
        'WAGGLE_TRAINING_LABEL',
        `row ${i} (${stringAt(dataset.rowIds, i)}) has maturity ${f}, allowed is above 0 up to 1`,
        {
          details: { row: i },
        },
      );
    }
  }
  for (let i = 0; i < x.length; i++) {
    if (!Number.isFinite(x[i])) {
      const row = Math.floor(i / nFeatures);
      const feature = featureNames[i % nFeatures]!;
      throw trainingError(
        'WAGGLE_TRAINING_NOT_FINITE',
        `feature ${feature} is ${x[i]} in row ${row} (${stringAt(dataset.rowIds, row)})`,
        {
          details: { feature, row },
        },
      );
    }
  }
}

export interface SplitOptions {
  /** Shares of the rows in time order; 0.6 / 0.15, the rest gates. */
  readonly trainShare?: number;
  readonly calibrateShare?: number;
  /** How long a label takes to be final; 72 h. */
  readonly labelHorizonMs?: number;
  /**
   * Decisions of a window's first days are left out: no outcome was known yet, so their histories, and the prior
   * made of them, are unlike those of any later decision. Five days, at most 40 % of the time before the gate.
   */
  readonly burnInMs?: number;
}

export interface TimeSplit {
  /** Row numbers, each ascending in time. */
  readonly train: Uint32Array;
  readonly calibrate: Uint32Array;
  readonly gate: Uint32Array;
  readonly calibrateFromMs: number;
  readonly gateFromMs: number;
  /** The gap that was kept before the gate's slice. */
  readonly gapMs: number;
  /** Rows that fell into the gap. */
  readonly nGapRows: number;
  /** Rows of the first days, before histories meant anything. */
  readonly nBurnInRows: number;
}

/** The gap may take this share of the window; below ten label horizons it shrinks rather than eat the data. */
const MAX_GAP_SHARE = 0.1;
const BURN_IN_MS = 5 * DAY_MS;
const MAX_BURN_IN_SHARE = 0.4;

/**
 * Cuts rows into train, calibrate and gate by decision time, each strictly later than the one before. Rows whose
 * labels were not final when the gate's slice began are left out of the other two, since a model made then
 * could not have seen them. In windows shorter than ten label horizons the gap is a tenth of the window (`gapMs`
 * says so), and never more than half of the time before the gate. Rows of equal time stay together. O(n log n).
 * Slices may come out empty; callers look.
 */
export function splitByTime(
  decisionTsMs: Float64Array,
  rows: Uint32Array = allRows(decisionTsMs.length),
  options: SplitOptions = {},
): TimeSplit {
  const {
    trainShare = 0.6,
    calibrateShare = 0.15,
    labelHorizonMs = LABEL_HORIZON_MS,
    burnInMs = BURN_IN_MS,
  } = options;
  if (!(trainShare > 0 && calibrateShare >= 0 && trainShare + calibrateShare < 1)) {
    throw trainingError(
      'WAGGLE_TRAINING_SHAPE',
      `shares ${trainShare} and ${calibrateShare} leave nothing to gate on`,
    );
  }
  const order = rows.slice().sort((a, b) => decisionTsMs[a]! - decisionTsMs[b]! || a - b);
  const empty = new Uint32Array(0);
  if (order.length === 0) {
    return {
      train: empty,
      calibrate: empty,
      gate: empty,
      calibrateFromMs: Number.NaN,
      gateFromMs: Number.NaN,
      gapMs: 0,
      nGapRows: 0,
      nBurnInRows: 0,
    };
  }
  const timeAt = (i: number): number => decisionTsMs[order[Math.min(i, order.length - 1)]!]!;
  const spanMs = timeAt(order.length - 1) - timeAt(0);
  const gateFromMs = timeAt(Math.floor(order.length * (trainShare + calibrateShare)));
  const gapMs = Math.min(labelHorizonMs, spanMs * MAX_GAP_SHARE, (gateFromMs - timeAt(0)) / 2);
  const gate = order.filter((row) => decisionTsMs[row]! >= gateFromMs);
  const finalBeforeMs = gateFromMs - gapMs;
  const burnInEndMs =
    timeAt(0) + Math.min(burnInMs, Math.max(finalBeforeMs - timeAt(0), 0) * MAX_BURN_IN_SHARE);
  const isBurnIn = (row: number): boolean => decisionTsMs[row]! < burnInEndMs;
  const final = order.filter((row) => decisionTsMs[row]! < finalBeforeMs && !isBurnIn(row));
  const nBurnInRows = order.filter(
    (row) => isBurnIn(row) && decisionTsMs[row]! < finalBeforeMs,
  ).length;
  // Shares of what is left, so that the gap does not come out of the calibration slice alone.
  const cut = Math.floor((final.length * trainShare) / (trainShare + calibrateShare));
  const calibrateFromMs =
    final.length === 0 ? gateFromMs : decisionTsMs[final[Math.min(cut, final.length - 1)]!]!;
  const train = final.filter((row) => decisionTsMs[row]! < calibrateFromMs);
  const calibrate = final.filter((row) => decisionTsMs[row]! >= calibrateFromMs);
  return {
    train,
    calibrate,
    gate,
    calibrateFromMs,
    gateFromMs,
    gapMs,
    nGapRows: order.length - train.length - calibrate.length - gate.length - nBurnInRows,
    nBurnInRows,
  };
}

export function allRows(n: number): Uint32Array {
  return Uint32Array.from({ length: n }, (_, i) => i);
}

/** Values of the given rows. */
export function take(column: Float64Array, rows: Uint32Array): Float64Array {
  const out = new Float64Array(rows.length);
  for (let i = 0; i < rows.length; i++) out[i] = column[rows[i]!]!;
  return out;
}

/** Codes of the given rows. */
export function takeCodes(column: StringColumn, rows: Uint32Array): Uint32Array {
  const out = new Uint32Array(rows.length);
  for (let i = 0; i < rows.length; i++) out[i] = column.codes[rows[i]!]!;
  return out;
}

/** Feature rows, float32 [rows.length × nFeatures]. */
export function takeFeatures(dataset: TrainingDataset, rows: Uint32Array): Float32Array {
  const nFeatures = dataset.featureNames.length;
  const out = new Float32Array(rows.length * nFeatures);
  for (let i = 0; i < rows.length; i++) {
    const base = rows[i]! * nFeatures;
    out.set(dataset.x.subarray(base, base + nFeatures), i * nFeatures);
  }
  return out;
}

/** The same dataset with these rows only, in this order. */
export function selectRows(dataset: TrainingDataset, rows: Uint32Array): TrainingDataset {
  const strings = (column: StringColumn): StringColumn => ({
    kind: 'string',
    dictionary: column.dictionary,
    codes: takeCodes(column, rows),
  });
  return {
    ...dataset,
    nRows: rows.length,
    x: takeFeatures(dataset, rows),
    decisionTsMs: take(dataset.decisionTsMs, rows),
    successes: take(dataset.successes, rows),
    trials: take(dataset.trials, rows),
    maturity: take(dataset.maturity, rows),
    publication: strings(dataset.publication),
    campaign: strings(dataset.campaign),
    creative: strings(dataset.creative),
    rowIds: strings(dataset.rowIds),
  };
}
