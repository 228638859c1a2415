import { DAY_MS } from '@waggle/core';
import { solveEffects } from '@waggle/features';
import { type CalibrationRatio, calibrationRatio, crossedLogLossLimit } from '@waggle/measurement';
import { type SelectionCalibration, selectedLogit, sigmoid } from '@waggle/ranking';
import { splitByTime } from './dataset.js';
import { estimateEffectPriors } from './effect-priors.js';
import { trainingError } from './errors.js';
import { judgeable } from './gate.js';

/**
 * Why winners disappoint. Of many candidates the one with the highest prediction is taken, and high predictions are high
 * partly by error: given that it won, its true chance lies below what was promised ("maximisation bias", arXiv 2205.09809).
 * Whatever is selected by predictions that are means given all that is known has no such bias: then an ad that is promised twice
 * the clicks of the slot's average brings twice as many, on average. So the bias shows among ads that were chosen without regard
 * to the prediction's error, as a slope below 1 of what came on the advantage over the other candidates. That slope, and the level
 * that selection and the age of a release leave, are the correction. It is fitted on rows later than the model, each as a release
 * made before it would have scored it. Ads of one campaign share what the model does not know of it, so that a network of
 * a few dozen campaigns says little about a slope between campaigns however often they ran, and all ads of a week share what nobody
 * knew of that week, so that a fortnight says little about the level: publications, campaigns and weeks have effects of their own in
 * the fit, and the correction is drawn to nothing by what that leaves uncertain. An advantage is partly the campaign's everywhere and
 * partly its own with this publication; a model may be right about one and too sure of the other, and how a campaign fares with different
 * publications is seen far better than how campaigns differ. So each part has a slope of its own, and the correction is their mean.
 */

/** Logit minus the mean logit of the candidates of its slot. O(n). @param slots [nRows] any numbers, equal within a slot */
export function advantageInSlot(slots: ArrayLike<number>, logits: ArrayLike<number>): Float64Array {
  return groupMeans(slots, logits).map((mean, i) => logits[i]! - mean);
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
  /** [nRows] calibrated logits, of features as a release has them that was made before all rows. */
  readonly logits: ArrayLike<number>;
  /** [nRows] logit minus the mean logit of the candidates that the slot had. */
  readonly advantage: ArrayLike<number>;
  readonly successes: ArrayLike<number>;
  readonly trials: ArrayLike<number>;
  readonly maturity: ArrayLike<number>;
  /** [nRows] codes from 0. */
  readonly publications: ArrayLike<number>;
  readonly campaigns: ArrayLike<number>;
  /** [nRows] codes from 0 of the weeks, or other times, in which rows ran. Absent = time has no effects. */
  readonly weeks?: ArrayLike<number>;
  /**
   * [nRows] in (0, 1]: with what probability the past chose the row, NaN where that is unknown. What it chose it liked for
   * reasons that the model does not know; the correction is for the candidates as they come. Absent = the past chose blindly.
   */
  readonly propensity?: ArrayLike<number>;
}

export interface SelectionFit {
  readonly calibration: SelectionCalibration;
  /** Log-odds per unit of ln propensity that the model did not see. */
  readonly liking: number;
  /** Log-odds of rows whose propensity is unknown. */
  readonly unknown: number;
  /** Of what the model does not know of a publication, a campaign, a week, a send; logit scale. */
  readonly variances: {
    readonly publication: number;
    readonly campaign: number;
    readonly week: number;
    readonly row: number;
  };
}

/** What a release promises grows stale, and a network makes new ones: an ad that ran is asked of one that was at most so old. */
const RELEASE_AGE_MS = 7 * DAY_MS;

/** Releases that were made, one a week, between the first one and a moment: code of `SelectionRows.weeks`. */
export function weekSince(releasedMs: number, tsMs: number): number {
  return Math.max(0, Math.floor((tsMs - releasedMs) / RELEASE_AGE_MS));
}

/** When the release of that week was made. */
export function releasedInWeek(releasedMs: number, week: number): number {
  return releasedMs + week * RELEASE_AGE_MS;
}

