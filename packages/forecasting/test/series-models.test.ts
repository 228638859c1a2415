import { Rng } from '@waggle/core';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  automatic,
  autoregression,
  combination,
  decomposed,
  ets,
  intermittent,
  logarithmic,
  multiSeasonal,
  normalQuantiles,
  type SeriesModel,
  seasonalLags,
  seasonalNaive,
  stl,
  theta,
} from '../src/index.js';

/** A noisy series with trend and a season of six. */
function noisy(seed: number, n = 120): Float64Array {
  const rng = new Rng(seed);
  return Float64Array.from(
    { length: n },
    (_, t) => 100 + 0.3 * t + 12 * Math.sin((2 * Math.PI * t) / 6) + 3 * rng.normal(),
  );
}

const models: readonly SeriesModel[] = [
  seasonalNaive(6),
  ets(),
  ets({ form: { error: 'A', trend: 'Ad', season: 'A' }, season: 6 }),
  theta(),
  theta({ season: 6 }),
  decomposed({ seasons: [6], trend: theta() }),
  multiSeasonal([6, 12]),
  autoregression({ lags: seasonalLags([6]) }),
  combination([seasonalNaive(6), theta({ season: 6 })]),
  automatic({ seasons: [6], horizon: 6 }),
  automatic({ seasons: [], horizon: 6 }),
];

describe.each(models.map((model) => [model.name, model] as const))('%s', (_, model) => {
  test('keeps a constant constant, with no deviation', () => {
    const { mean, deviation } = model.fit(new Float64Array(60).fill(7)).forecast(9);
    expect([...mean]).toEqual(new Array(9).fill(7));
    expect([...deviation]).toEqual(new Array(9).fill(0));
  });

  test('moves with the scale of the series', () => {
    // Simplexes stop at a relative tolerance: equal up to it.
    const TOLERANCE = 5e-3;
    const y = noisy(3);
    const plain = model.fit(y).forecast(12);
    const scaled = model.fit(y.map((v) => 1000 * v)).forecast(12);
    for (let h = 0; h < 12; h++) {
      expect(Math.abs(scaled.mean[h]! / 1000 - plain.mean[h]!)).toBeLessThan(
        TOLERANCE * plain.mean[h]!,
      );
    }
  });

  test('gives the same answer twice, finite, with deviations that are not negative', () => {
    const y = noisy(4);
    const before = y.slice();
    const a = model.fit(y).forecast(12);
    const b = model.fit(y).forecast(12);
    expect(b).toEqual(a);
    expect(y).toEqual(before);
    for (let h = 0; h < 12; h++) {
      expect(Number.isFinite(a.mean[h]!)).toBe(true);
      expect(a.deviation[h]!).toBeGreaterThan(0);
    }
  });

  test('refuses NaN, nothing, and horizons that are none', () => {
    const y = noisy(5);
    expect(() => model.fit(new Float64Array(0))).toThrow(
      expect.objectContaining({ code: 'WAGGLE_FORECASTING_TOO_SHORT' }),
    );
    const broken = y.slice();
    broken[17] = Number.NaN;
    expect(() => model.fit(broken)).toThrow(
      expect.objectContaining({ code: 'WAGGLE_FORECASTING_SERIES' }),
    );
    const fitted = model.fit(y);
    for (const horizon of [0, -1, 1.5, Number.NaN]) {
      expect(() => fitted.forecast(horizon)).toThrow(
        expect.objectContaining({ code: 'WAGGLE_FORECASTING_ARGUMENT' }),
      );
    }
  });

  test('answers a series of zeros with zeros', () => {
    expect([...model.fit(new Float64Array(40)).forecast(3).mean]).toEqual([0, 0, 0]);
  });
});

