import { Rng } from '@waggle/core';
import { describe, expect, test } from 'vitest';
import {
  automatic,
  backtest,
  chosenByBacktest,
  rollingOrigins,
  type SeriesModel,
  seasonalNaive,
  theta,
} from '../src/index.js';

const weekly = Float64Array.from({ length: 90 }, (_, t) => 20 + [0, 4, 8, 6, 5, 2, 1][t % 7]!);

describe('a rolling-origin backtest', () => {
  test('places its origins so that a whole horizon follows each', () => {
    expect(rollingOrigins(100, { horizon: 10, nOrigins: 3 })).toEqual([70, 80, 90]);
    expect(rollingOrigins(100, { horizon: 10, nOrigins: 3, step: 1 })).toEqual([88, 89, 90]);
    expect(rollingOrigins(25, { horizon: 10, nOrigins: 3 })).toEqual([5, 15]);
    expect(rollingOrigins(25, { horizon: 10, nOrigins: 3, minHistory: 6 })).toEqual([15]);
  });

  test('shows a model nothing but what was before the origin', () => {
    const seen: number[] = [];
    const spy: SeriesModel = {
      name: 'spy',
      fit(y) {
        seen.push(y.length, y.at(-1)!);
        return seasonalNaive(1).fit(y);
      },
    };
    const y = Float64Array.from({ length: 30 }, (_, t) => t);
    const [result] = backtest(y, [spy], { horizon: 5, nOrigins: 2 });
    expect(seen).toEqual([20, 19, 25, 24]);
    expect(result!.losses).toEqual([3, 3]);
  });

  test('gives a model for which a history is too short an infinite loss', () => {
    const results = backtest(weekly, [seasonalNaive(7), seasonalNaive(80)], {
      horizon: 7,
      nOrigins: 2,
    });
    expect(results.map((r) => r.meanLoss)).toEqual([0, Number.POSITIVE_INFINITY]);
  });

  test('needs a series that is longer than its horizon', () => {
    expect(() => backtest(weekly, [seasonalNaive(7)], { horizon: 90 })).toThrow(
      expect.objectContaining({ code: 'WAGGLE_FORECASTING_TOO_SHORT' }),
    );
    expect(() => backtest(weekly, [], { horizon: 0 })).toThrow(
      expect.objectContaining({ code: 'WAGGLE_FORECASTING_ARGUMENT' }),
    );
  });
});

describe('choice by backtest', () => {
  test('takes the model that was right', () => {
    const model = chosenByBacktest({
      models: [seasonalNaive(1), seasonalNaive(7), seasonalNaive(5)],
      horizon: 7,
      weighing: 'best',
    });
    expect(model.fit(weekly).name).toBe('SeasonalNaive(7)');
  });

  test('weighs models by what they would have brought', () => {
    const rng = new Rng(5);
    const y = weekly.map((v) => v + 0.5 * rng.normal());
    const model = chosenByBacktest({
      models: [seasonalNaive(7), theta({ season: 7 }), seasonalNaive(5)],
      horizon: 7,
    });
    const { name } = model.fit(y);
    expect(name).toContain('SeasonalNaive(7)');
    expect(name).toContain('Theta');
    expect(name).not.toContain('SeasonalNaive(5)');
  });

  test('falls back to the first model that can be fitted when nothing can be tested', () => {
    const model = chosenByBacktest({ models: [seasonalNaive(7), seasonalNaive(1)], horizon: 50 });
    expect(model.fit(Float64Array.of(1, 2, 3)).name).toBe('SeasonalNaive(1)');
  });

  test('needs a model', () => {
    expect(() => chosenByBacktest({ models: [], horizon: 1 })).toThrow(
      expect.objectContaining({ code: 'WAGGLE_FORECASTING_ARGUMENT' }),
    );
  });

  test('is not moved by what comes after the series', () => {
    const model = automatic({ seasons: [7], horizon: 7 });
    const long = Float64Array.from({ length: 120 }, (_, t) => (t < 90 ? weekly[t]! : 1e6));
    expect(model.fit(long.slice(0, 90)).forecast(7)).toEqual(model.fit(weekly).forecast(7));
  });
});
