import { stringAt, throwIfAborted } from '@waggle/core';
import { type FeatureSet, OFFER_ANSWERS, type OfferAnswers } from '@waggle/features';
import {
  calibrationRatio,
  confusionMatrix,
  multiClassLogLoss,
  PROBABILITY_FLOOR,
} from '@waggle/measurement';
import { type Trees, treesFit } from '@waggle/native';
import { PRIOR_FEATURE, softmaxAtTemperature, softplus } from '@waggle/ranking';
import { fitTemperature } from '../calibration-fits.js';
import {
  checkDataset,
  splitByTime,
  type TrainingDataset,
  take,
  takeCodes,
  takeFeatures,
} from '../dataset.js';
import { trainingError } from '../errors.js';
import { exportTreesOnnx } from '../export/trees-onnx.js';
import { type GateCheck, MAX_LOG_CALIBRATION, MIN_CAMPAIGNS } from '../gate.js';
import { findLeaks, noLeakCheck } from '../leakage.js';
import { findMoved } from '../stability.js';
import { type SliceOfModel, sliceTable } from './slice-table.js';
import { gateOnSlices, type SuiteGate } from './suite-gate.js';
import { firstSeen, isoOrNull, jsonBytes, type SuiteModel } from './suite-model.js';

/** How the raw scores of the trees become probabilities of answers; stored beside them. */
export interface AnswerHead {
  readonly kind: 'softmax_trees';
  /** Classes by score column. */
  readonly classes: readonly string[];
  /** Answers that were too rare for a class of their own and count as `other`. */
  readonly merged: readonly string[];
  readonly temperature: number;
  /** What the scores are added to: ln σ(prior) for acceptance, ln (1 − σ(prior)) + ln share for every other class. */
  readonly priorFeature: string;
  /** Share of each class among the answers that are not acceptance; 1 for acceptance itself. */
  readonly shares: readonly number[];
  readonly featureNames: readonly string[];
  readonly featureSetFingerprint: string;
}

export interface TrainedAnswers extends SuiteModel {
  readonly head: AnswerHead;
  readonly trees: Trees;
  readonly gate: SuiteGate;
  readonly slices: readonly SliceOfModel[];
  /** Probabilities of rows; float64 [nRows × classes]. */
  predict(x: Float32Array, nRows: number): Promise<Float64Array>;
}

export interface AnswerTraining {
  /** Offers with the features of acceptance, as `buildDataset` makes them; `rowIds` are offers. */
  readonly dataset: TrainingDataset;
  readonly answers: OfferAnswers;
  readonly featureSet: FeatureSet;
  readonly seed: number;
  readonly signal?: AbortSignal | undefined;
}

/** Answers with fewer training rows than this are not told apart: they count as `other`. */
const MIN_CLASS_ROWS = 40;
const MIN_TRAIN_ROWS = 200;
const OTHER = OFFER_ANSWERS.indexOf('other');
/** Standard errors that a class's calibration may be off by: eight are looked at, so two would fail one in three models. */
const CLASS_ERRORS = 3;

/**
 * Trains the probabilities of all answers to an offer, downvotes by reason among them, for reports: softmax over boosted
 * trees around the acceptance hierarchy and the shares of the other answers, features left out whose distribution has moved, stopped early on the last third of the training rows, temperature fitted on later rows, gated on later rows still
 * against the classes' frequencies. Deterministic for a seed. Pure.
 * @throws WAGGLE_TRAINING_SHAPE, _NOT_FINITE, _LABEL for a wrong dataset; WAGGLE_TRAINING_TOO_FEW where fewer than two answers occur
 *   often enough; WAGGLE_ABORTED
 */
