import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { glmFit, glmFitSparse, glmPath, glmPathSparse } from '../../ts/index.js';
import { codeOf, randomNumbers } from './arrays.js';

interface Dense {
  readonly x: Float32Array;
  readonly nRows: number;
  readonly nFeatures: number;
  readonly successes: Float64Array;
  readonly trials: Float64Array;
}

function problem(n: number, p: number, seed: number): Dense {
  const next = randomNumbers(seed);
  const x = Float32Array.from({ length: n * p }, (_, i) => (next() - 0.3) * (1 + (i % p)));
  const trials = Float64Array.from({ length: n }, () => 1 + Math.floor(next() * 3));
  const successes = Float64Array.from({ length: n }, (_, i) => {
    let eta = -0.5;
    for (let j = 0; j < p; j += 3) eta += x[i * p + j]! * 0.6;
    let s = 0;
    for (let t = 0; t < trials[i]!; t++) if (next() < 1 / (1 + Math.exp(-eta))) s += 1;
    return s;
  });
  return { x, nRows: n, nFeatures: p, successes, trials };
}

/** The same rows with every zero left out. */
function sparse({ x, nRows, nFeatures, ...targets }: Dense) {
  const indptr = Int32Array.from({ length: nRows + 1 }, (_, i) => i * nFeatures);
  const indices = Int32Array.from({ length: x.length }, (_, e) => e % nFeatures);
  return { nRows, nFeatures, indptr, indices, values: x, ...targets };
}

/** Gradient of the log-likelihood by feature at a fit, on the raw scale, plain arithmetic. */
function gradient(o: Dense, fit: { coefficients: Float64Array; intercept: number }): number[] {
  const g = new Array<number>(o.nFeatures).fill(0);
  for (let i = 0; i < o.nRows; i++) {
    let eta = fit.intercept;
    for (let j = 0; j < o.nFeatures; j++) eta += fit.coefficients[j]! * o.x[i * o.nFeatures + j]!;
    const residual = o.successes[i]! - o.trials[i]! / (1 + Math.exp(-eta));
    for (let j = 0; j < o.nFeatures; j++) g[j]! += residual * o.x[i * o.nFeatures + j]!;
  }
  return g;
}

