import {
  isWaggleError,
  type Logger,
  type Progress,
  silentLogger,
  throwIfAborted,
} from '@waggle/core';
import { rowLogLoss } from '@waggle/measurement';
import {
  type Calibration,
  calibrate,
  type FeatureSetShape,
  type LinearModel,
  MODEL_OF_SET,
  PRIOR_FEATURE,
  priorOnlyModel,
  sealLinearModel,
} from '@waggle/ranking';
import { type CalibrationFit, fitCalibration } from './calibrate.js';
import {
  checkDataset,
  type SplitOptions,
  splitByTime,
  type TimeSplit,
  type TrainingDataset,
  take,
  takeCodes,
  takeFeatures,
} from './dataset.js';
import { trainingError } from './errors.js';
import { exportLinearOnnx } from './export/onnx.js';
import type { Dispersion } from './fit/dispersion.js';
import { fitLogistic, type LogisticFit } from './fit/logistic.js';
import { type GateCheck, type GateReport, runGate } from './gate.js';
import { findLeaks, type LeakSuspect, noLeakCheck } from './leakage.js';
import { rowsToCut } from './rows-to-cut.js';
import { findMoved, type MovedFeature } from './stability.js';
import { type JudgedRows, type SliceOfModel, sliceTable } from './suite/slice-table.js';
import { firstSeen } from './suite/suite-model.js';

export interface TrainOptions {
  /** The set that the dataset was built with. */
  readonly featureSet: FeatureSetShape;
  /** Of the gate's bootstrap. */
  readonly seed: number;
  /** When given, a decision later than this is refused. */
  readonly asOfMs?: number;
  readonly split?: SplitOptions;
  readonly ridgeGrid?: readonly number[];
  readonly bootstrapReplicates?: number;
  /** No calibration unless later rows reject going without at 95 %. */
  readonly calibrateOnlyIfNeeded?: boolean;
  readonly logger?: Logger;
  readonly progress?: Progress;
  readonly signal?: AbortSignal;
}

/** How the fit came out; plain JSON. */
export interface TrainingSummary {
  readonly rows: {
    readonly train: number;
    readonly calibrate: number;
    readonly gate: number;
    readonly gap: number;
    readonly burnIn: number;
  };
  readonly gapMs: number;
  readonly calibrateFromTs: string | null;
  readonly gateFromTs: string | null;
  readonly trainSuccesses: number;
  readonly trainTrials: number;
  readonly ridge: number | null;
  readonly ridgeLosses: LogisticFit['ridgeLosses'];
  readonly dispersion: Dispersion | null;
  readonly effectiveShare: number | null;
  readonly constantFeatures: readonly string[];
  readonly leaks: readonly LeakSuspect[];
  /** Features left out because their distribution has moved since training. */
  readonly movedFeatures: readonly {
    readonly name: string;
    readonly shift: number;
    readonly spread: number;
  }[];
  readonly calibration: Calibration;
  readonly calibrationReason: CalibrationFit['reason'] | 'not_fitted';
}

export interface TrainedModel {
  /** What may be served: the fitted model when it passed its gate, the prior-only model otherwise. */
  readonly model: LinearModel;
  /** The same model as ONNX. */
  readonly onnx: Uint8Array;
  readonly gate: GateReport;
  /** The fitted model whether it passed or not; undefined when nothing could be fitted. */
  readonly candidate: LinearModel | undefined;
  readonly summary: TrainingSummary;
  /** The gate's rows by known and new publications and campaigns, with limits; empty where there are none. */
  readonly slices: readonly SliceOfModel[];
}

/** Fewer training rows or successes than this are not fitted: the prior knows as much. */
const MIN_TRAIN_ROWS = 100;
const MIN_TRAIN_SUCCESSES = 50;
const MIN_TRAIN_PUBLICATIONS = 5;

/** Trains pCTR: unique verified clicks among delivered emails. See `trainModel`. */
export function trainCtr(dataset: TrainingDataset, options: TrainOptions): Promise<TrainedModel> {
  return trainModel('ctr', dataset, options);
}

/**
 * Trains p(accept): accepted among shown offers. Offers of the last 72 h are left out: those of them that are already
 * decided are the quick ones, and a publisher who accepts is quicker than an offer that runs out. See `trainModel`.
 */
export async function trainAccept(
  dataset: TrainingDataset,
  options: TrainOptions,
): Promise<TrainedModel> {
  checkDataset(dataset, options.featureSet, options.asOfMs);
  const { rows, split } = rowsToCut('accept', dataset, options);
  return trainModel('accept', rows, { ...options, split });
}

