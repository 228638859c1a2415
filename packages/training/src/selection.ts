import { type CalibrationRatio, calibrationRatio } from '@waggle/measurement';
import { glmFit } from '@waggle/native';
import { sigmoid } from '@waggle/ranking';
import { trainingError } from './errors.js';
import { strongestUnrejected } from './fit/logistic.js';

/**
 * Why winners disappoint. Of many candidates the one with the highest prediction is taken, and high predictions are high
 * partly by error: given that it won, its true chance lies below what was promised, the more so the less was known of it
 * ("maximisation bias", arXiv 2205.09809). A model whose predictions are right on average at every level of its own uncertainty
 * has no such bias, whatever is selected by them; one that is right only on average over all rows has. Hence the correction: a
 * calibration whose level and slope depend on how little evidence stands behind a prediction, applied to what was selected.
 */

/** Row of the highest score in each slot, the lower row winning ties. O(n). @param slots [nRows] any numbers, equal within a slot */
export function topPerSlot(slots: ArrayLike<number>, scores: ArrayLike<number>): number[] {
  const best = new Map<number, number>();
  for (let row = 0; row < slots.length; row++) {
    const before = best.get(slots[row]!);
    if (before === undefined || scores[row]! > scores[before]!) best.set(slots[row]!, row);
  }
  return [...best.values()];
}

/** What a ranking selected, one row per slot, and what came of it. */
export interface SelectedRows {
  /** [nRows] promised probability. */
  readonly probability: ArrayLike<number>;
  /** [nRows] delivered emails. */
  readonly trials: ArrayLike<number>;
  /** [nRows] clicks that came, or that the truth expects. */
  readonly clicks: ArrayLike<number>;
  readonly publications: ArrayLike<number>;
  readonly campaigns: ArrayLike<number>;
}

export interface SelectionDecile {
  /** Expected clicks of the least and the most promising slot in it. */
  readonly fromExpected: number;
  readonly toExpected: number;
  readonly nSlots: number;
  readonly calibration: CalibrationRatio;
}

export interface SelectionReport {
  readonly overall: CalibrationRatio;
  /** Slots by expected clicks, the least promising tenth first. */
  readonly deciles: readonly SelectionDecile[];
}

/**
 * Expected over true clicks of what was selected, over all and by deciles of expected clicks, with standard errors by
 * publication and campaign. Above 1 the winners promise too much. O(n log n).
 * @throws WAGGLE_TRAINING_SHAPE for fewer than ten rows, and what `calibrationRatio` throws
 */
export function measureSelection(rows: SelectedRows): SelectionReport {
  const { probability, trials } = rows;
  const nRows = probability.length;
  if (nRows < 10) {
    throw trainingError('WAGGLE_TRAINING_SHAPE', `${nRows} selected rows are fewer than deciles`);
  }
  const expected = Float64Array.from({ length: nRows }, (_, i) => probability[i]! * trials[i]!);
  const order = Array.from(expected.keys()).sort((a, b) => expected[a]! - expected[b]! || a - b);
  const ratioOf = (members: readonly number[]): CalibrationRatio => {
    const pick = (column: ArrayLike<number>) => Float64Array.from(members, (i) => column[i]!);
    return calibrationRatio(
      { probability: pick(probability), successes: pick(rows.clicks), trials: pick(trials) },
      pick(rows.publications),
      pick(rows.campaigns),
    );
  };
  const deciles = Array.from({ length: 10 }, (_, d): SelectionDecile => {
    const members = order.slice(Math.floor((d * nRows) / 10), Math.floor(((d + 1) * nRows) / 10));
    return {
      fromExpected: expected[members[0]!]!,
      toExpected: expected[members.at(-1)!]!,
      nSlots: members.length,
      calibration: ratioOf(members),
    };
  });
  return { overall: ratioOf(order), deciles };
}

/** Rows that ran, later than those the model was fitted on. */
export interface SelectionRows {
  /** [nRows] calibrated logits. */
  readonly logits: ArrayLike<number>;
  /**
   * float64 [nRows × nTerms], row-major, each in [0, 1]: how little is known of the row in some respect, such as
   * `uncertaintyOf` the clicks behind its campaign's effect.
   */
  readonly uncertainty: Float64Array;
  readonly nTerms: number;
  readonly successes: ArrayLike<number>;
  readonly trials: ArrayLike<number>;
  readonly maturity: ArrayLike<number>;
  /** [nRows] publications. */
  readonly clusters: ArrayLike<number>;
  /** [nRows] > 0: what shared luck leaves of a row, see `calibrationWeights`. */
  readonly weights: ArrayLike<number>;
  /**
   * [nRows] in (0, 1]: with what probability the past chose the row. What it chose it liked for reasons that the model does not
   * know; the correction is for the candidates as they come. Absent = the past chose blindly.
   */
  readonly propensity?: ArrayLike<number>;
}

