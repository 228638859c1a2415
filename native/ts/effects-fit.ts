import {
  checkArray,
  checkFinite,
  checkInteger,
  checkObject,
  MAX_ROWS,
  positionOf,
} from './arrays.js';
import { nativeError } from './errors.js';
import { runJob } from './jobs.js';

const LINKS = ['log', 'logit'] as const;
const MAX_LEVELS = 64;
const MAX_COLUMNS = 1_024;
const MAX_GROUPS = 2 ** 31 - 1;

/** N(mean, variance), before looking. */
export interface EffectsBelief {
  readonly mean: number;
  /** Above 0. */
  readonly variance: number;
}

/** A grouping of the rows: what its groups' effects are believed to be. */
export interface EffectsLevel extends EffectsBelief {
  readonly size: number;
}

export interface EffectsFitInput {
  /** What η says: successes per exposure are expected to be e^η (`log`) or sigmoid(η) (`logit`). */
  readonly link: 'log' | 'logit';
  readonly nRows: number;
  /** float64 [nRows], ≥ 0, fractions are allowed. */
  readonly successes: Float64Array;
  /** float64 [nRows], ≥ 0; rows without exposure are ignored. */
  readonly exposure: Float64Array;
  /** float64 [nRows], added to η. */
  readonly offset?: Float64Array | undefined;
  readonly levels: readonly EffectsLevel[];
  /** int32 [nRows × levels], row-major: group of the row, −1 where the level does not apply. */
  readonly codes: Int32Array;
  /** float64 [nRows × columns], row-major: what is weighed rather than grouped; one belief about each weight. */
  readonly columns?:
    | { readonly values: Float64Array; readonly beliefs: readonly EffectsBelief[] }
    | undefined;
  readonly base: EffectsBelief;
  /** Variance of a row on the scale of η beyond counting; default 0. */
  readonly dispersion?: number | undefined;
  /**
   * Default false; only with `log`. Rates are expected ones: e^(η + ½ Σ s²), s² = 1 / (information + 1 / variance) of each group of the
   * row, so that `state + s²/2` of a group is the log of its multiplier's mean and such predictions add up to what was seen.
   */
  readonly meanRates?: boolean | undefined;
  /** Default 60. */
  readonly maxIterations?: number | undefined;
  /** Default 1e-5: converged when no unknown moves by more; that last step is still taken. */
  readonly tolerance?: number | undefined;
  /** Random probes per level behind `traces`; default 0 = none. */
  readonly traceProbes?: number | undefined;
  /** float64 [unknowns]: `state` of a fit with the same unknowns. */
  readonly start?: Float64Array | undefined;
}

export interface EffectsFitResult {
  /** float64 [unknowns]: base, weights of columns, effects of each level's groups. */
  readonly state: Float64Array;
  /** float64 [unknowns]: what the rows say about each, on the scale of η; for rare events, successes. */
  readonly information: Float64Array;
  /** float64 [levels] posterior variances of a level's groups with rows, added up; empty without `traceProbes`. */
  readonly traces: Float64Array;
  readonly iterations: number;
  readonly converged: boolean;
}

/**
 * Crossed effects of a rate with normal priors: η = base + offset + Σ columns·β + Σ effects, by penalised
 * quasi-likelihood (Breslow & Clayton, JASA 88, 1993). Rows vary beyond counting by `dispersion`: a giant's one row
 * counts no more than what its own shock leaves of it. Newton steps by conjugate gradients on the sparse normal
 * equations; mean rates by a mean-field normal approximation (Ormerod & Wand, J. Comput. Graph. Stat. 21, 2012); traces by Hutchinson's estimator, so that variances can be re-estimated with what other levels leave open.
 *
 * @param o shapes as in {@link EffectsFitInput}; arrays are borrowed until settled, several fits may share inputs;
 *   `signal` is polled between products
 * @returns O(iterations · gradients · nRows · (levels + columns)), typically 6 · 20, on one thread: run fits side by
 *   side. The same bits everywhere for one `exp`; from any start the same to about a thousandth of `tolerance`
 * @throws WAGGLE_NATIVE_NAN, _INVALID_ARGUMENT naming the first value that is wrong; _SHAPE, _DTYPE, _DETACHED, _LEASED,
 *   _TOO_LARGE, _BUSY, _OUT_OF_MEMORY; WAGGLE_ABORTED
 */
export async function effectsFit(
  o: EffectsFitInput & { readonly signal?: AbortSignal | undefined },
): Promise<EffectsFitResult> {
  checkObject('options', o);
  checkObject('levels', o.levels);
  checkObject('base', o.base);
  const { levels, maxIterations = 60, tolerance = 1e-5, traceProbes = 0, dispersion = 0 } = o;
  const beliefs = o.columns?.beliefs ?? [];
  const link = positionOf('link', LINKS, o.link);
  checkInteger('nRows', o.nRows, 0, MAX_ROWS);
  checkInteger('levels', levels.length, 0, MAX_LEVELS);
  checkInteger('columns', beliefs.length, 0, MAX_COLUMNS);
  checkInteger('maxIterations', maxIterations, 1, 100_000);
  checkInteger('traceProbes', traceProbes, 0, 10_000);
  checkFinite('tolerance', tolerance);
  if (tolerance <= 0) {
    throw nativeError('WAGGLE_NATIVE_INVALID_ARGUMENT', 'tolerance must be above 0');
  }
  checkFinite('dispersion', dispersion);
  checkArray('successes', o.successes, 'Float64Array', o.nRows);
  checkArray('exposure', o.exposure, 'Float64Array', o.nRows);
  if (o.offset !== undefined) checkArray('offset', o.offset, 'Float64Array', o.nRows);
  checkArray('codes', o.codes, 'Int32Array', o.nRows * levels.length);
  if (o.columns !== undefined) {
    checkArray('columns', o.columns.values, 'Float64Array', o.nRows * beliefs.length);
  }
  let nUnknowns = 1 + beliefs.length;
  for (const level of levels) {
    checkInteger('size of a level', level.size, 0, MAX_GROUPS);
    nUnknowns += level.size;
  }
  if (o.start !== undefined) checkArray('start', o.start, 'Float64Array', nUnknowns);
  const state = new Float64Array(nUnknowns);
  const information = new Float64Array(nUnknowns);
  const traces = new Float64Array(traceProbes > 0 ? levels.length : 0);
  const report = await runJob(
    (engine) =>
      engine.effectsFit(
        link,
        o.nRows,
        o.successes,
        o.exposure,
        o.offset,
        Float64Array.from(levels.flatMap((l) => [l.size, l.mean, l.variance])),
        o.codes,
        o.columns?.values,
        beliefs.length,
        beliefs.length === 0
          ? undefined
          : Float64Array.from([...beliefs.map((b) => b.mean), ...beliefs.map((b) => b.variance)]),
        o.base.mean,
        o.base.variance,
        dispersion,
        o.meanRates ?? false,
        maxIterations,
        tolerance,
        traceProbes,
        o.start,
        state,
        information,
        traces,
      ),
    o.signal,
  );
  return {
    state,
    information,
    traces,
    iterations: report.iterations,
    converged: report.converged,
  };
}
