import { Rng } from '@waggle/core';
import { sigmoid } from '@waggle/ranking';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  advantageInSlot,
  fitCalibration,
  fitSelectionCalibration,
  measureSelection,
  selectedLogit,
  topPerSlot,
  uncertaintyOf,
} from '../src/index.js';

/**
 * Candidates whose predictions err by an amount that depends on the evidence behind them, and that were never shrunk for it:
 * right on average over all, wrong for those that win.
 */
function world(seed: number, nSlots: number, perSlot: number) {
  const rng = new Rng(seed, 21);
  const n = nSlots * perSlot;
  const truth = new Float64Array(n);
  const z = new Float64Array(n);
  const u = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    const clicks = rng.bernoulli(0.4) ? 2 * rng.uniform() : 40 + 200 * rng.uniform();
    u[i] = uncertaintyOf(clicks, 5);
    truth[i] = -6 + 0.5 * rng.normal();
    z[i] = truth[i]! + 0.55 * Math.sqrt(u[i]!) * rng.normal();
  }
  return {
    rng,
    n,
    truth,
    z,
    u,
    slots: Uint32Array.from({ length: n }, (_, i) => Math.floor(i / perSlot)),
    publications: Uint32Array.from({ length: n }, (_, i) => Math.floor(i / perSlot) % 150),
    campaigns: Uint32Array.from({ length: n }, (_, i) => i % perSlot),
  };
}