export async function trainAnswers(o: AnswerTraining): Promise<TrainedAnswers> {
  const { dataset, featureSet, seed, signal } = o;
  checkDataset(dataset, featureSet);
  const answerOf = labelsOf(dataset, o.answers);
  const known = Uint32Array.from({ length: dataset.nRows }, (_, i) => i).filter(
    (i) => answerOf[i]! >= 0,
  );
  const split = splitByTime(dataset.decisionTsMs, known);
  const { classes, merged, classOf } = chooseClasses(answerOf, split.train);
  const nClasses = classes.length;
  if (split.train.length < MIN_TRAIN_ROWS || nClasses < 2 || classes[0] !== 'accepted') {
    throw trainingError(
      'WAGGLE_TRAINING_TOO_FEW',
      `answers: ${split.train.length} offers to train on with ${nClasses} answers often enough (${classes.join(', ')}); ${MIN_TRAIN_ROWS} offers and 2 answers, acceptance among them, are needed`,
      { details: { rows: split.train.length, classes } },
    );
  }
  const nFeatures = dataset.featureNames.length;
  const priorFeature = PRIOR_FEATURE.accept;
  const prior = dataset.featureNames.indexOf(priorFeature);
  if (prior < 0) {
    throw trainingError('WAGGLE_TRAINING_SHAPE', `answers need the feature ${priorFeature}`);
  }
  const shares = sharesOf(classes, classOf, answerOf, split.train);
  const offsetOf = (x: Float32Array, nRows: number): Float64Array => {
    const out = new Float64Array(nRows * nClasses);
    for (let i = 0; i < nRows; i++) {
      const z = x[i * nFeatures + prior]!;
      shares.forEach((share, k) => {
        out[i * nClasses + k] = k === 0 ? -softplus(-z) : Math.log(share) - softplus(z);
      });
    }
    return out;
  };
  const later = Uint32Array.from([...split.calibrate, ...split.gate]);
  const moved = findMoved(
    takeFeatures(dataset, split.train),
    takeFeatures(dataset, later),
    nFeatures,
  ).map(({ feature }) => feature);
  const rowsOf = (numbers: Uint32Array) => {
    const x = takeFeatures(dataset, numbers);
    return {
      x,
      nRows: numbers.length,
      y: Float64Array.from(numbers, (i) => classOf[answerOf[i]!]!),
      offset: offsetOf(x, numbers.length),
    };
  };
  // Trees do not split on what never varies: columns that have moved are hidden from them.
  const hidden = (numbers: Uint32Array) => {
    const rows = rowsOf(numbers);
    for (const f of moved)
      for (let i = f; i < rows.x.length; i += nFeatures) rows.x[i] = Number.NaN;
    return rows;
  };
  const cut = Math.floor((split.train.length * 2) / 3);
  const { trees } = await treesFit({
    ...hidden(split.train.subarray(0, cut)),
    ...TREES,
    nFeatures,
    objective: 'softmax',
    nClasses,
    validation: hidden(split.train.subarray(cut)),
    seed,
    signal,
  });
  throwIfAborted(signal);
  const scores = async (x: Float32Array, nRows: number): Promise<Float64Array> => {
    const raw = await trees.predict({ x, nRows, raw: true, signal });
    return offsetOf(x, nRows).map((offset, i) => offset + raw[i]!);
  };
  const calibrating = rowsOf(split.calibrate);
  const temperature =
    calibrating.nRows < nClasses
      ? 1
      : fitTemperature({
          logits: await scores(calibrating.x, calibrating.nRows),
          nClasses,
          labels: calibrating.y,
        });
  const predict = async (x: Float32Array, nRows: number) =>
    softmaxAtTemperature(await scores(x, nRows), nClasses, temperature);

  const judged = rowsOf(split.gate);
  const probability = await predict(judged.x, judged.nRows);
  const frequency = new Float64Array(nClasses);
  for (const i of split.train) frequency[classOf[answerOf[i]!]!]! += 1 / split.train.length;
  const lossOf = (p: (i: number) => number) =>
    judged.y.map((_, i) => -Math.log(Math.max(p(i), PROBABILITY_FLOOR)));
  const publications = takeCodes(dataset.publication, split.gate);
  const judgedRows = {
    loss: lossOf((i) => probability[i * nClasses + judged.y[i]!]!),
    // A class that training has not seen has no column, and no row of it comes here under its own name.
    baselineLoss: lossOf((i) => frequency[judged.y[i]!]!),
    mass: new Float64Array(judged.nRows).fill(1),
    publications,
    publicationFirstMs: firstSeen(dataset.publication, dataset.decisionTsMs, split.gate),
    campaignFirstMs: firstSeen(dataset.campaign, dataset.decisionTsMs, split.gate),
    decisionTsMs: take(dataset.decisionTsMs, split.gate),
  };
  const slices = sliceTable(judgedRows, seed);
  const campaigns = takeCodes(dataset.campaign, split.gate);
  const nCampaigns = new Set(campaigns).size;
  const checks = [leakCheck(dataset, split.train, answerOf)];
  if (slices[0]!.publications >= 2 && nCampaigns >= MIN_CAMPAIGNS) {
    for (const [k, name] of classes.entries()) {
      const judging = { probability, labels: judged.y, nClasses, publications, campaigns };
      checks.push(...classCheck(name, k, judging));
    }
  }
  const gate = gateOnSlices(
    'answers',
    slices[0]!,
    { ...judgedRows, campaigns },
    checks,
    nCampaigns,
  );
  const head: AnswerHead = {
    kind: 'softmax_trees',
    classes,
    merged,
    temperature,
    priorFeature,
    shares,
    featureNames: featureSet.names,
    featureSetFingerprint: featureSet.fingerprint,
  };
  const sample = { probability, nClasses, labels: judged.y };
  const measured = judged.nRows > 0;
  const confusion = measured ? confusionMatrix(sample) : undefined;
  const metrics = {
    gatePassed: gate.passed ? 1 : 0,
    logLoss: measured ? multiClassLogLoss(sample) : null,
    baselineLogLoss: slices[0]!.baselineLogLoss,
    accuracy: confusion?.accuracy ?? null,
    macroF1: confusion?.macroF1 ?? null,
  };
  const onnx = exportTreesOnnx(trees, {
    name: 'answers',
    featureNames: featureSet.names,
    featureSetFingerprint: featureSet.fingerprint,
    raw: true,
  });
  return {
    name: 'answers',
    head,
    trees,
    gate,
    slices,
    predict,
    fingerprint: featureSet.fingerprint,
    metrics,
    artifacts: {
      'model.trees': trees.toBytes(),
      'model.onnx': onnx.bytes,
      'head.json': jsonBytes(head),
      'gate.json': jsonBytes(gate),
    },
    card: {
      name: 'answers',
      predicts: 'The probabilities of every answer to an offer, downvotes by reason, for reports.',
      unit: 'a shown offer',
      label: `first answer before it ran out: ${classes.join(', ')}${merged.length > 0 ? `; too rare for a class of their own and counted as other: ${merged.join(', ')}` : ''}`,
      maturity:
        'counted from its expiry on, whatever was said before; offers withdrawn before any answer are no rows',
      baseline: 'frequencies of the answers among the training rows',
      form: `softmax over ${trees.nTrees} trees around the acceptance hierarchy; ONNX gives the trees' scores, probabilities are softmax((offset + score) / temperature) with the offset that head.json describes${moved.length > 0 ? `; not used, since they have moved: ${moved.map((f) => dataset.featureNames[f]).join(', ')}` : ''}`,
      data: {
        fromTs: isoOrNull(dataset.decisionTsMs[split.train[0]!] ?? Number.NaN),
        toTs: isoOrNull(dataset.decisionTsMs[split.train.at(-1)!] ?? Number.NaN),
        rows: {
          train: split.train.length,
          calibrate: split.calibrate.length,
          gate: split.gate.length,
        },
      },
      features: featureSet.features,
      featureSetFingerprint: featureSet.fingerprint,
      slices,
      metrics: {
        accuracy: metrics.accuracy,
        'macro F1': metrics.macroF1,
        ...Object.fromEntries(
          classes.map((name, k) => [`recall of ${name}`, confusion?.classes[k]?.recall ?? null]),
        ),
      },
      calibration: `temperature ${temperature.toFixed(3)}, on rows later than the fit`,
      gate,
      limits: [
        'Reasons are what publishers chose from a list; most refusals give none.',
        'For reports: serving asks the binary model, which is calibrated for acceptance alone.',
      ],
    },
  };
}

