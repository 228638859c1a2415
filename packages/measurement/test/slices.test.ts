import { Rng } from '@waggle/core';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  areaUnderRoc,
  type BinomialSample,
  bandsOf,
  clusterBootstrap,
  confusionMatrix,
  evaluateSlices,
  logLoss,
  meanAbsoluteError,
  metricDifferenceInterval,
  metricInterval,
  multiClassLogLoss,
} from '../src/index.js';

function world(seed: number, nClusters: number, perCluster = 6) {
  const rng = new Rng(seed, 3);
  const probability: number[] = [];
  const successes: number[] = [];
  const trials: number[] = [];
  const clusters: number[] = [];
  const category: string[] = [];
  for (let g = 0; g < nClusters; g++) {
    const shock = Math.exp(0.4 * rng.normal());
    for (let r = 0; r < perCluster; r++) {
      const p = 0.02 + 0.2 * rng.uniform();
      probability.push(p);
      trials.push(50);
      successes.push(rng.binomial(50, Math.min(0.9, p * shock)));
      clusters.push(g);
      category.push(g < nClusters / 2 ? 'food' : g < nClusters - 1 ? 'news' : 'rare');
    }
  }
  return { sample: { probability, successes, trials } as BinomialSample, clusters, category };
}

describe('intervals of any metric', () => {
  test('weighing a cluster by how often it is drawn is drawing its rows so often', () => {
    const { sample, clusters } = world(1, 12);
    const drawn = metricInterval(sample, clusters, logLoss, { rng: new Rng(4), nReplicates: 50 });
    // The same draws, rows really repeated.
    const repeated = clusterBootstrap(
      12,
      (m) => {
        const rows = clusters.flatMap((g, i) => Array.from({ length: m[g]! }, () => i));
        const pick = (column: ArrayLike<number>) => rows.map((i) => column[i]!);
        return logLoss({
          probability: pick(sample.probability),
          successes: pick(sample.successes),
          trials: pick(sample.trials!),
        });
      },
      { rng: new Rng(4), nReplicates: 50 },
    );
    expect(drawn.lower).toBeCloseTo(repeated.lower, 12);
    expect(drawn.upper).toBeCloseTo(repeated.upper, 12);
    expect(drawn.estimate).toBe(logLoss(sample));
  });

  test('a row of weight two is the row twice', () => {
    const { sample, clusters } = world(2, 10, 3);
    const twice = [...clusters.keys()].flatMap((i) => (i % 3 === 0 ? [i, i] : [i]));
    const pick = (column: ArrayLike<number>) => twice.map((i) => column[i]!);
    const options = { nReplicates: 40 };
    const a = metricInterval(
      { ...sample, weights: clusters.map((_, i) => (i % 3 === 0 ? 2 : 1)) },
      clusters,
      areaUnderRoc,
      { rng: new Rng(1), ...options },
    );
    const b = metricInterval(
      {
        probability: pick(sample.probability),
        successes: pick(sample.successes),
        trials: pick(sample.trials!),
      },
      pick(clusters),
      areaUnderRoc,
      { rng: new Rng(1), ...options },
    );
    expect(a.lower).toBeCloseTo(b.lower, 9);
    expect(a.upper).toBeCloseTo(b.upper, 9);
  });

  test('a paired difference is far narrower than its parts, and 0 with itself', () => {
    const { sample, clusters } = world(3, 60);
    const other = {
      ...sample,
      probability: Array.from(sample.probability, (p) => Math.min(0.95, 1.1 * p)),
    };
    const options = { rng: new Rng(5), nReplicates: 200 };
    const paired = metricDifferenceInterval(
      { model: other, baseline: sample },
      clusters,
      logLoss,
      options,
    );
    const alone = metricInterval(sample, clusters, logLoss, { ...options, rng: new Rng(5) });
    expect(paired.estimate).toBeCloseTo(logLoss(other) - logLoss(sample), 12);
    expect(paired.standardError).toBeLessThan(alone.standardError / 4);
    const self = metricDifferenceInterval(
      { model: sample, baseline: sample },
      clusters,
      areaUnderRoc,
      { ...options, rng: new Rng(5) },
    );
    expect(self).toMatchObject({ estimate: 0, lower: 0, upper: 0 });
    expect(() =>
      metricDifferenceInterval(
        { model: { ...sample, weights: clusters.map(() => 1) }, baseline: sample },
        clusters,
        logLoss,
        options,
      ),
    ).toThrowError(expect.objectContaining({ code: 'WAGGLE_MEASUREMENT_SHAPE' }));
  });

  test('resamples of one class are drawn again; a sample of one class is the caller’s error', () => {
    const rare = {
      probability: [0.1, 0.2, 0.3, 0.4],
      successes: [0, 0, 0, 1],
    };
    const interval = metricInterval(rare, [1, 2, 3, 4], areaUnderRoc, {
      rng: new Rng(2),
      nReplicates: 100,
    });
    expect(interval.upper).toBe(1);
    expect(() =>
      metricInterval({ probability: [0.1, 0.2], successes: [0, 0] }, [1, 2], areaUnderRoc, {
        rng: new Rng(2),
      }),
    ).toThrowError(expect.objectContaining({ code: 'WAGGLE_MEASUREMENT_SINGLE_CLASS' }));
  });

  test('limits of AUC cover what many worlds average to', () => {
    const truth =
      Array.from({ length: 40 }, (_, s) => areaUnderRoc(world(1_000 + s, 200).sample)).reduce(
        (a, b) => a + b,
        0,
      ) / 40;
    let covered = 0;
    const nWorlds = 60;
    for (let seed = 0; seed < nWorlds; seed++) {
      const { sample, clusters } = world(seed, 40);
      const { lower, upper } = metricInterval(sample, clusters, areaUnderRoc, {
        rng: new Rng(seed),
        nReplicates: 200,
      });
      if (lower <= truth && truth <= upper) covered++;
    }
    // nominal 95 %; three binomial standard errors over 60 worlds are 8.4 points
    expect(covered / nWorlds).toBeGreaterThan(0.86);
  });
});

