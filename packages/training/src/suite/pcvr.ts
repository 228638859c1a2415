import { createHash } from 'node:crypto';
import { stringAt, throwIfAborted } from '@waggle/core';
import {
  CONVERSION_KEYS,
  type ConversionKey,
  type ConversionRows,
  solveEffects,
} from '@waggle/features';
import { type EffectsModel, logit, scoreEffects } from '@waggle/ranking';
import { type CalibrationFit, fitCalibration } from '../calibrate.js';
import { estimateEffectPriors } from '../effect-priors.js';
import { trainingError } from '../errors.js';
import { exportSparseLinearOnnx } from '../export/sparse-onnx.js';
import { type GateReport, runGate } from '../gate.js';
import { delayShares } from './conversion-delays.js';
import { rowCodes } from './row-codes.js';
import { judgedCounts, sliceTable } from './slice-table.js';
import { isoOrNull, jsonBytes, type SuiteModel } from './suite-model.js';

/** Conversion probabilities with the share of them that comes in each delay bucket. */
export interface PcvrModel extends EffectsModel {
  readonly bucketsMs: readonly number[];
  /** Adds up to 1: conversions of the window by delay. */
  readonly shares: readonly number[];
}

/**
 * How labels are made of clicks: `buckets` believes of every delay bucket only the clicks that are old enough to have
 * seen it; `immature_negative` counts every click that has not converted yet as one that never will; `mature_only` leaves out
 * clicks younger than the whole window. The latter two are what it is measured against.
 */
export type ConversionLabels = 'buckets' | 'immature_negative' | 'mature_only';

/** Conversions that the smooth delays are worth: buckets that few clicks have seen keep them. */
const SMOOTH_WORTH = 20;
const ROUNDS = 12;
const SETTLED = 1e-6;
/** Below these there is nothing to learn a rate from. */
const MIN_CONVERSIONS = 20;
const MIN_CLICKS = 200;

/**
 * Fits P(conversion within the window) = Σ over buckets of P(it comes in the bucket), with P(bucket b | click) = s_b · p:
 * one probability per click from crossed effects (campaign, advertiser, categories, goal, creative, publication, audience),
 * one share per bucket. Bucket b learns from clicks whose whole bucket has been seen and from no other, so a young click
 * teaches what it can (Badanidiyuru et al. 2021, with one conversion per click). Shares and effects are fitted in turns; shares
 * are drawn towards smooth delays fitted to all buckets (`delayShares`) by twenty conversions, effects towards 0 by their levels' estimated strengths.
 * O(rounds · rows · (levels · solver + buckets)).
 * @throws WAGGLE_TRAINING_LABEL, WAGGLE_TRAINING_TOO_FEW when there is hardly anything to learn from
 */