describe('a pattern without noise', () => {
  const pattern = [5, 9, 2, 14, 7, 11];
  const y = Float64Array.from({ length: 60 }, (_, t) => 50 + pattern[t % 6]!);
  const next = Float64Array.from({ length: 12 }, (_, h) => 50 + pattern[h % 6]!);
  test.each([
    seasonalNaive(6),
    ets({ season: 6, form: { error: 'A', trend: 'N', season: 'A' } }),
    decomposed({ seasons: [6], trend: ets({ form: { error: 'A', trend: 'N', season: 'N' } }) }),
    multiSeasonal([6, 12]),
    autoregression({ lags: [6], ridge: 1e-12 }),
  ])('is continued exactly by $name', (model) => {
    const { mean } = model.fit(y).forecast(12);
    for (let h = 0; h < 12; h++) expect(mean[h]).toBeCloseTo(next[h]!, 6);
  });

  test('of two lengths is taken apart by MSTL', () => {
    const long = Float64Array.from(
      { length: 280 },
      (_, t) =>
        pattern[t % 6]! + 3 * ((t % 28) % 4 === 0 ? 1 : 0) + Math.sin((2 * Math.PI * t) / 28),
    );
    const model = decomposed({
      seasons: [6, 28],
      trend: ets({ form: { error: 'A', trend: 'N', season: 'N' } }),
    });
    const { mean } = model.fit(long.slice(0, 252)).forecast(28);
    // Two seasons that share divisors are told apart by turns, not exactly.
    for (let h = 0; h < 28; h++) expect(Math.abs(mean[h]! - long[252 + h]!)).toBeLessThan(0.5);
  });
});

test('a straight line is continued by a trend', () => {
  const y = Float64Array.from({ length: 50 }, (_, t) => 3 + 2 * t);
  const { mean } = ets({ form: { error: 'A', trend: 'A', season: 'N' } })
    .fit(y)
    .forecast(4);
  for (let h = 0; h < 4; h++) expect(mean[h]).toBeCloseTo(3 + 2 * (50 + h), 4);
});

test('logarithms keep what is positive positive, and leave other series alone', () => {
  const falling = Float64Array.from({ length: 60 }, (_, t) => 100 * 0.9 ** t);
  const trend = ets({ form: { error: 'A', trend: 'A', season: 'N' } });
  expect(Math.min(...logarithmic(trend).fit(falling).forecast(30).mean)).toBeGreaterThan(0);
  const signed = noisy(6).map((v) => v - 110);
  expect(logarithmic(trend).fit(signed).forecast(5)).toEqual(trend.fit(signed).forecast(5));
});

test('quantiles never cross, whatever the mean and the deviation', () => {
  fc.assert(
    fc.property(
      fc.array(
        fc.tuple(
          fc.double({ min: -1e6, max: 1e6, noNaN: true }),
          fc.double({ min: 0, max: 1e6, noNaN: true }),
        ),
        {
          minLength: 1,
          maxLength: 20,
        },
      ),
      fc.uniqueArray(fc.integer({ min: 1, max: 99 }), { minLength: 1, maxLength: 9 }),
      (steps, percents) => {
        const levels = percents.sort((a, b) => a - b).map((p) => p / 100);
        const q = normalQuantiles(
          {
            mean: Float64Array.from(steps, ([m]) => m),
            deviation: Float64Array.from(steps, ([, d]) => d),
          },
          levels,
        );
        for (let l = 1; l < levels.length; l++) {
          for (let h = 0; h < steps.length; h++) {
            expect(q[l * steps.length + h]!).toBeGreaterThanOrEqual(q[(l - 1) * steps.length + h]!);
          }
        }
      },
    ),
  );
});

test.each([[[]], [[0.5, 0.1]], [[0, 0.5]], [[0.5, 1]], [[Number.NaN]]])(
  'quantile levels %j are refused',
  (levels) => {
    const forecast = { mean: new Float64Array(1), deviation: new Float64Array(1) };
    expect(() => normalQuantiles(forecast, levels)).toThrow(
      expect.objectContaining({ code: 'WAGGLE_FORECASTING_ARGUMENT' }),
    );
  },
);

test('prediction intervals of the right model hold what they promise', () => {
  let inside = 0;
  const total = 200;
  for (let seed = 0; seed < total; seed++) {
    const rng = new Rng(seed, 9);
    // ETS(A,N,N): the local level model, alpha 0.4.
    let level = 50;
    const y = Float64Array.from({ length: 140 }, () => {
      const e = 2 * rng.normal();
      const value = level + e;
      level += 0.4 * e;
      return value;
    });
    const fitted = ets({ form: { error: 'A', trend: 'N', season: 'N' } }).fit(y.slice(0, 135));
    const q = normalQuantiles(fitted.forecast(5), [0.1, 0.9]);
    if (y[139]! >= q[4]! && y[139]! <= q[9]!) inside++;
  }
  // Binomial(200, 0.8): four standard errors are 0.11.
  expect(inside / total).toBeGreaterThan(0.69);
  expect(inside / total).toBeLessThan(0.91);
});

