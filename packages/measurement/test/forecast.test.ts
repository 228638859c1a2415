import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  countCoverage,
  type ForecastSample,
  intervalCoverage,
  mase,
  meanAbsoluteError,
  pinballLoss,
  seasonalNaiveScale,
  smape,
  wmape,
} from '../src/index.js';

const DIGITS = 12;

const sample = { actual: [3, 0, 12.5, 7, 1, 40, 5], forecast: [2.5, 1, 10, 9, 1, 30, 8] };
const weights = [1, 1, 0.5, 2, 1, 0.25, 3];

describe('reference values', () => {
  test('agree with scikit-learn 1.9.1 (mean_absolute_error, mean_pinball_loss)', () => {
    expect(meanAbsoluteError(sample)).toBeCloseTo(2.7142857142857144, DIGITS);
    expect(pinballLoss(sample, 0.1)).toBeCloseTo(0.9571428571428572, DIGITS);
    expect(pinballLoss(sample, 0.5)).toBeCloseTo(1.3571428571428572, DIGITS);
    expect(pinballLoss(sample, 0.9)).toBeCloseTo(1.7571428571428573, DIGITS);
    const heavy = { ...sample, weights };
    expect(meanAbsoluteError(heavy)).toBeCloseTo(2.085714285714286, DIGITS);
    expect(pinballLoss(heavy, 0.1)).toBeCloseTo(1.4885714285714289, DIGITS);
    expect(pinballLoss(heavy, 0.5)).toBeCloseTo(1.042857142857143, DIGITS);
    expect(pinballLoss(heavy, 0.9)).toBeCloseTo(0.5971428571428571, DIGITS);
  });

  test('agree with rows worked by hand', () => {
    // errors 0.5 1 2.5 2 0 10 3 of 68.5
    expect(wmape(sample)).toBeCloseTo(19 / 68.5, DIGITS);
    const two = { actual: [1, 0, 0], forecast: [3, 0, 5] };
    // 2·2/4, 0, 2·5/5
    expect(smape(two)).toBeCloseTo((1 + 0 + 2) / 3, DIGITS);
    // |3−1| |4−2| |1−3| over three steps of period 2
    expect(seasonalNaiveScale([1, 2, 3, 4, 1], 2)).toBe(2);
    expect(mase({ ...two, scale: 2 })).toBeCloseTo((2 + 0 + 5) / 3 / 2, DIGITS);
    expect(mase({ ...two, scale: [2, 1, 5] })).toBeCloseTo((1 + 0 + 1) / 3, DIGITS);
    const interval = { actual: [1, 2, 3, 4], lower: [1, 0, 4, 0], upper: [2, 1, 5, 9] };
    expect(intervalCoverage(interval)).toBe(0.5);
    expect(intervalCoverage({ ...interval, weights: [1, 5, 1, 1] })).toBe(0.25);
    // [0, 1) within [0.25, 1.5], [2, 3) within [2.5, 2.75], [5, 6) within [4, 7], [9, 10) beyond [3, 9]
    const counts = {
      actual: [0, 2, 5, 9],
      lower: [0.25, 2.5, 4, 3],
      upper: [1.5, 2.75, 7, 9],
    };
    expect(countCoverage(counts)).toBe((0.75 + 0.25 + 1 + 0) / 4);
    expect(countCoverage({ ...counts, weights: [2, 1, 0, 1] })).toBe((1.5 + 0.25) / 4);
  });

  test('a small count lies between its own P10 and P90 four times in five', () => {
    // Of a Poisson count of mean 2, probabilities of 0 … 20; the whole numbers 0 to 4 enclose 94.7 %.
    const p = [Math.exp(-2)];
    for (let k = 1; k <= 20; k++) p.push((p[k - 1]! * 2) / k);
    const below = (count: number) => p.slice(0, count).reduce((sum, v) => sum + v, 0);
    const quantile = (level: number) => {
      let k = 0;
      while (below(k + 1) < level) k++;
      return k + (level - below(k)) / p[k]!;
    };
    const actual = p.map((_, k) => k);
    const all = (value: number) => actual.map(() => value);
    const between = (low: number, high: number) =>
      countCoverage({
        ...{ actual, weights: p },
        ...{ lower: all(quantile(low)), upper: all(quantile(high)) },
      });
    expect(between(0.1, 0.9)).toBeCloseTo(0.8, 9);
    expect(between(0.2, 0.5)).toBeCloseTo(0.3, 9);
    expect(intervalCoverage({ actual, weights: p, lower: all(0), upper: all(4) })).toBeCloseTo(
      0.947,
      3,
    );
  });
});

