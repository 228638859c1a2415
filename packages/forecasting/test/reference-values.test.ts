import { describe, expect, test } from 'vitest';
import { ets, intermittent, stl, theta } from '../src/index.js';

/** Box & Jenkins' airline passengers, 1949 to 1960, thousands a month. */
const PASSENGERS = Float64Array.from([
  112, 118, 132, 129, 121, 135, 148, 148, 136, 119, 104, 118, 115, 126, 141, 135, 125, 149, 170,
  170, 158, 133, 114, 140, 145, 150, 178, 163, 172, 178, 199, 199, 184, 162, 146, 166, 171, 180,
  193, 181, 183, 218, 230, 242, 209, 191, 172, 194, 196, 196, 236, 235, 229, 243, 264, 272, 237,
  211, 180, 201, 204, 188, 235, 227, 234, 264, 302, 293, 259, 229, 203, 229, 242, 233, 267, 269,
  270, 315, 364, 347, 312, 274, 237, 278, 284, 277, 317, 313, 318, 374, 413, 405, 355, 306, 271,
  306, 315, 301, 356, 348, 355, 422, 465, 467, 404, 347, 305, 336, 340, 318, 362, 348, 363, 435,
  491, 505, 404, 359, 310, 337, 360, 342, 406, 396, 420, 472, 548, 559, 463, 407, 362, 405, 417,
  391, 419, 461, 472, 535, 622, 606, 508, 461, 390, 432,
]);

describe('exponential smoothing of the airline passengers', () => {
  // −2 ln L and AICc that StatsForecast 2.1.1 finds for the same forms; a maximum can only be higher, AICc lower.
  test.each([
    [{ error: 'A', trend: 'N', season: 'N' }, 1727.7867, 1733.9582],
    [{ error: 'A', trend: 'A', season: 'N' }, 1727.1651, 1737.5999],
    [{ error: 'M', trend: 'N', season: 'N' }, 1667.9002, 1674.0716],
    [{ error: 'M', trend: 'A', season: 'M' }, 1473.1355, 1511.9926],
    [{ error: 'M', trend: 'Ad', season: 'M' }, 1541.3194, 1582.7914],
    [{ error: 'A', trend: 'A', season: 'A' }, 1479.8319, 1518.689],
    [{ error: 'M', trend: 'A', season: 'A' }, 1431.8295, 1470.6867],
  ] as const)('is at least as likely for %j', (form, minusTwoLogLikelihood, aicc) => {
    const fitted = ets({ season: 12, form }).fit(PASSENGERS);
    expect(fitted.minusTwoLogLikelihood).toBeLessThan(minusTwoLogLikelihood + 0.001);
    expect(fitted.aicc).toBeLessThan(aicc + 0.001);
    if (form.season === 'N') expect(fitted.aicc).toBeCloseTo(aicc, 2);
  });

  test('chooses ETS(M,Ad,M) as R does, at its AICc of 1400.638 or below', () => {
    const fitted = ets({ season: 12 }).fit(PASSENGERS);
    expect(fitted.name).toBe('ETS(M,Ad,M)');
    expect(fitted.aicc).toBeLessThan(1400.638);
    expect(fitted.aicc).toBeGreaterThan(1399);
  });
});

describe('Theta of the airline passengers', () => {
  // StatsForecast 2.1.1; its optimiser stops elsewhere on the same flat valley.
  const WITHIN = 2e-3;
  test.each([
    ['standard', 12, [440.9692, 429.2492, 490.6932, 476.6599, 480.631, 546.4556]],
    ['optimised', 12, [442.9425, 432.231, 495.3079, 482.308, 487.4948, 555.5809]],
    ['dynamic', 12, [442.9272, 432.2984, 495.4825, 482.5753, 487.866, 556.1216]],
    ['standard', 1, [432.9292, 434.2578, 435.5863]],
    ['optimised', 1, [433.7215, 435.8345, 437.9475]],
    ['dynamic', 1, [432.261, 432.925, 433.5862]],
  ] as const)('%s, season %i', (variant, season, expected) => {
    const { mean } = theta({ variant, season }).fit(PASSENGERS).forecast(expected.length);
    expected.forEach((value, h) => {
      expect(Math.abs(mean[h]! / value - 1)).toBeLessThan(WITHIN);
    });
  });
});

test('STL of the airline passengers is that of statsmodels 0.15, same windows and jumps', () => {
  const parts = stl(PASSENGERS, 12, { seasonalWindow: 11, trendWindow: 21 });
  const expected = [
    [0, -16.968509525021044, 123.14999694764961],
    [1, -17.171465348717142, 123.72853489503396],
    [50, 6.072962754667928, 219.8203228406862],
    [100, -5.4490646936331135, 363.0688149849856],
    [142, -75.59504305685451, 493.1370941243217],
    [143, -44.19759764452299, 496.6819169230705],
  ] as const;
  for (const [t, seasonal, trend] of expected) {
    expect(parts.seasonal[t]).toBeCloseTo(seasonal, 9);
    expect(parts.trend[t]).toBeCloseTo(trend, 9);
    expect(parts.seasonal[t]! + parts.trend[t]! + parts.remainder[t]!).toBeCloseTo(
      PASSENGERS[t]!,
      9,
    );
  }
});

test('Croston and SBA are those of StatsForecast 2.1.1 at a weight of 0.1', () => {
  const demand = Float64Array.from([0, 0, 3, 0, 0, 0, 5, 0, 2, 0, 0, 0, 0, 4, 0, 0, 1, 0, 0, 6]);
  const rate = (variant: 'croston' | 'sba') =>
    intermittent({ variant, alpha: 0.1 }).fit(demand).forecast(1).mean[0];
  expect(rate('croston')).toBeCloseTo(1.03315994, 7);
  expect(rate('sba')).toBeCloseTo(0.98150194, 7);
});