/** What later rows may be off by together before looking, as for the model's own calibration. */
const LEVEL_SD = 0.05;
/** Believed spread of (slope between candidates − 1) before looking. */
const EDGE_SD = 0.1;
/** Of what is fitted and not served: the coefficient of ln propensity, the level of rows without one. */
const LIKING_SD = 0.2;
const UNKNOWN_SD = 0.1;
/** Variance of what a model does not know of a group, before looking, and the groups that this belief weighs as much as. */
const FIRST_VARIANCE = 0.02;
const BELIEVED_GROUPS = 5;
const VARIANCE_ROUNDS = 8;
const SPREAD_PROBES = 8;
/**
 * Expected clicks stand for trials this many times over, of which the clicks are successes: rows may then have far more
 * clicks than expected, and the base takes the factor up.
 */
const MAX_LUCK = 1_000;

/** A propensity below this counts as this much, so that one lucky draw does not stand for a thousand. */
const MIN_PROPENSITY = 0.005;
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
 * Fits the correction on rows that ran: crossed random effects of publications, campaigns and weeks with variances by
 * expectation-maximisation, dispersion of sends by moments, normal beliefs about level and slope (`solveEffects`). Where propensities
 * are known, ln propensity enters as a control: how much more came of rows that the past was eager to choose is fitted along and taken
 * out. O(rounds · n).
 * @throws WAGGLE_TRAINING_SHAPE
 */
export async function fitSelectionCalibration(rows: SelectionRows): Promise<SelectionFit> {
  checkRows(rows);
  const { logits, advantage, propensity } = rows;
  const nRows = logits.length;
  const liked = propensity === undefined ? new Float64Array(nRows) : liking(rows, propensity);
  const campaignsOwn = groupMeans(rows.campaigns, advantage);
  const columns = [
    { sd: EDGE_SD, of: (i: number) => campaignsOwn[i]! },
    { sd: EDGE_SD, of: (i: number) => advantage[i]! - campaignsOwn[i]! },
    { sd: LIKING_SD, of: (i: number) => liked[i]! },
    { sd: UNKNOWN_SD, of: (i: number) => (Number.isNaN(propensity?.[i] ?? 1) ? 1 : 0) },
  ];
  const successes = Float64Array.from(rows.successes);
  const exposure = Float64Array.from(rows.trials, (n, i) => n * rows.maturity[i]!);
  const offset = Float64Array.from(logits, (z) => Math.log(sigmoid(z)));
  const levels = [
    { name: 'publication', codes: Uint32Array.from(rows.publications) },
    { name: 'campaign', codes: Uint32Array.from(rows.campaigns) },
    ...(rows.weeks === undefined ? [] : [{ name: 'week', codes: Uint32Array.from(rows.weeks) }]),
  ];
  const expected = exposure.map((n, i) => n * Math.exp(offset[i]!));
  const { dispersion } = estimateEffectPriors({
    successes,
    trials: expected.map((clicks, i) => Math.max(MAX_LUCK * clicks, successes[i]!)),
    levels,
  });
  const problem = {
    successes,
    exposure,
    offset,
    codes: Int32Array.from(
      { length: levels.length * nRows },
      (_, k) => levels[k % levels.length]!.codes[Math.floor(k / levels.length)]!,
    ),
    columns: Float64Array.from({ length: columns.length * nRows }, (_, k) =>
      columns[k % columns.length]!.of(Math.floor(k / columns.length)),
    ),
  };
  const variances = levels.map(() => FIRST_VARIANCE);
  const sizes = levels.map(({ codes }) =>
    codes.reduce((most, code) => Math.max(most, code + 1), 0),
  );
  const solve = (start?: Float64Array) =>
    solveEffects(
      problem,
      {
        link: 'log',
        levels: sizes.map((size, l) => ({ size, variance: variances[l]! })),
        columns: columns.map(({ sd }) => ({ mean: 0, variance: sd ** 2 })),
        base: { mean: 0, variance: LEVEL_SD ** 2 },
        dispersion,
      },
      { start, spreadProbes: SPREAD_PROBES },
    );
  let solution = await solve();
  for (let round = 0; round < VARIANCE_ROUNDS; round++) {
    solution.spreads.forEach(({ groups: seen, square }, l) => {
      variances[l] = (BELIEVED_GROUPS * FIRST_VARIANCE + square) / (BELIEVED_GROUPS + seen);
    });
    solution = await solve(solution.state);
  }
  return {
    calibration: {
      level: solution.base,
      edge: edgeOf(advantage, campaignsOwn, solution.weights),
    },
    liking: solution.weights[2]!,
    unknown: solution.weights[3]!,
    variances: {
      publication: variances[0]!,
      campaign: variances[1]!,
      week: variances[2] ?? 0,
      row: dispersion,
    },
  };
}