export async function fitPcvr(
  rows: ConversionRows,
  o: { readonly labels?: ConversionLabels; readonly signal?: AbortSignal | undefined } = {},
): Promise<PcvrModel> {
  const { labels = 'buckets', signal } = o;
  checkConversionRows(rows);
  const { bucketsMs } = rows;
  const windowMs = bucketsMs.at(-1)!;
  const { observed, conversions, ends } = labelled(rows, labels);
  const nBuckets = ends.length;
  const { nRows } = rows;
  let total = 0;
  let seen = 0;
  for (let i = 0; i < nRows * nBuckets; i++) total += conversions[i]!;
  for (let i = 0; i < nRows; i++) seen += observed[i * nBuckets]!;
  if (total < MIN_CONVERSIONS || seen < MIN_CLICKS) {
    throw trainingError(
      'WAGGLE_TRAINING_TOO_FEW',
      `pcvr: ${total} conversions of ${seen} clicks, at least ${MIN_CONVERSIONS} of ${MIN_CLICKS} are needed`,
      { details: { conversions: total, clicks: seen } },
    );
  }
  const none = new Float64Array(nBuckets);
  const shares = delayShares({ bucketsMs: ends, came: none, promised: none });
  const successes = new Float64Array(nRows);
  for (let i = 0; i < nRows; i++) {
    for (let b = 0; b < nBuckets; b++) successes[i]! += conversions[i * nBuckets + b]!;
  }
  const codes = CONVERSION_KEYS.map((key) => rows.keys[key].codes);
  const sizes = CONVERSION_KEYS.map((key) => rows.keys[key].dictionary.length);
  const exposure = new Float64Array(nRows);
  const p = new Float64Array(nRows);
  let state: Float64Array | undefined;
  let strengths: readonly number[] = [];
  let dispersion = 0;
  let solved: Awaited<ReturnType<typeof solveEffects>> | undefined;
  for (let round = 0; round < ROUNDS; round++) {
    throwIfAborted(signal);
    for (let i = 0; i < nRows; i++) {
      exposure[i] = 0;
      for (let b = 0; b < nBuckets; b++) exposure[i]! += observed[i * nBuckets + b]! * shares[b]!;
    }
    if (round < 2) {
      // Strengths hardly depend on the shares: the second look is the last.
      const priors = estimateEffectPriors({
        successes,
        trials: exposure.map((e, i) => Math.max(e, successes[i]!)),
        levels: CONVERSION_KEYS.map((name, l) => ({ name, codes: Uint32Array.from(codes[l]!) })),
      });
      strengths = priors.levels.map((level) => level.strength);
      dispersion = priors.dispersion;
    }
    const rate = total / exposure.reduce((sum, e) => sum + e, 0);
    solved = await solveEffects(
      { successes, exposure, offset: new Float64Array(nRows), codes: rowCodes(codes, nRows) },
      {
        link: 'logit',
        levels: sizes.map((size, l) => ({ size, variance: 1 / strengths[l]! })),
        base: { mean: logit(Math.min(rate, 0.5)), variance: 1 },
        dispersion,
      },
      { start: state, signal },
    );
    state = solved.state;
    for (let i = 0; i < nRows; i++) {
      let eta = solved.base;
      codes.forEach((code, l) => {
        eta += solved!.effects[l]![code[i]!]!;
      });
      p[i] = 1 / (1 + Math.exp(-eta));
    }
    const moved = updateShares(shares, { observed, conversions, ends, p, nRows });
    if (moved < SETTLED) break;
  }
  const finished = solved!;
  return {
    kind: 'effects_logit',
    name: 'pcvr',
    base: finished.base,
    levels: CONVERSION_KEYS.map((key, l) => ({
      name: key,
      effects: Object.fromEntries(
        rows.keys[key].dictionary.flatMap((id, g) =>
          finished.evidence[l]![g]! > 0 ? [[id, finished.effects[l]![g]!]] : [],
        ),
      ),
    })),
    calibration: { kind: 'identity' },
    bucketsMs: labels === 'buckets' ? bucketsMs : [windowMs],
    shares,
  };
}

/** Clicks and conversions per bucket as the labels say; one bucket for the two that know none. */
function labelled(
  rows: ConversionRows,
  labels: ConversionLabels,
): { observed: Float64Array; conversions: Float64Array; ends: readonly number[] } {
  const { bucketsMs, nRows } = rows;
  const nBuckets = bucketsMs.length;
  const last = nBuckets - 1;
  const ends = bucketsMs.slice(last);
  switch (labels) {
    case 'buckets':
      return { observed: rows.observed, conversions: rows.conversions, ends: bucketsMs };
    case 'immature_negative':
      return { observed: rows.clicks, conversions: rows.converted, ends };
    case 'mature_only':
      return {
        observed: Float64Array.from(
          { length: nRows },
          (_, i) => rows.observed[i * nBuckets + last]!,
        ),
        conversions: rows.maturedConversions,
        ends,
      };
  }
}

