import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type GlmFitInput, glmFit, topk } from '../../ts/index.js';
import { codeOf, detached, randomFloats, randomNumbers } from './arrays.js';

interface Problem {
  n: number;
  p: number;
  seed: number;
  weights?: boolean;
  offset?: boolean;
}

function problem({ n, p, seed, weights, offset }: Problem): GlmFitInput {
  const next = randomNumbers(seed);
  const x = Float32Array.from({ length: n * p }, (_, i) => (next() - 0.3) * (1 + (i % p)));
  const offsets = Float64Array.from({ length: n }, () => (offset ? next() - 0.5 : 0));
  const trials = Float64Array.from({ length: n }, () => 1 + Math.floor(next() * 5));
  const successes = Float64Array.from({ length: n }, (_, i) => {
    let eta = -0.5 + offsets[i]!;
    for (let j = 0; j < p; j++) eta += x[i * p + j]! * ((j % 3) - 1) * 0.5;
    let s = 0;
    for (let t = 0; t < trials[i]!; t++) if (next() < 1 / (1 + Math.exp(-eta))) s += 1;
    return s;
  });
  return {
    x,
    nRows: n,
    nFeatures: p,
    successes,
    trials,
    ...(weights ? { weights: Float64Array.from({ length: n }, () => 0.1 + next()) } : {}),
    ...(offset ? { offset: offsets } : {}),
  };
}

/** Newton's method on the raw scale, Gaussian elimination, plain doubles: an independent fit of the same objective. */
function newton(o: GlmFitInput, l2 = 0): { beta: number[]; standardErrors: number[] } {
  const { nRows: n, nFeatures: p } = o;
  const m = p + 1;
  const w = (i: number) => o.weights?.[i] ?? 1;
  const variance = Array.from({ length: p }, (_, j) => {
    let total = 0;
    let sum = 0;
    let squares = 0;
    for (let i = 0; i < n; i++) {
      const v = w(i) * o.trials[i]!;
      total += v;
      sum += v * o.x[i * p + j]!;
    }
    for (let i = 0; i < n; i++)
      squares += w(i) * o.trials[i]! * (o.x[i * p + j]! - sum / total) ** 2;
    return squares / total;
  });
  let beta = new Array<number>(m).fill(0);
  let hessian: number[][] = [];
  for (let iteration = 0; iteration < 60; iteration++) {
    const gradient = new Array<number>(m).fill(0);
    hessian = Array.from({ length: m }, () => new Array<number>(m).fill(0));
    for (let i = 0; i < n; i++) {
      const row = [...o.x.subarray(i * p, (i + 1) * p), 1];
      const eta = row.reduce((sum, v, j) => sum + v * beta[j]!, o.offset?.[i] ?? 0);
      const mean = 1 / (1 + Math.exp(-eta));
      const residual = w(i) * (o.successes[i]! - o.trials[i]! * mean);
      const curvature = w(i) * o.trials[i]! * mean * (1 - mean);
      for (let a = 0; a < m; a++) {
        gradient[a]! += residual * row[a]!;
        for (let b = 0; b < m; b++) hessian[a]![b]! += curvature * row[a]! * row[b]!;
      }
    }
    for (let j = 0; j < p; j++) {
      gradient[j]! -= l2 * variance[j]! * beta[j]!;
      hessian[j]![j]! += l2 * variance[j]!;
    }
    const step = solve(hessian, gradient);
    beta = beta.map((b, j) => b + step[j]!);
    if (step.every((s, j) => Math.abs(s) < 1e-13 * (1 + Math.abs(beta[j]!)))) break;
  }
  const standardErrors = beta.map((_, j) => {
    const unit = beta.map((__, i) => (i === j ? 1 : 0));
    return Math.sqrt(solve(hessian, unit)[j]!);
  });
  return { beta, standardErrors };
}

function solve(matrix: readonly (readonly number[])[], right: readonly number[]): number[] {
  const n = right.length;
  const a = matrix.map((row, i) => [...row, right[i]!]);
  for (let c = 0; c < n; c++) {
    let pivot = c;
    for (let r = c + 1; r < n; r++) if (Math.abs(a[r]![c]!) > Math.abs(a[pivot]![c]!)) pivot = r;
    [a[c], a[pivot]] = [a[pivot]!, a[c]!];
    for (let r = c + 1; r < n; r++) {
      const factor = a[r]![c]! / a[c]![c]!;
      for (let k = c; k <= n; k++) a[r]![k]! -= factor * a[c]![k]!;
    }
  }
  const x = new Array<number>(n).fill(0);
  for (let r = n - 1; r >= 0; r--) {
    let sum = a[r]![n]!;
    for (let k = r + 1; k < n; k++) sum -= a[r]![k]! * x[k]!;
    x[r] = sum / a[r]![r]!;
  }
  return x;
}

/** Relative: both sides stop at rounding of a converged Newton step. */
const SAME_FIT = 1e-7;

function expectClose(actual: number, expected: number): void {
  expect(Math.abs(actual - expected)).toBeLessThanOrEqual(SAME_FIT * (1e-3 + Math.abs(expected)));
}

