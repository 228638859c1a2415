import { Rng } from '@waggle/core';
import { forecastingError } from '../errors.js';
import { checkLevels } from '../series.js';
import { BASE_FEATURES, type InventoryBase } from './base.js';

/** P10, P20, P50, P80, P90: guarantees, revenue, reservations. */
export const INVENTORY_LEVELS = [0.1, 0.2, 0.5, 0.8, 0.9] as const;

/** Something that learns one quantile of y given x; must be deterministic. */
export interface QuantileLearner {
  fit(o: {
    /** float32 [nRows × nFeatures], row-major, NaN = missing; in order of time */
    readonly x: Float32Array;
    readonly nRows: number;
    readonly nFeatures: number;
    /** [nRows] */
    readonly y: Float64Array;
    readonly level: number;
  }): Promise<QuantilePredictor>;
}

export interface QuantilePredictor {
  /** @returns float64 [nRows] */
  predict(x: Float32Array, nRows: number): Promise<Float64Array>;
}

/** The same quantile for every row: what is left of a learner when the base forecast has said it all. */
export const constantLearner: QuantileLearner = {
  fit: ({ y, nRows, level }) => {
    const value = quantileOf(y.slice(0, nRows).sort(), level);
    return Promise.resolve({
      predict: (_, n) => Promise.resolve(new Float64Array(n).fill(value)),
    });
  },
};

export interface InventoryFitOptions {
  readonly base: InventoryBase;
  /** [nSends] what came; NaN where it is not known. */
  readonly actual: Float64Array;
  /** [nSends] when each forecast was made, UTC ms. */
  readonly asOfMs: Float64Array;
  /** Sends whose forecast was made before this teach the learner … */
  readonly fitUntilMs: number;
  /** … and those from then on until this the conformal shifts. */
  readonly calibrateUntilMs: number;
  readonly learner: QuantileLearner;
  /** Further columns, float32 [nSends × nExtra], row-major, such as holidays or segments. */
  readonly extra?: { readonly values: Float32Array; readonly nColumns: number };
  /** Ascending. Default P10, P20, P50, P80, P90. */
  readonly levels?: readonly number[];
  /** Of the uniform numbers that counts are smoothed with. Default 1. */
  readonly seed?: number;
}

/** Least rows that conformal shifts of P10 and P90 are taken from. */
const MIN_CALIBRATION = 50;
const MIN_FIT = 50;

/** Mean and variance of a uniform number from [0, 1). */
const JITTER_MEAN = 0.5;
const JITTER_VARIANCE = 1 / 12;
const JITTER_STREAM = 0x6a697474; // 'jitt'

/**
 * Quantiles of a send's inventory. The learner sees what is left of each send after its base forecast, in deviations, so that
 * a list of a hundred and one of a million teach the same; each quantile is then shifted by the conformal correction that
 * would have been right on sends later than those it learnt from (split conformal, Romano, Patterson & Candès 2019, one side
 * at a time). Quantiles are put in order (Chernozhukov, Fernández-Val & Galichon 2010).
 *
 * Counts are whole numbers, of which small ones pile up at nought, where nothing can fall below a quantile however likely it is.
 * So all is learnt on counts plus a uniform number from [0, 1), whose quantiles have no steps and tell those of the count
 * exactly (Machado & Santos Silva 2005).
 */
export class InventoryModel {
  readonly levels: readonly number[];
  /** [nLevels] in deviations. */
  readonly shifts: Float64Array;
  readonly #learnt: readonly QuantilePredictor[];

  private constructor(
    levels: readonly number[],
    learnt: readonly QuantilePredictor[],
    shifts: Float64Array,
  ) {
    this.levels = levels;
    this.shifts = shifts;
    this.#learnt = learnt;
  }

  /**
   * @throws WAGGLE_FORECASTING_SHAPE, WAGGLE_FORECASTING_ARGUMENT, WAGGLE_FORECASTING_TOO_FEW_SENDS
   */
  static async fit(options: InventoryFitOptions): Promise<InventoryModel> {
    const { base, actual, asOfMs } = options;
    const levels = options.levels ?? INVENTORY_LEVELS;
    checkLevels(levels);
    const n = base.mean.length;
    if (actual.length !== n || asOfMs.length !== n) {
      throw forecastingError(
        'WAGGLE_FORECASTING_SHAPE',
        `${n} base forecasts, ${actual.length} outcomes, ${asOfMs.length} times`,
      );
    }
    const usable = (i: number): boolean => base.deviation[i]! > 0 && Number.isFinite(actual[i]!);
    const fitRows: number[] = [];
    const calibrationRows: number[] = [];
    for (let i = 0; i < n; i++) {
      if (!usable(i)) continue;
      if (asOfMs[i]! < options.fitUntilMs) fitRows.push(i);
      else if (asOfMs[i]! < options.calibrateUntilMs) calibrationRows.push(i);
    }
    if (fitRows.length < MIN_FIT || calibrationRows.length < MIN_CALIBRATION) {
      throw forecastingError(
        'WAGGLE_FORECASTING_TOO_FEW_SENDS',
        `${fitRows.length} sends to learn from and ${calibrationRows.length} to calibrate on; ${MIN_FIT} and ${MIN_CALIBRATION} are needed`,
      );
    }
    // In order of time, as learners expect.
    fitRows.sort((a, b) => asOfMs[a]! - asOfMs[b]! || a - b);
    const rng = new Rng(options.seed ?? 1, JITTER_STREAM);
    const jitter = Float64Array.from({ length: n }, () => rng.uniform());
    const standardised = (rows: readonly number[]): Float64Array =>
      Float64Array.from(
        rows,
        (i) => (actual[i]! + jitter[i]! - middleOf(base, i)) / deviationOf(base, i),
      );
    const fitX = columnsOf(base, fitRows, options.extra);
    const fitY = standardised(fitRows);
    const learnt: QuantilePredictor[] = [];
    for (const level of levels) {
      learnt.push(await options.learner.fit({ ...fitX, y: fitY, level }));
    }
    const calibrationX = columnsOf(base, calibrationRows, options.extra);
    const calibrationY = standardised(calibrationRows);
    const shifts = new Float64Array(levels.length);
    for (let l = 0; l < levels.length; l++) {
      const predicted = await learnt[l]!.predict(calibrationX.x, calibrationX.nRows);
      const residuals = calibrationY.map((z, i) => z - predicted[i]!);
      shifts[l] = conformalQuantile(residuals.sort(), levels[l]!);
    }
    return new InventoryModel(levels, learnt, shifts);
  }

