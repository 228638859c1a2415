/**
 * Crossed effects of a rate by penalised quasi-likelihood: η = base + offset + Σ columns·β + Σ level effects, rate = e^η
 * (link `log`) or sigmoid(η) (link `logit`). Every effect has a normal prior of its level's variance; rows vary beyond
 * counting by `dispersion` on the scale of η, so a giant's one send counts no more than what its shared shock leaves of it. Newton
 * steps (Breslow & Clayton 1993), each solved by conjugate gradients on the sparse normal equations.
 */
export type EffectLink = 'log' | 'logit';

export interface EffectRows {
  /** [nRows] successes and exposure: trials times the share of successes that can have been seen. */
  readonly successes: Float64Array;
  readonly exposure: Float64Array;
  readonly offset: Float64Array;
  /** Per level [nRows]: group of each row, −1 = the level does not apply. */
  readonly codes: readonly Int32Array[];
  /** Columns that are weighed rather than grouped, each [nRows]. */
  readonly columns?: readonly Float64Array[];
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
  readonly iterations: number;
  /** [unknowns] to start from when the next problem is like this one. */
  readonly state: Float64Array;
}

const MAX_NEWTON = 60;
const MAX_GRADIENTS = 60;
/** Each step is solved this well (squared norm of the residual), which is as far as its quadratic model holds. */
const STEP_TOLERANCE = 1e-6;
/** Newton stops when no effect moves by more than this: refits that started apart agree to it. */
const SETTLED = 1e-7;
const MAX_STEP = 3;

/**
 * O(newton · gradients · nRows · levels), typically 8 · 15. Rows without exposure are ignored.
 * @param start state of an earlier solution with the same unknowns
 */