const value = fc.double({ min: -100, max: 100, noNaN: true });
const rows = fc.array(fc.record({ a: value, f: value, w: fc.integer({ min: 0, max: 3 }) }), {
  minLength: 1,
  maxLength: 25,
});
type Row = { a: number; f: number; w: number };
const withMass = rows.map((list): Row[] => [...list, { a: 2, f: 1, w: 1 }]);
const sampleOf = (list: readonly Row[]): ForecastSample => ({
  actual: list.map((r) => r.a),
  forecast: list.map((r) => r.f),
  weights: list.map((r) => r.w),
});
const metrics: [string, (s: ForecastSample) => number][] = [
  ['meanAbsoluteError', meanAbsoluteError],
  ['wmape', wmape],
  ['smape', smape],
  ['mase', (s) => mase({ ...s, scale: 3 })],
  ['pinballLoss', (s) => pinballLoss(s, 0.8)],
  [
    'intervalCoverage',
    ({ actual, forecast, weights: w }) =>
      intervalCoverage({
        actual,
        lower: Array.from(forecast, (f) => f - 20),
        upper: Array.from(forecast, (f) => f + 10),
        weights: w,
      }),
  ],
  [
    'countCoverage',
    ({ actual, forecast, weights: w }) =>
      countCoverage({
        actual: Array.from(actual, Math.round),
        lower: Array.from(forecast, (f) => f - 20),
        upper: Array.from(forecast, (f) => f + 10),
        weights: w,
      }),
  ],
];

describe('laws', () => {
  test.each(metrics)('%s sees a weight of two as the row standing there twice', (_name, metric) => {
    fc.assert(
      fc.property(withMass, (list) => {
        const repeated = list.flatMap((r) => Array.from({ length: r.w }, () => ({ ...r, w: 1 })));
        expect(metric(sampleOf(repeated))).toBeCloseTo(metric(sampleOf(list)), 9);
      }),
    );
  });

  test.each(metrics)('%s does not depend on the order of rows', (_name, metric) => {
    fc.assert(
      fc.property(withMass, (list) => {
        expect(metric(sampleOf([...list].reverse()))).toBeCloseTo(metric(sampleOf(list)), 9);
      }),
    );
  });

  test('the loss of a perfect forecast is 0, and half the MAE is the pinball loss of the median', () => {
    fc.assert(
      fc.property(withMass, (list) => {
        const perfect = sampleOf(list.map((r) => ({ ...r, f: r.a })));
        for (const [name, metric] of metrics) {
          expect(metric(perfect), name).toBe(name.endsWith('Coverage') ? 1 : 0);
        }
        const s = sampleOf(list);
        expect(pinballLoss(s, 0.5)).toBeCloseTo(meanAbsoluteError(s) / 2, 9);
      }),
    );
  });

  test('no constant has a smaller pinball loss than the quantile itself', () => {
    fc.assert(
      fc.property(
        fc.array(value, { minLength: 1, maxLength: 30 }),
        value,
        fc.constantFrom(0.1, 0.25, 0.5, 0.9),
        (actual, other, q) => {
          const sorted = [...actual].sort((a, b) => a - b);
          const quantile = sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))]!;
          const at = (c: number) => pinballLoss({ actual, forecast: actual.map(() => c) }, q);
          expect(at(quantile)).toBeLessThanOrEqual(at(other) + 1e-9);
        },
      ),
    );
  });
});

describe('bad input', () => {
  test.each([
    ['no rows', () => smape({ actual: [], forecast: [] }), 'EMPTY'],
    [
      'rows without weight',
      () => wmape({ ...sample, weights: sample.actual.map(() => 0) }),
      'EMPTY',
    ],
    ['columns of different length', () => smape({ actual: [1], forecast: [] }), 'SHAPE'],
    ['a NaN forecast', () => smape({ actual: [1], forecast: [Number.NaN] }), 'NOT_FINITE'],
    [
      'a negative weight',
      () => smape({ actual: [1], forecast: [1], weights: [-1] }),
      'OUT_OF_RANGE',
    ],
    ['only zeros', () => wmape({ actual: [0, 0], forecast: [1, 2] }), 'SINGLE_CLASS'],
    ['a quantile of 1', () => pinballLoss(sample, 1), 'OUT_OF_RANGE'],
    ['a scale of 0', () => mase({ ...sample, scale: 0 }), 'OUT_OF_RANGE'],
    ['a history without change', () => seasonalNaiveScale([2, 2, 2]), 'SINGLE_CLASS'],
    ['a history of one period', () => seasonalNaiveScale([1, 2], 2), 'EMPTY'],
    ['half a period', () => seasonalNaiveScale([1, 2], 0.5), 'OUT_OF_RANGE'],
    [
      'limits the wrong way round',
      () => intervalCoverage({ actual: [1], lower: [2], upper: [1] }),
      'OUT_OF_RANGE',
    ],
    [
      'half a count',
      () => countCoverage({ actual: [0.5], lower: [0], upper: [1] }),
      'OUT_OF_RANGE',
    ],
  ])('%s is refused', (_name, run, code) => {
    expect(run).toThrowError(expect.objectContaining({ code: `WAGGLE_MEASUREMENT_${code}` }));
  });
});
