import { Rng } from '@waggle/core';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  calibrationRatio,
  clusterBootstrap,
  crossedLogLossLimit,
  crossedLossLimit,
  logLoss,
  quantileOfSorted,
  relativeLogLossDifference,
} from '../src/index.js';

/** Clusters whose rates differ by a log-normal shock, as publications' sends do. */
function overdispersed(seed: number, nClusters: number, sigma: number) {
  const rng = new Rng(seed, 1);
  const probability: number[] = [];
  const successes: number[] = [];
  const trials: number[] = [];
  const clusters: number[] = [];
  for (let g = 0; g < nClusters; g++) {
    const shock = Math.exp(sigma * rng.normal() - (sigma * sigma) / 2);
    for (let r = 0; r < 5; r++) {
      const n = 1_000 + rng.integer(9_000);
      const p = 0.001 + 0.01 * rng.uniform();
      probability.push(p);
      trials.push(n);
      successes.push(rng.binomial(n, p * shock));
      clusters.push(g);
    }
  }
  return { probability, successes, trials, clusters };
}

const logLossOf = (p: number, successes: number, trials: number): number =>
  -successes * Math.log(p) - (trials - successes) * Math.log(1 - p);

describe('calibration ratio', () => {
  test('is expected over observed, with the standard error worked by hand', () => {
    const sample = { probability: [0.1, 0.2, 0.3], successes: [1, 3, 2], trials: [10, 10, 10] };
    const result = calibrationRatio(sample, [7, 7, 9]);
    expect(result.ratio).toBeCloseTo(1, 12);
    // u = (3/6 − 4/6), (3/6 − 2/6): SE² = 2·(1/36 + 1/36)
    expect(result.logStandardError).toBeCloseTo(Math.sqrt(4 / 36), 12);
    expect(result).toMatchObject({ expected: expect.closeTo(6, 9), observed: 6, nClusters: 2 });
  });

  test('its error covers clusters that share a shock, where rows alone are too sure', () => {
    let covered = 0;
    let coveredByRows = 0;
    const nWorlds = 200;
    for (let seed = 0; seed < nWorlds; seed++) {
      const { clusters, ...sample } = overdispersed(seed, 60, 0.4);
      const byCluster = calibrationRatio(sample, clusters);
      const byRow = calibrationRatio(sample);
      if (Math.abs(byCluster.logRatio) <= 2 * byCluster.logStandardError) covered++;
      if (Math.abs(byRow.logRatio) <= 2 * byRow.logStandardError) coveredByRows++;
    }
    // nominal 95 %, binomial standard error over 200 worlds 1.5 points
    expect(covered / nWorlds).toBeGreaterThan(0.9);
    expect(coveredByRows).toBeLessThan(covered);
  });

  test('two clusterings give at least the error of either', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 1_000 }), (seed) => {
        const { clusters, ...sample } = overdispersed(seed, 12, 0.3);
        const other = clusters.map((_, i) => i % 7);
        const both = calibrationRatio(sample, clusters, other);
        expect(both.logStandardError).toBeGreaterThanOrEqual(
          Math.max(
            calibrationRatio(sample, clusters).logStandardError,
            calibrationRatio(sample, other).logStandardError,
          ),
        );
        expect(both.nClusters).toBe(7);
        const three = calibrationRatio(sample, clusters, other, other);
        expect(three.logStandardError).toBeGreaterThanOrEqual(both.logStandardError - 1e-12);
      }),
    );
  });

  test('one cluster, no successes or only zero predictions are refused', () => {
    const sample = { probability: [0.1, 0.2], successes: [1, 0] };
    expect(() => calibrationRatio(sample, [1, 1])).toThrowError(
      expect.objectContaining({ code: 'WAGGLE_MEASUREMENT_TOO_FEW_CLUSTERS' }),
    );
    expect(() => calibrationRatio(sample, [1])).toThrowError(
      expect.objectContaining({ code: 'WAGGLE_MEASUREMENT_SHAPE' }),
    );
    for (const bad of [
      { probability: [0.1, 0.2], successes: [0, 0] },
      { probability: [0, 0], successes: [1, 0] },
    ]) {
      expect(() => calibrationRatio(bad)).toThrowError(
        expect.objectContaining({ code: 'WAGGLE_MEASUREMENT_SINGLE_CLASS' }),
      );
    }
  });
});