/** @returns the largest change of a share */
function updateShares(
  shares: number[],
  o: {
    readonly observed: Float64Array;
    readonly conversions: Float64Array;
    readonly ends: readonly number[];
    readonly p: Float64Array;
    readonly nRows: number;
  },
): number {
  const nBuckets = shares.length;
  const came = new Float64Array(nBuckets);
  const promised = new Float64Array(nBuckets);
  for (let i = 0; i < o.nRows; i++) {
    for (let b = 0; b < nBuckets; b++) {
      came[b]! += o.conversions[i * nBuckets + b]!;
      promised[b]! += o.observed[i * nBuckets + b]! * o.p[i]!;
    }
  }
  const next = delayShares({ bucketsMs: o.ends, came, promised }).map(
    (smooth, b) => (SMOOTH_WORTH * smooth + came[b]!) / (SMOOTH_WORTH + promised[b]!),
  );
  const sum = next.reduce((all, share) => all + share, 0);
  let moved = 0;
  next.forEach((share, b) => {
    moved = Math.max(moved, Math.abs(share / sum - shares[b]!));
    shares[b] = share / sum;
  });
  return moved;
}

/** @throws WAGGLE_TRAINING_SHAPE, WAGGLE_TRAINING_LABEL */
export function checkConversionRows(rows: ConversionRows): void {
  const { nRows, bucketsMs, clicks, converted, observed, conversions } = rows;
  const nBuckets = bucketsMs.length;
  const lengths = {
    clicks: [clicks.length, nRows],
    converted: [converted.length, nRows],
    decisionTsMs: [rows.decisionTsMs.length, nRows],
    observed: [observed.length, nRows * nBuckets],
    conversions: [conversions.length, nRows * nBuckets],
    ...Object.fromEntries(
      CONVERSION_KEYS.map((key) => [key, [rows.keys[key].codes.length, nRows]] as const),
    ),
  };
  for (const [name, [length, expected]] of Object.entries(lengths)) {
    if (length !== expected) {
      throw trainingError(
        'WAGGLE_TRAINING_SHAPE',
        `${name} has ${length} values where ${expected} are expected`,
      );
    }
  }
  for (let i = 0; i < nRows; i++) {
    const bad = (what: string) =>
      trainingError('WAGGLE_TRAINING_LABEL', `row ${i}: ${what}`, { details: { row: i } });
    const n = clicks[i]!;
    if (!(n > 0 && Number.isFinite(n))) throw bad(`${n} clicks`);
    if (!(converted[i]! >= 0 && converted[i]! <= n))
      throw bad(`${converted[i]} conversions of ${n} clicks`);
    for (let b = 0; b < nBuckets; b++) {
      const at = observed[i * nBuckets + b]!;
      const came = conversions[i * nBuckets + b]!;
      if (!(at >= 0 && at <= n && came >= 0 && came <= at)) {
        throw bad(`${came} conversions in bucket ${b} of ${at} clicks that saw it, of ${n}`);
      }
    }
  }
}

/** [nRows] probability that a click of the row's ad converts within the window. */
export function scorePcvr(model: EffectsModel, rows: ConversionRows): Float64Array {
  const columns = model.levels.map((level) => rows.keys[level.name as ConversionKey]);
  return scoreEffects(model, rows.nRows, (l, row) => {
    const column = columns[l];
    return column === undefined ? '' : stringAt(column, row);
  });
}

export interface TrainedPcvr extends SuiteModel {
  readonly model: PcvrModel;
  readonly gate: GateReport;
}

export interface PcvrTraining {
  /** Ads sent before the cut, as known at the cut. */
  readonly past: ConversionRows;
  /** Ads sent from the cut on, as known now, with the same buckets: the earlier third calibrates, the rest gates. */
  readonly later: ConversionRows;
  readonly seed: number;
  readonly bootstrapReplicates?: number;
  readonly signal?: AbortSignal | undefined;
}

const CALIBRATION_SHARE = 1 / 3;

/**
 * Trains pCVR on what was known at the cut, calibrates on ads after it and gates on ads later still. A later ad counts by
 * the buckets its clicks have seen: visible conversions are its clicks times p times the share of those buckets.
 * Pure. @throws as `fitPcvr`
 */