/**
 * Trains p(sent | accepted): gone out by its time among accepted ads whose time is up. The hierarchy says nearly all of it, and is
 * fitted to outcomes of the same kind up to the day; a week of acceptances more often shakes its level than mends it, so it is
 * calibrated only where later ones call for it. See `trainModel`.
 */
export function trainSent(dataset: TrainingDataset, options: TrainOptions): Promise<TrainedModel> {
  const { rows, split } = rowsToCut('sent', dataset, options);
  return trainModel('sent', rows, { calibrateOnlyIfNeeded: true, ...options, split });
}

/**
 * Dataset → time-ordered split → logistic fit around the prior → calibration → gate → ONNX. Pure: returns bytes,
 * writes nothing, so a kill at any step leaves nothing behind; equal input and seed give equal bytes.
 * Too little data is not an error but a gate that fails, and the prior-only model is returned, as it is for a
 * fit that fails or a feature that leaks.
 * @throws WAGGLE_TRAINING_SHAPE, _NOT_FINITE, _LABEL, _TIME for a dataset that is wrong; WAGGLE_ABORTED
 */
async function trainModel(
  setName: keyof typeof MODEL_OF_SET,
  dataset: TrainingDataset,
  options: TrainOptions,
): Promise<TrainedModel> {
  const { featureSet, seed, logger = silentLogger, progress, signal } = options;
  const name = MODEL_OF_SET[setName];
  if (featureSet.name !== setName) {
    throw trainingError(
      'WAGGLE_TRAINING_SHAPE',
      `${name} needs feature set ${setName}, got ${featureSet.name}`,
    );
  }
  checkDataset(dataset, featureSet, options.asOfMs);
  const priorFeature = featureSet.names.indexOf(PRIOR_FEATURE[setName]);
  if (priorFeature < 0) {
    throw trainingError(
      'WAGGLE_TRAINING_SHAPE',
      `feature set ${setName} has no ${PRIOR_FEATURE[setName]}`,
    );
  }
  const tell = (done: number) =>
    progress?.({ step: `train ${name}`, done, total: STEPS, unit: 'steps' });
  const split = splitByTime(dataset.decisionTsMs, undefined, options.split);
  const train = slice(dataset, split.train);
  tell(1);

  const checks: GateCheck[] = [];
  const { leaks, check } = leakCheck(featureSet.names, train);
  checks.push(check);
  throwIfAborted(signal);
  tell(2);

  const laterRows = Uint32Array.from([...split.calibrate, ...split.gate]);
  const moved = findMoved(train.x, takeFeatures(dataset, laterRows), train.nFeatures);
  const enough = enoughToFit(train);
  let fit: LogisticFit | undefined;
  if (enough !== undefined) {
    checks.push({ name: 'fit', passed: false, value: null, limit: null, explanation: enough });
  } else {
    try {
      const around = await fitLogistic(
        { ...train, prior: column(train, priorFeature) },
        {
          signal,
          exclude: moved.map((m) => m.feature),
          ...(options.ridgeGrid === undefined ? {} : { ridgeGrid: options.ridgeGrid }),
        },
      );
      const coefficients = around.coefficients.slice();
      coefficients[priorFeature] = coefficients[priorFeature]! + 1;
      fit = { ...around, coefficients };
    } catch (thrown) {
      if (!isWaggleError(thrown) || thrown.code !== 'WAGGLE_TRAINING_FIT_FAILED') throw thrown;
      logger.warn({ err: thrown, model: name }, `fit failed, the prior stays: ${thrown.message}`);
      checks.push({
        name: 'fit',
        passed: false,
        value: null,
        limit: null,
        explanation: thrown.message,
      });
    }
  }
  tell(3);

  const prior = priorOnlyModel(featureSet);
  let calibration: Calibration = { kind: 'identity' };
  let calibrationReason: TrainingSummary['calibrationReason'] = 'not_fitted';
  let candidate: Omit<LinearModel, 'version'> | undefined;
  if (fit !== undefined) {
    const later = slice(dataset, split.calibrate);
    const logits = rawLogits(later.x, later.nRows, fit.coefficients, fit.intercept);
    const fitted = fitCalibration(
      { ...later, logits },
      { onlyIfNeeded: options.calibrateOnlyIfNeeded ?? false },
    );
    calibration = fitted.calibration;
    calibrationReason = fitted.reason;
    candidate = {
      kind: 'linear_logistic',
      name,
      featureNames: [...featureSet.names],
      featureSetFingerprint: featureSet.fingerprint,
      coefficients: Array.from(fit.coefficients),
      intercept: fit.intercept,
      calibration,
      priorOnly: false,
      dataRange: {
        fromTs: isoAt(dataset, split.train, 0),
        toTs: isoAt(dataset, split.train, split.train.length - 1),
        trainRows: split.train.length,
        calibrateRows: split.calibrate.length,
        gateRows: split.gate.length,
        ...(dataset.embeddingModel === undefined ? {} : { embeddingModel: dataset.embeddingModel }),
        ...(dataset.params === undefined ? {} : { featureParams: { ...dataset.params } }),
      },
      metrics: {},
    };
  }
  throwIfAborted(signal);
  tell(4);

  const gateSlice = slice(dataset, split.gate);
  const priorLogits = column(gateSlice, priorFeature);
  const visible = (logits: ArrayLike<number>, how: Calibration) =>
    Float64Array.from(logits, (l, i) => calibrate(how, l) * gateSlice.maturity[i]!);
  const priorProbability = visible(priorLogits, { kind: 'identity' });
  const modelProbability =
    candidate === undefined
      ? priorProbability
      : visible(
          rawLogits(gateSlice.x, gateSlice.nRows, candidate.coefficients, candidate.intercept),
          calibration,
        );
  const publicationFirstMs = firstSeen(dataset.publication, dataset.decisionTsMs, split.gate);
  const campaignFirstMs = firstSeen(dataset.campaign, dataset.decisionTsMs, split.gate);
  const gate = runGate(
    {
      prior: priorProbability,
      model: modelProbability,
      successes: gateSlice.successes,
      trials: gateSlice.trials,
      publications: gateSlice.clusters,
      campaigns: takeCodes(dataset.campaign, split.gate),
      decisionTsMs: gateSlice.decisionTsMs,
      publicationFirstMs,
      campaignFirstMs,
    },
    {
      name,
      seed,
      earlierChecks: checks,
      ...(options.bootstrapReplicates === undefined
        ? {}
        : { nReplicates: options.bootstrapReplicates }),
    },
  );
  throwIfAborted(signal);
  tell(5);

  const metrics = {
    gatePassed: gate.passed,
    relativeLogLoss: gate.relativeLogLoss,
    ...(gate.modelMetrics ?? {}),
  };
  const finish = (content: Omit<LinearModel, 'version'>, centers?: Float64Array) => {
    const exported = exportLinearOnnx(content, centers);
    return {
      model: sealLinearModel({ ...content, onnxSha256: exported.sha256 }),
      onnx: exported.bytes,
    };
  };
  const finished =
    candidate === undefined ? undefined : finish({ ...candidate, metrics }, fit!.means);
  const { version: _, ...priorContent } = prior;
  const released = gate.passed && finished !== undefined ? finished : finish(priorContent);
  tell(STEPS);
  logger.info(
    { model: name, version: released.model.version, passed: gate.passed, rows: dataset.nRows },
    gate.summary,
  );
  return {
    ...released,
    gate,
    candidate: finished?.model,
    slices: sliceTable(
      {
        ...judge(gateSlice, modelProbability, priorProbability),
        publications: gateSlice.clusters,
        publicationFirstMs,
        campaignFirstMs,
        decisionTsMs: gateSlice.decisionTsMs,
      },
      seed,
    ),
    summary: summarise(dataset, split, train, fit, leaks, moved, calibration, calibrationReason),
  };
}

