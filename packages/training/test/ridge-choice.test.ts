import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { strongestUnrejected } from '../src/fit/logistic.js';

const GRID = [10, 100, 1_000];
const losses = (...rows: number[][]) => rows.map((row) => Float64Array.from(row));

describe('the penalty that later rows choose', () => {
  test('a difference that most clusters agree on decides', () => {
    const flat = Array.from({ length: 30 }, () => 1);
    const worse = flat.map((x) => x + 0.5);
    expect(strongestUnrejected(GRID, losses(flat, worse, worse))).toBe(10);
  });

  test('a difference that one cluster makes does not', () => {
    const flat = Array.from({ length: 30 }, () => 1);
    const one = flat.map((x, i) => (i === 0 ? x + 15 : x));
    expect(strongestUnrejected(GRID, losses(flat, one, one))).toBe(1_000);
  });

  test('between one and two standard errors the prior keeps its say', () => {
    // Sum of differences 3 over a root of squares of 2: one and a half standard errors.
    const flat = Array.from({ length: 16 }, () => 1);
    const mixed = flat.map((x, i) => x + (i < 11 ? 0.5 : -0.5));
    expect(strongestUnrejected(GRID, losses(flat, mixed, mixed))).toBe(1_000);
  });

  test('never a weaker penalty than the best one, always one of the grid', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.array(fc.double({ min: 0, max: 10, noNaN: true }), { minLength: 5, maxLength: 5 }),
          {
            minLength: 3,
            maxLength: 3,
          },
        ),
        (rows) => {
          const total = rows.map((row) => row.reduce((a, b) => a + b, 0));
          const best = GRID[total.indexOf(Math.min(...total))]!;
          const chosen = strongestUnrejected(GRID, losses(...rows));
          expect(GRID).toContain(chosen);
          expect(chosen).toBeGreaterThanOrEqual(best);
        },
      ),
    );
  });
});
