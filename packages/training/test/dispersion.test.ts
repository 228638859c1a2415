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
