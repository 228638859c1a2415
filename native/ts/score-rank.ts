import { optionNames } from '@waggle/core';
import { checkArray, checkFinite, checkInteger, checkObject, MAX_ROWS } from './arrays.js';
import { fromAddon, nativeError } from './errors.js';
import { runJob } from './jobs.js';
import { addon } from './loader.js';

/** Terms per score, in the order of core's SCORE_TERMS. */
export const SCORE_TERM_COUNT = 9;

/** Candidates `scoreRankSync` accepts. */
export const SCORE_RANK_SYNC_MAX = 5_000;

export interface ScoreWeights {
  /** m: share of billable spend the network keeps. */
  readonly margin: number;
  /** λ_fit, micros per unit of cosine. */
  readonly fit: number;
  /** λ_adv. */
  readonly advertiser: number;
  /** λ_pub. */
  readonly payout: number;
  /** β: weight of the exploration bonus. */
  readonly explore: number;
}

/** Candidate columns, all [nCandidates] and borrowed until settled. Absent optional columns make a term +0. */
export interface ScoreRankInput {
  readonly nCandidates: number;
  /** ≥ 1; fewer come back when fewer are eligible. */
  readonly k: number;
  /** Probability that it runs (p(accept); 1 when filling). */
  readonly q: Float32Array;
  /** e: expected billable spend, micros. */
  readonly spend: Float32Array;
  /** Expected payout to the publisher, micros. */
  readonly payout: Float32Array;
  /** Cosine of publication and campaign. */
  readonly fit: Float32Array;
  readonly advertiser?: Float32Array | undefined;
  readonly explore?: Float32Array | undefined;
  /** g: units towards a delivery goal; counts only together with `omega`. */
  readonly goalUnits?: Float32Array | undefined;
  /** ν: price of showing it again so soon, micros. */
  readonly frequency?: Float32Array | undefined;
  /** μ: shadow price of the budget, per micro spent. */
  readonly mu?: Float32Array | undefined;
  /** ω: shadow price of delivery, micros per goal unit. */
  readonly omega?: Float32Array | undefined;
  /** ρ: shadow price of fairness, per micro of payout. */
  readonly rho?: Float32Array | undefined;
  readonly weights: ScoreWeights;
  /** Bitmap of allowed candidates, bit i of byte i >> 3. */
  readonly filter?: Uint8Array | undefined;
  /** Advertiser of each candidate. */
  readonly group?: Int32Array | undefined;
  /** At most so many of one group; needs `group`. */
  readonly maxPerGroup?: number | undefined;
  /** Competitor group of each candidate, −1 for none: two different groups never share one. */
  readonly separation?: Int32Array | undefined;
}

const OPTIONS = optionNames<ScoreRankInput & { readonly signal?: AbortSignal | undefined }>({
  nCandidates: true,
  k: true,
  q: true,
  spend: true,
  payout: true,
  fit: true,
  advertiser: true,
  explore: true,
  goalUnits: true,
  frequency: true,
  mu: true,
  omega: true,
  rho: true,
  weights: true,
  filter: true,
  group: true,
  maxPerGroup: true,
  separation: true,
  signal: true,
});

export interface ScoreRankResult {
  /** int32 [nSelected], best first. */
  readonly rows: Int32Array;
  /** float64 [nSelected]. */
  readonly scores: Float64Array;
  /** float64 [nSelected × 9], order of SCORE_TERMS; each row adds up, left to right, to its score exactly. */
  readonly terms: Float64Array;
  /** Candidates the filter lets through. */
  readonly nEligible: number;
}

// Reused by synchronous calls, which cannot overlap within one environment.
const params = new Float64Array(8);
const counts = new Int32Array(2);
let rows = new Int32Array(128);
let scores = new Float64Array(128);
let terms = new Float64Array(128 * SCORE_TERM_COUNT);

function fillParams(o: ScoreRankInput, into: Float64Array): void {
  const { weights } = o;
  into[0] = o.nCandidates;
  into[1] = o.k;
  into[2] = o.maxPerGroup ?? 0;
  into[3] = weights.margin;
  into[4] = weights.fit;
  into[5] = weights.advertiser;
  into[6] = weights.payout;
  into[7] = weights.explore;
}

/** The full, slow, well-worded check. The addon itself refuses everything that could hurt it. */
function checkInput(o: ScoreRankInput): void {
  checkObject('options', o, OPTIONS);
  checkInteger('nCandidates', o.nCandidates, 0, MAX_ROWS);
  checkInteger('k', o.k, 1, MAX_ROWS);
  if (o.maxPerGroup !== undefined) {
    checkInteger('maxPerGroup', o.maxPerGroup, 1, MAX_ROWS);
    if (o.group === undefined) {
      throw nativeError('WAGGLE_NATIVE_INVALID_ARGUMENT', 'maxPerGroup needs group');
    }
  }
  const { weights } = o;
  for (const name of ['margin', 'fit', 'advertiser', 'payout', 'explore'] as const) {
    checkFinite(`weights.${name}`, weights?.[name]);
  }
  const n = o.nCandidates;
  for (const name of ['q', 'spend', 'payout', 'fit'] as const) {
    checkArray(name, o[name], 'Float32Array', n);
  }
  for (const name of [
    'advertiser',
    'explore',
    'goalUnits',
    'frequency',
    'mu',
    'omega',
    'rho',
  ] as const) {
    if (o[name] !== undefined) checkArray(name, o[name], 'Float32Array', n);
  }
  if (o.filter !== undefined) checkArray('filter', o.filter, 'Uint8Array', Math.ceil(n / 8));
  for (const name of ['group', 'separation'] as const) {
    if (o[name] !== undefined) checkArray(name, o[name], 'Int32Array', n);
  }
}