const TREES = {
  nTrees: 300,
  learningRate: 0.06,
  maxLeaves: 8,
  minChildRows: 40,
  l2: 10,
  rowSample: 0.8,
  featureSample: 0.5,
  earlyStoppingRounds: 25,
} as const;

/** [nRows] answer of each row's offer, −1 where none is known. */
function labelsOf(dataset: TrainingDataset, answers: OfferAnswers): Int32Array {
  const of = new Map<string, number>();
  for (let i = 0; i < answers.nRows; i++) {
    const answer = answers.answers[i]!;
    if (answer >= OFFER_ANSWERS.length) {
      throw trainingError('WAGGLE_TRAINING_LABEL', `row ${i} has answer ${answer}`, {
        details: { row: i },
      });
    }
    of.set(stringAt(answers.offers, i), answer);
  }
  return Int32Array.from(
    { length: dataset.nRows },
    (_, i) => of.get(stringAt(dataset.rowIds, i)) ?? -1,
  );
}

/** Answers that occur often enough keep their class; the rest share `other`, where there is any or as the rarest class. */
function chooseClasses(
  answerOf: Int32Array,
  train: Uint32Array,
): { classes: string[]; merged: string[]; classOf: Int32Array } {
  const counts = new Float64Array(OFFER_ANSWERS.length);
  for (const i of train) counts[answerOf[i]!]! += 1;
  const own = OFFER_ANSWERS.map((_, k) => k).filter(
    (k) => k !== OTHER && counts[k]! >= MIN_CLASS_ROWS,
  );
  const rare = OFFER_ANSWERS.map((_, k) => k).filter((k) => !own.includes(k));
  const nRare = rare.reduce((sum, k) => sum + counts[k]!, 0);
  const kept = nRare > 0 ? [...own, OTHER] : own;
  const classOf = Int32Array.from(OFFER_ANSWERS, (_, k) => {
    const at = kept.indexOf(k);
    return at >= 0 ? at : Math.max(kept.indexOf(OTHER), kept.length - 1);
  });
  return {
    classes: kept.map((k) => OFFER_ANSWERS[k]!),
    merged: rare.filter((k) => k !== OTHER && counts[k]! > 0).map((k) => OFFER_ANSWERS[k]!),
    classOf,
  };
}