describe('elastic net', () => {
  it('meets the conditions of its optimum, dense and sparse alike, with exact zeros', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 80, max: 400 }),
        fc.integer({ min: 2, max: 12 }),
        fc.integer({ min: 1, max: 2 ** 30 }),
        fc.constantFrom(1, 8, 40),
        fc.constantFrom(0, 3),
        async (n, p, seed, l1, l2) => {
          const o = problem(n, p, seed);
          const fits = [
            await glmFit({ ...o, l1, l2, standardize: false, tolerance: 1e-12 }),
            await glmFitSparse({ ...sparse(o), l1, l2, tolerance: 1e-14 }),
          ];
          for (const fit of fits) {
            expect(fit.converged).toBe(true);
            expect(fit.l1Activation).toBeLessThanOrEqual(1 + 1e-4);
            for (const [j, g] of gradient(o, fit).entries()) {
              const beta = fit.coefficients[j]!;
              const pull = g - l2 * beta;
              if (beta === 0) expect(Math.abs(pull)).toBeLessThanOrEqual(l1 + 1e-3);
              else expect(Math.abs(pull - Math.sign(beta) * l1)).toBeLessThan(1e-3);
            }
          }
          fits[0]!.coefficients.forEach((c, j) => {
            expect(Math.abs(c - fits[1]!.coefficients[j]!)).toBeLessThan(1e-4);
          });
        },
      ),
      { numRuns: 20 },
    );
  });

  it('sparse without penalties agrees with the dense fit', async () => {
    const o = problem(600, 5, 3);
    const dense = await glmFit(o);
    const rows = await glmFitSparse({ ...sparse(o), tolerance: 1e-13 });
    expect(rows.logLikelihood).toBeCloseTo(dense.logLikelihood, 7);
    expect(rows.deviance).toBeCloseTo(dense.deviance, 7);
    dense.coefficients.forEach((c, j) => {
      expect(rows.coefficients[j]).toBeCloseTo(c, 5);
    });
  });

  it('penalises one feature and not another', async () => {
    const o = problem(400, 4, 4);
    const fit = await glmFit({ ...o, l1: Float64Array.of(0, 1e6, 1e6, 0) });
    expect([...fit.coefficients].map((c) => c === 0)).toEqual([false, true, true, false]);
    expect(fit.standardErrors[0]).toBeGreaterThan(0);
    expect(fit.standardErrors[1]).toBeNaN();
    const alone = await glmFit({
      ...o,
      nFeatures: 2,
      x: Float32Array.from({ length: 800 }, (_, i) => o.x[(i >> 1) * 4 + (i % 2) * 3]!),
    });
    expect(fit.coefficients[0]).toBeCloseTo(alone.coefficients[0]!, 6);
    expect(fit.standardErrors[3]).toBeCloseTo(alone.standardErrors[1]!, 6);
  });

  it('copes with twins, of which a plain fit cannot choose', async () => {
    const o = problem(300, 3, 5);
    const x = Float32Array.from(
      { length: 300 * 4 },
      (_, i) => o.x[(i >> 2) * 3 + Math.min(i % 4, 2)]!,
    );
    const twins = { ...o, x, nFeatures: 4 };
    expect(await codeOf(() => glmFit(twins))).toBe('WAGGLE_NATIVE_SINGULAR');
    expect((await glmFit({ ...twins, l1: 2 })).converged).toBe(true);
  });

  it('walks a path from no coefficient to all of them, as cold fits would', async () => {
    const o = problem(800, 9, 6);
    const path = await glmPath({ ...o, l1: 1, l2: 0.1 }, { nLambdas: 12, minRatio: 1e-4 });
    expect(path).toHaveLength(12);
    const counts = path.map((fit) => fit.coefficients.filter((c) => c !== 0).length);
    expect(counts[0]).toBeLessThanOrEqual(1); // the first is about to move
    expect(counts[1]).toBeGreaterThan(0);
    expect(counts.at(-1)).toBe(9);
    expect(path.every((fit, i) => i === 0 || fit.deviance <= path[i - 1]!.deviance)).toBe(true);
    const middle = path[6]!;
    const cold = await glmFit({ ...o, l1: middle.lambda, l2: 0.1 * middle.lambda });
    cold.coefficients.forEach((c, j) => {
      expect(middle.coefficients[j]).toBeCloseTo(c, 5);
    });
    const rows = sparse(o);
    const sparsePath = await glmPathSparse({ ...rows, l1: 1 }, { lambdas: [50, 5, 0.5, 0] });
    expect(sparsePath.map((fit) => fit.lambda)).toEqual([50, 5, 0.5, 0]);
    expect(sparsePath[3]!.logLikelihood).toBeCloseTo((await glmFit(o)).logLikelihood, 4);
    expect(await codeOf(() => glmPath(o))).toBe('WAGGLE_NATIVE_INVALID_ARGUMENT');
    expect(await codeOf(() => glmPath({ ...o, l1: 1 }, { lambdas: [1, 2] }))).toBe(
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    );
  });

  it('adds up entries of a row that name a feature twice', async () => {
    const o = sparse(problem(300, 3, 7));
    const halves = {
      ...o,
      indptr: o.indptr.map((v) => 2 * v),
      indices: Int32Array.from({ length: o.indices.length * 2 }, (_, e) => o.indices[e >> 1]!),
      values: Float32Array.from({ length: o.values.length * 2 }, (_, e) => o.values[e >> 1]! / 2),
    };
    const [once, twice] = [
      await glmFitSparse({ ...o, l1: 1 }),
      await glmFitSparse({ ...halves, l1: 1 }),
    ];
    once.coefficients.forEach((c, j) => {
      expect(twice.coefficients[j]).toBeCloseTo(c, 9);
    });
  });

  it('gives the same bits every time', async () => {
    const o = sparse(problem(20_000, 6, 8));
    const fits = await Promise.all(Array.from({ length: 4 }, () => glmFitSparse({ ...o, l1: 5 })));
    for (const fit of fits) expect(fit).toEqual(fits[0]);
  });

  it('refuses bad penalties and rows', async () => {
    const dense = problem(50, 2, 9);
    const o = sparse(dense);
    expect(await codeOf(() => glmFit({ ...dense, l1: -1 }))).toBe('WAGGLE_NATIVE_INVALID_ARGUMENT');
    expect(await codeOf(() => glmFit({ ...dense, l1: Number.NaN }))).toBe('WAGGLE_NATIVE_NAN');
    expect(await codeOf(() => glmFit({ ...dense, l1: new Float64Array(1) }))).toBe(
      'WAGGLE_NATIVE_SHAPE',
    );
    expect(await codeOf(() => glmFitSparse({ ...o, l1: -1 }))).toBe(
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    );
    expect(await codeOf(() => glmFitSparse({ ...o, l2: new Float64Array(1) }))).toBe(
      'WAGGLE_NATIVE_SHAPE',
    );
    expect(await codeOf(() => glmFitSparse({ ...o, nFeatures: 1 }))).toBe(
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    );
    expect(
      await codeOf(() =>
        glmFitSparse({ ...o, trials: new Float64Array(50), successes: new Float64Array(50) }),
      ),
    ).toBe('WAGGLE_NATIVE_INVALID_ARGUMENT');
  });

  it('stops when the signal fires', async () => {
    const o = sparse(problem(100_000, 20, 10));
    const controller = new AbortController();
    const running = glmFitSparse({ ...o, l1: 0.1, tolerance: 1e-15, signal: controller.signal });
    setImmediate(() => controller.abort());
    expect(await codeOf(() => running)).toBe('WAGGLE_ABORTED');
  });
});