describe('glmFit', () => {
  it('finds the closed form of an intercept-only model', async () => {
    const fit = await glmFit({
      x: new Float32Array(0),
      nRows: 3,
      nFeatures: 0,
      successes: Float64Array.from([3, 1, 0]),
      trials: Float64Array.from([10, 5, 5]),
    });
    expect(fit.converged).toBe(true);
    expect(fit.intercept).toBeCloseTo(Math.log(4 / 16), 10);
    // Var(logit p̂) = 1 / (n p (1 − p))
    expect(fit.interceptStandardError).toBeCloseTo(1 / Math.sqrt(20 * 0.2 * 0.8), 10);
    expect(fit.logLikelihood).toBeCloseTo(4 * Math.log(0.2) + 16 * Math.log(0.8), 10);
  });

  it('finds the log-odds ratio of a two-by-two table', async () => {
    const fit = await glmFit({
      x: Float32Array.from([0, 1]),
      nRows: 2,
      nFeatures: 1,
      successes: Float64Array.from([10, 30]),
      trials: Float64Array.from([100, 120]),
    });
    expect(fit.intercept).toBeCloseTo(Math.log(10 / 90), 9);
    expect(fit.coefficients[0]).toBeCloseTo(Math.log(30 / 90) - Math.log(10 / 90), 9);
    // Woolf: sqrt(1/a + 1/b + 1/c + 1/d)
    expect(fit.standardErrors[0]).toBeCloseTo(Math.sqrt(1 / 10 + 1 / 90 + 1 / 30 + 1 / 90), 9);
    expect(fit.deviance).toBeCloseTo(0, 9);
  });

  it('agrees with an independent Newton fit, with weights, offsets and ridge', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 60, max: 400 }),
        fc.integer({ min: 1, max: 6 }),
        fc.integer({ min: 1, max: 2 ** 30 }),
        fc.boolean(),
        fc.boolean(),
        fc.constantFrom(0.01, 0.5, 20),
        async (n, p, seed, weights, offset, l2) => {
          const o = problem({ n, p, seed, weights, offset });
          const fit = await glmFit({ ...o, l2 });
          const { beta, standardErrors } = newton(o, l2);
          expect(fit.converged).toBe(true);
          fit.coefficients.forEach((c, j) => {
            expectClose(c, beta[j]!);
            expectClose(fit.standardErrors[j]!, standardErrors[j]!);
          });
          expectClose(fit.intercept, beta[p]!);
          expectClose(fit.interceptStandardError, standardErrors[p]!);
        },
      ),
      { numRuns: 40 },
    );
  });

  it('solves its score equations', async () => {
    const o = problem({ n: 3_000, p: 8, seed: 4, weights: true, offset: true });
    const fit = await glmFit(o);
    const gradient = new Float64Array(9);
    const magnitude = new Float64Array(9);
    for (let i = 0; i < o.nRows; i++) {
      let eta = fit.intercept + o.offset![i]!;
      for (let j = 0; j < 8; j++) eta += fit.coefficients[j]! * o.x[i * 8 + j]!;
      const residual = o.weights![i]! * (o.successes[i]! - o.trials[i]! / (1 + Math.exp(-eta)));
      for (let j = 0; j < 9; j++) {
        const value = j < 8 ? o.x[i * 8 + j]! : 1;
        gradient[j]! += value * residual;
        magnitude[j]! += Math.abs(value * residual);
      }
    }
    gradient.forEach((g, j) => {
      expect(Math.abs(g)).toBeLessThanOrEqual(1e-9 * magnitude[j]!);
    });
  });

  it('does not depend on feature scale when unpenalised', async () => {
    const o = problem({ n: 500, p: 3, seed: 6 });
    const scaled = { ...o, x: o.x.map((v, i) => (i % 3 === 1 ? v * 1_024 : v)) };
    const a = await glmFit(o);
    const b = await glmFit(scaled);
    expectClose(b.coefficients[1]! * 1_024, a.coefficients[1]!);
    expectClose(b.intercept, a.intercept);
    expectClose(b.logLikelihood, a.logLikelihood);
  });

  it('shrinks with ridge, one value per feature', async () => {
    const o = problem({ n: 500, p: 3, seed: 7 });
    const free = await glmFit(o);
    const heavy = await glmFit({ ...o, l2: Float64Array.from([0, 1e9, 0]) });
    expect(Math.abs(heavy.coefficients[1]!)).toBeLessThan(1e-4);
    expect(Math.abs(heavy.coefficients[0]!)).toBeGreaterThan(0.5 * Math.abs(free.coefficients[0]!));
  });

  it('treats a weight of 2 like a row that comes twice, and rows without trials like none', async () => {
    const o = problem({ n: 200, p: 2, seed: 8 });
    const doubled = await glmFit({
      ...o,
      weights: Float64Array.from({ length: 200 }, (_, i) => (i < 50 ? 2 : 1)),
    });
    const twice = await glmFit({
      ...o,
      nRows: 260,
      x: Float32Array.from([...o.x, ...o.x.subarray(0, 100), ...new Float32Array(20).fill(3)]),
      successes: Float64Array.from([
        ...o.successes,
        ...o.successes.subarray(0, 50),
        ...new Float64Array(10),
      ]),
      trials: Float64Array.from([
        ...o.trials,
        ...o.trials.subarray(0, 50),
        ...new Float64Array(10),
      ]),
    });
    twice.coefficients.forEach((c, j) => {
      expectClose(c, doubled.coefficients[j]!);
    });
  });

  it('starts where it is told and ends in the same place, in fewer steps', async () => {
    const o = problem({ n: 2_000, p: 4, seed: 9 });
    const cold = await glmFit(o);
    const warm = await glmFit({
      ...o,
      start: Float64Array.from([...cold.coefficients, cold.intercept]),
    });
    expect(warm.iterations).toBeLessThan(cold.iterations);
    warm.coefficients.forEach((c, j) => {
      expectClose(c, cold.coefficients[j]!);
    });
    const lost = await glmFit({ ...o, start: new Float64Array(5).fill(1e6) });
    expect(lost.converged).toBe(true);
  });

  it('gives the same bits every time, also while other jobs keep the threads busy', async () => {
    const o = problem({ n: 20_000, p: 6, seed: 10 });
    const alone = await glmFit(o);
    const matrix = randomFloats(40_000 * 32, 1);
    const busy = Array.from({ length: 4 }, () =>
      topk({ queries: matrix, nQueries: 64, matrix, nRows: 40_000, dim: 32, k: 10, metric: 'ip' }),
    );
    const fits = await Promise.all(Array.from({ length: 6 }, () => glmFit(o)));
    await Promise.all(busy);
    for (const fit of fits) expect(fit).toEqual(alone);
  });

  it('says when it did not converge', async () => {
    const o = problem({ n: 300, p: 3, seed: 11 });
    const fit = await glmFit({ ...o, maxIterations: 1 });
    expect(fit.converged).toBe(false);
    expect(fit.iterations).toBe(1);
  });

  it('leaves out features that do not vary and refuses collinear ones', async () => {
    const o = problem({ n: 200, p: 2, seed: 12 });
    const constant = await glmFit({ ...o, x: o.x.map((v, i) => (i % 2 === 1 ? 5 : v)) });
    expect(constant.coefficients[1]).toBe(0);
    expect(constant.standardErrors[1]).toBeNaN();
    const x = o.x.slice();
    for (let i = 0; i < 200; i++) x[2 * i + 1] = 3 * x[2 * i]!;
    expect(await codeOf(() => glmFit({ ...o, x }))).toBe('WAGGLE_NATIVE_SINGULAR');
    expect((await glmFit({ ...o, x, l2: 1 })).converged).toBe(true);
  });

  const base = problem({ n: 50, p: 2, seed: 13 });
  const refusals: [string, Partial<GlmFitInput>, string][] = [
    ['no rows', { nRows: 0 }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['no parameters', { nFeatures: 0, intercept: false }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['too many features', { nFeatures: 2_049 }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['a tolerance of 0', { tolerance: 0 }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['negative ridge', { l2: -1 }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    [
      'more successes than trials',
      { successes: new Float64Array(50).fill(9) },
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    ],
    [
      'negative trials',
      { trials: new Float64Array(50).fill(-1) },
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    ],
    [
      'no trials',
      { trials: new Float64Array(50), successes: new Float64Array(50) },
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    ],
    ['short x', { nRows: 51 }, 'WAGGLE_NATIVE_SHAPE'],
    ['a short offset', { offset: new Float64Array(49) }, 'WAGGLE_NATIVE_SHAPE'],
    ['a short start', { start: new Float64Array(2) }, 'WAGGLE_NATIVE_SHAPE'],
    [
      'float successes',
      { successes: new Float32Array(50) as unknown as Float64Array },
      'WAGGLE_NATIVE_DTYPE',
    ],
    ['a detached column', { trials: detached(new Float64Array(50)) }, 'WAGGLE_NATIVE_DETACHED'],
    ['NaN in x', { x: base.x.slice().fill(Number.NaN, 5, 6) }, 'WAGGLE_NATIVE_NAN'],
    ['NaN in the weights', { weights: new Float64Array(50).fill(Number.NaN) }, 'WAGGLE_NATIVE_NAN'],
    [
      'an infinite offset',
      { offset: new Float64Array(50).fill(Number.POSITIVE_INFINITY) },
      'WAGGLE_NATIVE_NAN',
    ],
    ['NaN ridge', { l2: Number.NaN }, 'WAGGLE_NATIVE_NAN'],
  ];

  it.each(refusals)('refuses %s', async (_title, overrides, code) => {
    expect(await codeOf(() => glmFit({ ...base, ...overrides }))).toBe(code);
  });

  it('stops when the signal fires', async () => {
    const o = problem({ n: 50_000, p: 30, seed: 14 });
    const controller = new AbortController();
    const running = glmFit({
      ...o,
      tolerance: 1e-300,
      maxIterations: 100_000,
      signal: controller.signal,
    });
    setImmediate(() => controller.abort());
    expect(await codeOf(() => running)).toBe('WAGGLE_ABORTED');
  });
});
