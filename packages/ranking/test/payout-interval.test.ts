import { Rng } from '@waggle/core';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  clickRelativeVariance,
  logNormalInterval,
  logNormalQuantile,
  openRelativeVariance,
  Z80,
} from '../src/index.js';

const mean = fc.double({ min: 1e-3, max: 1e12, noNaN: true });
const variance = fc.double({ min: 0, max: 100, noNaN: true });

test('intervals are ordered, positive and scale with the mean', () => {
  fc.assert(
    fc.property(mean, variance, (m, v) => {
      const { p20, p50, p80 } = logNormalInterval(m, v);
      expect(p20 >= 0 && p20 <= p50 && p50 <= p80).toBe(true);
      expect(p80).toBeCloseTo(logNormalQuantile(m, v, Z80), 5 - Math.ceil(Math.log10(m + 1)));
      const twice = logNormalInterval(2 * m, v);
      expect(twice.p50 / p50).toBeCloseTo(2, 9);
    }),
  );
});

test('without variance every quantile is the mean; without a mean it is nothing', () => {
  expect(logNormalInterval(5, 0)).toEqual({ p20: 5, p50: 5, p80: 5 });
  expect(logNormalInterval(0, 1)).toEqual({ p20: 0, p50: 0, p80: 0 });
  expect(logNormalQuantile(Number.NaN, 1, 0)).toBe(0);
});

test('the log-normal quantiles have their stated mean and variance behind them', () => {
  // ∫ quantile over a fine grid of probabilities is the mean: midpoint rule on 20,000 draws of z.
  const rng = new Rng(2);
  let sum = 0;
  let squares = 0;
  const n = 200_000;
  for (let i = 0; i < n; i++) {
    const x = logNormalQuantile(3, 0.25, rng.normal());
    sum += x;
    squares += x * x;
  }
  const m = sum / n;
  expect(m).toBeCloseTo(3, 1);
  expect(squares / n / (m * m) - 1).toBeCloseTo(0.25, 1);
});

/** Four standard errors of a share near 0.5 over 20,000 draws, plus the error of the summary itself (3 %). */
const COVERAGE_TOLERANCE = 0.045;

test('about a fifth of overdispersed click counts lie below P20 and above P80', () => {
  const rng = new Rng(3);
  const sigma = 0.5;
  for (const clicks of [8, 40, 400]) {
    const { p20, p50, p80 } = logNormalInterval(clicks, clickRelativeVariance(clicks, sigma));
    let below = 0;
    let upper = 0;
    let half = 0;
    const n = 20_000;
    for (let i = 0; i < n; i++) {
      // Counts are lumpy, quantiles are not: spread each count over its unit.
      const k =
        rng.poisson(clicks * Math.exp(sigma * rng.normal() - (sigma * sigma) / 2)) +
        rng.uniform() -
        0.5;
      if (k < p20) below++;
      if (k > p80) upper++;
      if (k < p50) half++;
    }
    expect(Math.abs(below / n - 0.2)).toBeLessThan(COVERAGE_TOLERANCE);
    expect(Math.abs(upper / n - 0.2)).toBeLessThan(COVERAGE_TOLERANCE);
    expect(Math.abs(half / n - 0.5)).toBeLessThan(COVERAGE_TOLERANCE);
  }
});

test('counting noise vanishes for opens and for many clicks', () => {
  expect(clickRelativeVariance(1e9, 0.2)).toBeCloseTo(openRelativeVariance(0.2), 8);
  expect(clickRelativeVariance(4, 0)).toBe(0.25);
});