test('simulated paths agree with the closed variance, and depend on seed and number alone', () => {
  const fitted = ets({ season: 6, form: { error: 'A', trend: 'Ad', season: 'A' } }).fit(noisy(8));
  const { mean, deviation } = fitted.forecast(9);
  const n = 4000;
  const paths = fitted.paths(9, n, 11);
  for (let h = 0; h < 9; h++) {
    let sum = 0;
    let squares = 0;
    for (let p = 0; p < n; p++) {
      const d = paths[p * 9 + h]! - mean[h]!;
      sum += d;
      squares += d * d;
    }
    expect(Math.abs(sum / n)).toBeLessThan((5 * deviation[h]!) / Math.sqrt(n));
    expect(Math.sqrt(squares / n) / deviation[h]!).toBeCloseTo(1, 1);
  }
  expect(fitted.paths(9, 2, 11)).toEqual(paths.slice(0, 18));
});

describe('demand that is mostly zero', () => {
  test('stays zero when it always was', () => {
    expect([...intermittent().fit(new Float64Array(20)).forecast(2).mean]).toEqual([0, 0]);
  });

  test('fades under TSB when it died, and does not under Croston', () => {
    const dead = new Float64Array(80);
    for (let t = 0; t < 20; t += 2) dead[t] = 10;
    const rate = (variant: 'croston' | 'tsb') =>
      intermittent({ variant, alpha: 0.1 }).fit(dead).forecast(1).mean[0]!;
    expect(rate('tsb')).toBeLessThan(0.05);
    expect(rate('croston')).toBeGreaterThan(3);
  });

  test('cannot be negative', () => {
    expect(() => intermittent().fit(Float64Array.of(1, -2, 0))).toThrow(
      expect.objectContaining({ code: 'WAGGLE_FORECASTING_SERIES' }),
    );
    expect(() => intermittent({ alpha: 1 })).toThrow(
      expect.objectContaining({ code: 'WAGGLE_FORECASTING_ARGUMENT' }),
    );
  });
});

test('seasons of which the series does not hold two are refused', () => {
  expect(() => stl(noisy(1, 20), 12)).toThrow(
    expect.objectContaining({ code: 'WAGGLE_FORECASTING_TOO_SHORT' }),
  );
  expect(() => stl(noisy(1), 6, { seasonalWindow: 10 })).toThrow(
    expect.objectContaining({ code: 'WAGGLE_FORECASTING_ARGUMENT' }),
  );
});

describe('settings', () => {
  const refused = expect.objectContaining({ code: 'WAGGLE_FORECASTING_ARGUMENT' }) as Error;

  test('that are misspelt are refused by name, and not taken for none', () => {
    const calls: readonly [call: (o: never) => unknown, o: object][] = [
      [ets, { seasons: 24 }],
      [theta, { seasons: 24 }],
      [intermittent, { aplha: 0.1 }],
      [automatic, { seasons: [], horizon: 3, season: [24] }],
    ];
    for (const [call, o] of calls) {
      expect(() => call(o as never)).toThrow(refused);
      expect(() => call(o as never)).toThrow(/options: there is no \w+, but /);
    }
    expect(() => ets(null as never)).toThrow(refused);
  });

  test('of another kind are refused', () => {
    expect(() => theta({ variant: 'optimized' as never })).toThrow(refused);
    expect(() => intermittent({ variant: 'TSB' as never })).toThrow(refused);
    expect(() => automatic({ horizon: 3 } as never)).toThrow(refused);
    expect(() => automatic({ seasons: [24] } as never)).toThrow(refused);
    expect(() => automatic({ seasons: [0], horizon: 3 })).toThrow(refused);
  });

  test('a series that is no Float64Array is refused by every model', () => {
    for (const y of [[1, 2, 3, 4], new Float32Array(300), null, undefined]) {
      for (const model of models) {
        expect(() => model.fit(y as never), model.name).toThrow(
          expect.objectContaining({ code: 'WAGGLE_FORECASTING_SERIES' }),
        );
      }
    }
  });
});