describe('bootstrap by cluster', () => {
  test('gives a mean’s classical standard error and limits', () => {
    const rng = new Rng(5);
    const values = Float64Array.from({ length: 200 }, () => rng.normal());
    const mean = values.reduce((a, b) => a + b, 0) / 200;
    const sd = Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0) / 199);
    const result = clusterBootstrap(
      200,
      (m) => values.reduce((sum, v, g) => sum + v * m[g]!, 0) / 200,
      { rng: new Rng(1), nReplicates: 4_000 },
    );
    const se = sd / Math.sqrt(200);
    expect(result.estimate).toBeCloseTo(mean, 12);
    // Monte-Carlo error of a standard deviation from 4,000 draws is 1.1 %; 6 % is five of them.
    expect(result.standardError / se).toBeGreaterThan(0.94);
    expect(result.standardError / se).toBeLessThan(1.06);
    expect((result.upper - mean) / se).toBeCloseTo(1.96, 0);
    expect((result.lower - mean) / se).toBeCloseTo(-1.96, 0);
    expect(result.upperLimit).toBeGreaterThan(mean);
    expect(result.upperLimit).toBeLessThan(result.upper);
  });

  test('is the same for the same seed and another for another', () => {
    const run = (seed: number) =>
      clusterBootstrap(9, (m) => m.reduce((s, v, g) => s + v * g * g, 0), { rng: new Rng(seed) });
    expect(run(3)).toEqual(run(3));
    expect(run(3).upper).not.toBe(run(4).upper);
  });

  test('draws again where the statistic is undefined, and gives up when it hardly ever is defined', () => {
    const result = clusterBootstrap(4, (m) => (m[0] === 0 ? Number.NaN : m[0]!), {
      rng: new Rng(1),
    });
    expect(result.lower).toBeGreaterThanOrEqual(1);
    expect(() => clusterBootstrap(3, () => Number.NaN, { rng: new Rng(1) })).toThrowError(
      expect.objectContaining({ code: 'WAGGLE_MEASUREMENT_TOO_FEW_CLUSTERS' }),
    );
  });

  test('refuses one cluster and senseless options', () => {
    const rng = new Rng(1);
    expect(() => clusterBootstrap(1, () => 0, { rng })).toThrowError(
      expect.objectContaining({ code: 'WAGGLE_MEASUREMENT_TOO_FEW_CLUSTERS' }),
    );
    for (const options of [
      { nReplicates: 1 },
      { nReplicates: 2.5 },
      { confidence: 1 },
      { confidence: Number.NaN },
    ]) {
      expect(() => clusterBootstrap(3, () => 0, { rng, ...options })).toThrowError(
        expect.objectContaining({ code: 'WAGGLE_MEASUREMENT_OUT_OF_RANGE' }),
      );
    }
  });

  test('quantiles interpolate between order statistics', () => {
    expect(quantileOfSorted([1, 2, 3, 4], 0.5)).toBe(2.5);
    expect(quantileOfSorted([1, 2, 3, 4], 0)).toBe(1);
    expect(quantileOfSorted([1, 2, 3, 4], 1)).toBe(4);
    expect(() => quantileOfSorted([], 0.5)).toThrowError(
      expect.objectContaining({ code: 'WAGGLE_MEASUREMENT_EMPTY' }),
    );
  });
});

