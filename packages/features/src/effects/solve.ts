import { effectsFit } from '@waggle/native';

/**
 * Crossed effects of a rate with normal priors by penalised quasi-likelihood (`effectsFit` of @waggle/native): what a fit believes
 * before looking, and how its answer reads.
 */
export type EffectLink = 'log' | 'logit';

export interface EffectRows {
  /** [nRows] successes and exposure: trials times the share of successes that can have been seen. Rows without exposure are ignored. */
  readonly successes: Float64Array;
  readonly exposure: Float64Array;
  readonly offset: Float64Array;
  /** [nRows × levels], row-major: group of each row, −1 = the level does not apply. */
  readonly codes: Int32Array;
  /** [nRows × columns], row-major: what is weighed rather than grouped. */
  readonly columns?: Float64Array;
}

export interface EffectBeliefs {
  readonly link: EffectLink;
  /** Per level: number of groups and variance of their effects. */
  readonly levels: readonly { readonly size: number; readonly variance: number }[];
  readonly columns?: readonly { readonly mean: number; readonly variance: number }[];
  readonly base: { readonly mean: number; readonly variance: number };
  readonly dispersion: number;
}

export interface EffectSolution {
  readonly base: number;
  readonly weights: Float64Array;
  /**
   * Per level [size]. Link `log`: the log of the multiplier's posterior mean, 0 for a group without rows; link `logit`: the posterior
   * mode.
   */
  readonly effects: readonly Float64Array[];
  /** Per level [size]: information of the group's rows on the scale of η, in successes for rare events. */
  readonly evidence: readonly Float64Array[];
  /** Per level [size]: posterior variance, what other levels leave open not counted. */
  readonly variances: readonly Float64Array[];
  /**
   * Per level, with `spreadProbes`: groups with rows, and what their effects are expected to differ by from what was believed, squared
   * and added up, what is left open about them included. Their ratio is the next variance of an expectation-maximisation.
   */
  readonly spreads: readonly { readonly groups: number; readonly square: number }[];
  readonly iterations: number;
  /** [unknowns] to start from when the next problem is like this one. */
  readonly state: Float64Array;
}

export interface SolveOptions {
  /** State of an earlier solution with the same unknowns. */
  readonly start?: Float64Array | undefined;
  /** Random probes per level behind `spreads`; default 0 = none. */
  readonly spreadProbes?: number;
  readonly signal?: AbortSignal | undefined;
}

/** See `effectsFit` for method and cost. */
export async function solveEffects(
  rows: EffectRows,
  beliefs: EffectBeliefs,
  { start, spreadProbes = 0, signal }: SolveOptions = {},
): Promise<EffectSolution> {
  const { link, levels, columns = [] } = beliefs;
  const meanOf = (variance: number): number => (link === 'log' ? -variance / 2 : 0);
  const { state, information, traces, iterations } = await effectsFit({
    link,
    nRows: rows.successes.length,
    successes: rows.successes,
    exposure: rows.exposure,
    offset: rows.offset,
    // A multiplier of mean 1 has a log of mean −variance/2.
    levels: levels.map(({ size, variance }) => ({ size, variance, mean: meanOf(variance) })),
    codes: rows.codes,
    ...(rows.columns === undefined ? {} : { columns: { values: rows.columns, beliefs: columns } }),
    base: beliefs.base,
    dispersion: beliefs.dispersion,
    meanRates: link === 'log',
    traceProbes: spreadProbes,
    start,
    signal,
  });
  const effects: Float64Array[] = [];
  const evidence: Float64Array[] = [];
  const variances: Float64Array[] = [];
  const spreads: { groups: number; square: number }[] = [];
  let from = 1 + columns.length;
  levels.forEach(({ size, variance }, l) => {
    const known = information.slice(from, from + size);
    const left = known.map((own) => 1 / (own + 1 / variance));
    const effect = state.slice(from, from + size);
    if (link === 'log') {
      for (let g = 0; g < size; g++) effect[g] = known[g] === 0 ? 0 : effect[g]! + left[g]! / 2;
    }
    effects.push(effect);
    evidence.push(known);
    variances.push(left);
    if (spreadProbes > 0) {
      let groups = 0;
      let square = traces[l]!;
      for (let g = 0; g < size; g++) {
        if (!(known[g]! > 0)) continue;
        groups++;
        square += (state[from + g]! - meanOf(variance)) ** 2;
      }
      spreads.push({ groups, square });
    }
    from += size;
  });
  return {
    base: state[0]!,
    weights: state.slice(1, 1 + columns.length),
    effects,
    evidence,
    variances,
    spreads,
    iterations,
    state,
  };
}
