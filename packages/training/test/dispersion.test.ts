import { Rng } from '@waggle/core';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { dispersionWeights, estimateDispersion } from '../src/index.js';

function shocked(seed: number, rowSd: number, clusterSd: number, nClusters = 300, perCluster = 12) {
  const rng = new Rng(seed, 3);
  const n = nClusters * perCluster;
  const probability = new Float64Array(n);
  const successes = new Float64Array(n);
  const trials = new Float64Array(n);
  const clusters = new Uint32Array(n);
  for (let g = 0, i = 0; g < nClusters; g++) {
    const size = 4_000 * Math.exp(rng.normal());
    const shared = clusterSd * rng.normal() - clusterSd ** 2 / 2;
    for (let r = 0; r < perCluster; r++, i++) {
      clusters[i] = g;
      trials[i] = Math.round(size);
      probability[i] = 0.004;
      const p = 0.004 * Math.exp(shared + rowSd * rng.normal() - rowSd ** 2 / 2);
      successes[i] = rng.binomial(trials[i]!, Math.min(p, 1));
    }
  }
  return { probability, successes, trials, clusters };
}

describe('dispersion', () => {
  test.each([
    [0.25, 0.4],
    [0.25, 0],
    [0, 0.3],
  ])('recovers shocks of a row (sd %d) and of a publication (sd %d)', (rowSd, clusterSd) => {
    const estimates = [1, 2, 3, 4, 5].map((seed) =>
      estimateDispersion(shocked(seed, rowSd, clusterSd)),
    );
    const middle = (values: number[]) => values.sort((a, b) => a - b)[2]!;
    // relative variance of a log-normal shock is exp(sd²) − 1; the estimate of 300 clusters errs by some 10 %
    const near = (value: number, sd: number) => {
      const expected = Math.exp(sd * sd) - 1;
      expect(Math.abs(value - expected)).toBeLessThan(0.012 + 0.3 * expected);
    };
    near(middle(estimates.map((e) => e.rowVariance)), rowSd);
    near(middle(estimates.map((e) => e.clusterVariance)), clusterSd);
  });

  test.each([
    [0, 0.3],
    [0.25, 0.3],
    [1, 0.3],
    [1, 0.05],
  ])(
    'recovers what answers of a publication share (variance %d) around a chance of %d',
    (variance, chance) => {
      const nClusters = 300;
      const perCluster = 40;
      const shocked = Math.log(chance / (1 - chance));
      const chanceOf = (shock: number) =>
        1 / (1 + Math.exp(-shocked - Math.sqrt(variance) * shock));
      // Mean and variance of the chance of a cluster, by the normal density on a fine grid.
      const grid = Array.from({ length: 2_001 }, (_, k) => (k - 1_000) / 125);
      const density = grid.map((u) => Math.exp((-u * u) / 2) / Math.sqrt(2 * Math.PI) / 125);
      const meanOf = (f: (u: number) => number) =>
        grid.reduce((sum, u, k) => sum + density[k]! * f(u), 0);
      const mean = meanOf(chanceOf);
      // The logit shock that is right to first order: below the variance for wide shocks.
      const expected = meanOf((u) => (chanceOf(u) - mean) ** 2) / (mean * (1 - mean)) ** 2;
      const estimates = [1, 2, 3, 4, 5].map((seed) => {
        const rng = new Rng(seed, 7);
        const luck = Array.from({ length: nClusters }, () => chanceOf(rng.normal()));
        const clusters = Uint32Array.from(
          { length: nClusters * perCluster },
          (_, i) => i % nClusters,
        );
        return estimateDispersion({
          probability: new Float64Array(clusters.length).fill(mean),
          successes: Float64Array.from(clusters, (g) => (rng.bernoulli(luck[g]!) ? 1 : 0)),
          trials: new Float64Array(clusters.length).fill(1),
          clusters,
        });
      });
      const middle = estimates.map((e) => e.clusterVariance).sort((a, b) => a - b)[2]!;
      expect(Math.abs(middle - expected)).toBeLessThan(0.02 + 0.15 * expected);
      for (const { rowVariance } of estimates) expect(rowVariance).toBe(0);
    },
  );

  test('binomial counts keep nearly all their weight', () => {
    const sample = shocked(1, 0, 0);
    const weights = dispersionWeights(sample, estimateDispersion(sample));
    expect(Math.min(...weights)).toBeGreaterThan(0.5);
  });

  test('weights are in (0, 1] and fall with size, so that a giant counts less per email', () => {
    fc.assert(
      fc.property(
        fc.double({ min: 0, max: 2, noNaN: true }),
        fc.double({ min: 0, max: 2, noNaN: true }),
        fc.array(fc.integer({ min: 0, max: 10_000_000 }), { minLength: 1, maxLength: 30 }),
        (rowVariance, clusterVariance, sizes) => {
          const sample = {
            probability: new Float64Array(sizes.length).fill(0.002),
            trials: Float64Array.from(sizes),
            clusters: Uint32Array.from(sizes, (_, i) => i),
          };
          const weights = dispersionWeights(sample, { rowVariance, clusterVariance });
          sizes.forEach((size, i) => {
            expect(weights[i]).toBeGreaterThan(0);
            expect(weights[i]).toBeLessThanOrEqual(1);
            sizes.forEach((other, j) => {
              if (other > size) expect(weights[j]).toBeLessThanOrEqual(weights[i]! + 1e-12);
            });
          });
        },
      ),
    );
  });

  test('an infinite publication would count as one draw of its luck', () => {
    const sample = {
      probability: Float64Array.of(0.002),
      trials: Float64Array.of(1e12),
      clusters: Uint32Array.of(0),
    };
    const weight = dispersionWeights(sample, { rowVariance: 0.06, clusterVariance: 0.04 })[0]!;
    // information n·p·(1−p)·weight tends to 1 / (σ² + τ²)
    expect(1e12 * 0.002 * 0.998 * weight).toBeCloseTo(1 / 0.1, 3);
  });

  test('rows without trials, empty samples and impossible data stay finite', () => {
    const empty = {
      probability: new Float64Array(0),
      successes: new Float64Array(0),
      trials: new Float64Array(0),
      clusters: new Uint32Array(0),
    };
    expect(estimateDispersion(empty)).toEqual({ rowVariance: 0, clusterVariance: 0 });
    const wild = {
      probability: Float64Array.of(1e-9, 0.5, 0.5),
      successes: Float64Array.of(1_000, 0, 0),
      trials: Float64Array.of(1_000, 0, 10),
      clusters: Uint32Array.of(0, 1, 1),
    };
    const { rowVariance, clusterVariance } = estimateDispersion(wild);
    expect(rowVariance + clusterVariance).toBeLessThanOrEqual(4);
    for (const w of dispersionWeights(wild, { rowVariance, clusterVariance }))
      expect(w).toBeGreaterThan(0);
  });
});
