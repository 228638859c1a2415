import { Rng } from '@waggle/core';
import {
  areaUnderPrecisionRecall,
  areaUnderRoc,
  type BinomialSample,
  calibrationRatio,
  crossedLogLossLimit,
  expectedCalibrationError,
  logLoss,
  normalisedEntropy,
  relativeLogLossDifference,
} from '@waggle/measurement';
import { LABEL_HORIZON_MS } from './dataset.js';

/** The worst relative log-loss against the prior that may be released, at 95 % confidence. */
export const MAX_RELATIVE_LOSS = 0.001;
/** |ln calibration ratio| may be this, or two standard errors where the data cannot tell better. */
export const MAX_LOG_CALIBRATION = 0.05;
export const MIN_PUBLICATIONS = 10;
/** Standard errors are by campaign as well: one says nothing about others. */
export const MIN_CAMPAIGNS = 2;
const MIN_SUCCESSES = 50;

export interface GateCheck {
  readonly name:
    | 'later_rows'
    | 'enough_data'
    | 'no_leak'
    | 'log_loss'
    | 'calibration'
    | 'fit'
    | 'converters';
  readonly passed: boolean;
  readonly value: number | null;
  readonly limit: number | null;
  readonly explanation: string;
}

export interface GateMetrics {
  readonly logLoss: number;
  readonly normalisedEntropy: number;
  readonly auc: number;
  readonly prAuc: number;
  readonly ece: number;
  readonly calibrationRatio: number;
  readonly logCalibrationSe: number;
}

/** What a model that fails is replaced by, which is what it is held against where there is such a thing. */
export type GateFallback = 'prior_only' | 'linear' | 'unreleased' | 'none';

const FALLBACKS: Readonly<Record<GateFallback, { baseline: string; told: string }>> = {
  prior_only: { baseline: "the prior's", told: 'the prior takes its place' },
  linear: { baseline: "the linear model's", told: 'the linear model keeps its place' },
  unreleased: { baseline: "the prior's", told: 'it is not released' },
  none: { baseline: "the baseline's", told: 'it is not promoted' },
};

/** Why a model was or was not released; plain JSON. */
export interface GateReport {
  readonly model: string;
  readonly passed: boolean;
  /** What serves from now on: the model, or what stands in for it; `none` where nothing does. */
  readonly released: 'model' | GateFallback;
  readonly checks: readonly GateCheck[];
  readonly rows: number;
  readonly publications: number;
  readonly trials: number;
  readonly successes: number;
  readonly fromTs: string | null;
  readonly toTs: string | null;
  /** (LL(model) − LL(prior)) / LL(prior), with its bootstrap limits; null when it could not be measured. */
  readonly relativeLogLoss: {
    readonly estimate: number;
    readonly upper95: number;
    /**
     * The same limit where rows of a campaign share the model's error as those of a publication do; above `upper95` where they do. For
     * information: no check.
     */
    readonly upper95Crossed: number;
    readonly replicates: number;
  } | null;
  readonly modelMetrics: GateMetrics | null;
  readonly priorMetrics: GateMetrics | null;
  /** Known and new publications and campaigns by themselves; empty when it was not told who is new. For information: no check. */
  readonly slices: readonly GateSlice[];
  /** One paragraph for people. */
  readonly summary: string;
}

export interface GateSlice {
  readonly name: 'known_publication' | 'new_publication' | 'known_campaign' | 'new_campaign';
  readonly rows: number;
  readonly trials: number;
  readonly successes: number;
  /** Null where the slice has no successes or no failures. */
  readonly logLoss: number | null;
  readonly priorLogLoss: number | null;
  /** Expected over observed. */
  readonly calibrationRatio: number | null;
}

export interface GateRows {
  /** [nRows] probability of a visible success (maturity included). */
  readonly model: Float64Array;
  /** What it is held against: the prior, or what `otherwise` names. */
  readonly prior: Float64Array;
  readonly successes: Float64Array;
  readonly trials: Float64Array;
  readonly publications: Uint32Array;
  readonly campaigns: Uint32Array;
  readonly decisionTsMs: Float64Array;
  /** [nRows] when the row's publication and campaign were first decided on, this slice or long before. */
  readonly publicationFirstMs?: Float64Array;
  readonly campaignFirstMs?: Float64Array;
}

