import { DAY_MS, Rng } from '@waggle/core';
import { selectedLogit, sigmoid } from '@waggle/ranking';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  advantageInSlot,
  fitJudgedSelection,
  fitSelectionCalibration,
  measureSelection,
  type SelectionReport,
  topPerSlot,
} from '../src/index.js';

const N_TRIALS = 5_000;
const PER_SLOT = 12;
const N_PUBLICATIONS = 150;
const N_CAMPAIGNS = 60;
const SPREAD = 0.5;
/** What sends of the same ad differ by. */
const SEND_SD = 0.2;

/** Candidates with what is estimated of each: the truth and an error, shrunk by what is known of the error's size or not. */
function world(
  seed: number,
  nSlots: number,
  o: { errorOf: (rng: Rng) => number; shrunk: boolean },
) {
  const rng = new Rng(seed, 21);
  const n = nSlots * PER_SLOT;
  const truth = new Float64Array(n);
  const z = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    const sd = o.errorOf(rng);
    const effect = SPREAD * rng.normal();
    truth[i] = -6 + effect;
    const estimate = effect + sd * rng.normal();
    // The log of the mean given the estimate, all being normal.
    const shrink = SPREAD ** 2 / (SPREAD ** 2 + sd ** 2);
    z[i] = -6 + (o.shrunk ? shrink * estimate + (shrink * sd ** 2) / 2 : estimate);
  }
  return {
    rng,
    truth,
    z,
    slots: Uint32Array.from({ length: n }, (_, i) => Math.floor(i / PER_SLOT)),
    publications: Uint32Array.from(
      { length: n },
      (_, i) => Math.floor(i / PER_SLOT) % N_PUBLICATIONS,
    ),
    campaigns: Uint32Array.from({ length: n }, () => rng.integer(N_CAMPAIGNS)),
  };
}
type World = ReturnType<typeof world>;

/** A correction from one candidate of each slot, drawn at random and run. */
function fitOn({ rng, truth, z, slots, publications, campaigns }: World, nSlots: number) {
  const ran = Array.from({ length: nSlots }, (_, s) => PER_SLOT * s + rng.integer(PER_SLOT));
  const pick = (column: ArrayLike<number>) => Float64Array.from(ran, (i) => column[i]!);
  return fitSelectionCalibration({
    logits: pick(z),
    advantage: pick(advantageInSlot(slots, z)),
    successes: Float64Array.from(ran, (i) =>
      rng.binomial(N_TRIALS, sigmoid(truth[i]! + SEND_SD * rng.normal() - SEND_SD ** 2 / 2)),
    ),
    trials: new Float64Array(nSlots).fill(N_TRIALS),
    maturity: new Float64Array(nSlots).fill(1),
    publications: pick(publications),
    campaigns: pick(campaigns),
  });
}

function reportOf(w: World, logitOf: (row: number) => number): SelectionReport {
  const winners = topPerSlot(w.slots, w.z);
  return measureSelection({
    probability: winners.map((i) => sigmoid(logitOf(i))),
    trials: winners.map(() => N_TRIALS),
    clicks: winners.map((i) => N_TRIALS * sigmoid(w.truth[i]!)),
    publications: winners.map((i) => w.publications[i]!),
    campaigns: winners.map((i) => w.campaigns[i]!),
  });
}