/** How a correction of the earlier rows does on the later ones, beside none. */
export interface SelectionVerdict {
  /** False where the correction is significantly worse than none, or too little ran to tell: nothing is corrected then. */
  readonly passed: boolean;
  /** Of rows that judged; the earlier ones, but for those whose labels were not final by then, were fitted on. */
  readonly nRows: number;
  /** (LL(corrected) − LL(uncorrected)) / LL(uncorrected), one-sided 95 % limits by publication and campaign; null where too little ran. */
  readonly relativeLogLoss: {
    readonly estimate: number;
    readonly lower95: number;
    readonly upper95: number;
  } | null;
  /**
   * Expected over observed clicks of the quarter with the highest advantage, which stands for what a ranking selects; null where
   * too little came of it.
   */
  readonly winners: {
    readonly corrected: CalibrationRatio;
    readonly uncorrected: CalibrationRatio;
  } | null;
  /** One sentence for people. */
  readonly explanation: string;
}

export interface JudgedSelection {
  /** Of all rows; undefined where the verdict is against it. */
  readonly fit: SelectionFit | undefined;
  readonly verdict: SelectionVerdict;
}

/** Share of the judged rows that stands for winners. */
const WINNERS = 0.25;

/**
 * Fits the correction and judges it where it was not fitted: what the earlier half says is held against no correction on the later
 * half, both with what the past liked about its choices taken out as the earlier half has it. The correction of all rows is
 * given unless that of the earlier half is significantly worse than none.
 * @throws WAGGLE_TRAINING_SHAPE
 */
export async function fitJudgedSelection(
  rows: SelectionRows,
  decisionTsMs: Float64Array,
): Promise<JudgedSelection> {
  if (decisionTsMs.length > 0) checkRows(rows);
  const split = splitByTime(decisionTsMs, undefined, HALVES);
  const earlier = rowsOf(rows, [...split.train, ...split.calibrate]);
  const later = rowsOf(rows, split.gate);
  if (!judgeable(earlier).enough || !judgeable(later).enough) {
    const explanation =
      'not corrected for being selected: too little ran to fit it and to judge it';
    const nRows = split.gate.length;
    const verdict = { passed: false, nRows, relativeLogLoss: null, winners: null, explanation };
    return { fit: undefined, verdict };
  }
  const verdict = judgeSelection(await fitSelectionCalibration(earlier), later);
  return { fit: verdict.passed ? await fitSelectionCalibration(rows) : undefined, verdict };
}

const HALVES = { trainShare: 0.5, calibrateShare: 0, burnInMs: 0 } as const;