export interface GateOptions {
  readonly name: string;
  readonly seed: number;
  readonly nReplicates?: number;
  /** Checks made before: a leak found, a fit that failed. Any that failed fails the gate. */
  readonly earlierChecks?: readonly GateCheck[];
  /** @default prior_only */
  readonly otherwise?: GateFallback;
}

/**
 * Decides whether a model may be served, on rows later than anything it has seen: the upper 95 % limit of its
 * relative log-loss difference to the prior, bootstrapped by publication, must not exceed 0.1 %, and its
 * calibration ratio must lie within max(5 %, 2 standard errors). Standard errors are by publication and campaign,
 * whose unknown effects rows share; so is a second limit of the log-loss, which the report states beside the first.
 * Pure; O(n + replicates · publications).
 */
export function runGate(rows: GateRows, options: GateOptions): GateReport {
  const { name, seed, nReplicates = 1_000, earlierChecks = [], otherwise = 'prior_only' } = options;
  const nRows = rows.model.length;
  let from = Number.POSITIVE_INFINITY;
  let to = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < nRows; i++) {
    from = Math.min(from, rows.decisionTsMs[i]!);
    to = Math.max(to, rows.decisionTsMs[i]!);
  }
  const { trials, successes, publications, campaigns, enough } = judgeable(rows);
  const checks: GateCheck[] = [...earlierChecks];
  checks.push({
    name: 'enough_data',
    passed: enough,
    value: successes,
    limit: MIN_SUCCESSES,
    explanation: `${nRows} later rows of ${publications} publications and ${campaigns} campaigns with ${successes} successes and ${trials - successes} failures; at least ${MIN_PUBLICATIONS} publications, ${MIN_CAMPAIGNS} campaigns and ${MIN_SUCCESSES} of each outcome are needed`,
  });
  let relativeLogLoss: GateReport['relativeLogLoss'] = null;
  let modelMetrics: GateMetrics | null = null;
  let priorMetrics: GateMetrics | null = null;
  if (enough) {
    const counts = { successes: rows.successes, trials: rows.trials };
    const model = { probability: rows.model, ...counts };
    modelMetrics = metricsOf(model, rows);
    priorMetrics = metricsOf({ probability: rows.prior, ...counts }, rows);
    const paired = { ...model, baseline: rows.prior, clusters: rows.publications };
    const difference = relativeLogLossDifference(paired, {
      rng: new Rng(seed, GATE_STREAM),
      nReplicates,
    });
    const crossed = crossedLogLossLimit({ ...paired, crossed: rows.campaigns });
    relativeLogLoss = {
      estimate: difference.estimate,
      upper95: difference.upperLimit,
      upper95Crossed: crossed.upperLimit,
      replicates: nReplicates,
    };
    checks.push({
      name: 'log_loss',
      passed: difference.upperLimit <= MAX_RELATIVE_LOSS,
      value: difference.upperLimit,
      limit: MAX_RELATIVE_LOSS,
      explanation: `log-loss differs from ${FALLBACKS[otherwise].baseline} by ${percent(difference.estimate)}, at most ${percent(difference.upperLimit)} with 95 % confidence (${percent(crossed.upperLimit)} where campaigns share its errors, too); allowed is ${percent(MAX_RELATIVE_LOSS)}`,
    });
    checks.push(calibrationCheck(modelMetrics.calibrationRatio, modelMetrics.logCalibrationSe));
  }
  const passed = checks.every((check) => check.passed);
  return {
    model: name,
    passed,
    released: passed ? 'model' : otherwise,
    checks,
    rows: nRows,
    publications,
    trials,
    successes,
    fromTs: nRows > 0 ? new Date(from).toISOString() : null,
    toTs: nRows > 0 ? new Date(to).toISOString() : null,
    relativeLogLoss,
    modelMetrics,
    priorMetrics,
    slices: [
      ...slicesBy('publication', rows, rows.publicationFirstMs, from),
      ...slicesBy('campaign', rows, rows.campaignFirstMs, from),
    ],
    summary: summarise(name, checks, otherwise),
  };
}

