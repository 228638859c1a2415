import { Rng } from '@waggle/core';
import { calibrate, calibrateLogit, calibrationFault, softmaxAtTemperature } from '@waggle/ranking';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  calibrationWeights,
  fitBeta,
  fitCalibration,
  fitIsotonic,
  fitPlatt,
  fitSliceShifts,
  fitTemperature,
  type WeightedRows,
} from '../src/index.js';

function later(seed: number, level: number, slope: number, nClusters = 200, perCluster = 20) {
  const rng = new Rng(seed, 8);
  const n = nClusters * perCluster;
  const logits = Float64Array.from({ length: n }, () => -6 + 0.6 * rng.normal());
  const trials = new Float64Array(n).fill(20_000);
  const clusters = Uint32Array.from({ length: n }, (_, i) => i % nClusters);
  const maturity = Float64Array.from({ length: n }, (_, i) => (i % 2 === 0 ? 1 : 0.5));
  const successes = Float64Array.from(logits, (l, i) => {
    const p = 1 / (1 + Math.exp(-(-6 + level + slope * (l + 6))));
    return rng.binomial(20_000, p * maturity[i]!);
  });
  return { logits, successes, trials, maturity, clusters };
}

describe('Platt calibration on later rows', () => {
  test('finds a shifted level and a flat slope, young rows included', () => {
    const fit = fitCalibration(later(1, 0.3, 0.8));
    expect(fit.reason).toBe('fitted');
    // a shift of six of the prior's standard deviations: its pull is some 4 % here
    const ratio = calibrate(fit.calibration, -6) * (1 + Math.exp(5.7));
    expect(ratio).toBeGreaterThan(0.94);
    expect(ratio).toBeLessThan(1.02);
    const at = (z: number) => calibrateLogit(fit.calibration, z);
    const slope = (at(-5.4) - at(-6.6)) / 1.2;
    expect(slope).toBeGreaterThan(0.75);
    expect(slope).toBeLessThan(0.9);
  });

  test('leaves a calibrated model where it is', () => {
    const fit = fitCalibration(later(2, 0, 1));
    expect(fit.calibration.kind === 'platt' && fit.calibration.a).toBeCloseTo(1, 1);
    expect(calibrate(fit.calibration, -6) / (1 / (1 + Math.exp(6)))).toBeCloseTo(1, 1);
  });

  test('is identity when the slice says too little', () => {
    const few = later(3, 0.5, 1, 30, 1);
    expect(
      fitCalibration({ ...few, successes: few.successes.map((s) => Math.min(s, 1)) }),
    ).toMatchObject({
      calibration: { kind: 'identity' },
      reason: 'too_few_successes',
    });
    expect(fitCalibration(later(4, 0.5, 1, 3, 100))).toMatchObject({
      calibration: { kind: 'identity' },
      reason: 'too_few_publications',
      nClusters: 3,
    });
    const none = new Float64Array(0);
    expect(
      fitCalibration({
        logits: none,
        successes: none,
        trials: none,
        maturity: none,
        clusters: new Uint32Array(0),
      }),
    ).toMatchObject({ calibration: { kind: 'identity' }, nSuccesses: 0 });
  });

  test('never turns the order of candidates around', () => {
    const reversed = later(5, 0, -3);
    const { calibration } = fitCalibration(reversed);
    for (let z = -8; z < -4; z += 0.1) {
      expect(calibrateLogit(calibration, z + 0.1)).toBeGreaterThan(calibrateLogit(calibration, z));
    }
    expect(
      fitPlatt({ ...reversed, weights: new Float64Array(4_000).fill(1) }, [
        ...reversed.logits.keys(),
      ]),
    ).toBeUndefined();
  });
});

const SPREAD = { level: 1, slope: 1 };

/** Rows whose true logit is `truth` of the model's. */
function bent(seed: number, truth: (z: number) => number, n = 4_000, trialsPerRow = 400) {
  const rng = new Rng(seed, 9);
  const logits = Float64Array.from({ length: n }, () => -1.5 + 1.5 * rng.normal());
  const trials = new Float64Array(n).fill(trialsPerRow);
  const clusters = Uint32Array.from({ length: n }, (_, i) => i % 100);
  const maturity = new Float64Array(n).fill(1);
  const successes = Float64Array.from(logits, (z) =>
    rng.binomial(trialsPerRow, 1 / (1 + Math.exp(-truth(z)))),
  );
  return { logits, successes, trials, maturity, clusters, weights: new Float64Array(n).fill(1) };
}