export async function trainPcvr(o: PcvrTraining): Promise<TrainedPcvr> {
  const { past, later, seed, signal } = o;
  checkConversionRows(later);
  if (later.bucketsMs.join() !== past.bucketsMs.join()) {
    throw trainingError(
      'WAGGLE_TRAINING_SHAPE',
      'past and later rows have different delay buckets',
    );
  }
  const fitted = await fitPcvr(past, { signal });
  const nBuckets = later.bucketsMs.length;
  const visible = new Float64Array(later.nRows);
  const successes = new Float64Array(later.nRows);
  for (let i = 0; i < later.nRows; i++) {
    let seen = 0;
    for (let b = 0; b < nBuckets; b++) {
      seen += later.observed[i * nBuckets + b]! * fitted.shares[b]!;
      successes[i]! += later.conversions[i * nBuckets + b]!;
    }
    visible[i] = seen / later.clicks[i]!;
  }
  const raw = scorePcvr(fitted, later).map(logit);
  const counted = Array.from({ length: later.nRows }, (_, i) => i).filter((i) => visible[i]! > 0);
  const cut = Math.floor(counted.length * CALIBRATION_SHARE);
  const pick = <T extends ArrayLike<number>>(column: T, which: readonly number[]) =>
    Float64Array.from(which, (i) => column[i]!);
  const sliceOf = (which: readonly number[]) => ({
    logits: pick(raw, which),
    successes: pick(successes, which),
    trials: pick(later.clicks, which),
    maturity: pick(visible, which),
    clusters: Uint32Array.from(which, (i) => later.keys.publication.codes[i]!),
  });
  const calibrated: CalibrationFit = fitCalibration(sliceOf(counted.slice(0, cut)));
  const model: PcvrModel = { ...fitted, calibration: calibrated.calibration };

  const judgedRows = counted.slice(cut);
  const judged = sliceOf(judgedRows);
  const p = pick(scorePcvr(model, later), judgedRows).map((v, i) => v * judged.maturity[i]!);
  // What is known without any id: the network's own rate, by the same buckets.
  const network = 1 / (1 + Math.exp(-networkLogit(past, fitted)));
  const baseline = judged.maturity.map((share) => network * share);
  const decisionTsMs = pick(later.decisionTsMs, judgedRows);
  const firstMs = (key: 'publication' | 'campaign') => firstSent(key, past, later, judgedRows);
  const publicationFirstMs = firstMs('publication');
  const campaignFirstMs = firstMs('campaign');
  const gate = runGate(
    {
      model: p,
      prior: baseline,
      successes: judged.successes,
      trials: judged.trials,
      publications: judged.clusters,
      campaigns: Uint32Array.from(judgedRows, (i) => later.keys.campaign.codes[i]!),
      decisionTsMs,
      publicationFirstMs,
      campaignFirstMs,
    },
    {
      name: 'pcvr',
      seed,
      otherwise: 'none',
      ...(o.bootstrapReplicates === undefined ? {} : { nReplicates: o.bootstrapReplicates }),
    },
  );
  const slices = sliceTable(
    judgedCounts({
      ...{ model: p, baseline, publications: judged.clusters },
      ...{ successes: judged.successes, trials: judged.trials },
      ...{ publicationFirstMs, campaignFirstMs, decisionTsMs },
    }),
    seed,
  );
  const fingerprint = `conversion_${createHash('sha256')
    .update(JSON.stringify([CONVERSION_KEYS, model.bucketsMs]))
    .digest('hex')
    .slice(0, 24)}`;
  const hours = (ms: number) => Number((ms / 3_600_000).toPrecision(4));
  return {
    name: 'pcvr',
    model,
    gate,
    fingerprint,
    artifacts: {
      'model.json': jsonBytes(model),
      'model.onnx': effectsOnnx(model, fingerprint),
      'gate.json': jsonBytes(gate),
    },
    metrics: {
      gatePassed: gate.passed ? 1 : 0,
      relativeLogLoss: gate.relativeLogLoss?.estimate ?? null,
      logLoss: gate.modelMetrics?.logLoss ?? null,
      auc: gate.modelMetrics?.auc ?? null,
    },
    card: {
      name: 'pcvr',
      predicts: `The probability that a unique verified click converts within ${hours(model.bucketsMs.at(-1)!)} hours.`,
      unit: 'a unique verified click, counted by ad',
      label:
        'first conversion of the subscriber who clicked; reversals change its value, not that it came',
      maturity: `by delay bucket, ends at ${model.bucketsMs.map(hours).join(', ')} h: a bucket learns from clicks that are old enough to have seen all of it`,
      baseline: "the network's conversion rate by the same buckets",
      form: `crossed effects of ${CONVERSION_KEYS.join(', ')}; shares of the buckets ${model.shares.map((s) => s.toFixed(3)).join(', ')}`,
      data: {
        fromTs: isoOrNull(past.decisionTsMs[0] ?? Number.NaN),
        toTs: isoOrNull(past.asOfMs),
        rows: { train: past.nRows, calibrate: cut, gate: judgedRows.length },
      },
      features: CONVERSION_KEYS.map((name) => ({
        name,
        description: 'key of an effect, as valid when the ad was sent',
      })),
      featureSetFingerprint: fingerprint,
      slices,
      metrics: {
        'normalised entropy': gate.modelMetrics?.normalisedEntropy ?? null,
        AUC: gate.modelMetrics?.auc ?? null,
        ECE: gate.modelMetrics?.ece ?? null,
      },
      calibration: `${model.calibration.kind} (${calibrated.reason}), on ads later than the fit`,
      gate,
      limits: [
        'Buckets that no click has seen yet follow from those that were: a mixture of paces, whose slowest ones nobody has watched to the end.',
        'One share per bucket for all campaigns: a campaign whose buyers decide slower than others’ is over-predicted while young.',
        'What people are worth is another question: the value of a conversion is not predicted.',
      ],
    },
  };
}