export function solveEffects(
  rows: EffectRows,
  beliefs: EffectBeliefs,
  start?: Float64Array,
): EffectSolution {
  const { successes, exposure, offset, codes, columns = [] } = rows;
  const { link, levels, dispersion } = beliefs;
  const nRows = successes.length;
  const nColumns = columns.length;
  const from: number[] = [];
  let nUnknowns = 1 + nColumns;
  for (const level of levels) {
    from.push(nUnknowns);
    nUnknowns += level.size;
  }
  const precision = new Float64Array(nUnknowns);
  const believed = new Float64Array(nUnknowns);
  precision[0] = 1 / beliefs.base.variance;
  believed[0] = beliefs.base.mean;
  beliefs.columns?.forEach(({ mean, variance }, c) => {
    precision[1 + c] = 1 / variance;
    believed[1 + c] = mean;
  });
  levels.forEach(({ size, variance }, l) => {
    precision.fill(1 / variance, from[l]!, from[l]! + size);
    // A multiplier of mean 1 has a log of mean −variance/2.
    if (link === 'log') believed.fill(-variance / 2, from[l]!, from[l]! + size);
  });

  const apply = (x: Float64Array, out: Float64Array): void => {
    out.fill(x[0]!);
    for (let c = 0; c < nColumns; c++) {
      const column = columns[c]!;
      const weight = x[1 + c]!;
      for (let i = 0; i < nRows; i++) out[i] = out[i]! + weight * column[i]!;
    }
    for (let l = 0; l < levels.length; l++) {
      const code = codes[l]!;
      const at = from[l]!;
      for (let i = 0; i < nRows; i++) {
        const g = code[i]!;
        if (g >= 0) out[i] = out[i]! + x[at + g]!;
      }
    }
  };
  const gather = (values: Float64Array, out: Float64Array): void => {
    out.fill(0);
    let total = 0;
    for (let i = 0; i < nRows; i++) total += values[i]!;
    out[0] = total;
    for (let c = 0; c < nColumns; c++) {
      const column = columns[c]!;
      let sum = 0;
      for (let i = 0; i < nRows; i++) sum += values[i]! * column[i]!;
      out[1 + c] = sum;
    }
    for (let l = 0; l < levels.length; l++) {
      const code = codes[l]!;
      const at = from[l]!;
      for (let i = 0; i < nRows; i++) {
        const g = code[i]!;
        if (g >= 0) out[at + g] = out[at + g]! + values[i]!;
      }
    }
  };

  const state = start?.length === nUnknowns ? start.slice() : believed.slice();
  const eta = new Float64Array(nRows);
  const information = new Float64Array(nRows);
  const score = new Float64Array(nRows);
  const gradient = new Float64Array(nUnknowns);
  const diagonal = new Float64Array(nUnknowns);
  const step = new Float64Array(nUnknowns);
  const residual = new Float64Array(nUnknowns);
  const scaled = new Float64Array(nUnknowns);
  const direction = new Float64Array(nUnknowns);
  const image = new Float64Array(nUnknowns);
  const rowImage = new Float64Array(nRows);

  const linearise = (): void => {
    apply(state, eta);
    for (let i = 0; i < nRows; i++) {
      const e = exposure[i]!;
      if (!(e > 0)) {
        information[i] = 0;
        score[i] = 0;
        continue;
      }
      const at = Math.min(eta[i]! + offset[i]!, 30);
      const rate = link === 'log' ? Math.exp(at) : 1 / (1 + Math.exp(-at));
      const mean = e * rate;
      const variance = link === 'log' ? mean : mean * (1 - rate);
      // Quasi-likelihood: counting noise plus the row's own shock.
      const w = variance / (1 + dispersion * variance);
      information[i] = w;
      score[i] = variance > 0 ? (w * (successes[i]! - mean)) / variance : 0;
    }
    gather(score, gradient);
    for (let u = 0; u < nUnknowns; u++) {
      gradient[u] = gradient[u]! - precision[u]! * (state[u]! - believed[u]!);
    }
    diagonal.set(precision);
    let total = 0;
    for (let i = 0; i < nRows; i++) total += information[i]!;
    diagonal[0] = diagonal[0]! + total;
    for (let c = 0; c < nColumns; c++) {
      const column = columns[c]!;
      let sum = 0;
      for (let i = 0; i < nRows; i++) sum += information[i]! * column[i]! ** 2;
      diagonal[1 + c] = diagonal[1 + c]! + sum;
    }
    for (let l = 0; l < levels.length; l++) {
      const code = codes[l]!;
      const at = from[l]!;
      for (let i = 0; i < nRows; i++) {
        const g = code[i]!;
        if (g >= 0) diagonal[at + g] = diagonal[at + g]! + information[i]!;
      }
    }
  };

  /** Solves (Zᵀ·W·Z + Λ)·step = gradient, preconditioned by its diagonal. */
  const descend = (): void => {
    step.fill(0);
    residual.set(gradient);
    let rho = 0;
    for (let u = 0; u < nUnknowns; u++) {
      scaled[u] = residual[u]! / diagonal[u]!;
      rho += residual[u]! * scaled[u]!;
    }
    direction.set(scaled);
    const enough = rho * STEP_TOLERANCE;
    for (let k = 0; k < MAX_GRADIENTS && rho > enough && rho > 1e-300; k++) {
      apply(direction, rowImage);
      for (let i = 0; i < nRows; i++) rowImage[i] = rowImage[i]! * information[i]!;
      gather(rowImage, image);
      let curvature = 0;
      for (let u = 0; u < nUnknowns; u++) {
        image[u] = image[u]! + precision[u]! * direction[u]!;
        curvature += direction[u]! * image[u]!;
      }
      const length = rho / curvature;
      let next = 0;
      for (let u = 0; u < nUnknowns; u++) {
        step[u] = step[u]! + length * direction[u]!;
        residual[u] = residual[u]! - length * image[u]!;
        scaled[u] = residual[u]! / diagonal[u]!;
        next += residual[u]! * scaled[u]!;
      }
      const turn = next / rho;
      for (let u = 0; u < nUnknowns; u++) direction[u] = scaled[u]! + turn * direction[u]!;
      rho = next;
    }
  };

  let iterations = 0;
  for (; iterations < MAX_NEWTON; iterations++) {
    linearise();
    descend();
    let largest = 0;
    for (let u = 0; u < nUnknowns; u++) largest = Math.max(largest, Math.abs(step[u]!));
    const scale = largest > MAX_STEP ? MAX_STEP / largest : 1;
    for (let u = 0; u < nUnknowns; u++) state[u] = state[u]! + scale * step[u]!;
    if (largest < SETTLED) break;
  }
  linearise();
  const effects: Float64Array[] = [];
  const evidence: Float64Array[] = [];
  const variances: Float64Array[] = [];
  levels.forEach(({ size, variance }, l) => {
    const at = from[l]!;
    const known = new Float64Array(size);
    const left = new Float64Array(size);
    const effect = new Float64Array(size);
    for (let g = 0; g < size; g++) {
      known[g] = diagonal[at + g]! - precision[at + g]!;
      left[g] = 1 / diagonal[at + g]!;
      effect[g] =
        link === 'log' ? (known[g] === 0 ? 0 : state[at + g]! + left[g]! / 2) : state[at + g]!;
    }
    // Without rows the posterior is the prior, whatever was left in a warm start.
    if (link === 'log') for (let g = 0; g < size; g++) if (known[g] === 0) left[g] = variance;
    effects.push(effect);
    evidence.push(known);
    variances.push(left);
  });
  return {
    base: state[0]!,
    weights: state.slice(1, 1 + nColumns),
    effects,
    evidence,
    variances,
    iterations,
    state,
  };
}