/** What rows have to be judged on, and whether it is enough; groups are counted where they have trials. O(n). */
export function judgeable(rows: {
  readonly successes: ArrayLike<number>;
  readonly trials: ArrayLike<number>;
  readonly publications: ArrayLike<number>;
  readonly campaigns: ArrayLike<number>;
}) {
  let trials = 0;
  let successes = 0;
  const publications = new Set<number>();
  const campaigns = new Set<number>();
  for (let i = 0; i < rows.trials.length; i++) {
    trials += rows.trials[i]!;
    successes += rows.successes[i]!;
    if (!(rows.trials[i]! > 0)) continue;
    publications.add(rows.publications[i]!);
    campaigns.add(rows.campaigns[i]!);
  }
  const enough =
    publications.size >= MIN_PUBLICATIONS &&
    campaigns.size >= MIN_CAMPAIGNS &&
    successes >= MIN_SUCCESSES &&
    trials - successes >= MIN_SUCCESSES;
  return {
    ...{ trials, successes, enough },
    publications: publications.size,
    campaigns: campaigns.size,
  };
}

/** Whether promised over observed successes is within the house's limit, or within what the data can tell. */
export function calibrationCheck(ratio: number, logStandardError: number): GateCheck {
  const limit = Math.max(MAX_LOG_CALIBRATION, 2 * logStandardError);
  const logRatio = Math.log(ratio);
  return {
    name: 'calibration',
    passed: Math.abs(logRatio) <= limit,
    value: Math.abs(logRatio),
    limit,
    explanation: `expected over observed is ${ratio.toFixed(3)}, its logarithm ${logRatio.toFixed(3)} ± ${logStandardError.toFixed(3)}; allowed is ${limit.toFixed(3)} either way`,
  };
}

const GATE_STREAM = 0x67617465; // 'gate'

function metricsOf(sample: BinomialSample, rows: GateRows): GateMetrics {
  const calibration = calibrationRatio(sample, rows.publications, rows.campaigns);
  return {
    logLoss: logLoss(sample),
    normalisedEntropy: normalisedEntropy(sample),
    auc: areaUnderRoc(sample),
    prAuc: areaUnderPrecisionRecall(sample),
    ece: expectedCalibrationError(sample, 20),
    calibrationRatio: calibration.ratio,
    logCalibrationSe: calibration.logStandardError,
  };
}

/**
 * New is what was first decided on less than a label's horizon before the slice begins, or in it: no final outcome of it was known
 * when the slice began.
 */
function slicesBy(
  kind: 'publication' | 'campaign',
  rows: GateRows,
  firstMs: Float64Array | undefined,
  fromMs: number,
): GateSlice[] {
  if (firstMs === undefined) return [];
  return (['known', 'new'] as const).map((age) => {
    const own: number[] = [];
    firstMs.forEach((ms, i) => {
      if (ms > fromMs - LABEL_HORIZON_MS === (age === 'new')) own.push(i);
    });
    const pick = (column: Float64Array) => Float64Array.from(own, (i) => column[i]!);
    const counts = { successes: pick(rows.successes), trials: pick(rows.trials) };
    const total = (column: Float64Array) => column.reduce((sum, v) => sum + v, 0);
    const successes = total(counts.successes);
    const trials = total(counts.trials);
    const model = pick(rows.model);
    const expected = model.reduce((sum, p, i) => sum + p * counts.trials[i]!, 0);
    const both = successes > 0 && successes < trials;
    return {
      name: `${age}_${kind}` as const,
      rows: own.length,
      trials,
      successes,
      logLoss: both ? logLoss({ probability: model, ...counts }) : null,
      priorLogLoss: both ? logLoss({ probability: pick(rows.prior), ...counts }) : null,
      calibrationRatio: successes > 0 ? expected / successes : null,
    };
  });
}

function summarise(name: string, checks: readonly GateCheck[], otherwise: GateFallback): string {
  if (checks.every((check) => check.passed)) {
    const told = checks.filter(
      (check) => check.name === 'log_loss' || check.name === 'calibration',
    );
    return `${name} passed its gate: ${told.map((check) => check.explanation).join('; ')}.`;
  }
  const failed = checks.filter((check) => !check.passed);
  return `${name} failed its gate, ${FALLBACKS[otherwise].told}: ${failed.map((check) => check.explanation).join('; ')}.`;
}

function percent(value: number): string {
  return `${value < 0 ? '−' : '+'}${Math.abs(100 * value).toFixed(3)} %`;
}
