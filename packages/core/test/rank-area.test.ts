import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { areaByRank } from '../src/index.js';

const f64 = (...values: number[]) => Float64Array.from(values);

describe('area by rank', () => {
  test('matches a hand-worked case with ties', () => {
    // Score 1: 1 of 2 succeed, score 2: 2 of 2. Pairs (success, failure): one tie, two won.
    expect(areaByRank(f64(1, 2), f64(1, 2), f64(1, 0))).toBeCloseTo((0.5 + 2) / 3, 12);
  });

  test('is NaN when a class is empty, one half when all scores are equal', () => {
    expect(areaByRank(f64(), f64(), f64())).toBeNaN();
    expect(areaByRank(f64(1, 2), f64(0, 0), f64(1, 1))).toBeNaN();
    expect(areaByRank(f64(1, 2), f64(1, 1), f64(0, 0))).toBeNaN();
    expect(areaByRank(f64(3, 3), f64(2, 1), f64(0, 5))).toBe(0.5);
  });

  test('equals the count over all pairs, and turns over with the scores', () => {
    const row = fc.tuple(
      fc.integer({ min: -3, max: 3 }),
      fc.integer({ min: 0, max: 4 }),
      fc.integer({ min: 0, max: 4 }),
    );
    fc.assert(
      fc.property(fc.array(row, { minLength: 1, maxLength: 12 }), (rows) => {
        const scores = f64(...rows.map((r) => r[0]));
        const positives = f64(...rows.map((r) => r[1]));
        const negatives = f64(...rows.map((r) => r[2]));
        let won = 0;
        let pairs = 0;
        for (const [s, p] of rows) {
          for (const [t, , n] of rows) {
            won += p * n * (s > t ? 1 : s === t ? 0.5 : 0);
            pairs += p * n;
          }
        }
        const area = areaByRank(scores, positives, negatives);
        if (pairs === 0) {
          expect(area).toBeNaN();
          return;
        }
        expect(area).toBeCloseTo(won / pairs, 12);
        const turned = areaByRank(
          scores.map((s) => -s),
          positives,
          negatives,
        );
        expect(area + turned).toBeCloseTo(1, 12);
      }),
    );
  });
});