/** What cannot be left to the addon: values a Float64Array would quietly coerce. */
function isPlausible(o: ScoreRankInput): boolean {
  const { nCandidates, k, maxPerGroup } = o;
  return (
    Number.isInteger(nCandidates) &&
    nCandidates >= 0 &&
    nCandidates <= SCORE_RANK_SYNC_MAX &&
    Number.isInteger(k) &&
    k >= 1 &&
    k <= MAX_ROWS &&
    (maxPerGroup === undefined || (Number.isInteger(maxPerGroup) && maxPerGroup >= 1)) &&
    typeof o.weights === 'object' &&
    o.weights !== null
  );
}

/**
 * Scores every candidate and chooses up to k of them, on the calling thread: the hot path of serving.
 *
 * score = q·(m·e) + q·(λ_fit·fit) + q·(λ_adv·advertiser) + q·(λ_pub·payout) − q·(e·μ) + q·(g·ω) + q·(payout·ρ)
 *       + q·(β·explore) − ν, in double, left to right, bit-identical on every machine (formula: docs, domain §4).
 * Chosen greedily by score, ties to the lower row; a candidate is skipped when its group is full, or when its
 * competitor group is held by a chosen candidate of another group (of any, when `group` is absent).
 *
 * @param o columns as in {@link ScoreRankInput}, nCandidates ≤ 5,000
 * @returns rows, scores and terms of the chosen, best first; O(n + k log n), a few microseconds at n = 200
 * @throws WAGGLE_NATIVE_TOO_LARGE beyond 5,000 candidates; WAGGLE_NATIVE_NAN naming a column that holds NaN or
 *   infinity (filtered candidates count too); WAGGLE_NATIVE_INVALID_ARGUMENT, _SHAPE, _DTYPE, _DETACHED
 */
export function scoreRankSync(o: ScoreRankInput): ScoreRankResult {
  checkObject('options', o, OPTIONS);
  if (!isPlausible(o)) {
    checkInput(o);
    throw nativeError(
      'WAGGLE_NATIVE_TOO_LARGE',
      `scoreRankSync of ${o.nCandidates} candidates; the limit is ${SCORE_RANK_SYNC_MAX}`,
      { details: { nCandidates: o.nCandidates, limit: SCORE_RANK_SYNC_MAX } },
    );
  }
  const most = Math.min(o.k, o.nCandidates);
  if (most > rows.length) {
    rows = new Int32Array(SCORE_RANK_SYNC_MAX);
    scores = new Float64Array(SCORE_RANK_SYNC_MAX);
    terms = new Float64Array(SCORE_RANK_SYNC_MAX * SCORE_TERM_COUNT);
  }
  fillParams(o, params);
  try {
    addon().scoreRankSync(
      params,
      o.q,
      o.spend,
      o.payout,
      o.fit,
      o.advertiser,
      o.explore,
      o.goalUnits,
      o.frequency,
      o.mu,
      o.omega,
      o.rho,
      o.filter,
      o.group,
      o.separation,
      rows,
      scores,
      terms,
      counts,
    );
  } catch (error) {
    checkInput(o);
    throw fromAddon(error);
  }
  const nSelected = counts[0]!;
  return {
    rows: rows.slice(0, nSelected),
    scores: scores.slice(0, nSelected),
    terms: terms.slice(0, nSelected * SCORE_TERM_COUNT),
    nEligible: counts[1]!,
  };
}

/**
 * {@link scoreRankSync} for any number of candidates, on the engine's threads.
 * @throws as scoreRankSync without its limit; WAGGLE_NATIVE_LEASED, _BUSY; WAGGLE_ABORTED
 */
export async function scoreRank(
  o: ScoreRankInput & { readonly signal?: AbortSignal | undefined },
): Promise<ScoreRankResult> {
  checkInput(o);
  const most = Math.max(1, Math.min(o.k, o.nCandidates));
  const jobParams = new Float64Array(8);
  fillParams(o, jobParams);
  const outRows = new Int32Array(most);
  const outScores = new Float64Array(most);
  const outTerms = new Float64Array(most * SCORE_TERM_COUNT);
  const outCounts = new Int32Array(2);
  await runJob(
    (engine) =>
      engine.scoreRank(
        jobParams,
        o.q,
        o.spend,
        o.payout,
        o.fit,
        o.advertiser,
        o.explore,
        o.goalUnits,
        o.frequency,
        o.mu,
        o.omega,
        o.rho,
        o.filter,
        o.group,
        o.separation,
        outRows,
        outScores,
        outTerms,
        outCounts,
      ),
    o.signal,
  );
  const nSelected = outCounts[0]!;
  return {
    rows: outRows.slice(0, nSelected),
    scores: outScores.slice(0, nSelected),
    terms: outTerms.slice(0, nSelected * SCORE_TERM_COUNT),
    nEligible: outCounts[1]!,
  };
}
