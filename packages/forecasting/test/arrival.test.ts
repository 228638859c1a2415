import { Rng } from '@waggle/core';
import { describe, expect, test } from 'vitest';
import { Arrival } from '../src/inventory/arrival.js';

/** Of 1,000 events 500, 300 and 200 in three hours. */
const EARLY = Float64Array.of(500, 300, 200);
const LATE = Float64Array.of(200, 300, 500);

describe('how outcomes come in', () => {
  test('is unknown before anything was learnt', () => {
    const arrival = new Arrival(3);
    expect(arrival.share(9, 2)).toBe(0);
    expect(arrival.dispersion(2)).toBe(0);
  });

  test('is the share that the first hours brought', () => {
    const arrival = new Arrival(3);
    arrival.learn(EARLY, 9);
    expect([0, 1, 2, 3].map((h) => arrival.share(9, h))).toEqual([0, 0.5, 0.8, 1]);
  });

  test('differs by the local hour of sending, and starts from all sends together', () => {
    const arrival = new Arrival(3);
    for (let i = 0; i < 100; i++) {
      arrival.learn(EARLY, 9);
      arrival.learn(LATE, 21);
    }
    // 100 sends of 500 events at most against 2,000 of the mean of both.
    const pulled = (own: number) => (50_000 * own + 2_000 * 0.35) / 52_000;
    expect(arrival.share(9, 1)).toBeCloseTo(pulled(0.5), 12);
    expect(arrival.share(21, 1)).toBeCloseTo(pulled(0.2), 12);
    expect(arrival.share(3, 1)).toBeCloseTo(0.35, 12);
  });

  test('varies by counting alone where all sends are alike, and more where they are not', () => {
    const dispersionOf = (shares: readonly number[]) => {
      const rng = new Rng(7);
      const arrival = new Arrival(2);
      for (let i = 0; i < 4_000; i++) {
        const first = rng.binomial(300, shares[i % shares.length]!);
        arrival.learn(Float64Array.of(first, 300 - first), 9);
      }
      return arrival.dispersion(1);
    };
    // (0.4² + 0.6²)/2 / 0.5² − 1 = 0.04; a mean of 4,000 squares is off by 2 %.
    expect(dispersionOf([0.4, 0.6])).toBeGreaterThan(0.036);
    expect(dispersionOf([0.4, 0.6])).toBeLessThan(0.044);
    expect(dispersionOf([0.5])).toBeLessThan(0.0005);
  });

  test('takes no notice of sends without events, or whose hours are not over', () => {
    const arrival = new Arrival(3);
    arrival.learn(EARLY, 9);
    arrival.learn(new Float64Array(3), 9);
    arrival.learn(Float64Array.of(5, Number.NaN, Number.NaN), 9);
    expect(arrival.share(9, 1)).toBe(0.5);
  });
});
