import { describe, expect, it } from 'vitest';
import { halfBy, hourlyCurve } from '../src/hourly-forecast.js';

const N_HOURS = 72;

/** Sends at nine in the morning, two publications in turn, whose events fall off by a third an hour. */
function sends(nSends: number, of: (send: number, hour: number) => number) {
  return {
    history: {
      nSends,
      nPublications: 2,
      localHour: new Uint8Array(nSends).fill(9),
      publication: Uint32Array.from({ length: nSends }, (_, i) => i % 2),
    },
    counts: Float64Array.from({ length: nSends * N_HOURS }, (_, k) =>
      of(Math.floor(k / N_HOURS), k % N_HOURS),
    ),
  };
}
const falling = (_: number, hour: number): number => Math.round(300 * (2 / 3) ** hour);

describe('what is expected by hour', () => {
  it('is a share of the whole for each hour, the first ones largest as in the past', () => {
    const { history, counts } = sends(40, falling);
    const shares = Array.from(hourlyCurve(history, counts)!.shares(9, 1));
    expect(shares).toHaveLength(N_HOURS);
    expect(shares.reduce((sum, share) => sum + share, 0)).toBeCloseTo(1, 9);
    expect(shares[0]).toBeGreaterThan(0.2);
    expect(halfBy(shares)).toBeLessThanOrEqual(3);
  });

  it('is unknown without an event of a send that was watched to the end', () => {
    const none = sends(10, () => 0);
    expect(hourlyCurve(none.history, none.counts)).toBeUndefined();
    const early = sends(10, (i, hour) => (hour < 24 ? falling(i, hour) : Number.NaN));
    expect(hourlyCurve(early.history, early.counts)).toBeUndefined();
    const empty = sends(0, falling);
    expect(hourlyCurve(empty.history, empty.counts)).toBeUndefined();
  });

  it('has come by half when half of the sum has', () => {
    expect(halfBy([1, 1, 2, 4])).toBe(3);
    expect(halfBy([5])).toBe(1);
    expect(halfBy([0, 0])).toBeUndefined();
    expect(halfBy([])).toBeUndefined();
  });
});