describe('selection', () => {
  test('winners of estimates that were not shrunk are over-predicted, and the correction undoes it', async () => {
    const unshrunk = { errorOf: () => 0.4, shrunk: false };
    const { calibration } = await fitOn(world(1, 6_000, unshrunk), 6_000);
    // Slope var θ / (var θ + var ε) = 0.61.
    expect(calibration.edge).toBeGreaterThan(-0.45);
    expect(calibration.edge).toBeLessThan(-0.33);

    const later = world(2, 4_000, unshrunk);
    const before = reportOf(later, (i) => later.z[i]!);
    expect(before.overall.ratio).toBeGreaterThan(1.25);
    const advantage = advantageInSlot(later.slots, later.z);
    const after = reportOf(later, (i) => selectedLogit(calibration, later.z[i]!, advantage[i]!));
    expect(Math.abs(after.overall.logRatio)).toBeLessThan(
      Math.max(0.05, 2 * after.overall.logStandardError),
    );
    for (const { calibration: one } of after.deciles) {
      expect(Math.abs(one.logRatio)).toBeLessThan(Math.max(0.12, 2.5 * one.logStandardError));
    }
  });

  test('winners of means given what is known keep their promise however unequal the evidence, and get next to no correction', async () => {
    const known = {
      errorOf: (rng: Rng) => (rng.bernoulli(0.4) ? 0.4 + 0.4 * rng.uniform() : 0.05),
      shrunk: true,
    };
    const { calibration } = await fitOn(world(3, 6_000, known), 6_000);
    expect(Math.abs(calibration.edge)).toBeLessThan(0.04);
    expect(Math.abs(calibration.level)).toBeLessThan(0.03);
    const later = world(4, 4_000, known);
    const { overall } = reportOf(later, (i) => later.z[i]!);
    expect(Math.abs(overall.logRatio)).toBeLessThan(Math.max(0.03, 2 * overall.logStandardError));
  });

  test('a few campaigns say little about the slope between campaigns however often they ran, many say much', async () => {
    const edgeOf = async (seed: number, nCampaigns: number): Promise<number> => {
      const rng = new Rng(seed, 3);
      const n = 4_000;
      const promised = Float64Array.from({ length: nCampaigns }, () => 0.4 * rng.normal());
      const unknown = Float64Array.from({ length: nCampaigns }, () => 0.3 * rng.normal());
      const campaigns = Uint32Array.from({ length: n }, () => rng.integer(nCampaigns));
      const advantage = Float64Array.from(campaigns, (c) => promised[c]!);
      const { calibration } = await fitSelectionCalibration({
        logits: advantage.map((a) => a - 6),
        advantage,
        successes: Float64Array.from(campaigns, (c) =>
          rng.binomial(N_TRIALS, sigmoid(-6 + 0.75 * promised[c]! + unknown[c]!)),
        ),
        trials: new Float64Array(n).fill(N_TRIALS),
        maturity: new Float64Array(n).fill(1),
        publications: Uint32Array.from({ length: n }, (_, i) => i % N_PUBLICATIONS),
        campaigns,
      });
      return calibration.edge;
    };
    for (const seed of [1, 2, 3, 4, 5, 6]) {
      expect(Math.abs(await edgeOf(seed, 8)), `seed ${seed}`).toBeLessThan(0.14);
      expect(Math.abs((await edgeOf(seed, 1_500)) + 0.25), `seed ${seed}`).toBeLessThan(0.08);
    }
  });

  test('two weeks in which less came than was promised say little about the level, a dozen that agree say much', async () => {
    const levelOf = async (nWeeks: number): Promise<number> => {
      const rng = new Rng(9, 5);
      const n = 4_000;
      const { calibration } = await fitSelectionCalibration({
        logits: new Float64Array(n).fill(-6),
        advantage: Float64Array.from({ length: n }, () => 0.4 * rng.normal()),
        successes: Float64Array.from({ length: n }, () =>
          rng.binomial(N_TRIALS, sigmoid(-6.08 + SEND_SD * rng.normal() - SEND_SD ** 2 / 2)),
        ),
        trials: new Float64Array(n).fill(N_TRIALS),
        maturity: new Float64Array(n).fill(1),
        publications: Uint32Array.from({ length: n }, (_, i) => i % N_PUBLICATIONS),
        campaigns: Uint32Array.from({ length: n }, () => rng.integer(N_CAMPAIGNS)),
        weeks: Uint32Array.from({ length: n }, (_, i) => Math.floor((i * nWeeks) / n)),
      });
      return calibration.level;
    };
    const [few, many] = [await levelOf(2), await levelOf(12)];
    expect(few).toBeGreaterThan(-0.04);
    expect(few).toBeLessThan(0);
    expect(many).toBeLessThan(-0.05);
  });

  test('what the past was eager to choose is not mistaken for what candidates are worth', async () => {
    const rng = new Rng(8, 1);
    const n = 5_000;
    // The past saw a part of the truth that the model does not know, and leaned towards it.
    const hidden = Float64Array.from({ length: n }, () => 0.35 * rng.normal());
    const all = Float64Array.from({ length: n }, () => -6 + 0.5 * rng.normal());
    const propensity = hidden.map((h) => Math.min(1, 0.05 * Math.exp(1.5 * h - 0.3)));
    const ran = Array.from({ length: 6_000 }, () => rng.weighted(Array.from(propensity)));
    const pick = (column: ArrayLike<number>) => Float64Array.from(ran, (i) => column[i]!);
    const rows = {
      logits: pick(all),
      advantage: pick(all).map((z) => z + 6),
      successes: Float64Array.from(ran, (i) => rng.binomial(20_000, sigmoid(all[i]! + hidden[i]!))),
      trials: new Float64Array(6_000).fill(20_000),
      maturity: new Float64Array(6_000).fill(1),
      publications: Uint32Array.from(ran, (_, i) => i % 80),
      campaigns: Uint32Array.from(ran, (_, i) => i % 61),
    };
    const naive = await fitSelectionCalibration(rows);
    const honest = await fitSelectionCalibration({ ...rows, propensity: pick(propensity) });
    const meanTruth = Math.log(
      all.reduce((sum, z, i) => sum + sigmoid(z + hidden[i]!), 0) /
        all.reduce((sum, z) => sum + sigmoid(z), 0),
    );
    const shiftOf = (fit: typeof naive) => selectedLogit(fit.calibration, -6, 0) + 6;
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
      successes: publication.map((p, i) => rng.binomial(5_000, sigmoid(p + 0.85 * advantage[i]!))),
      trials: new Float64Array(n).fill(5_000),
      maturity: new Float64Array(n).fill(1),
      publications: Uint32Array.from({ length: n }, (_, i) => i % 100),
      campaigns: Uint32Array.from({ length: n }, (_, i) => i % 70),
    });
    expect(fit.calibration.edge).toBeCloseTo(-0.15, 1);
    expect(fit.calibration.level).toBeCloseTo(0, 1);
  });

  describe('sends that differ by luck alone', () => {
    const unlucky = (seed: number, sendSd: number) => {
      const rng = new Rng(seed, 5);
      const n = 2_000;
      const advantage = Float64Array.from({ length: n }, () => 0.3 * rng.normal());
      const logits = advantage.map((a) => a - 6);
      // 12 clicks are expected of a row, rarely none and rarely fifty.
      return fitSelectionCalibration({
        logits,
        advantage,
        successes: logits.map((z) =>
          rng.binomial(N_TRIALS, sigmoid(z + sendSd * rng.normal() - sendSd ** 2 / 2)),
        ),
        trials: new Float64Array(n).fill(N_TRIALS),
        maturity: new Float64Array(n).fill(1),
        publications: Uint32Array.from({ length: n }, (_, i) => i % N_PUBLICATIONS),
        campaigns: Uint32Array.from({ length: n }, () => rng.integer(N_CAMPAIGNS)),
      });
    };

    test.each([0.2, 0.5, 0.8])('have a variance of e^{σ²} − 1, σ = %d', async (sendSd) => {
      const fits = await Promise.all([1, 2, 3, 4, 5].map((seed) => unlucky(seed, sendSd)));
      const middle = fits.map((fit) => fit.variances.row).sort((a, b) => a - b)[2]!;
      const expected = Math.exp(sendSd ** 2) - 1;
      // Heavy tails: the estimate of 2,000 rows errs by some 15 %.
      expect(Math.abs(middle - expected)).toBeLessThan(0.01 + 0.2 * expected);
    });

    test('move the correction little where there is nothing to correct', async () => {
      const edges = await Promise.all(
        Array.from({ length: 24 }, async (_, seed) => (await unlucky(seed, 0.8)).calibration.edge),
      );
      const rms = Math.sqrt(edges.reduce((sum, e) => sum + e * e, 0) / edges.length);
      expect(rms).toBeLessThan(0.05);
    });
  });

  describe('a correction is judged where it was not fitted', () => {
    const N = 4_000;
    const DAYS = 28;
    /** Four weeks of ads; of an advantage, the earlier and the later half keep so much. */
    const judged = (
      seed: number,
      [earlier, later]: readonly [number, number],
      nTrials = N_TRIALS,
    ) => {
      const rng = new Rng(seed, 7);
      const ownOf = (count: number) => Array.from({ length: count }, () => 0.1 * rng.normal());
      const [ofPublications, ofCampaigns] = [ownOf(N_PUBLICATIONS), ownOf(N_CAMPAIGNS)];
      const advantage = Float64Array.from({ length: N }, () => 0.5 * rng.normal());
      const publications = Uint32Array.from({ length: N }, (_, i) => i % N_PUBLICATIONS);
      const campaigns = Uint32Array.from({ length: N }, () => rng.integer(N_CAMPAIGNS));
      const day = Float64Array.from({ length: N }, (_, i) => (i * DAYS) / N);
      return fitJudgedSelection(
        {
          ...{ advantage, publications, campaigns },
          logits: advantage.map((a) => a - 6),
          successes: advantage.map((a, i) => {
            const kept = (day[i]! < DAYS / 2 ? earlier : later) * a;
            const unknown = ofPublications[publications[i]!]! + ofCampaigns[campaigns[i]!]!;
            return rng.binomial(nTrials, sigmoid(-6 + kept + unknown + SEND_SD * rng.normal()));
          }),
          trials: new Float64Array(N).fill(nTrials),
          maturity: new Float64Array(N).fill(1),
          weeks: day.map((d) => Math.floor(d / 7)),
        },
        day.map((d) => d * DAY_MS),
      );
    };

    test('what lasts is kept: winners are promised what comes of them', async () => {
      for (const seed of [1, 2, 3]) {
        const { fit, verdict } = await judged(seed, [0.7, 0.7]);
        expect(fit!.calibration.edge).toBeLessThan(-0.2);
        expect(verdict).toMatchObject({ passed: true, nRows: N / 2 });
        expect(verdict.relativeLogLoss!.upper95).toBeLessThan(0);
        const { corrected, uncorrected } = verdict.winners!;
        expect(uncorrected.ratio).toBeGreaterThan(1.1);
        expect(Math.abs(corrected.logRatio)).toBeLessThan(0.05 + 2 * corrected.logStandardError);
        expect(verdict.explanation).toMatch(/^corrected for being selected: on 2000 later ads/);
      }
    });

    test('what the later half denies is not served, and the verdict says so', async () => {
      for (const seed of [1, 2, 3]) {
        const { fit, verdict } = await judged(seed, [0.6, 1.1]);
        expect(fit).toBeUndefined();
        expect(verdict.passed).toBe(false);
        expect(verdict.relativeLogLoss!.lower95).toBeGreaterThan(0);
        expect(verdict.winners!.corrected.ratio).toBeLessThan(verdict.winners!.uncorrected.ratio);
        expect(verdict.explanation).toMatch(
          /^not corrected for being selected, which made it worse/,
        );
      }
    });

    test('where there is nothing to correct, few are refused', async () => {
      const verdicts = [];
      for (let seed = 1; seed <= 40; seed++) {
        verdicts.push((await judged(seed, [1, 1])).verdict);
      }
      // 5 % are meant: more than 6 of 40 come once in a hundred times.
      const refused = verdicts.filter((verdict) => !verdict.passed);
      expect(refused.length).toBeLessThanOrEqual(6);
    });

    test('too few clicks in either half are no verdict, and no correction', async () => {
      const { fit, verdict } = await judged(1, [0.7, 0.7], 6);
      expect(fit).toBeUndefined();
      expect(verdict).toMatchObject({ passed: false, relativeLogLoss: null, winners: null });
      expect(verdict.explanation).toMatch(/too little ran/);
      const none = { logits: [], advantage: [], successes: [], trials: [], maturity: [] };
      const empty = { ...none, publications: [], campaigns: [] };
      expect((await fitJudgedSelection(empty, new Float64Array(0))).verdict.passed).toBe(false);
    });

    test('what the past liked about its choices is taken out of both', async () => {
      const rng = new Rng(8, 2);
      const n = 6_000;
      // As far as the model sees, all candidates are alike: what it promises is what they bring on average.
      const hidden = Float64Array.from({ length: n }, () => 0.3 * rng.normal());
      const propensity = hidden.map((h) => Math.min(1, 0.05 * Math.exp(2 * h)));
      const ran = Array.from({ length: n }, () => rng.weighted(Array.from(propensity)));
      const rows = {
        logits: Float64Array.from(ran, () => -6),
        advantage: Float64Array.from(ran, () => 0.3 * rng.normal()),
        successes: Float64Array.from(ran, (i) => rng.binomial(8_000, sigmoid(-6 + hidden[i]!))),
        trials: new Float64Array(n).fill(8_000),
        maturity: new Float64Array(n).fill(1),
        publications: Uint32Array.from(ran, (_, i) => i % 80),
        campaigns: Uint32Array.from(ran, (_, i) => i % 61),
        propensity: Float64Array.from(ran, (i) => propensity[i]!),
      };
      const at = Float64Array.from({ length: n }, (_, i) => (i * DAYS * DAY_MS) / n);
      const { uncorrected } = (await fitJudgedSelection(rows, at)).verdict.winners!;
      const { propensity: _, ...blind } = rows;
      const { uncorrected: naive } = (await fitJudgedSelection(blind, at)).verdict.winners!;
      expect(naive.ratio).toBeLessThan(0.9);
      expect(Math.abs(uncorrected.logRatio)).toBeLessThan(0.06);
    });
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
    const row = {
      logits: [-5],
      advantage: [0],
      successes: [0],
      trials: [1],
      maturity: [1],
      publications: [0],
      campaigns: [0],
    };
    for (const rows of [
      { ...row, campaigns: [0, 1] },
      { ...row, logits: [] },
    ]) {
      await expect(fitSelectionCalibration(rows)).rejects.toThrowError(
        expect.objectContaining({ code: 'WAGGLE_TRAINING_SHAPE' }),
      );
    }
  });
});
