import { describe, expect, it } from 'vitest';
import { type KmeansInput, kmeans, topk } from '../../ts/index.js';
import { codeOf, randomFloats } from './arrays.js';

const x = randomFloats(3_000 * 7, 3);

function input(overrides: Partial<KmeansInput> = {}): KmeansInput {
  return { x, nRows: 3_000, dim: 7, k: 12, ...overrides };
}

describe('kmeans', () => {
  it('assigns every row to its nearest centroid and adds up what it minimised', async () => {
    const answer = await kmeans(input({ tolerance: 0, maxIterations: 200 }));
    const nearest = await topk({
      queries: x,
      nQueries: 3_000,
      matrix: answer.centroids,
      nRows: 12,
      dim: 7,
      k: 1,
      metric: 'l2',
    });
    expect(answer.assignments).toEqual(nearest.rows);
    const sum = nearest.scores.reduce((total, score) => total - score, 0);
    expect(answer.objective).toBeCloseTo(sum, 3);
    expect(answer.converged).toBe(true);
    expect(answer.nSampled).toBe(3_000);
    const means = new Float64Array(12 * 7);
    const sizes = new Float64Array(12);
    answer.assignments.forEach((cluster, row) => {
      sizes[cluster]! += 1;
      for (let i = 0; i < 7; i++) means[cluster * 7 + i]! += x[row * 7 + i]!;
    });
    answer.centroids.forEach((value, at) => {
      expect(value).toBeCloseTo(means[at]! / sizes[Math.floor(at / 7)]!, 5);
    });
  });

  it('gives the same answer for a seed, and starts where it is told to', async () => {
    expect(await kmeans(input({ seed: 4 }))).toEqual(await kmeans(input({ seed: 4 })));
    const start = x.slice(0, 84);
    const still = await kmeans(input({ start, maxIterations: 0 }));
    expect(still.centroids).toEqual(start);
    expect(still.iterations).toBe(0);
    const moved = await kmeans(input({ start, maxIterations: 3 }));
    expect(moved.objective).toBeLessThan(still.objective);
  });

  it('tells how far it is, and stops when asked', async () => {
    const large = { x: randomFloats(200_000 * 16, 5), nRows: 200_000, dim: 16, k: 400 };
    const seen: number[] = [];
    const controller = new AbortController();
    const running = kmeans({
      ...large,
      tolerance: 0,
      maxIterations: 1_000,
      onProgress: (done) => {
        seen.push(done);
        if (seen.length === 2) controller.abort();
      },
      signal: controller.signal,
    });
    expect(await codeOf(() => running)).toBe('WAGGLE_ABORTED');
    expect(seen.every((done) => done >= 0 && done <= 1)).toBe(true);
  });

  it.each<[string, Partial<KmeansInput>, string]>([
    ['k = 0', { k: 0 }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['more clusters than rows', { k: 3_001 }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['a negative tolerance', { tolerance: -1 }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['short rows', { nRows: 3_001 }, 'WAGGLE_NATIVE_SHAPE'],
    ['a short start', { start: new Float32Array(83) }, 'WAGGLE_NATIVE_SHAPE'],
    ['NaN', { x: x.slice().fill(Number.NaN, 9, 10) }, 'WAGGLE_NATIVE_NAN'],
    ['doubles', { x: new Float64Array(21_000) as unknown as Float32Array }, 'WAGGLE_NATIVE_DTYPE'],
  ])('refuses %s', async (_title, overrides, code) => {
    expect(await codeOf(() => kmeans(input(overrides)))).toBe(code);
  });
});