/** Holds a correction against none on rows later than those that it was fitted on. @throws as `calibrationRatio` */
function judgeSelection(
  { calibration, liking: slope, unknown }: SelectionFit,
  rows: SelectionRows,
): SelectionVerdict {
  const { logits, advantage, maturity, publications, campaigns, propensity } = rows;
  const nRows = logits.length;
  const liked = propensity === undefined ? new Float64Array(nRows) : liking(rows, propensity);
  // What came of rows that the past chose came partly by its choice; candidates are not chosen yet.
  const chosen = liked.map(
    (l, i) => slope * l + (Number.isNaN(propensity?.[i] ?? 1) ? unknown : 0),
  );
  const visible = (logitOf: (i: number) => number): Float64Array =>
    chosen.map((c, i) => Math.min(sigmoid(logitOf(i)) * Math.exp(c), MOST) * maturity[i]!);
  const uncorrected = visible((i) => logits[i]!);
  const corrected = visible((i) => selectedLogit(calibration, logits[i]!, advantage[i]!));
  const counts = { successes: rows.successes, trials: rows.trials };
  const { estimate, standardError, upperLimit } = crossedLogLossLimit({
    ...{ probability: corrected, baseline: uncorrected, ...counts },
    ...{ clusters: publications, crossed: campaigns },
  });
  const lower95 = 2 * estimate - upperLimit;
  const passed = !(lower95 > 0);
  const best = Array.from(logits, (_, i) => i)
    .sort((a, b) => advantage[b]! - advantage[a]! || a - b)
    .slice(0, Math.ceil(WINNERS * nRows));
  const selected = rowsOf(rows, best);
  const ratio = (p: Float64Array): CalibrationRatio =>
    calibrationRatio(
      {
        probability: Float64Array.from(best, (i) => p[i]!),
        ...{ successes: selected.successes, trials: selected.trials },
      },
      selected.publications,
      selected.campaigns,
    );
  const winners = judgeable(selected).enough
    ? { corrected: ratio(corrected), uncorrected: ratio(uncorrected) }
    : null;
  const told = [
    `on ${nRows} later ads its log-loss differs from none's by ${percent(estimate)} ± ${percent(standardError)}`,
  ];
  if (winners !== null) {
    const { corrected: after, uncorrected: before } = winners;
    told.push(
      `the quarter that stood out most was promised ${after.ratio.toFixed(3)} ± ${after.logStandardError.toFixed(3)} times what came, ${before.ratio.toFixed(3)} without`,
    );
  }
  return {
    passed,
    nRows,
    relativeLogLoss: { estimate, lower95, upper95: upperLimit },
    winners,
    explanation: `${passed ? 'corrected for being selected' : 'not corrected for being selected, which made it worse'}: ${told.join('; ')}`,
  };
}

/** No certainty: a probability that is raised stays one. */
const MOST = 1 - 1e-9;

const percent = (v: number): string => `${(100 * v).toFixed(3)} %`;

function rowsOf(rows: SelectionRows, numbers: ArrayLike<number>): SelectionRows {
  const pick = (column: ArrayLike<number>) => Float64Array.from(numbers, (i) => column[i]!);
  return Object.fromEntries(
    (Object.entries(rows) as [keyof SelectionRows, ArrayLike<number> | undefined][]).flatMap(
      ([name, column]) => (column === undefined ? [] : [[name, pick(column)]]),
    ),
  ) as unknown as SelectionRows;
}

/** Mean of each row's group. O(n). */
function groupMeans(codes: ArrayLike<number>, values: ArrayLike<number>): Float64Array {
  const sums = new Map<number, { sum: number; n: number }>();
  for (let i = 0; i < codes.length; i++) {
    const own = sums.get(codes[i]!) ?? { sum: 0, n: 0 };
    own.sum += values[i]!;
    own.n++;
    sums.set(codes[i]!, own);
  }
  return Float64Array.from({ length: codes.length }, (_, i) => {
    const { sum, n } = sums.get(codes[i]!)!;
    return sum / n;
  });
}

/**
 * The slope on the whole advantage that follows from those on its two parts, each in proportion to its variance: of an advantage of
 * two independent normal parts, so much is expected to be each part's.
 */
function edgeOf(
  advantage: ArrayLike<number>,
  campaignsOwn: Float64Array,
  [between, within]: ArrayLike<number> & Iterable<number>,
): number {
  const mean = campaignsOwn.reduce((sum, own) => sum + own, 0) / campaignsOwn.length;
  let ofCampaigns = 0;
  let ofRows = 0;
  campaignsOwn.forEach((own, i) => {
    ofCampaigns += (own - mean) ** 2;
    ofRows += (advantage[i]! - own) ** 2;
  });
  const all = ofCampaigns + ofRows;
  return all === 0 ? 0 : (between! * ofCampaigns + within! * ofRows) / all;
}

function checkRows(rows: SelectionRows): void {
  const nRows = rows.logits.length;
  const shape = (message: string) => trainingError('WAGGLE_TRAINING_SHAPE', message);
  if (nRows === 0) throw shape('no rows to fit a correction on');
  for (const [name, column] of Object.entries(rows) as [string, ArrayLike<number>][]) {
    if (column.length !== nRows) throw shape(`${column.length} of ${name} for ${nRows} rows`);
  }
  const odd = Array.from(rows.propensity ?? []).findIndex(
    (q) => !(Number.isNaN(q) || (q > 0 && q <= 1)),
  );
  if (odd >= 0) {
    throw shape(`propensity[${odd}] is ${rows.propensity![odd]}, allowed is above 0 up to 1`);
  }
}