/** Spread over the range, and now and then the doubles at its edges (which crowd around 0). */
const between = (min: number, max: number) =>
  fc.oneof(
    { weight: 4, arbitrary: fc.integer({ min: 100 * min, max: 100 * max }).map((v) => v / 100) },
    { weight: 1, arbitrary: fc.double({ min, max, noNaN: true }) },
  );
const rowsOf = fc
  .array(
    fc.record({
      z: between(-4, 3),
      n: fc.integer({ min: 1, max: 200 }),
      share: between(0, 1),
      w: fc.constantFrom(0.25, 0.5, 1),
      m: fc.constantFrom(0.5, 1),
    }),
    { minLength: 3, maxLength: 60 },
  )
  .map(
    (list): WeightedRows => ({
      logits: list.map((r) => r.z),
      trials: list.map((r) => r.n),
      successes: list.map((r) => Math.min(r.n, Math.round(r.n * r.share * r.m) + 1)),
      maturity: list.map((r) => r.m),
      weights: list.map((r) => r.w),
    }),
  );
const totals = (rows: WeightedRows, p: (z: number) => number) => {
  let expected = 0;
  let observed = 0;
  for (let i = 0; i < rows.logits.length; i++) {
    const w = rows.weights[i]!;
    expected += w * rows.trials[i]! * rows.maturity[i]! * p(rows.logits[i]!);
    observed += w * rows.successes[i]!;
  }
  return { expected, observed };
};
const all = (rows: WeightedRows) => [...Array.from(rows.logits).keys()];

describe('beta and isotonic calibration', () => {
  const bend = (z: number) => 0.3 + 1.3 * Math.min(z, -0.5) + 0.5 * Math.max(z + 0.5, 0);

  test('follow a bend that a line cannot', () => {
    const rows = bent(1, bend);
    const off = (c: Parameters<typeof calibrateLogit>[0]) =>
      Math.max(
        ...[-4, -3, -2, -1, -0.5, 0, 1].map((z) => Math.abs(calibrateLogit(c, z) - bend(z))),
      );
    const line = fitPlatt(rows, all(rows))!;
    const beta = fitBeta(rows, SPREAD)!;
    const isotonic = fitIsotonic(rows)!;
    expect(off(line)).toBeGreaterThan(0.25);
    expect(off(beta)).toBeLessThan(off(line));
    expect(off(isotonic)).toBeLessThan(0.2);
    expect(isotonic.x.length).toBeLessThanOrEqual(50);
  });

  test('find the parameters of their own family', () => {
    const a = 0.8;
    const b = 1.4;
    const c = -0.2;
    const rows = bent(
      2,
      (z) => a * Math.log(1 / (1 + Math.exp(-z))) - b * Math.log(1 / (1 + Math.exp(z))) + c,
      8_000,
    );
    const fit = fitBeta(rows, SPREAD)!;
    // 8,000 rows × 400 trials: standard errors are below 0.01
    expect(fit.a).toBeCloseTo(a, 1);
    expect(fit.b).toBeCloseTo(b, 1);
    expect(fit.c).toBeCloseTo(c, 1);
  });

  test('leave a calibrated model where it is', () => {
    const rows = bent(3, (z) => z, 6_000);
    for (const fit of [fitBeta(rows, SPREAD)!, fitIsotonic(rows)!]) {
      for (const z of [-4, -3, -2, -1, 0, 1]) {
        expect(Math.abs(calibrateLogit(fit, z) - z)).toBeLessThan(0.1);
      }
    }
  });

  test('rise, are served files, and are calibrated in the large on their own rows', () => {
    const rowsLike = (logits: number[], trials: number[], successes: number[]): WeightedRows => ({
      logits,
      trials,
      successes,
      maturity: logits.map((_, i) => (i === 3 ? 1 : 0.5)),
      weights: logits.map((_, i) => (i < 2 ? 0.25 : 1)),
    });
    fc.assert(
      fc.property(rowsOf, (rows) => {
        const isotonic = fitIsotonic(rows)!;
        const { expected, observed } = totals(rows, (z) => calibrate(isotonic, z));
        // Where all trials succeed no finite shift is enough.
        const { expected: most } = totals(rows, () => 1);
        if (observed < 0.95 * most) expect(expected / observed).toBeCloseTo(1, 9);
        const beta = fitBeta(rows, { level: 0.5, slope: 0.5 });
        for (const fit of [isotonic, ...(beta === undefined ? [] : [beta])]) {
          expect(calibrationFault(JSON.parse(JSON.stringify(fit)))).toBeUndefined();
          let before = Number.NEGATIVE_INFINITY;
          for (let z = -8; z <= 8; z += 0.05) {
            const now = calibrateLogit(fit, z);
            if (!(now >= before)) throw new Error(`${fit.kind} falls from ${before} to ${now}`);
            before = now;
          }
        }
      }),
      {
        numRuns: 2_000,
        examples: [
          // A curve so steep that Newton's steps alone do not find its level.
          [rowsLike([2.0794414739254736, 0, 2.0322258329556457, 0], [21, 1, 11, 1], [11, 1, 1, 1])],
          // Predictions that are the same but for rounding.
          [rowsLike([0, -4.4403369869883136e-13, 0], [98, 141, 187], [1, 1, 1])],
          [rowsLike([0, 0, 0], [98, 141, 187], [1, 1, 1])],
        ],
      },
    );
  });

  test('isotonic keeps apart what it pools: equal outputs only for equal inputs', () => {
    const rows = bent(4, (z) => (z > -2 && z < 0 ? -1 : z));
    const fit = fitIsotonic(rows)!;
    const grid = Array.from({ length: 160 }, (_, i) => -1.8 + i * 0.01);
    const out = grid.map((z) => calibrateLogit(fit, z));
    out.forEach((v, i) => {
      if (i > 0) expect(v).toBeGreaterThan(out[i - 1]!);
    });
    expect(out.at(-1)! - out[0]!).toBeLessThan(0.15);
  });

  test('no successes, no curve', () => {
    const rows = bent(5, () => -3, 50, 10);
    expect(fitIsotonic({ ...rows, successes: new Float64Array(50) })).toBeUndefined();
  });
});