  /**
   * @param rows sends of the base forecast to predict
   * @returns float64 [nRows × nLevels], row-major, whole numbers ascending within a row; NaN where the base knows nothing
   */
  async predict(
    base: InventoryBase,
    rows: readonly number[],
    extra?: InventoryFitOptions['extra'],
  ): Promise<Float64Array> {
    const smooth = await this.predictSmooth(base, rows, extra);
    return smooth.map((q) => (Number.isNaN(q) ? q : Math.max(0, Math.ceil(q - 1))));
  }

  /**
   * The same of the count plus a uniform number from [0, 1): what coverage is judged by, since no two whole numbers enclose just
   * four fifths of a small count.
   */
  async predictSmooth(
    base: InventoryBase,
    rows: readonly number[],
    extra?: InventoryFitOptions['extra'],
  ): Promise<Float64Array> {
    const nLevels = this.levels.length;
    const { x, nRows } = columnsOf(base, rows, extra);
    const out = new Float64Array(nRows * nLevels);
    for (let l = 0; l < nLevels; l++) {
      const z = await this.#learnt[l]!.predict(x, nRows);
      for (let r = 0; r < nRows; r++) {
        const i = rows[r]!;
        const value =
          base.deviation[i] === 0
            ? // Nothing to be unsure of but the uniform number.
              base.mean[i]! + this.levels[l]!
            : middleOf(base, i) + deviationOf(base, i) * (z[r]! + this.shifts[l]!);
        out[r * nLevels + l] = Number.isNaN(value) ? Number.NaN : Math.max(0, value);
      }
    }
    rearrange(out, nLevels);
    return out;
  }
}

const middleOf = (base: InventoryBase, i: number): number => base.mean[i]! + JITTER_MEAN;

const deviationOf = (base: InventoryBase, i: number): number =>
  Math.sqrt(base.deviation[i]! ** 2 + JITTER_VARIANCE);

function columnsOf(
  base: InventoryBase,
  rows: readonly number[],
  extra: InventoryFitOptions['extra'],
): { x: Float32Array; nRows: number; nFeatures: number } {
  const nBase = BASE_FEATURES.length;
  const nExtra = extra?.nColumns ?? 0;
  if (extra !== undefined && extra.values.length !== base.mean.length * nExtra) {
    throw forecastingError(
      'WAGGLE_FORECASTING_SHAPE',
      `${extra.values.length} extra values do not fill ${base.mean.length} rows of ${nExtra}`,
    );
  }
  const nFeatures = nBase + nExtra;
  const x = new Float32Array(rows.length * nFeatures);
  rows.forEach((i, r) => {
    x.set(base.features.subarray(i * nBase, (i + 1) * nBase), r * nFeatures);
    if (extra !== undefined) {
      x.set(extra.values.subarray(i * nExtra, (i + 1) * nExtra), r * nFeatures + nBase);
    }
  });
  return { x, nRows: rows.length, nFeatures };
}

/** Sorts each row of [nRows × nLevels] in place: quantiles that crossed do so no more, and are no worse. O(nRows · nLevels²) */
export function rearrange(quantiles: Float64Array, nLevels: number): void {
  for (let from = 0; from < quantiles.length; from += nLevels) {
    quantiles.subarray(from, from + nLevels).sort();
  }
}

/** Quantile of sorted values, linear between order statistics at (i + ½)/n. */
function quantileOf(sorted: Float64Array, level: number): number {
  return valueAt(sorted, level * sorted.length - 0.5);
}

/**
 * The value that a further one of the same kind lies below with probability `level`: the k-th of n has k/(n + 1) below it on average,
 * where k/n would leave intervals from few sends too narrow. The least and the greatest where n is too small for the level.
 */
function conformalQuantile(sorted: Float64Array, level: number): number {
  return valueAt(sorted, level * (sorted.length + 1) - 1);
}

/** Linear between order statistics; `at` counts from 0. */
function valueAt(sorted: Float64Array, at: number): number {
  const low = Math.max(0, Math.min(sorted.length - 1, Math.floor(at)));
  const high = Math.min(sorted.length - 1, low + 1);
  const fraction = Math.max(0, Math.min(1, at - low));
  return sorted[low]! * (1 - fraction) + sorted[high]! * fraction;
}
