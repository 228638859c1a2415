import { createHash } from 'node:crypto';
import { isWaggleError, silentLogger, throwIfAborted } from '@waggle/core';
import {
  type Calibration,
  calibrate,
  type LinearModelName,
  PRIOR_FEATURE,
  SET_OF_MODEL,
  sealTreesModel,
  type TreesModel,
} from '@waggle/ranking';
import { type CalibrationFit, fitCalibration } from './calibrate.js';
import { splitByTime, type TrainingDataset, takeCodes, takeFeatures } from './dataset.js';
import { exportTreesOnnx, TREES_ONNX_TOLERANCE } from './export/trees-onnx.js';
import { fitTreesHead, type TreesHeadFit } from './fit/trees.js';
import { type GateCheck, type GateReport, runGate } from './gate.js';
import { rowsToCut } from './rows-to-cut.js';
import { findMoved } from './stability.js';
import { type SliceOfModel, sliceTable } from './suite/slice-table.js';
import { firstSeen } from './suite/suite-model.js';
import {
  column,
  enoughToFit,
  isoAt,
  judge,
  rawLogits,
  slice,
  type TrainedModel,
  type TrainOptions,
  trainAccept,
  trainCtr,
  trainSent,
} from './train.js';

/** How the trees came out; plain JSON. */
export interface TreesSummary {
  readonly rows: { readonly train: number; readonly calibrate: number; readonly gate: number };
  readonly nTrees: number | null;
  readonly maxLeaves: number | null;
  readonly losses: TreesHeadFit['losses'];
  readonly priorLoss: number | null;
  /** Features by what their splits gained, most first. */
  readonly gain: readonly { readonly name: string; readonly gain: number }[];
  readonly movedFeatures: readonly string[];
  readonly calibration: Calibration;
  readonly calibrationReason: CalibrationFit['reason'] | 'not_fitted';
  /** What its ONNX twin agrees to, absolutely. */
  readonly onnxTolerance: number;
}

export interface TrainedTrees {
  /** The trees with their file and ONNX twin, whether they passed or not; undefined when nothing could be fitted. */
  readonly head:
    | { readonly model: TreesModel; readonly trees: Uint8Array; readonly onnx: Uint8Array }
    | undefined;
  /** Against the linear model, which keeps its place where the trees fail. */
  readonly gate: GateReport;
  /** The linear model of the same rows. */
  readonly linear: TrainedModel;
  readonly slices: readonly SliceOfModel[];
  readonly summary: TreesSummary;
}

const LINEAR = { pctr: trainCtr, accept: trainAccept, sent: trainSent } as const;
/**
 * Trains a tree head for a decision the way its linear model is trained: the same rows, time-ordered split, leak check and
 * calibration on later rows. Its gate is stricter: on the latest rows it must not be worse than the linear model that would be
 * released otherwise (which may be the prior), and it must be calibrated. Pure; equal input and seed give equal bytes.
 * @throws as the linear model's training
 */