describe('selection', () => {
  test('winners are over-predicted, the more the less is known of them, and the correction undoes it', async () => {
    // What ran: one candidate of each slot, drawn at random.
    const past = world(1, 6_000, 12);
    const ran = Array.from({ length: 6_000 }, (_, s) => 12 * s + past.rng.integer(12));
    const pick = (column: ArrayLike<number>) => Float64Array.from(ran, (i) => column[i]!);
    const trials = new Float64Array(ran.length).fill(5_000);
    const maturity = new Float64Array(ran.length).fill(1);
    const clusters = Uint32Array.from(ran, (i) => past.publications[i]!);
    const successes = Float64Array.from(ran, (i) =>
      past.rng.binomial(5_000, sigmoid(past.truth[i]! + 0.2 * past.rng.normal())),
    );
    const rows = { logits: pick(past.z), successes, trials, maturity, clusters };
    const { calibration } = fitCalibration(rows);
    if (calibration.kind === 'identity') throw new Error('no calibration was fitted');

    const fit = await fitSelectionCalibration({
      ...rows,
      advantage: pick(advantageInSlot(past.slots, past.z)),
      uncertainty: pick(past.u),
      nTerms: 1,
      weights: new Float64Array(ran.length).fill(0.2),
    });
    expect(fit.penalty).toBeLessThan(100_000);
    // Little evidence, less slope.
    expect(fit.calibration.tilts[0]).toBeLessThan(-0.2);

    const later = world(2, 4_000, 12);
    const winners = topPerSlot(later.slots, later.z);
    const report = (logitOf: (i: number) => number, chosen: readonly number[]) =>
      measureSelection({
        probability: chosen.map((i) => sigmoid(logitOf(i))),
        trials: chosen.map(() => 5_000),
        clicks: chosen.map((i) => 5_000 * sigmoid(later.truth[i]!)),
        publications: chosen.map((i) => later.publications[i]!),
        campaigns: chosen.map((i) => later.campaigns[i]!),
      });
    const before = report((i) => later.z[i]!, winners);
    expect(before.overall.ratio).toBeGreaterThan(1.3);
    const advantage = advantageInSlot(later.slots, later.z);
    const corrected = (i: number) =>
      selectedLogit(fit.calibration, {
        logit: later.z[i]!,
        advantage: advantage[i]!,
        uncertainty: [later.u[i]!],
      });
    const after = report(corrected, winners);
    expect(Math.abs(after.overall.logRatio)).toBeLessThan(
      Math.max(0.05, 2 * after.overall.logStandardError),
    );
    for (const { calibration: one } of after.deciles) {
      expect(Math.abs(one.logRatio)).toBeLessThan(Math.max(0.12, 2.5 * one.logStandardError));
    }
  });

  test('a model that is right at every level of its uncertainty needs no correction and gets next to none', async () => {
    const rng = new Rng(5, 1);
    const n = 3_000;
    const u = Float64Array.from({ length: n }, () => rng.uniform());
    const logits = Float64Array.from({ length: n }, () => -6 + 0.6 * rng.normal());
    const successes = Float64Array.from(logits, (z) => rng.binomial(5_000, sigmoid(z)));
    const fit = await fitSelectionCalibration({
      logits,
      advantage: logits.map((z) => z + 6),
      uncertainty: u,
      nTerms: 1,
      successes,
      trials: new Float64Array(n).fill(5_000),
      maturity: new Float64Array(n).fill(1),
      clusters: Uint32Array.from({ length: n }, (_, i) => i % 100),
      weights: new Float64Array(n).fill(1),
    });
    for (const z of [-7, -6, -5]) {
      const row = { logit: z, advantage: z + 6, uncertainty: [0.5] };
      expect(Math.abs(selectedLogit(fit.calibration, row) - z)).toBeLessThan(0.03);
    }
  });

  test('what the past was eager to choose is not mistaken for what candidates are worth', async () => {
    const rng = new Rng(8, 1);
    const n = 5_000;
    // The past saw a part of the truth that the model does not know, and leaned towards it.
    const hidden = Float64Array.from({ length: n }, () => 0.35 * rng.normal());
    const all = Float64Array.from({ length: n }, () => -6 + 0.5 * rng.normal());
    const propensity = hidden.map((h) => Math.min(1, 0.05 * Math.exp(1.5 * h - 0.3)));
    const weight = propensity.map((q) => q);
    const ran = Array.from({ length: 6_000 }, () => rng.weighted(Array.from(weight)));
    const pick = (column: ArrayLike<number>) => Float64Array.from(ran, (i) => column[i]!);
    const rows = {
      logits: pick(all),
      advantage: pick(all).map((z) => z + 6),
      uncertainty: new Float64Array(0),
      nTerms: 0,
      successes: Float64Array.from(ran, (i) => rng.binomial(20_000, sigmoid(all[i]! + hidden[i]!))),
      trials: new Float64Array(6_000).fill(20_000),
      maturity: new Float64Array(6_000).fill(1),
      clusters: Uint32Array.from(ran, (_, i) => i % 80),
      weights: new Float64Array(6_000).fill(0.2),
    };
    const naive = await fitSelectionCalibration(rows);
    const honest = await fitSelectionCalibration({ ...rows, propensity: pick(propensity) });
    const meanTruth = Math.log(
      all.reduce((sum, z, i) => sum + sigmoid(z + hidden[i]!), 0) /
        all.reduce((sum, z) => sum + sigmoid(z), 0),
    );
    const shiftOf = (fit: typeof naive) =>
      selectedLogit(fit.calibration, { logit: -6, advantage: 0, uncertainty: [] }) + 6;
    expect(shiftOf(naive) - meanTruth).toBeGreaterThan(0.1);
    expect(Math.abs(shiftOf(honest) - meanTruth)).toBeLessThan(0.07);
    expect(honest.liking).toBeGreaterThan(0.4);
    await expect(
      fitSelectionCalibration({ ...rows, propensity: new Float64Array(6_000) }),
    ).rejects.toThrowError(expect.objectContaining({ code: 'WAGGLE_TRAINING_SHAPE' }));
  });

  test('a model right about publications and too sure between campaigns gets a slope between candidates', async () => {
    const rng = new Rng(9, 1);
    const n = 8_000;
    const publication = Float64Array.from({ length: n }, () => -6 + 0.6 * rng.normal());
    const advantage = Float64Array.from({ length: n }, () => 0.6 * rng.normal());
    const fit = await fitSelectionCalibration({
      logits: publication.map((p, i) => p + advantage[i]!),
      advantage,
      uncertainty: new Float64Array(0),
      nTerms: 0,
      successes: publication.map((p, i) => rng.binomial(5_000, sigmoid(p + 0.85 * advantage[i]!))),
      trials: new Float64Array(n).fill(5_000),
      maturity: new Float64Array(n).fill(1),
      clusters: Uint32Array.from({ length: n }, (_, i) => i % 100),
      weights: new Float64Array(n).fill(0.5),
    });
    expect(fit.calibration.edge).toBeCloseTo(-0.15, 1);
    expect(fit.calibration.tilt).toBeCloseTo(0, 1);
  });

  test('the highest of each slot is taken, the lower row on ties', () => {
    expect(topPerSlot([7, 7, 3, 7, 3], [1, 5, 2, 5, 2])).toEqual([1, 2]);
    expect(topPerSlot([], [])).toEqual([]);
  });

  test('deciles hold every slot, by expected clicks', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.tuple(
            fc.double({ min: 0.01, max: 0.5, noNaN: true }),
            fc.integer({ min: 1, max: 99 }),
          ),
          {
            minLength: 40,
            maxLength: 120,
          },
        ),
        (list) => {
          const report = measureSelection({
            probability: list.map(([p]) => p),
            trials: list.map(([, t]) => t),
            clicks: list.map(([p, t]) => (p * t) / 2),
            publications: list.map((_, i) => i),
            campaigns: list.map((_, i) => i),
          });
          expect(report.deciles.reduce((sum, d) => sum + d.nSlots, 0)).toBe(list.length);
          report.deciles.forEach((d, k) => {
            expect(d.fromExpected).toBeLessThanOrEqual(d.toExpected);
            if (k > 0) {
              expect(d.fromExpected).toBeGreaterThanOrEqual(report.deciles[k - 1]!.toExpected);
            }
            expect(d.calibration.ratio).toBeCloseTo(2, 9);
          });
          expect(report.overall.ratio).toBeCloseTo(2, 9);
        },
      ),
    );
  });

  test('too few rows and wrong shapes are refused', async () => {
    const none = { probability: [], trials: [], clicks: [], publications: [], campaigns: [] };
    expect(() => measureSelection(none)).toThrowError(
      expect.objectContaining({ code: 'WAGGLE_TRAINING_SHAPE' }),
    );
    await expect(
      fitSelectionCalibration({
        logits: [-5],
        advantage: [0],
        uncertainty: new Float64Array(3),
        nTerms: 2,
        successes: [0],
        trials: [1],
        maturity: [1],
        clusters: [0],
        weights: [1],
      }),
    ).rejects.toThrowError(expect.objectContaining({ code: 'WAGGLE_TRAINING_SHAPE' }));
  });
});
