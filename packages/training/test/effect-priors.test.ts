import { Rng } from '@waggle/core';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { estimateEffectPriors, NO_GROUP } from '../src/index.js';

function crossed(seed: number, sd: { publication: number; campaign: number; row: number }) {
  const rng = new Rng(seed, 6);
  const nRows = 8_000;
  const draw = (n: number, s: number) => Array.from({ length: n }, () => s * rng.normal());
  const publication = draw(600, sd.publication);
  const campaign = draw(80, sd.campaign);
  const size = draw(600, 1.2).map((z) => 5_000 * Math.exp(z));
  const codes = [new Uint32Array(nRows), new Uint32Array(nRows)];
  const successes = new Float64Array(nRows);
  const trials = new Float64Array(nRows);
  for (let i = 0; i < nRows; i++) {
    const p = rng.integer(600);
    const c = rng.integer(80);
    codes[0]![i] = p;
    codes[1]![i] = c;
    trials[i] = Math.round(size[p]!);
    const rate = 0.002 * Math.exp(publication[p]! + campaign[c]! + sd.row * rng.normal());
    successes[i] = rng.binomial(trials[i]!, Math.min(1, rate));
  }
  return {
    successes,
    trials,
    levels: [
      { name: 'publication', codes: codes[0]! },
      { name: 'campaign', codes: codes[1]! },
    ],
  };
}

describe('strengths of crossed effects', () => {
  test.each([
    { publication: 0.55, campaign: 0.45, row: 0.25 },
    { publication: 0.2, campaign: 0.6, row: 0.4 },
  ])('are recovered from counts: %o', (sd) => {
    const runs = [1, 2, 3].map((seed) => estimateEffectPriors(crossed(seed, sd)));
    const middle = (pick: (run: (typeof runs)[number]) => number) =>
      runs.map(pick).sort((a, b) => a - b)[1]!;
    // moments of some 80 campaigns err by a quarter; a log-normal's relative variance is exp(sd²) − 1
    const near = (value: number, s: number) => {
      expect(value / (Math.exp(s * s) - 1)).toBeGreaterThan(0.6);
      expect(value / (Math.exp(s * s) - 1)).toBeLessThan(1.6);
    };
    near(
      middle((r) => r.levels[0]!.variance),
      sd.publication,
    );
    near(
      middle((r) => r.levels[1]!.variance),
      sd.campaign,
    );
    near(
      middle((r) => r.dispersion),
      sd.row,
    );
    expect(middle((r) => r.baseRate)).toBeGreaterThan(0.0015);
    expect(middle((r) => r.baseRate)).toBeLessThan(0.0032);
  });

  test('a level without effects is believed to have none', () => {
    const rows = crossed(4, { publication: 0.4, campaign: 0, row: 0.2 });
    const { levels } = estimateEffectPriors(rows);
    expect(levels[1]!.strength).toBeGreaterThan(20 * levels[0]!.strength);
  });

  test('rows without a group, empty input and no successes are fine', () => {
    const rows = crossed(5, { publication: 0.4, campaign: 0.3, row: 0.2 });
    const partial = {
      ...rows,
      levels: rows.levels.map((l) => ({
        ...l,
        codes: l.codes.map((c, i) => (i % 2 ? NO_GROUP : c)),
      })),
    };
    expect(estimateEffectPriors(partial).levels[0]!.variance).toBeGreaterThan(0.05);
    const none = new Float64Array(0);
    expect(
      estimateEffectPriors({
        successes: none,
        trials: none,
        levels: [{ name: 'a', codes: new Uint32Array(0) }],
      }),
    ).toMatchObject({
      dispersion: 0,
      levels: [{ nGroups: 0 }],
    });
    expect(
      estimateEffectPriors({ ...rows, successes: new Float64Array(rows.trials.length) }).levels[0]!
        .strength,
    ).toBe(0.25);
  });

  test('everything stays finite and within limits for any counts', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.tuple(
            fc.integer({ min: 0, max: 1_000_000 }),
            fc.double({ min: 0, max: 1, noNaN: true }),
            fc.integer({ min: 0, max: 4 }),
            fc.integer({ min: 0, max: 2 }),
          ),
          { maxLength: 40 },
        ),
        (list) => {
          const priors = estimateEffectPriors({
            trials: Float64Array.from(list, ([n]) => n),
            successes: Float64Array.from(list, ([n, share]) => Math.floor(n * share)),
            levels: [
              { name: 'a', codes: Uint32Array.from(list, ([, , a]) => a) },
              { name: 'b', codes: Uint32Array.from(list, ([, , , b]) => b) },
            ],
          });
          expect(Number.isFinite(priors.baseRate)).toBe(true);
          expect(priors.dispersion).toBeGreaterThanOrEqual(0);
          expect(priors.dispersion).toBeLessThanOrEqual(4);
          for (const level of priors.levels) {
            expect(level.strength).toBeGreaterThanOrEqual(0.25);
            expect(level.strength).toBeLessThanOrEqual(1_000);
          }
        },
      ),
    );
  });

  test('impossible counts are refused', () => {
    const levels = [{ name: 'a', codes: Uint32Array.of(0) }];
    expect(() =>
      estimateEffectPriors({ successes: Float64Array.of(2), trials: Float64Array.of(1), levels }),
    ).toThrowError(expect.objectContaining({ code: 'WAGGLE_TRAINING_LABEL' }));
    expect(() =>
      estimateEffectPriors({
        successes: Float64Array.of(2),
        trials: Float64Array.of(1, 2),
        levels,
      }),
    ).toThrowError(expect.objectContaining({ code: 'WAGGLE_TRAINING_SHAPE' }));
  });
});