/** logit' = z + level + tilt·d + Σ u_k·(levels_k + tilts_k·d) with d = z − center; plain JSON. */
export interface SelectionCalibration {
  readonly center: number;
  readonly level: number;
  readonly tilt: number;
  readonly levels: readonly number[];
  readonly tilts: readonly number[];
}

export interface SelectionFit {
  readonly calibration: SelectionCalibration;
  /** Log-odds per unit of ln propensity that the model did not see. */
  readonly liking: number;
  /** Penalty that left-out publications did not reject: ½·λ·β². */
  readonly penalty: number;
  readonly losses: readonly { readonly penalty: number; readonly loss: number }[];
}

/** Share of a level's effect that is still its prior's: 1 without evidence, towards 0 with much. @param strength clicks that weigh as much as the prior */
export function uncertaintyOf(clicks: number, strength: number): number {
  return strength / (strength + Math.max(0, clicks));
}

/** Logit of a selected row after correction. @param uncertainty [≥ at + nTerms] with the row's terms from `at` on */
export function selectedLogit(
  calibration: SelectionCalibration,
  z: number,
  uncertainty: ArrayLike<number>,
  at = 0,
): number {
  const { center, level, tilt, levels, tilts } = calibration;
  const d = z - center;
  let out = z + level + tilt * d;
  for (let k = 0; k < levels.length; k++) {
    out += uncertainty[at + k]! * (levels[k]! + tilts[k]! * d);
  }
  return out;
}

/** 1/√λ is the believed spread of a coefficient: from free to next to nothing. */
const PENALTY_GRID: readonly number[] = [4, 16, 64, 256, 1_024, 100_000];
/** What the past chose may be better than the rest by a tenth or so. */
const LEVEL_PENALTY = 1 / 0.1 ** 2;
const FOLDS = 5;

/** A propensity below this counts as this much, so that one lucky draw does not stand for a thousand. */
const MIN_PROPENSITY = 0.005;
/** Of the coefficient of ln propensity, which is fitted and not served. */
const PROPENSITY_PENALTY = 4;

/**
 * ln propensity of each row beyond what a candidate with its logit typically has, from a line through all candidates: each row
 * stands for 1/propensity of them. 0 = chosen as if blindly.
 */
function liking(logits: ArrayLike<number>, propensity: ArrayLike<number>): Float64Array {
  const n = logits.length;
  let mass = 0;
  const mean = { z: 0, l: 0 };
  const l = Float64Array.from({ length: n }, (_, i) =>
    Math.log(Math.max(propensity[i]!, MIN_PROPENSITY)),
  );
  for (let i = 0; i < n; i++) {
    const w = Math.exp(-l[i]!);
    mass += w;
    mean.z += w * logits[i]!;
    mean.l += w * l[i]!;
  }
  mean.z /= mass;
  mean.l /= mass;
  let square = 0;
  let cross = 0;
  for (let i = 0; i < n; i++) {
    const w = Math.exp(-l[i]!);
    square += w * (logits[i]! - mean.z) ** 2;
    cross += w * (logits[i]! - mean.z) * (l[i]! - mean.l);
  }
  const slope = square > 0 ? cross / square : 0;
  return l.map((v, i) => v - mean.l - slope * (logits[i]! - mean.z));
}

/**
 * Fits the correction on rows that ran, by penalised maximum likelihood: coefficients drawn to 0 by the strongest penalty that
 * left-out publications do not reject. Where propensities are known, ln propensity enters as a control: how much more came of
 * rows that the past was eager to choose is fitted along and taken out. O(folds · grid · n · terms²).
 * @throws WAGGLE_TRAINING_SHAPE, WAGGLE_TRAINING_FIT_FAILED
 */