describe('slices', () => {
  test('each is what the metric says of its rows alone; small ones are listed and measured together', () => {
    const { sample, clusters, category } = world(7, 20);
    const report = evaluateSlices(
      sample,
      category,
      { logLoss, auc: areaUnderRoc },
      { minRows: 10, clusters },
    );
    expect(report.slices.map((s) => [s.name, s.nRows, s.nClusters, s.small])).toEqual([
      ['food', 60, 10, false],
      ['news', 54, 9, false],
      ['rare', 6, 1, true],
    ]);
    const rows = [...category.keys()].filter((i) => category[i] === 'news');
    const pick = (column: ArrayLike<number>) => rows.map((i) => column[i]!);
    expect(report.slices[1]!.metrics.logLoss.value).toBeCloseTo(
      logLoss({
        probability: pick(sample.probability),
        successes: pick(sample.successes),
        trials: pick(sample.trials!),
      }),
      12,
    );
    expect(report.slices[2]!.metrics.auc).toEqual({
      value: null,
      reason: '6 rows, 10 are asked for',
    });
    expect(report.smallTogether).toMatchObject({ nRows: 6, small: true });
    expect(report.all.metrics.auc.value).toBeCloseTo(areaUnderRoc(sample), 12);
  });

  test('small slices that are enough together get figures together', () => {
    const { sample, clusters } = world(8, 12);
    const report = evaluateSlices(sample, clusters, { logLoss }, { minRows: 20, clusters });
    expect(report.slices.every((s) => s.small)).toBe(true);
    expect(report.smallTogether!.metrics.logLoss.value).toBeCloseTo(logLoss(sample), 12);
  });

  test('a slice of one class says why it has no AUC; wrong input still throws', () => {
    const sample = { probability: [0.1, 0.2, 0.3, 0.4], successes: [0, 0, 1, 0] };
    const report = evaluateSlices(
      sample,
      ['a', 'a', 'b', 'b'],
      { auc: areaUnderRoc },
      { minRows: 1 },
    );
    const [a, b] = report.slices;
    expect(a!.metrics.auc.value).toBeNull();
    expect(a!.metrics.auc.reason).toContain('no successes');
    expect(b!.metrics.auc.value).toBe(0);
    expect(() =>
      evaluateSlices(
        { ...sample, successes: [0, 0, 2, 0] },
        ['a', 'a', 'b', 'b'],
        { logLoss },
        { minRows: 1 },
      ),
    ).toThrowError(expect.objectContaining({ code: 'WAGGLE_MEASUREMENT_OUT_OF_RANGE' }));
  });

  test('limits come with the slices that have clusters enough', () => {
    const { sample, clusters, category } = world(9, 30);
    const report = evaluateSlices(
      sample,
      category,
      { logLoss },
      { minRows: 1, minClusters: 1, clusters, bootstrap: { rng: new Rng(1), nReplicates: 50 } },
    );
    const [food, news, rare] = report.slices;
    for (const { metrics } of [food!, news!]) {
      expect(metrics.logLoss.interval!.lower).toBeLessThan(metrics.logLoss.value!);
      expect(metrics.logLoss.interval!.upper).toBeGreaterThan(metrics.logLoss.value!);
    }
    expect(rare!.metrics.logLoss.value).not.toBeNull();
    expect(rare!.metrics.logLoss.interval).toBeUndefined();
    expect(() =>
      evaluateSlices(sample, category, { logLoss }, { bootstrap: { rng: new Rng(1) } }),
    ).toThrowError(expect.objectContaining({ code: 'WAGGLE_MEASUREMENT_TOO_FEW_CLUSTERS' }));
  });

  test('any sample can be sliced: several classes, forecasts', () => {
    const classes = {
      nClasses: 2,
      probability: [0.9, 0.1, 0.2, 0.8, 0.5, 0.5],
      labels: [0, 1, 0],
      weights: [1, 2, 0],
    };
    const byDay = evaluateSlices(
      classes,
      ['mon', 'tue', 'tue'],
      { loss: multiClassLogLoss, accuracy: (s) => confusionMatrix(s).accuracy },
      { minRows: 1 },
    );
    expect(byDay.slices.map((s) => [s.name, s.weight, s.nRows])).toEqual([
      ['tue', 2, 1],
      ['mon', 1, 1],
    ]);
    expect(byDay.slices[0]!.metrics.loss.value).toBeCloseTo(-Math.log(0.8), 12);
    const forecasts = evaluateSlices(
      { actual: [1, 2], forecast: [2, 4] },
      [0, 1],
      { mae: meanAbsoluteError },
      { minRows: 1 },
    );
    expect(forecasts.slices.map((s) => s.metrics.mae.value)).toEqual([1, 2]);
    expect(() =>
      evaluateSlices(
        { actual: [1, 2, 3], forecast: [1] },
        [0, 1],
        { mae: () => 0 },
        { minRows: 1 },
      ),
    ).toThrowError(expect.objectContaining({ code: 'WAGGLE_MEASUREMENT_SHAPE' }));
  });

  test('a weight that is no weight is refused, not left out', () => {
    const measure = (weight: number) =>
      evaluateSlices(
        { actual: [1, 2], forecast: [2, 4], weights: [1, weight] },
        [0, 1],
        { mae: meanAbsoluteError },
        { minRows: 1 },
      );
    expect(() => measure(Number.NaN)).toThrowError(
      expect.objectContaining({ code: 'WAGGLE_MEASUREMENT_NOT_FINITE' }),
    );
    expect(() => measure(-1)).toThrowError(
      expect.objectContaining({ code: 'WAGGLE_MEASUREMENT_OUT_OF_RANGE' }),
    );
  });

  test('no row is lost, whatever the slices', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 0, max: 5 }), fc.integer({ min: 0, max: 3 })), {
          minLength: 1,
          maxLength: 60,
        }),
        fc.integer({ min: 1, max: 20 }),
        (rows, minRows) => {
          const list = [...rows, [0, 1] as [number, number]];
          const report = evaluateSlices(
            {
              probability: list.map(() => 0.5),
              successes: list.map((_, i) => i % 2),
              weights: list.map(([, w]) => w),
            },
            list.map(([slice]) => slice),
            { logLoss },
            { minRows },
          );
          const total = (slices: readonly { nRows: number; weight: number }[]) =>
            slices.reduce((sum, s) => [sum[0]! + s.nRows, sum[1]! + s.weight], [0, 0]);
          const { all } = report;
          expect(total(report.slices)).toEqual([all.nRows, all.weight]);
          expect(total(report.slices.filter((s) => s.small))).toEqual(
            report.smallTogether === null
              ? [0, 0]
              : [report.smallTogether.nRows, report.smallTogether.weight],
          );
        },
      ),
    );
  });

  test('bands are equally filled, in order, and keep ties together', () => {
    expect(bandsOf([5, 1, 3, 3, 9, 7], 2)).toEqual([
      '2 of 2: 5 … 9',
      '1 of 2: 1 … 3',
      '1 of 2: 1 … 3',
      '1 of 2: 1 … 3',
      '2 of 2: 5 … 9',
      '2 of 2: 5 … 9',
    ]);
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 20 }), { minLength: 1, maxLength: 50 }),
        (values) => {
          const bands = bandsOf(values, 4);
          for (let i = 0; i < values.length; i++) {
            for (let j = 0; j < values.length; j++) {
              if (values[i] === values[j]) expect(bands[i]).toBe(bands[j]);
              if (values[i]! < values[j]!) expect(bands[i]!.localeCompare(bands[j]!)).not.toBe(1);
            }
          }
        },
      ),
    );
    expect(() => bandsOf([1], 1)).toThrowError(
      expect.objectContaining({ code: 'WAGGLE_MEASUREMENT_OUT_OF_RANGE' }),
    );
  });
});