export async function trainTrees(
  name: LinearModelName,
  dataset: TrainingDataset,
  options: TrainOptions,
): Promise<TrainedTrees> {
  const linear = await LINEAR[name](dataset, options);
  const { featureSet, seed, signal, logger = silentLogger } = options;
  const { rows, split: cut } = rowsToCut(name, dataset, options);
  const split = splitByTime(rows.decisionTsMs, undefined, cut);
  const train = slice(rows, split.train);
  const offsetFeature = PRIOR_FEATURE[SET_OF_MODEL[name]];
  const priorColumn = featureSet.names.indexOf(offsetFeature);
  const checks: GateCheck[] = linear.gate.checks.filter((check) => check.name === 'no_leak');
  const later = Uint32Array.from([...split.calibrate, ...split.gate]);
  const moved = findMoved(train.x, takeFeatures(rows, later), train.nFeatures);
  const failed = (explanation: string) =>
    checks.push({ name: 'fit', passed: false, value: null, limit: null, explanation });
  let fit: TreesHeadFit | undefined;
  const lacking = enoughToFit(train);
  if (lacking !== undefined) failed(lacking);
  else {
    try {
      fit = await fitTreesHead(
        { ...train, prior: column(train, priorColumn) },
        { seed, signal, exclude: moved.map((m) => m.feature) },
      );
    } catch (thrown) {
      if (!isWaggleError(thrown) || thrown.code !== 'WAGGLE_TRAINING_FIT_FAILED') throw thrown;
      failed(thrown.message);
    }
  }
  throwIfAborted(signal);

  /** Logits before calibration of some rows. */
  const logits = async (of: typeof train): Promise<Float64Array> => {
    const prior = column(of, priorColumn);
    if (fit === undefined || of.nRows === 0) return prior;
    const score = await fit.trees.predict({ x: of.x, nRows: of.nRows, raw: true });
    return prior.map((z, i) => z + score[i]!);
  };
  const calibrateSlice = slice(rows, split.calibrate);
  const gateSlice = slice(rows, split.gate);
  try {
    const fitted =
      fit === undefined
        ? undefined
        : fitCalibration({ ...calibrateSlice, logits: await logits(calibrateSlice) });
    const calibration: Calibration = fitted?.calibration ?? { kind: 'identity' };
    const visible = (of: Float64Array, how: Calibration) =>
      of.map((z, i) => calibrate(how, z) * gateSlice.maturity[i]!);
    const model = visible(await logits(gateSlice), calibration);
    const baseline = visible(
      rawLogits(gateSlice.x, gateSlice.nRows, linear.model.coefficients, linear.model.intercept),
      linear.model.calibration,
    );
    const { successes, trials, clusters, decisionTsMs } = gateSlice;
    const publicationFirstMs = firstSeen(rows.publication, rows.decisionTsMs, split.gate);
    const campaignFirstMs = firstSeen(rows.campaign, rows.decisionTsMs, split.gate);
    const gate = runGate(
      {
        ...{ model, prior: baseline, successes, trials, decisionTsMs },
        ...{ publications: clusters, campaigns: takeCodes(rows.campaign, split.gate) },
        ...{ publicationFirstMs, campaignFirstMs },
      },
      {
        name,
        seed,
        earlierChecks: checks,
        otherwise: linear.model.priorOnly ? 'prior_only' : 'linear',
        ...(options.bootstrapReplicates === undefined
          ? {}
          : { nReplicates: options.bootstrapReplicates }),
      },
    );
    let head: TrainedTrees['head'];
    if (fit !== undefined) {
      const trees = fit.trees.toBytes();
      const onnx = exportTreesOnnx(fit.trees, {
        name,
        featureNames: featureSet.names,
        featureSetFingerprint: featureSet.fingerprint,
        offsetFeature,
        calibration,
      });
      head = {
        trees,
        onnx: onnx.bytes,
        model: sealTreesModel({
          kind: 'trees_logistic',
          name,
          featureNames: [...featureSet.names],
          featureSetFingerprint: featureSet.fingerprint,
          offsetFeature,
          calibration,
          priorOnly: false,
          treesSha256: createHash('sha256').update(trees).digest('hex'),
          onnxSha256: onnx.sha256,
          dataRange: {
            fromTs: isoAt(rows, split.train, 0),
            toTs: isoAt(rows, split.train, split.train.length - 1),
            trainRows: split.train.length,
            calibrateRows: split.calibrate.length,
            gateRows: split.gate.length,
            ...(rows.embeddingModel !== undefined && { embeddingModel: rows.embeddingModel }),
            ...(rows.params !== undefined && { featureParams: { ...rows.params } }),
          },
          metrics: {
            gatePassed: gate.passed,
            relativeLogLoss: gate.relativeLogLoss,
            ...(gate.modelMetrics ?? {}),
          },
        }),
      };
    }
    logger.info({ model: name, version: head?.model.version, passed: gate.passed }, gate.summary);
    return {
      head,
      gate,
      linear,
      slices: sliceTable(
        {
          ...judge(gateSlice, model, baseline),
          ...{ publications: clusters, publicationFirstMs, campaignFirstMs, decisionTsMs },
        },
        seed,
      ),
      summary: {
        rows: {
          train: split.train.length,
          calibrate: split.calibrate.length,
          gate: split.gate.length,
        },
        nTrees: fit?.nTrees ?? null,
        maxLeaves: fit?.maxLeaves ?? null,
        losses: fit?.losses ?? [],
        priorLoss: fit?.priorLoss ?? null,
        gain: Array.from(fit?.gain ?? [], (gain, f) => ({ name: featureSet.names[f]!, gain }))
          .filter(({ gain }) => gain > 0)
          .sort((a, b) => b.gain - a.gain),
        movedFeatures: moved.map((m) => featureSet.names[m.feature]!),
        calibration,
        calibrationReason: fitted?.reason ?? 'not_fitted',
        onnxTolerance: TREES_ONNX_TOLERANCE,
      },
    };
  } finally {
    await fit?.trees.close();
  }
}