export async function fitSelectionCalibration(rows: SelectionRows): Promise<SelectionFit> {
  const { logits, nTerms, uncertainty, clusters } = rows;
  const nRows = logits.length;
  const odd =
    rows.propensity === undefined
      ? -1
      : Array.from(rows.propensity).findIndex((q) => !(q > 0 && q <= 1));
  if (odd >= 0 || (rows.propensity !== undefined && rows.propensity.length !== nRows)) {
    throw trainingError(
      'WAGGLE_TRAINING_SHAPE',
      odd >= 0
        ? `propensity[${odd}] is ${rows.propensity![odd]}, allowed is above 0 up to 1`
        : `${rows.propensity!.length} propensities for ${nRows} rows`,
    );
  }
  if (uncertainty.length !== nRows * nTerms || clusters.length !== nRows || nRows === 0) {
    throw trainingError(
      'WAGGLE_TRAINING_SHAPE',
      `${uncertainty.length} uncertainties and ${clusters.length} clusters for ${nRows} rows of ${nTerms} terms`,
    );
  }
  let mass = 0;
  let sum = 0;
  for (let i = 0; i < nRows; i++) {
    const m = rows.weights[i]! * rows.trials[i]! * rows.maturity[i]! * sigmoid(logits[i]!);
    mass += m;
    sum += m * logits[i]!;
  }
  const center = sum / mass;
  const width = 3 + 2 * nTerms;
  const liked =
    rows.propensity === undefined ? new Float64Array(nRows) : liking(logits, rows.propensity);
  const x = new Float32Array(nRows * width);
  for (let i = 0; i < nRows; i++) {
    const d = logits[i]! - center;
    const to = i * width;
    for (let k = 0; k < nTerms; k++) {
      x[to + k] = uncertainty[i * nTerms + k]!;
      x[to + nTerms + k] = uncertainty[i * nTerms + k]! * d;
    }
    x[to + width - 3] = liked[i]!;
    x[to + width - 2] = d;
    x[to + width - 1] = 1;
  }
  const fitOn = async (members: readonly number[], penalty: number): Promise<Float64Array> => {
    const part = new Float32Array(members.length * width);
    members.forEach((i, to) => {
      part.set(x.subarray(i * width, (i + 1) * width), to * width);
    });
    const pick = (column: ArrayLike<number>) => Float64Array.from(members, (i) => column[i]!);
    const l2 = new Float64Array(width).fill(penalty);
    l2[width - 1] = LEVEL_PENALTY;
    l2[width - 3] = PROPENSITY_PENALTY;
    const fit = await glmFit({
      x: part,
      nRows: members.length,
      nFeatures: width,
      successes: pick(rows.successes),
      trials: pick(rows.trials),
      weights: pick(rows.weights),
      offset: Float64Array.from(members, (i) => logits[i]! + Math.log(rows.maturity[i]!)),
      l2,
      intercept: false,
      standardize: false,
    });
    if (!fit.converged || !fit.coefficients.every(Number.isFinite)) {
      throw trainingError(
        'WAGGLE_TRAINING_FIT_FAILED',
        `the correction of ${members.length} rows did not converge at penalty ${penalty}`,
      );
    }
    return fit.coefficients;
  };
  const seen = [...new Set(Array.from(clusters))].sort((a, b) => a - b);
  const number = new Map(seen.map((cluster, i) => [cluster, i]));
  const everyone = Array.from({ length: nRows }, (_, i) => i);
  const losses: Float64Array[] = [];
  for (const penalty of PENALTY_GRID) {
    const byCluster = new Float64Array(seen.length);
    for (let fold = 0; fold < FOLDS; fold++) {
      const foldOf = (i: number): number => number.get(clusters[i]!)! % FOLDS;
      const inside = everyone.filter((i) => foldOf(i) !== fold);
      const outside = everyone.filter((i) => foldOf(i) === fold);
      if (inside.length === 0 || outside.length === 0) continue;
      const beta = await fitOn(inside, penalty);
      for (const i of outside) {
        let eta = logits[i]! + Math.log(rows.maturity[i]!);
        for (let c = 0; c < width; c++) eta += beta[c]! * x[i * width + c]!;
        const p = Math.min(Math.max(sigmoid(eta), 1e-15), 1 - 1e-15);
        const s = rows.successes[i]!;
        byCluster[number.get(clusters[i]!)!]! -=
          rows.weights[i]! * (s * Math.log(p) + (rows.trials[i]! - s) * Math.log1p(-p));
      }
    }
    losses.push(byCluster);
  }
  const penalty = strongestUnrejected(PENALTY_GRID, losses);
  const beta = await fitOn(everyone, penalty);
  return {
    calibration: {
      center,
      level: beta[width - 1]!,
      tilt: beta[width - 2]!,
      levels: Array.from(beta.subarray(0, nTerms)),
      tilts: Array.from(beta.subarray(nTerms, 2 * nTerms)),
    },
    liking: beta[width - 3]!,
    penalty,
    losses: PENALTY_GRID.map((one, k) => ({
      penalty: one,
      loss: losses[k]!.reduce((total, loss) => total + loss, 0) / mass,
    })),
  };
}
