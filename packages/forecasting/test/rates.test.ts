import { Rng } from '@waggle/core';
import { describe, expect, test } from 'vitest';
import { estimateRate, fitRates, type RateData } from '../src/inventory/rate.js';

const N_PUBLICATIONS = 400;
const N_SENDS = 12;

/** Publications of 500 to 50,000 readers, a send a day, with what a send's count is drawn from. */
function network(
  countOf: (rng: Rng, exposure: number, rate: number) => number,
  rateOf: (rng: Rng, cell: number) => number = (rng) => 0.2 * Math.exp(0.2 * rng.normal()),
  nCells = 4,
): RateData {
  const rng = new Rng(11);
  const offsets = Uint32Array.from({ length: N_PUBLICATIONS + 1 }, (_, p) => p * N_SENDS);
  const nRows = N_PUBLICATIONS * N_SENDS;
  const cell = Uint8Array.from({ length: N_PUBLICATIONS }, (_, p) => p % nCells);
  const count = new Float64Array(nRows);
  const exposure = new Float64Array(nRows);
  for (let p = 0; p < N_PUBLICATIONS; p++) {
    const size = Math.round(500 * 10 ** (2 * rng.uniform()));
    const rate = rateOf(rng, cell[p]!);
    for (let i = offsets[p]!; i < offsets[p + 1]!; i++) {
      exposure[i] = size;
      count[i] = countOf(rng, size, rate);
    }
  }
  return {
    ...{ nPublications: N_PUBLICATIONS, offsets, count, exposure, cell, nCells },
    weekday: Uint8Array.from({ length: nRows }, (_, i) => (i % N_SENDS) % 7),
  };
}

describe('what varies from send to send', () => {
  test('is counting where readers are independent', () => {
    const model = fitRates(
      network((rng, n, p) => rng.binomial(n, p)),
      true,
    );
    expect(model.counting).toBeLessThan(1.06);
    expect(model.dispersion).toBeLessThan(1e-4);
  });

  test('is a multiple of counting where large lists outgrow it too', () => {
    // A Poisson count around a binomial one: (1 − p + 1)/(1 − p) = 2.25 times the variance at p = 0.2.
    const model = fitRates(
      network((rng, n, p) => rng.poisson(rng.binomial(n, p))),
      true,
    );
    expect(model.counting).toBeGreaterThan(2.1);
    expect(model.counting).toBeLessThan(2.45);
    expect(model.dispersion).toBeLessThan(2e-4);
  });

  test('is a share of the rate where they do not', () => {
    const model = fitRates(
      network((rng, n, p) => rng.binomial(n, Math.min(1, p * Math.exp(0.1 * rng.normal())))),
      true,
    );
    expect(model.dispersion).toBeGreaterThan(0.008);
    expect(model.dispersion).toBeLessThan(0.012);
    expect(model.counting).toBeLessThan(2);
  });
});

describe('cells', () => {
  const binomial = (rng: Rng, n: number, p: number) => rng.binomial(n, p);

  test('are told apart where they differ', () => {
    const { cells } = fitRates(
      network(binomial, (rng, cell) => 0.1 * (1 + cell / 3) * Math.exp(0.1 * rng.normal())),
      true,
    );
    cells.forEach((rate, c) => {
      expect(Math.abs(rate / (0.1 * (1 + c / 3)) - 1)).toBeLessThan(0.04);
    });
  });

  test('are nearly one where they differ by who is in them alone', () => {
    const { cells, base } = fitRates(network(binomial, undefined, 20), true);
    const off = Math.sqrt(cells.reduce((sum, rate) => sum + (rate / base - 1) ** 2, 0) / 20);
    // Twenty publications each, a fifth apart: their means are off by 4.5 %.
    expect(off).toBeLessThan(0.045 / 2);
  });
});

test('an unfinished send counts by the share that should have come, and less where that is uncertain', () => {
  const data = network((rng, n, p) => rng.binomial(n, p));
  const model = fitRates(data, true);
  const none = {
    count: new Float64Array(0),
    exposure: new Float64Array(0),
    weekday: new Uint8Array(0),
  };
  const rateOf = (dispersion: number) =>
    estimateRate(model, none, {
      ...{ from: 0, to: 0, cell: 0 },
      // 40 % of 10,000, of whom half should have opened by now.
      early: [{ count: 2_000, exposure: 5_000, weekday: 0, dispersion }],
    });
  const prior = estimateRate(model, none, { from: 0, to: 0, cell: 0 });
  expect(rateOf(0).rate).toBeGreaterThan(0.39);
  expect(rateOf(0.04).rate).toBeLessThan(rateOf(0).rate);
  expect(rateOf(0.04).rate).toBeGreaterThan(prior.rate);
  expect(rateOf(0.04).variance).toBeGreaterThan(rateOf(0).variance);
  expect(rateOf(0.04).variance).toBeLessThan(prior.variance);
});