const STEPS = 6;

export interface SliceRows {
  readonly x: Float32Array;
  readonly nRows: number;
  readonly nFeatures: number;
  readonly decisionTsMs: Float64Array;
  readonly successes: Float64Array;
  readonly trials: Float64Array;
  readonly maturity: Float64Array;
  /** Publication codes. */
  readonly clusters: Uint32Array;
}

export function slice(dataset: TrainingDataset, rows: Uint32Array): SliceRows {
  return {
    x: takeFeatures(dataset, rows),
    nRows: rows.length,
    nFeatures: dataset.featureNames.length,
    decisionTsMs: take(dataset.decisionTsMs, rows),
    successes: take(dataset.successes, rows),
    trials: take(dataset.trials, rows),
    maturity: take(dataset.maturity, rows),
    clusters: takeCodes(dataset.publication, rows),
  };
}

/** Whether a feature alone tells the outcomes, which it then has seen. */
export function leakCheck(
  names: readonly string[],
  { x, nRows, successes, trials }: SliceRows,
): { readonly leaks: readonly LeakSuspect[]; readonly check: GateCheck } {
  const leaks = findLeaks(names, x, nRows, successes, trials);
  const tell = ({ feature, auc }: LeakSuspect) =>
    `${feature} alone orders the outcomes with AUC ${auc.toFixed(3)}`;
  const check = noLeakCheck(leaks, (all) => `${all.map(tell).join(', ')}: it has seen them`);
  return { leaks, check };
}