describe('the kind that is taken', () => {
  test('is the line where the line is enough', () => {
    for (const seed of [1, 2, 3, 4, 5]) {
      const { weights: _, ...rows } = bent(10 + seed, (z) => 0.02 + z, 1_500, 60);
      expect(fitCalibration(rows).calibration.kind).toBe('platt');
    }
  });

  test('bends where the rows say so, and not on fewer than 1,000 of them', () => {
    const truth = (z: number) => (z < -1.5 ? z - 0.6 : z > 0 ? z + 0.7 : z);
    const { weights: _, ...rows } = bent(20, truth);
    expect(fitCalibration(rows).calibration.kind).toBe('isotonic');
    const { weights: __, ...few } = bent(21, truth, 900);
    expect(fitCalibration(few).calibration.kind).not.toBe('isotonic');
  });

  test('equal rows give equal calibrations', () => {
    const { weights: _, ...rows } = bent(22, (z) => 0.2 + 0.9 * z);
    expect(fitCalibration(rows)).toEqual(fitCalibration(rows));
  });
});

describe('shifts by slice', () => {
  function sliced(seed: number, spread: number, nSlices = 60, perSlice = 30, size = 2_000) {
    const rng = new Rng(seed, 12);
    const truth = Array.from({ length: nSlices }, () => spread * rng.normal());
    const n = nSlices * perSlice;
    const slices = Array.from({ length: n }, (_, i) => `s${i % nSlices}`);
    const logits = Float64Array.from({ length: n }, () => -5 + 0.5 * rng.normal());
    // Every second slice has a hundredth of the trials.
    const trials = Float64Array.from({ length: n }, (_, i) =>
      (i % nSlices) % 2 === 0 ? size : size / 100,
    );
    const successes = Float64Array.from(logits, (z, i) =>
      rng.binomial(trials[i]!, 1 / (1 + Math.exp(-z - truth[i % nSlices]!))),
    );
    const one = new Float64Array(n).fill(1);
    return { truth, slices, rows: { logits, trials, successes, maturity: one, weights: one } };
  }

  test('are found where there is much to see and drawn to 0 where there is little', () => {
    const { truth, slices, rows } = sliced(1, 0.4);
    const { calibration, variance } = fitSliceShifts(
      rows,
      { kind: 'identity' },
      { by: 'category', slices },
    );
    expect(Math.sqrt(variance)).toBeGreaterThan(0.3);
    expect(Math.sqrt(variance)).toBeLessThan(0.55);
    const errors = { large: 0, small: 0, none: 0 };
    truth.forEach((t, k) => {
      const error = (calibration.shifts[`s${k}`]! - t) ** 2 / 30;
      if (k % 2 === 0) errors.large += error;
      else errors.small += error;
      if (k % 2 === 1) errors.none += t ** 2 / 30;
    });
    // 60,000 trials at 0.7 %: 400 clicks, standard error 0.05; a hundredth of it: 0.5
    expect(Math.sqrt(errors.large)).toBeLessThan(0.08);
    expect(errors.small).toBeLessThan(errors.none);
    const sizes = (parity: number) =>
      truth.reduce(
        (sum, _, k) => sum + (k % 2 === parity ? Math.abs(calibration.shifts[`s${k}`]!) : 0),
        0,
      );
    expect(sizes(1)).toBeLessThan(0.75 * sizes(0));
  });

  test('are next to nothing where slices do not differ', () => {
    for (const seed of [2, 3, 4]) {
      const { slices, rows } = sliced(seed, 0);
      const { calibration } = fitSliceShifts(
        rows,
        { kind: 'identity' },
        { by: 'category', slices },
      );
      const square = Object.values(calibration.shifts).reduce((sum, v) => sum + v * v, 0) / 60;
      // half of the slices see their shift with a standard error of 0.05
      expect(Math.sqrt(square)).toBeLessThan(0.03);
    }
  });

  test('come after a base calibration, and an unknown slice gets none', () => {
    const { slices, rows } = sliced(5, 0.3);
    const base = { kind: 'platt', a: 1, b: 1 } as const;
    const shifted = { ...rows, logits: rows.logits.map((z) => z - 1) };
    const { calibration } = fitSliceShifts(shifted, base, { by: 'category', slices });
    const direct = fitSliceShifts(rows, { kind: 'identity' }, { by: 'category', slices });
    for (const [name, shift] of Object.entries(direct.calibration.shifts)) {
      expect(calibration.shifts[name]).toBeCloseTo(shift, 9);
    }
    const composed = { kind: 'composed', steps: [base, calibration] } as const;
    expect(calibrateLogit(composed, -6, 'nobody')).toBe(-5);
    expect(calibrateLogit(composed, -6, 's0')).toBeCloseTo(-5 + calibration.shifts['s0']!, 12);
    expect(() => fitSliceShifts(rows, base, { by: 'category', slices: ['one'] })).toThrowError(
      expect.objectContaining({ code: 'WAGGLE_TRAINING_SHAPE' }),
    );
  });

  test('weights are those of the dispersion, so that one giant send is one opinion', () => {
    const { weights: _, ...rows } = bent(6, (z) => z, 500, 5_000);
    const weights = calibrationWeights(rows);
    expect(weights.every((w) => w > 0 && w <= 1)).toBe(true);
  });
});

