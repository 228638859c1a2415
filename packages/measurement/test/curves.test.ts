import { Rng } from '@waggle/core';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  areaUnderPrecisionRecall,
  areaUnderRoc,
  type BinomialSample,
  calibrationCurve,
  gainCurve,
  liftCurve,
  precisionRecallCurve,
  predictionHistogram,
  reliabilityCurve,
  residualsOverTime,
  rocCurve,
} from '../src/index.js';
import { normalQuantile, studentQuantile } from '../src/metrics/proportion.js';

const sample = {
  probability: [0.9, 0.8, 0.8, 0.65, 0.6, 0.4, 0.4, 0.4, 0.3, 0.15, 0.1, 0.05],
  successes: [1, 1, 0, 1, 0, 1, 0, 0, 0, 1, 0, 0],
  weights: [1, 2, 0.5, 1, 3, 1, 1.5, 1, 2, 0.25, 1, 1],
};

describe('reference values of scikit-learn 1.9.1', () => {
  test('roc_curve(drop_intermediate=False)', () => {
    const curve = rocCurve(sample);
    expect(curve.map((p) => p.threshold)).toEqual([
      Number.POSITIVE_INFINITY,
      0.9,
      0.8,
      0.65,
      0.6,
      0.4,
      0.3,
      0.15,
      0.1,
      0.05,
    ]);
    const fpr = [0, 0, 0.05, 0.05, 0.35, 0.6, 0.8, 0.8, 0.9, 1];
    const tpr = [
      0, 0.19047619047619047, 0.5714285714285714, 0.7619047619047619, 0.7619047619047619,
      0.9523809523809523, 0.9523809523809523, 1, 1, 1,
    ];
    curve.forEach((p, i) => {
      expect(p.falsePositiveRate).toBeCloseTo(fpr[i]!, 12);
      expect(p.truePositiveRate).toBeCloseTo(tpr[i]!, 12);
    });
  });

  test('precision_recall_curve', () => {
    const precision = [
      1, 1, 0.8571428571428571, 0.8888888888888888, 0.5333333333333333, 0.45454545454545453,
      0.38461538461538464, 0.39622641509433965, 0.3684210526315789, 0.3442622950819672,
    ].slice(1);
    const curve = precisionRecallCurve(sample);
    expect(curve).toHaveLength(9);
    curve.forEach((p, i) => {
      expect(p.precision).toBeCloseTo(precision[i]!, 12);
    });
  });
});

test('gain and lift are those worked by hand', () => {
  const four = { probability: [0.9, 0.5, 0.5, 0.1], successes: [1, 1, 0, 0] };
  expect(gainCurve(four)).toEqual([
    { share: 0, gain: 0 },
    { share: 0.25, gain: 0.5 },
    { share: 0.75, gain: 1 },
    { share: 1, gain: 1 },
  ]);
  expect(liftCurve(four)).toEqual([
    { share: 0.25, lift: 2 },
    { share: 0.75, lift: 1 / 0.75 },
    { share: 1, lift: 1 },
  ]);
});

const rows = fc
  .array(
    fc.record({
      p: fc.integer({ min: 1, max: 99 }).map((x) => x / 100),
      n: fc.integer({ min: 0, max: 20 }),
      share: fc.double({ min: 0, max: 1, noNaN: true }),
      w: fc.integer({ min: 0, max: 3 }),
      g: fc.integer({ min: 0, max: 4 }),
    }),
    { maxLength: 30 },
  )
  .map((list) => [
    ...list.map((r) => ({ p: r.p, n: r.n, s: Math.round(r.n * r.share), w: r.w, g: r.g })),
    { p: 0.3, n: 1, s: 1, w: 1, g: 0 },
    { p: 0.5, n: 1, s: 0, w: 1, g: 1 },
  ]);
type Row = { p: number; n: number; s: number; w: number; g: number };
const sampleOf = (list: readonly Row[]): BinomialSample => ({
  probability: list.map((r) => r.p),
  successes: list.map((r) => r.s),
  trials: list.map((r) => r.n),
  weights: list.map((r) => r.w),
});
const repeat = (list: readonly Row[]): Row[] =>
  list.flatMap((r) => Array.from({ length: r.w }, () => ({ ...r, w: 1 })));
/** Objects of numbers, to nine digits. */
const rounded = (value: unknown): unknown =>
  JSON.parse(
    JSON.stringify(value, (_k, v: unknown) => (typeof v === 'number' ? Number(v.toFixed(9)) : v)),
  );

