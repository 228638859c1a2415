import { SCORE_TERMS } from '@waggle/core/contract';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { FeatureMatrix, rankCandidates, termsOf } from '../src/index.js';

const f32 = (low: number, high: number) =>
  fc.float({ min: Math.fround(low), max: Math.fround(high), noNaN: true });
const weights = { margin: 0.3, fit: 1_000, advertiser: 0, payout: 0.1, explore: 0 };

const columns = (n: number) =>
  fc.record({
    q: fc.array(f32(0, 1), { minLength: n, maxLength: n }),
    spend: fc.array(f32(0, 1e9), { minLength: n, maxLength: n }),
    payout: fc.array(f32(0, 1e9), { minLength: n, maxLength: n }),
    fit: fc.array(f32(-1, 1), { minLength: n, maxLength: n }),
    mu: fc.array(f32(0, 1), { minLength: n, maxLength: n }),
    advertiser: fc.array(fc.nat(4), { minLength: n, maxLength: n }),
    group: fc.array(fc.integer({ min: -1, max: 2 }), { minLength: n, maxLength: n }),
  });

test('terms by name add up to the score, from left to right and bit for bit', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 40 }).chain(columns),
      fc.integer({ min: 1, max: 10 }),
      (c, k) => {
        const n = c.q.length;
        const result = rankCandidates({
          nCandidates: n,
          k,
          weights,
          columns: {
            q: Float32Array.from(c.q),
            spend: Float32Array.from(c.spend),
            payout: Float32Array.from(c.payout),
            fit: Float32Array.from(c.fit),
            mu: Float32Array.from(c.mu),
          },
        });
        expect(result.rows).toHaveLength(Math.min(k, n));
        result.scores.forEach((score, i) => {
          const terms = termsOf(result, i);
          let sum = 0;
          for (const name of SCORE_TERMS) sum += terms[name];
          expect(sum).toBe(score);
          const row = result.rows[i]!;
          expect(terms.margin).toBeCloseTo(
            Math.fround(c.q[row]!) * 0.3 * Math.fround(c.spend[row]!),
            2,
          );
        });
      },
    ),
  );
});

test('diversity limits advertisers and keeps competitors apart', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 40 }).chain(columns),
      fc.integer({ min: 1, max: 3 }),
      (c, most) => {
        const n = c.q.length;
        const result = rankCandidates({
          nCandidates: n,
          k: n,
          weights,
          columns: {
            q: Float32Array.from(c.q),
            spend: Float32Array.from(c.spend),
            payout: Float32Array.from(c.payout),
            fit: Float32Array.from(c.fit),
          },
          diversity: {
            advertiser: Int32Array.from(c.advertiser),
            maxPerAdvertiser: most,
            competitorGroup: Int32Array.from(c.group),
          },
        });
        const count = new Map<number, number>();
        const holder = new Map<number, number>();
        for (const row of result.rows) {
          const advertiser = c.advertiser[row]!;
          const group = c.group[row]!;
          count.set(advertiser, (count.get(advertiser) ?? 0) + 1);
          expect(count.get(advertiser)!).toBeLessThanOrEqual(most);
          if (group < 0) continue;
          expect(holder.get(group) ?? advertiser).toBe(advertiser);
          holder.set(group, advertiser);
        }
      },
    ),
  );
});

test('a feature matrix grows, keeps its rows apart and names its values', () => {
  const matrix = new FeatureMatrix(['a', 'b']);
  matrix.resize(2).set([1, 2, 3, 4]);
  expect([...matrix.row(1)]).toEqual([3, 4]);
  expect(matrix.record(0)).toEqual({ a: 1, b: 2 });
  const before = matrix.data;
  matrix.resize(1);
  expect(matrix.data).toBe(before);
  expect(() => matrix.row(1)).toThrow(expect.objectContaining({ code: 'WAGGLE_RANKING_SHAPE' }));
  expect(matrix.resize(100)).toHaveLength(200);
});