/** Share of each class among the answers that are not the first class, acceptance; 1 for acceptance itself. */
function sharesOf(
  classes: readonly string[],
  classOf: Int32Array,
  answerOf: Int32Array,
  train: Uint32Array,
): number[] {
  // One more of each, so that none is impossible.
  const counts = new Float64Array(classes.length).fill(1);
  for (const i of train) counts[classOf[answerOf[i]!]!]! += 1;
  const others = counts.reduce((sum, n) => sum + n, 0) - counts[0]!;
  return Array.from(counts, (n, k) => (k === 0 ? 1 : n / others));
}

function leakCheck(dataset: TrainingDataset, train: Uint32Array, answerOf: Int32Array): GateCheck {
  const accepted = Float64Array.from(train, (i) => (answerOf[i] === 0 ? 1 : 0));
  const leaks = findLeaks(
    dataset.featureNames,
    takeFeatures(dataset, train),
    train.length,
    accepted,
    new Float64Array(train.length).fill(1),
  );
  return noLeakCheck(
    leaks,
    (all) => `${all.map(({ feature }) => feature).join(', ')}: has seen the answers`,
  );
}

/** Expected over observed of one class, where it was observed at all. */
function classCheck(
  name: string,
  k: number,
  o: {
    readonly probability: Float64Array;
    readonly labels: Float64Array;
    readonly nClasses: number;
    readonly publications: Uint32Array;
    readonly campaigns: Uint32Array;
  },
): GateCheck[] {
  const successes = o.labels.map((label) => (label === k ? 1 : 0));
  if (successes.reduce((sum, s) => sum + s, 0) < MIN_CLASS_ROWS) return [];
  const { logRatio, logStandardError, ratio } = calibrationRatio(
    { probability: o.labels.map((_, i) => o.probability[i * o.nClasses + k]!), successes },
    o.publications,
    o.campaigns,
  );
  const limit = Math.max(MAX_LOG_CALIBRATION, CLASS_ERRORS * logStandardError);
  return [
    {
      name: 'calibration',
      passed: Math.abs(logRatio) <= limit,
      value: Math.abs(logRatio),
      limit,
      explanation: `${name}: expected over observed ${ratio.toFixed(3)}, its logarithm allowed ${limit.toFixed(3)} either way`,
    },
  ];
}