describe('relative log-loss difference', () => {
  test('is the difference of the two losses over the baseline’s, 0 with itself', () => {
    const world = overdispersed(1, 30, 0.3);
    const baseline = world.probability.map(() => 0.006);
    const result = relativeLogLossDifference({ ...world, baseline }, { rng: new Rng(1) });
    const expected =
      (logLoss(world) - logLoss({ ...world, probability: baseline })) /
      logLoss({ ...world, probability: baseline });
    expect(result.estimate).toBeCloseTo(expected, 12);
    expect(result.estimate).toBeLessThan(0);
    expect(result.upperLimit).toBeLessThan(0);
    const same = relativeLogLossDifference(
      { ...world, baseline: world.probability },
      { rng: new Rng(1) },
    );
    expect(same).toMatchObject({ estimate: 0, upperLimit: 0, lower: 0, standardError: 0 });
  });

  test('its limit lets a worse model through about as rarely as it says', () => {
    // Two models equally wrong in opposite directions for alternate clusters: the true difference is about 0.
    let above = 0;
    const nWorlds = 200;
    for (let seed = 0; seed < nWorlds; seed++) {
      const world = overdispersed(seed, 60, 0.3);
      const tilt = (sign: number) =>
        world.probability.map(
          (p, i) => p * Math.exp(0.1 * sign * (world.clusters[i]! % 2 === 0 ? 1 : -1)),
        );
      const result = relativeLogLossDifference(
        { ...world, probability: tilt(1), baseline: tilt(-1) },
        { rng: new Rng(seed, 9), nReplicates: 200 },
      );
      if (result.upperLimit < 0) above++;
    }
    // nominal 5 %; three binomial standard errors over 200 worlds are 4.6 points
    expect(above / nWorlds).toBeLessThan(0.1);
  });

  test('where campaigns share an error its crossed limit covers what the one by publication does not', () => {
    let covered = 0;
    let coveredByPublication = 0;
    const nWorlds = 300;
    for (let seed = 0; seed < nWorlds; seed++) {
      const rng = new Rng(seed, 12);
      const nRows = 400;
      // Two models that are wrong about each campaign in opposite directions: over all worlds the true difference is 0.
      const tilts = Array.from({ length: 20 }, () => 0.2 * rng.normal());
      const crossed = Array.from({ length: nRows }, () => rng.integer(20));
      const clusters = Array.from({ length: nRows }, () => rng.integer(150));
      const truth = Array.from(tilts, () => 0.01 * Math.exp(0.3 * rng.normal()));
      const trials = new Float64Array(nRows).fill(5_000);
      const sample = {
        probability: crossed.map((c) => 0.01 * Math.exp(tilts[c]!)),
        baseline: crossed.map((c) => 0.01 * Math.exp(-tilts[c]!)),
        successes: crossed.map((c) => rng.binomial(5_000, truth[c]!)),
        ...{ trials, clusters },
      };
      const byPublication = relativeLogLossDifference(sample, {
        rng: new Rng(seed, 9),
        nReplicates: 200,
      });
      const both = crossedLogLossLimit({ ...sample, crossed });
      expect(both.estimate).toBeCloseTo(byPublication.estimate, 12);
      if (byPublication.upperLimit >= 0) coveredByPublication++;
      if (both.upperLimit >= 0) covered++;
    }
    // nominal 95 %; three binomial standard errors over 300 worlds are 3.8 points
    expect(covered / nWorlds).toBeGreaterThan(0.9);
    expect(coveredByPublication / nWorlds).toBeLessThan(0.8);
  });

  test('the crossed limit is the one by hand, and needs two clusters either way', () => {
    const sample = {
      probability: [0.5, 0.5, 0.25, 0.25],
      baseline: [0.5, 0.25, 0.5, 0.25],
      successes: [1, 1, 1, 1],
      clusters: [0, 0, 1, 1],
    };
    // d = 0, −ln 2, ln 2, 0 and b = ln 2·(1, 2, 1, 2): R = 0, u = (0, −1, 1, 0)/6 by row.
    const { estimate, standardError, upperLimit, nClusters } = crossedLogLossLimit({
      ...sample,
      crossed: [0, 1, 0, 1],
    });
    expect([estimate, nClusters]).toEqual([expect.closeTo(0, 12), 2]);
    // By cluster 2·(2/36), crossed the same, by row 4/3·(2/36).
    expect(standardError).toBeCloseTo(Math.sqrt((4 + 4 - 8 / 3) / 36), 12);
    expect(upperLimit).toBeCloseTo(Math.tan(Math.PI * 0.45) * standardError, 9);
    expect(() => crossedLogLossLimit({ ...sample, crossed: [3, 3, 3, 3] })).toThrowError(
      expect.objectContaining({ code: 'WAGGLE_MEASUREMENT_TOO_FEW_CLUSTERS' }),
    );
  });

  test('the crossed limit of losses is that of the log-loss where they are that, rows without mass left out', () => {
    const world = overdispersed(3, 12, 0.3);
    const baseline = world.probability.map((p) => 1.1 * p);
    const crossed = world.probability.map((_, i) => i % 7);
    const loss = (p: number, i: number) => logLossOf(p, world.successes[i]!, world.trials[i]!);
    const of = crossedLogLossLimit({ ...world, baseline, crossed }, 0.975);
    const rows = {
      loss: [...world.probability.map(loss), 1e6],
      baselineLoss: [...baseline.map(loss), 1],
      mass: [...world.trials, 0],
      clusters: [...world.clusters, 99],
      crossed: [...crossed, 99],
    };
    const found = crossedLossLimit(rows, 0.975);
    expect(found.nClusters).toBe(of.nClusters);
    expect(found.upperLimit).toBeCloseTo(of.upperLimit, 10);
    expect(() => crossedLossLimit({ ...rows, crossed })).toThrowError(
      expect.objectContaining({ code: 'WAGGLE_MEASUREMENT_SHAPE' }),
    );
  });

  test('all rows of one publication are refused', () => {
    const world = overdispersed(1, 1, 0.3);
    expect(() =>
      relativeLogLossDifference({ ...world, baseline: world.probability }, { rng: new Rng(1) }),
    ).toThrowError(expect.objectContaining({ code: 'WAGGLE_MEASUREMENT_TOO_FEW_CLUSTERS' }));
  });
});