describe('temperature', () => {
  test('is found, and 1 for a calibrated model', () => {
    const rng = new Rng(3, 3);
    const n = 20_000;
    for (const truth of [1, 1.6, 0.7]) {
      const logits = Float64Array.from({ length: 4 * n }, () => 1.2 * rng.normal());
      const p = softmaxAtTemperature(logits, 4, truth);
      const labels = Float64Array.from({ length: n }, (__, i) =>
        rng.weighted(Array.from(p.subarray(4 * i, 4 * i + 4))),
      );
      expect(fitTemperature({ logits, nClasses: 4, labels }) / truth).toBeCloseTo(1, 1);
      const heavy = fitTemperature({ logits, nClasses: 4, labels, weights: labels.map(() => 2) });
      expect(heavy / truth).toBeCloseTo(1, 1);
    }
  });

  test('wrong shapes and labels are refused', () => {
    const code = (c: string) => expect.objectContaining({ code: c });
    expect(() => fitTemperature({ logits: [0], nClasses: 2, labels: [0] })).toThrowError(
      code('WAGGLE_TRAINING_SHAPE'),
    );
    expect(() => fitTemperature({ logits: [0, 0], nClasses: 2, labels: [2] })).toThrowError(
      code('WAGGLE_TRAINING_LABEL'),
    );
  });
});