describe('laws', () => {
  test.each([
    ['rocCurve', (list: readonly Row[]) => rocCurve(sampleOf(list))],
    ['precisionRecallCurve', (list: readonly Row[]) => precisionRecallCurve(sampleOf(list))],
    ['gainCurve', (list: readonly Row[]) => gainCurve(sampleOf(list))],
    ['liftCurve', (list: readonly Row[]) => liftCurve(sampleOf(list))],
    ['predictionHistogram', (list: readonly Row[]) => predictionHistogram(sampleOf(list))],
    ['reliabilityCurve', (list: readonly Row[]) => reliabilityCurve(sampleOf(list))],
    [
      'reliabilityCurve by cluster',
      (list: readonly Row[]) =>
        reliabilityCurve(sampleOf(list), { clusters: list.map((r) => r.g) }),
    ],
    [
      'residualsOverTime',
      (list: readonly Row[]) =>
        residualsOverTime(
          sampleOf(list),
          list.map((r) => r.g),
          { bucketMs: 2 },
        ).map(({ nRows: _, ...bucket }) => bucket),
    ],
    [
      'residualsOverTime by cluster',
      (list: readonly Row[]) =>
        residualsOverTime(
          sampleOf(list),
          list.map((r) => r.n),
          { bucketMs: 5, clusters: list.map((r) => r.g) },
        ).map(({ nRows: _, ...bucket }) => bucket),
    ],
  ])('%s sees a weight of two as the row standing there twice', (_name, curve) => {
    fc.assert(
      fc.property(rows, (list) => {
        expect(rounded(curve(repeat(list)))).toEqual(rounded(curve(list)));
      }),
    );
  });

  test('the chords of the ROC curve enclose the AUC, the steps of the other the average precision', () => {
    fc.assert(
      fc.property(rows, (list) => {
        const s = sampleOf(list);
        let area = 0;
        rocCurve(s).forEach((p, i, all) => {
          const before = all[i - 1];
          if (before === undefined) return;
          area +=
            ((p.falsePositiveRate - before.falsePositiveRate) *
              (p.truePositiveRate + before.truePositiveRate)) /
            2;
        });
        expect(area).toBeCloseTo(areaUnderRoc(s), 9);
        let steps = 0;
        precisionRecallCurve(s).forEach((p, i, all) => {
          steps += (p.recall - (all[i - 1]?.recall ?? 0)) * p.precision;
        });
        expect(steps).toBeCloseTo(areaUnderPrecisionRecall(s), 9);
      }),
    );
  });

  test('the limits of a reliability curve hold its rates, wider for clusters that differ', () => {
    fc.assert(
      fc.property(rows, fc.integer({ min: 1, max: 12 }), (list, nBins) => {
        const s = sampleOf(list);
        const curve = reliabilityCurve(s, { nBins });
        const clustered = reliabilityCurve(s, { nBins, clusters: list.map((r) => r.g) });
        expect(curve.map(({ lowerRate: _, upperRate: __, ...bin }) => bin)).toEqual(
          calibrationCurve(s, nBins),
        );
        curve.forEach((bin, b) => {
          const [lower, upper] = [bin.lowerRate!, bin.upperRate!];
          expect(lower).toBeLessThanOrEqual(bin.observedRate + 1e-12);
          expect(upper).toBeGreaterThanOrEqual(bin.observedRate - 1e-12);
          expect(lower).toBeGreaterThanOrEqual(0);
          expect(upper).toBeLessThanOrEqual(1);
          const { lowerRate, upperRate } = clustered[b]!;
          if (lowerRate === null || upperRate === null) return;
          expect(upperRate).toBeGreaterThanOrEqual(upper - 1e-12);
          expect(lowerRate).toBeLessThanOrEqual(lower + 1e-12);
        });
      }),
    );
  });

  test('a histogram and the residuals hold all mass', () => {
    fc.assert(
      fc.property(rows, fc.boolean(), (list, log) => {
        const s = sampleOf(list);
        const mass = list.reduce((sum, r) => sum + r.w * r.n, 0);
        const buckets = predictionHistogram(s, { nBuckets: 7, log });
        expect(buckets.reduce((sum, b) => sum + b.mass, 0)).toBeCloseTo(mass, 9);
        const over = residualsOverTime(
          s,
          list.map((_, i) => 10 * i),
          { bucketMs: 25 },
        );
        const hits = list.reduce((sum, r) => sum + r.w * r.s, 0);
        expect(over.reduce((sum, b) => sum + b.observed, 0)).toBeCloseTo(hits, 9);
        for (const b of over) expect(b.toMs - b.fromMs).toBe(25);
      }),
    );
  });
});

