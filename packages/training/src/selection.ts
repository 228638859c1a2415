import { type CalibrationRatio, calibrationRatio } from '@waggle/measurement';
import { glmFit } from '@waggle/native';
import { sigmoid } from '@waggle/ranking';
import { trainingError } from './errors.js';
import { strongestUnrejected } from './fit/logistic.js';

/**
 * Why winners disappoint. Of many candidates the one with the highest prediction is taken, and high predictions are high
 * partly by error: given that it won, its true chance lies below what was promised, the more so the less was known of it
 * ("maximisation bias", arXiv 2205.09809). A model whose predictions are right on average at every level of its own uncertainty
 * has no such bias, whatever is selected by them; one that is right only on average over all rows has. Hence the correction,
 * applied to what was selected: a calibration with a slope of its own for the advantage over the other candidates of the slot
 * (a model may be right about publications and too sure between campaigns, and only the latter decides who wins), and a level and
 * slope that depend on how little evidence stands behind a prediction.
 */

/** Logit minus the mean logit of the candidates of its slot. O(n). @param slots [nRows] any numbers, equal within a slot */
export function advantageInSlot(slots: ArrayLike<number>, logits: ArrayLike<number>): Float64Array {
  const sums = new Map<number, { sum: number; n: number }>();
  for (let i = 0; i < slots.length; i++) {
    const own = sums.get(slots[i]!) ?? { sum: 0, n: 0 };
    own.sum += logits[i]!;
    own.n++;
    sums.set(slots[i]!, own);
  }
  return Float64Array.from({ length: slots.length }, (_, i) => {
    const { sum, n } = sums.get(slots[i]!)!;
    return logits[i]! - sum / n;
  });
}

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
  /** [nRows] logit minus the mean logit of the candidates that the slot had. */
  readonly advantage: ArrayLike<number>;
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
   * [nRows] in (0, 1]: with what probability the past chose the row, NaN where that is unknown. What it chose it liked for
   * reasons that the model does not know; the correction is for the candidates as they come. Absent = the past chose blindly.
   */
  readonly propensity?: ArrayLike<number>;
}

/** logit' = z + level + tilt·d + edge·advantage + Σ u_k·(levels_k + tilts_k·d) with d = z − center; plain JSON. */
export interface SelectionCalibration {
  readonly center: number;
  readonly level: number;
  readonly tilt: number;
  readonly edge: number;
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

/** Logit of a selected row after correction. @param row its calibrated logit and what `SelectionRows` says of such rows */
export function selectedLogit(
  calibration: SelectionCalibration,
  row: {
    readonly logit: number;
    readonly advantage: number;
    readonly uncertainty: ArrayLike<number>;
  },
): number {
  const { center, level, tilt, edge, levels, tilts } = calibration;
  const d = row.logit - center;
  let out = row.logit + level + tilt * d + edge * row.advantage;
  for (let k = 0; k < levels.length; k++) {
    out += row.uncertainty[k]! * (levels[k]! + tilts[k]! * d);
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
/** Of what is fitted and not served: the coefficient of ln propensity, the level of rows without one. */
const NUISANCE_PENALTY = 4;
/** Slopes overall and between candidates are believed to a tenth. */
const SLOPE_PENALTY = 1 / 0.1 ** 2;

/**
 * ln propensity of each row beyond what a candidate with its logit and advantage typically has, from a plane through all
 * candidates: each row stands for 1/propensity of them. 0 = chosen as if blindly, or unknown.
 */
function liking(rows: SelectionRows, propensity: ArrayLike<number>): Float64Array {
  const out = new Float64Array(propensity.length);
  const known = Array.from(out.keys()).filter((i) => !Number.isNaN(propensity[i]!));
  if (known.length === 0) return out;
  const log = known.map((i) => Math.log(Math.max(propensity[i]!, MIN_PROPENSITY)));
  const weight = log.map((l) => Math.exp(-l));
  const mass = weight.reduce((sum, w) => sum + w, 0);
  const meanOf = (values: readonly number[]): number =>
    values.reduce((sum, v, i) => sum + weight[i]! * v, 0) / mass;
  const columns = [log, known.map((i) => rows.logits[i]!), known.map((i) => rows.advantage[i]!)];
  const [l, z, a] = columns.map((values) => {
    const mean = meanOf(values);
    return values.map((v) => v - mean);
  }) as [number[], number[], number[]];
  const cross = (u: readonly number[], v: readonly number[]): number =>
    meanOf(u.map((value, i) => value * v[i]!));
  // Normal equations of two regressors; a hair of ridge for candidates that are all alike.
  const [zz, aa, za] = [cross(z, z) + 1e-9, cross(a, a) + 1e-9, cross(z, a)];
  const determinant = zz * aa - za * za;
  const bz = (aa * cross(z, l) - za * cross(a, l)) / determinant;
  const ba = (zz * cross(a, l) - za * cross(z, l)) / determinant;
  known.forEach((row, i) => {
    out[row] = l[i]! - bz * z[i]! - ba * a[i]!;
  });
  return out;
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
      : Array.from(rows.propensity).findIndex((q) => !(Number.isNaN(q) || (q > 0 && q <= 1)));
  if (odd >= 0 || (rows.propensity !== undefined && rows.propensity.length !== nRows)) {
    throw trainingError(
      'WAGGLE_TRAINING_SHAPE',
      odd >= 0
        ? `propensity[${odd}] is ${rows.propensity![odd]}, allowed is above 0 up to 1`
        : `${rows.propensity!.length} propensities for ${nRows} rows`,
    );
  }
  const lengths = [
    uncertainty.length / Math.max(nTerms, 1),
    clusters.length,
    rows.advantage.length,
  ];
  if (nRows === 0 || lengths.some((n, k) => n !== (k === 0 && nTerms === 0 ? 0 : nRows))) {
    throw trainingError(
      'WAGGLE_TRAINING_SHAPE',
      `${uncertainty.length} uncertainties, ${clusters.length} clusters and ${rows.advantage.length} advantages for ${nRows} rows of ${nTerms} terms`,
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
  const width = 5 + 2 * nTerms;
  const liked =
    rows.propensity === undefined ? new Float64Array(nRows) : liking(rows, rows.propensity);
  const x = new Float32Array(nRows * width);
  for (let i = 0; i < nRows; i++) {
    const d = logits[i]! - center;
    const to = i * width;
    for (let k = 0; k < nTerms; k++) {
      x[to + k] = uncertainty[i * nTerms + k]!;
      x[to + nTerms + k] = uncertainty[i * nTerms + k]! * d;
    }
    x[to + width - 5] = liked[i]!;
    x[to + width - 4] = rows.propensity !== undefined && Number.isNaN(rows.propensity[i]!) ? 1 : 0;
    x[to + width - 3] = rows.advantage[i]!;
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
    l2[width - 2] = SLOPE_PENALTY;
    l2[width - 3] = SLOPE_PENALTY;
    l2[width - 4] = NUISANCE_PENALTY;
    l2[width - 5] = NUISANCE_PENALTY;
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
      edge: beta[width - 3]!,
      levels: Array.from(beta.subarray(0, nTerms)),
      tilts: Array.from(beta.subarray(nTerms, 2 * nTerms)),
    },
    liking: beta[width - 5]!,
    penalty,
    losses: PENALTY_GRID.map((one, k) => ({
      penalty: one,
      loss: losses[k]!.reduce((total, loss) => total + loss, 0) / mass,
    })),
  };
}
