import { Rng } from '@waggle/core';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { betaPriorStrength, shrunkRate } from '../src/index.js';

/** Entities whose rates are drawn from a beta with the given mean and strength. */
function world(seed: number, nEntities: number, mean: number, strength: number) {
  const rng = new Rng(seed, 5);
  const trials = Array.from({ length: nEntities }, () =>
    Math.round(3_000 * Math.exp(rng.normal())),
  );
  const successes = trials.map((n) =>
    rng.binomial(n, rng.beta(mean * strength, (1 - mean) * strength)),
  );
  return { trials, successes, expected: mean };
}

describe('prior strength by moments', () => {
  test.each([
    [0.002, 1_650],
    [0.002, 10_000],
    [0.3, 8],
  ])('recovers a beta with mean %d and strength %d', (mean, strength) => {
    const estimates = [1, 2, 3, 4, 5].map(
      (seed) => betaPriorStrength(world(seed, 800, mean, strength)).strength,
    );
    const middle = estimates.sort((a, b) => a - b)[2]!;
    // The moment estimate's own spread is about 10 % here.
    expect(middle / strength).toBeGreaterThan(0.75);
    expect(middle / strength).toBeLessThan(1.33);
  });

  test('identical entities give the strongest prior', () => {
    const rng = new Rng(1);
    const trials = Array.from({ length: 500 }, () => 5_000);
    const successes = trials.map((n) => rng.binomial(n, 0.01));
    expect(betaPriorStrength({ trials, successes, expected: 0.01 }).strength).toBeGreaterThan(
      20_000,
    );
  });

  test('spread around parents is what counts, not spread of the parents', () => {
    const rng = new Rng(3);
    const expected = Array.from({ length: 600 }, () => 0.002 * Math.exp(rng.normal()));
    const trials = expected.map(() => 50_000);
    const successes = expected.map((m) => rng.binomial(50_000, m));
    const around = betaPriorStrength({ trials, successes, expected });
    const flat = betaPriorStrength({ trials, successes, expected: 0.002 * Math.exp(0.5) });
    expect(around.logVariance).toBeLessThan(0.02);
    expect(flat.logVariance).toBeGreaterThan(0.5);
  });

  test('too few entities or no successes fall back', () => {
    expect(
      betaPriorStrength({ trials: [10, 10], successes: [1, 2], expected: 0.1 }, { fallback: 77 })
        .strength,
    ).toBe(77);
    expect(
      betaPriorStrength(
        { trials: [10, 10, 10], successes: [0, 0, 0], expected: 0.1 },
        { fallback: 77 },
      ).strength,
    ).toBe(77);
    expect(betaPriorStrength({ trials: [], successes: [], expected: 0.1 })).toMatchObject({
      nEntities: 0,
      logVariance: 0,
    });
  });

  test('the strength stays finite and inside its limits for any counts', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.tuple(fc.integer({ min: 0, max: 1_000 }), fc.double({ min: 0, max: 1, noNaN: true })),
          {
            maxLength: 40,
          },
        ),
        fc.double({ min: 1e-6, max: 0.999, noNaN: true }),
        (rows, expected) => {
          const trials = rows.map(([n]) => n);
          const successes = rows.map(([n, share]) => Math.floor(n * share));
          const { strength, logVariance } = betaPriorStrength({ trials, successes, expected });
          expect(strength).toBeGreaterThanOrEqual(1);
          expect(strength).toBeLessThanOrEqual(1e7);
          expect(Number.isFinite(logVariance)).toBe(true);
        },
      ),
    );
  });

  test('a shrunk rate lies between the entity’s own and its parent’s', () => {
    expect(shrunkRate(3, 100, 0.01, 100)).toBeCloseTo(0.02, 12);
    expect(shrunkRate(0, 0, 0.01, 5)).toBeCloseTo(0.01, 12);
  });

  test('counts that cannot be are refused', () => {
    for (const bad of [
      { trials: [1], successes: [2], expected: 0.1 },
      { trials: [-1], successes: [0], expected: 0.1 },
      { trials: [1], successes: [0], expected: 1.5 },
      { trials: [Number.NaN], successes: [0], expected: 0.1 },
    ]) {
      expect(() => betaPriorStrength(bad)).toThrowError(
        expect.objectContaining({ code: 'WAGGLE_TRAINING_LABEL' }),
      );
    }
    expect(() => betaPriorStrength({ trials: [1], successes: [], expected: 0.1 })).toThrowError(
      expect.objectContaining({ code: 'WAGGLE_TRAINING_SHAPE' }),
    );
  });
});