/** The rate of all clicks together, by buckets. */
function networkLogit(rows: ConversionRows, { shares }: PcvrModel): number {
  const nBuckets = shares.length;
  let came = 0;
  let seen = 0;
  for (let i = 0; i < rows.nRows; i++) {
    for (let b = 0; b < nBuckets; b++) {
      came += rows.conversions[i * nBuckets + b]!;
      seen += rows.observed[i * nBuckets + b]! * shares[b]!;
    }
  }
  return logit(Math.min(Math.max(came / seen, 1e-9), 1 - 1e-9));
}

function firstSent(
  key: 'publication' | 'campaign',
  past: ConversionRows,
  later: ConversionRows,
  which: readonly number[],
): Float64Array {
  const first = new Map<string, number>();
  for (const rows of [past, later]) {
    for (let i = 0; i < rows.nRows; i++) {
      const id = stringAt(rows.keys[key], i);
      first.set(id, Math.min(first.get(id) ?? Number.POSITIVE_INFINITY, rows.decisionTsMs[i]!));
    }
  }
  return Float64Array.from(which, (i) => first.get(stringAt(later.keys[key], i))!);
}

/**
 * The model on indices: int64 [N, levels] to float32 [N] `probability`. Index 0 stands for any unknown key; the numbers of
 * the others are in the file's metadata, level by level in the order of `model.json`.
 */
function effectsOnnx(model: EffectsModel, fingerprint: string): Uint8Array {
  const values = model.levels.flatMap((level) => Object.values(level.effects));
  let from = 1;
  const starts = model.levels.map(({ effects }) => {
    const start = from;
    from += Object.keys(effects).length;
    return start;
  });
  return exportSparseLinearOnnx(
    {
      nFeatures: values.length + 1,
      indices: Int32Array.from(values, (_, i) => i + 1),
      values: Float64Array.from(values),
      intercept: model.base,
    },
    {
      name: model.name,
      nFields: model.levels.length,
      calibration: model.calibration,
      metadata: {
        'waggle.feature_set': fingerprint,
        'waggle.levels': model.levels.map(({ name }, l) => `${name}:${starts[l]}`).join(','),
      },
    },
  ).bytes;
}
