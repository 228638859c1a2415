import { DAY_MS, HOUR_MS } from '@waggle/core';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { delayShares } from '../src/suite/conversion-delays.js';

const BUCKETS = [HOUR_MS, 6 * HOUR_MS, DAY_MS, 3 * DAY_MS, 7 * DAY_MS, 14 * DAY_MS, 30 * DAY_MS];
const WINDOW = 30 * DAY_MS;

/** Shares of the buckets where delays are this mixture. */
function trueShares(mixture: readonly { part: number; meanMs: number }[]): number[] {
  const by = (ms: number) => mixture.reduce((s, d) => s - d.part * Math.expm1(-ms / d.meanMs), 0);
  return BUCKETS.map((end, b) => (by(end) - by(BUCKETS[b - 1] ?? 0)) / by(WINDOW));
}

const NETWORKS = [
  ['a third at once, half over weeks', [0.34, 0.13, 0.53], [HOUR_MS / 3, 8 * HOUR_MS, 10 * DAY_MS]],
  ['nearly all within the day', [0.9, 0.1, 0], [2 * HOUR_MS, DAY_MS, DAY_MS]],
  ['slow throughout', [0.1, 0.2, 0.7], [HOUR_MS, 2 * DAY_MS, 15 * DAY_MS]],
] as const;

test.each(NETWORKS)('%s: two weeks of clicks tell the rest of the month', (_, parts, means) => {
  const shares = trueShares(parts.map((part, k) => ({ part, meanMs: means[k]! })));
  // Younger buckets have been seen by more clicks; the last by none.
  const promised = [4_000, 3_950, 3_800, 3_200, 2_000, 0, 0];
  const came = promised.map((n, b) => n * shares[b]!);
  const found = delayShares({ bucketsMs: BUCKETS, came, promised });
  expect(found.reduce((sum, s) => sum + s, 0)).toBeCloseTo(1, 9);
  const tail = (of: readonly number[]) => of[5]! + of[6]!;
  // The slow paces can hardly be told apart before they have run: some points of all conversions are the price.
  expect(Math.abs(tail(found) - tail(shares))).toBeLessThan(0.06);
  const seen = 1 - tail(shares);
  const foundSeen = 1 - tail(found);
  for (let b = 0; b < 5; b++) {
    // A pace between two of the grid is told as a mixture of both, which is broader: 2.1 points in the worst bucket here.
    expect(Math.abs(found[b]! / foundSeen - shares[b]! / seen)).toBeLessThan(0.025);
  }
});

test('every pace alike before anything is seen, and for a window of any length', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 90 }), (days) => {
      const ends = [...BUCKETS.filter((end) => end < days * DAY_MS), days * DAY_MS];
      const none = ends.map(() => 0);
      const shares = delayShares({ bucketsMs: ends, came: none, promised: none });
      expect(shares.reduce((sum, s) => sum + s, 0)).toBeCloseTo(1, 9);
      for (const share of shares) expect(share).toBeGreaterThan(0);
    }),
    { seed: 4, numRuns: 30 },
  );
  expect(delayShares({ bucketsMs: [DAY_MS], came: [5], promised: [9] })).toEqual([1]);
});
