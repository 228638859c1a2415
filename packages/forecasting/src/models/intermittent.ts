import { optionNames } from '@waggle/core';
import { forecastingError } from '../errors.js';
import { goldenSection } from '../minimise.js';
import {
  checkChoice,
  checkHorizon,
  checkOptions,
  checkSeries,
  type FittedSeries,
  type SeriesModel,
} from '../series.js';

export interface IntermittentOptions {
  /**
   * `croston` (1972) smooths sizes and gaps; `sba` takes off its upward bias by 1 − α/2 (Syntetos & Boylan 2005); `tsb`
   * smooths the probability of demand in every period, so that a series which died fades (Teunter, Syntetos & Babai 2011).
   * Default `tsb`.
   */
  readonly variant?: 'croston' | 'sba' | 'tsb';
  /** Smoothing of sizes, in (0, 1). Default: least squared error one step ahead. */
  readonly alpha?: number;
  /** Smoothing of gaps or probabilities, in (0, 1). Default: alpha's. */
  readonly beta?: number;
}

const OPTIONS = optionNames<IntermittentOptions>({ variant: true, alpha: true, beta: true });

interface Rates {
  readonly rate: number;
  readonly squares: number;
}

function run(
  y: Float64Array,
  variant: 'croston' | 'sba' | 'tsb',
  alpha: number,
  beta: number,
): Rates {
  let size = 0;
  let gap = 1;
  let chance = 0;
  let since = 1;
  let started = false;
  let squares = 0;
  const bias = variant === 'sba' ? 1 - beta / 2 : 1;
  const rate = () => (variant === 'tsb' ? chance * size : (bias * size) / gap);
  for (let t = 0; t < y.length; t++) {
    const v = y[t]!;
    if (started) squares += (v - rate()) ** 2;
    if (v > 0) {
      if (!started) {
        size = v;
        gap = since;
        chance = 1 / since;
        started = true;
      } else {
        size += alpha * (v - size);
        gap += beta * (since - gap);
        chance += beta * (1 - chance);
      }
      since = 1;
    } else {
      since++;
      if (started) chance += beta * (0 - chance);
    }
  }
  return { rate: rate(), squares };
}

/**
 * Demand that is mostly zero: a flat rate per period. A series that is zero throughout stays zero. O(n) a pass.
 * @throws WAGGLE_FORECASTING_SERIES for a value below zero
 */
export function intermittent(options: IntermittentOptions = {}): SeriesModel {
  checkOptions(options, OPTIONS);
  const variant = options.variant ?? 'tsb';
  checkChoice(variant, ['croston', 'sba', 'tsb'], 'variant');
  for (const weight of [options.alpha, options.beta]) {
    if (weight !== undefined && !(weight > 0 && weight < 1)) {
      throw forecastingError(
        'WAGGLE_FORECASTING_ARGUMENT',
        `smoothing weights lie inside (0, 1), got ${weight}`,
      );
    }
  }
  const name = { croston: 'Croston', sba: 'SBA', tsb: 'TSB' }[variant];
  return {
    name,
    fit(y): FittedSeries {
      checkSeries(y, 1, name);
      const below = y.findIndex((v) => v < 0);
      if (below >= 0) {
        throw forecastingError(
          'WAGGLE_FORECASTING_SERIES',
          `demand cannot be below zero, value ${below} is ${y[below]}`,
        );
      }
      const squaresAt = (alpha: number) => run(y, variant, alpha, options.beta ?? alpha).squares;
      const alpha = options.alpha ?? goldenSection(squaresAt, 0.01, 0.5, 1e-3);
      const { rate, squares } = run(y, variant, alpha, options.beta ?? alpha);
      const sigma = Math.sqrt(squares / y.length);
      return {
        name,
        forecast(horizon) {
          checkHorizon(horizon);
          return {
            mean: new Float64Array(horizon).fill(rate),
            deviation: new Float64Array(horizon).fill(sigma),
          };
        },
      };
    },
  };
}
