import { trainingError } from './errors.js';

/** Code of a row that a level does not apply to. */
export const NO_GROUP = 0xffff_ffff;

export interface EffectRows {
  /** [nRows] */
  readonly successes: Float64Array;
  readonly trials: Float64Array;
  /** Crossed groupings of the rows: publication, campaign, creative … */
  readonly levels: readonly {
    readonly name: string;
    /** [nRows] group codes, `NO_GROUP` where there is none. */
    readonly codes: Uint32Array;
  }[];
}

export interface EffectPriors {
  readonly baseRate: number;
  /** Variance of one row's log rate beyond its groups' effects and counting noise. */
  readonly dispersion: number;
  readonly levels: readonly {
    readonly name: string;
    /** Variance of the groups' log effects. */
    readonly variance: number;
    /** Prior successes α = 1/variance: effect = ln((successes + α)/(expected + α)). */
    readonly strength: number;
    readonly nGroups: number;
  }[];
}

export interface EffectPriorOptions {
  readonly rounds?: number;
  /** Limits of a level's strength, prior successes. */
  readonly minStrength?: number;
  readonly maxStrength?: number;
}

const MAX_DISPERSION = 4;

/**
 * Empirical-Bayes strengths of crossed level effects, log-rate = base + Σ effects, from counts alone: what a network
 * with calm publications and wild campaigns believes of a newcomer. Backfitting with a Gamma(α, α) prior per level;
 * between rounds each α and the row dispersion are set by moments. With weights w = 1/(1 + σ²·E) a group's sum
 * S = Σ w·s has variance E_g = Σ w·E under no effect (quasi-Poisson) and E_g + E_g²/α with one, hence
 * 1/α = Σ a((S − E_g)² − E_g) / Σ a·E_g² with a = (1 + E_g/α)⁻². The dispersion compares each row with what the
 * other rows of its groups say, so that effects of hardly more than one row do not swallow it; levels whose groups
 * hold mostly one row cannot be told from dispersion and should be left out. O(rounds · nRows · nLevels).
 * Groups or rows without trials count for nothing; without successes everything stays at its weakest belief.
 * @throws WAGGLE_TRAINING_SHAPE, WAGGLE_TRAINING_LABEL
 */
export function estimateEffectPriors(
  rows: EffectRows,
  options: EffectPriorOptions = {},
): EffectPriors {
  const { rounds = 20, minStrength = 0.25, maxStrength = 1_000 } = options;
  const { successes, trials } = rows;
  const nRows = successes.length;
  if (trials.length !== nRows || rows.levels.some((l) => l.codes.length !== nRows)) {
    throw trainingError('WAGGLE_TRAINING_SHAPE', 'counts and level codes have different lengths');
  }
  let totalSuccesses = 0;
  let totalTrials = 0;
  for (let i = 0; i < nRows; i++) {
    const s = successes[i]!;
    const n = trials[i]!;
    if (!(n >= 0 && Number.isFinite(n)) || !(s >= 0 && s <= n)) {
      throw trainingError('WAGGLE_TRAINING_LABEL', `row ${i} has ${s} successes of ${n} trials`);
    }
    totalSuccesses += s;
    totalTrials += n;
  }
  const levels = rows.levels.map(({ name, codes }) => {
    let size = 0;
    const seen = new Set<number>();
    for (let i = 0; i < nRows; i++) {
      if (codes[i] !== NO_GROUP && trials[i]! > 0) {
        size = Math.max(size, codes[i]! + 1);
        seen.add(codes[i]!);
      }
    }
    return {
      name,
      codes,
      size,
      nGroups: seen.size,
      effect: new Float64Array(size),
      observed: new Float64Array(size),
      expected: new Float64Array(size),
      strength: 4,
    };
  });
  if (totalSuccesses === 0) {
    return {
      baseRate: 0,
      dispersion: 0,
      levels: levels.map(({ name, nGroups }) => ({
        name,
        variance: 1 / minStrength,
        strength: minStrength,
        nGroups,
      })),
    };
  }
  let base = Math.log(totalSuccesses / totalTrials);
  let dispersion = 0.1;
  const logRate = new Float64Array(nRows).fill(base);
  const weight = new Float64Array(nRows);
  const reweigh = (): void => {
    for (let i = 0; i < nRows; i++)
      weight[i] = 1 / (1 + dispersion * trials[i]! * Math.exp(logRate[i]!));
  };
  for (let round = 0; round < rounds; round++) {
    reweigh();
    for (const level of levels) {
      const { observed, expected } = level;
      observed.fill(0);
      expected.fill(0);
      for (let i = 0; i < nRows; i++) {
        const g = level.codes[i]!;
        if (g >= level.size) continue;
        observed[g] = observed[g]! + weight[i]! * successes[i]!;
        expected[g] =
          expected[g]! + weight[i]! * trials[i]! * Math.exp(logRate[i]! - level.effect[g]!);
      }
      let numerator = 0;
      let denominator = 0;
      for (let g = 0; g < level.size; g++) {
        const a = 1 / (1 + expected[g]! / level.strength) ** 2;
        numerator += a * ((observed[g]! - expected[g]!) ** 2 - expected[g]!);
        denominator += a * expected[g]! ** 2;
      }
      const variance = denominator > 0 ? numerator / denominator : 0;
      level.strength =
        variance > 0 ? Math.min(Math.max(1 / variance, minStrength), maxStrength) : maxStrength;
      const change = new Float64Array(level.size);
      for (let g = 0; g < level.size; g++) {
        const effect = Math.log((observed[g]! + level.strength) / (expected[g]! + level.strength));
        change[g] = effect - level.effect[g]!;
        level.effect[g] = effect;
      }
      for (let i = 0; i < nRows; i++) {
        const g = level.codes[i]!;
        if (g < level.size) logRate[i] = logRate[i]! + change[g]!;
      }
    }
    let observed = 0;
    let expected = 0;
    let numerator = 0;
    let denominator = 0;
    for (let i = 0; i < nRows; i++) {
      const own = trials[i]! * Math.exp(logRate[i]!);
      observed += weight[i]! * successes[i]!;
      expected += weight[i]! * own;
      if (!(own > 0)) continue;
      // What the others say of this row: its own share is taken out of every effect, and the doubt that the
      // effects are left with is taken out of the spread.
      let others = logRate[i]!;
      let doubt = 0;
      for (const level of levels) {
        const g = level.codes[i]!;
        if (g >= level.size) continue;
        const without = own * Math.exp(-level.effect[g]!) * weight[i]!;
        const s = Math.max(level.observed[g]! - weight[i]! * successes[i]!, 0) + level.strength;
        const e = Math.max(level.expected[g]! - without, 0) + level.strength;
        others += Math.log(s / e) - level.effect[g]!;
        doubt += 1 / e;
      }
      const mean = trials[i]! * Math.exp(others);
      const a = 1 / (1 + (dispersion + doubt) * mean) ** 2;
      numerator += a * ((successes[i]! - mean) ** 2 - mean - mean * mean * doubt);
      denominator += a * mean * mean;
    }
    const shift = Math.log(observed / expected);
    base += shift;
    for (let i = 0; i < nRows; i++) logRate[i] = logRate[i]! + shift;
    dispersion =
      denominator > 0 ? Math.min(Math.max(numerator / denominator, 0), MAX_DISPERSION) : 0;
  }
  return {
    baseRate: Math.exp(base),
    dispersion,
    levels: levels.map(({ name, strength, nGroups }) => ({
      name,
      variance: 1 / strength,
      strength,
      nGroups,
    })),
  };
}