export function judge(
  { successes, trials }: SliceRows,
  model: Float64Array,
  baseline: Float64Array,
): Pick<JudgedRows, 'loss' | 'baselineLoss' | 'mass' | 'expected' | 'observed'> {
  const losses = (probability: Float64Array) =>
    probability.map((p, i) => rowLogLoss(p, successes[i]!, trials[i]! - successes[i]!));
  return {
    loss: losses(model),
    baselineLoss: losses(baseline),
    mass: trials,
    expected: model.map((p, i) => p * trials[i]!),
    observed: successes,
  };
}

/** One feature of every row. */
export function column(rows: SliceRows, feature: number): Float64Array {
  return Float64Array.from({ length: rows.nRows }, (_, i) => rows.x[i * rows.nFeatures + feature]!);
}

/** What is missing for a fit, in words; undefined when nothing is. */
export function enoughToFit(train: SliceRows): string | undefined {
  const successes = sum(train.successes);
  const failures = sum(train.trials) - successes;
  const publications = new Set(train.clusters).size;
  if (train.nRows < MIN_TRAIN_ROWS)
    return `${train.nRows} training rows, ${MIN_TRAIN_ROWS} are needed`;
  if (successes < MIN_TRAIN_SUCCESSES || failures < MIN_TRAIN_SUCCESSES) {
    return `${successes} successes and ${failures} failures to train on, ${MIN_TRAIN_SUCCESSES} of each are needed`;
  }
  if (publications < MIN_TRAIN_PUBLICATIONS) {
    return `${publications} publications to train on, ${MIN_TRAIN_PUBLICATIONS} are needed`;
  }
  return undefined;
}

/** intercept + Σ coefficient·x per row, in double. O(nRows·nFeatures). */
export function rawLogits(
  x: Float32Array,
  nRows: number,
  coefficients: ArrayLike<number>,
  intercept: number,
): Float64Array {
  const nFeatures = coefficients.length;
  const out = new Float64Array(nRows);
  for (let i = 0; i < nRows; i++) {
    let total = intercept;
    for (let f = 0; f < nFeatures; f++) total += coefficients[f]! * x[i * nFeatures + f]!;
    out[i] = total;
  }
  return out;
}

function summarise(
  dataset: TrainingDataset,
  split: TimeSplit,
  train: SliceRows,
  fit: LogisticFit | undefined,
  leaks: readonly LeakSuspect[],
  moved: readonly MovedFeature[],
  calibration: Calibration,
  calibrationReason: TrainingSummary['calibrationReason'],
): TrainingSummary {
  const iso = (ms: number) => (Number.isFinite(ms) ? new Date(ms).toISOString() : null);
  return {
    rows: {
      train: split.train.length,
      calibrate: split.calibrate.length,
      gate: split.gate.length,
      gap: split.nGapRows,
      burnIn: split.nBurnInRows,
    },
    gapMs: split.gapMs,
    calibrateFromTs: iso(split.calibrateFromMs),
    gateFromTs: iso(split.gateFromMs),
    trainSuccesses: sum(train.successes),
    trainTrials: sum(train.trials),
    ridge: fit?.ridge ?? null,
    ridgeLosses: fit?.ridgeLosses ?? [],
    dispersion: fit?.dispersion ?? null,
    effectiveShare: fit?.effectiveShare ?? null,
    constantFeatures: (fit?.constantFeatures ?? []).map((f) => dataset.featureNames[f]!),
    leaks,
    movedFeatures: moved.map(({ feature, shift, spread }) => ({
      name: dataset.featureNames[feature]!,
      shift,
      spread,
    })),
    calibration,
    calibrationReason,
  };
}

export function isoAt(dataset: TrainingDataset, rows: Uint32Array, index: number): string | null {
  const row = rows[index];
  return row === undefined ? null : new Date(dataset.decisionTsMs[row]!).toISOString();
}

function sum(values: Float64Array): number {
  let total = 0;
  for (const v of values) total += v;
  return total;
}
