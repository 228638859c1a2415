import { Rng } from '@waggle/core';
import { calibrate } from '@waggle/ranking';
import { describe, expect, test } from 'vitest';
import { fitCalibration } from '../src/index.js';

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
    const slope = fit.calibration.kind === 'platt' ? fit.calibration.a : Number.NaN;
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
    const { calibration, reason } = fitCalibration(reversed);
    if (calibration.kind === 'platt') expect(calibration.a).toBeGreaterThan(0);
    else expect(reason).toBe('not_increasing');
  });
});