describe('limits cover the truth about as often as they say', () => {
  /** Share of worlds with the truth within the limits of a bin with so many publications. */
  function coverage(nClusters: number, nWorlds: number) {
    const hits = { byCluster: 0, byTrial: 0, residual: 0 };
    for (let seed = 0; seed < nWorlds; seed++) {
      const rng = new Rng(seed, 5);
      const probability: number[] = [];
      const successes: number[] = [];
      const clusters: number[] = [];
      for (let g = 0; g < nClusters; g++) {
        const shock = Math.exp(0.5 * rng.normal() - 0.125);
        for (let r = 0; r < 3; r++) {
          probability.push(0.01);
          successes.push(rng.binomial(2_000, 0.01 * shock));
          clusters.push(g);
        }
      }
      const s = { probability, successes, trials: probability.map(() => 2_000) };
      const [bin] = reliabilityCurve(s, { nBins: 1, clusters });
      const [naive] = reliabilityCurve(s, { nBins: 1 });
      const [over] = residualsOverTime(s, clusters, { bucketMs: 1_000, clusters });
      if (bin!.lowerRate! <= 0.01 && bin!.upperRate! >= 0.01) hits.byCluster++;
      if (naive!.lowerRate! <= 0.01 && naive!.upperRate! >= 0.01) hits.byTrial++;
      if (Math.abs(over!.residual) <= over!.margin!) hits.residual++;
    }
    return {
      byCluster: hits.byCluster / nWorlds,
      byTrial: hits.byTrial / nWorlds,
      residual: hits.residual / nWorlds,
    };
  }

  // Three binomial standard errors over 600 worlds are 2.7 points; log-normal luck, of which few clusters show the tail, costs some more.
  test.each([
    [2, 0.9],
    [3, 0.9],
    [5, 0.9],
    [80, 0.92],
  ])('%d publications', (nClusters, least) => {
    const { byCluster, byTrial, residual } = coverage(nClusters, 600);
    expect(byCluster).toBeGreaterThan(least);
    expect(residual).toBeGreaterThan(least);
    expect(byTrial).toBeLessThan(0.7);
  });

  test('one publication has no limits', () => {
    const s = { probability: [0.1, 0.1], successes: [1, 2], trials: [10, 10] };
    const [bin] = reliabilityCurve(s, { nBins: 1, clusters: [7, 7] });
    expect(bin).toMatchObject({ observedRate: 0.15, lowerRate: null, upperRate: null });
    const [bucket] = residualsOverTime(s, [0, 1], { bucketMs: 10, clusters: [7, 7] });
    expect(bucket).toMatchObject({ observed: 3, standardError: null, margin: null });
  });
});

test("Student's quantiles are those of the tables", () => {
  // Two-sided 95 % and 99 % of Abramowitz & Stegun, table 26.10.
  for (const [df, t975, t995] of [
    [1, 12.706, 63.657],
    [2, 4.303, 9.925],
    [3, 3.182, 5.841],
    [4, 2.776, 4.604],
    [5, 2.571, 4.032],
    [10, 2.228, 3.169],
    [30, 2.042, 2.75],
    [120, 1.98, 2.617],
  ] as const) {
    expect(studentQuantile(0.975, df)).toBeCloseTo(t975, 3);
    expect(studentQuantile(0.995, df)).toBeCloseTo(t995, 3);
    expect(studentQuantile(0.025, df)).toBeCloseTo(-studentQuantile(0.975, df), 9);
  }
  expect(studentQuantile(0.5, 7)).toBeCloseTo(0, 9);
  expect(studentQuantile(0.75, 1)).toBeCloseTo(1, 9);
  expect(studentQuantile(0.975, 2)).toBeCloseTo(0.95 / Math.sqrt(0.04875), 9);
  // The sums and their expansion meet.
  expect(studentQuantile(0.975, 201)).toBeLessThan(studentQuantile(0.975, 200));
  expect(studentQuantile(0.975, 200) - studentQuantile(0.975, 201)).toBeLessThan(1e-4);
  expect(studentQuantile(0.975, 1e9)).toBeCloseTo(normalQuantile(0.975), 8);
});

test('residuals are observed over expected − 1, with the errors worked by hand', () => {
  const s = {
    probability: [0.1, 0.2, 0.5],
    successes: [2, 1, 6],
    trials: [10, 10, 10],
  };
  const times = [0, 5, 12];
  const [first, second] = residualsOverTime(s, times, { bucketMs: 10 });
  expect(first).toMatchObject({ fromMs: 0, toMs: 10, observed: 3, residual: 0, nRows: 2 });
  expect(first!.standardError).toBeCloseTo(Math.sqrt(0.9 + 1.6) / 3, 12);
  expect(second!.residual).toBeCloseTo(0.2, 12);
  const clustered = residualsOverTime(s, times, { bucketMs: 10, clusters: [1, 2, 1] });
  // o − R·e = ±1 with R = 1: 2/1·(1 + 1) = 4 > 2.5
  expect(clustered[0]!.standardError).toBeCloseTo(2 / 3, 12);
});

test('bad options are refused', () => {
  const code = expect.objectContaining({ code: 'WAGGLE_MEASUREMENT_OUT_OF_RANGE' });
  expect(() => reliabilityCurve(sample, { confidence: 1 })).toThrowError(code);
  expect(() => reliabilityCurve(sample, { nBins: 0 })).toThrowError(code);
  expect(() => predictionHistogram(sample, { nBuckets: 1.5 })).toThrowError(code);
  expect(() => residualsOverTime(sample, sample.weights, { bucketMs: 0 })).toThrowError(code);
  expect(() => reliabilityCurve(sample, { clusters: [1] })).toThrowError(
    expect.objectContaining({ code: 'WAGGLE_MEASUREMENT_SHAPE' }),
  );
  for (const curve of [rocCurve, precisionRecallCurve, gainCurve, liftCurve]) {
    expect(() => curve({ probability: [0.5], successes: [1] })).toThrowError(
      expect.objectContaining({ code: 'WAGGLE_MEASUREMENT_SINGLE_CLASS' }),
    );
  }
});
