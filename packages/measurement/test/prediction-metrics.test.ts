import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  areaUnderPrecisionRecall,
  areaUnderRoc,
  type BinomialSample,
  backgroundEntropy,
  brierScore,
  calibrationCurve,
  expectedCalibrationError,
  logLoss,
  normalisedEntropy,
  relativeInformationGain,
} from '../src/index.js';

/** Different summation orders of doubles agree to this. */
const DIGITS = 12;

/** Reference numbers of scikit-learn 1.9.1 (log_loss, roc_auc_score, average_precision_score, brier_score_loss). */
const binary = {
  probability: [0.9, 0.8, 0.8, 0.65, 0.6, 0.4, 0.4, 0.4, 0.3, 0.15, 0.1, 0.05],
  successes: [1, 1, 0, 1, 0, 1, 0, 0, 0, 1, 0, 0],
};
const binaryWeights = [1, 2, 0.5, 1, 3, 1, 1.5, 1, 2, 0.25, 1, 1];
const counts = {
  successes: [3, 0, 12, 7, 1, 40],
  trials: [100, 50, 1000, 2000, 10, 1000],
  probability: [0.02, 0.01, 0.012, 0.004, 0.05, 0.03],
};
const countWeights = [1, 1, 0.5, 2, 1, 0.25];

describe('reference values', () => {
  test.each([
    ['binary', binary, 0.6361171954707393, 0.7285714285714285, 0.6833333333333333, 0.223125],
    [
      'weighted binary',
      { ...binary, weights: binaryWeights },
      0.5294203391246989,
      0.8523809523809522,
      0.7917669831416462,
      0.18004098360655738,
    ],
    // The counts were unrolled into 4,160 binary rows for scikit-learn.
    [
      'counts',
      counts,
      0.07182665439904773,
      0.7557620558596883,
      0.035986894013705285,
      0.014707211538461535,
    ],
    [
      'weighted counts',
      { ...counts, weights: countWeights },
      0.03784292915618854,
      0.7218851035081795,
      0.025771278930818216,
      0.0067932790224032565,
    ],
  ] as [string, BinomialSample, number, number, number, number][])(
    'agree with scikit-learn on %s rows',
    (_name, sample, loss, auc, ap, brier) => {
      expect(logLoss(sample)).toBeCloseTo(loss, DIGITS);
      expect(areaUnderRoc(sample)).toBeCloseTo(auc, DIGITS);
      expect(areaUnderPrecisionRecall(sample)).toBeCloseTo(ap, DIGITS);
      expect(brierScore(sample)).toBeCloseTo(brier, DIGITS);
    },
  );

  test('agree with two rows worked by hand', () => {
    const sample = { probability: [0.5, 0.25], successes: [1, 1], trials: [2, 4] };
    // (2 ln 2 + ln 4 + 3 ln(4/3)) / 6
    expect(logLoss(sample)).toBeCloseTo((4 * Math.log(2) + 3 * Math.log(4 / 3)) / 6, DIGITS);
    // rate 1/3
    expect(backgroundEntropy(sample)).toBeCloseTo(
      Math.log(3) / 3 + (2 / 3) * Math.log(1.5),
      DIGITS,
    );
    // pairs: success at .5 vs 1 failure at .5 (½) and 3 at .25 (3); success at .25 vs 1 at .5 (0), 3 at .25 (1½): 5 of 8
    expect(areaUnderRoc(sample)).toBeCloseTo(5 / 8, DIGITS);
    // first group: recall ½ at precision ½; second: recall 1 at precision 2/6
    expect(areaUnderPrecisionRecall(sample)).toBeCloseTo(0.5 * 0.5 + 0.5 * (1 / 3), DIGITS);
    expect(brierScore(sample)).toBeCloseTo((0.25 + 0.25 + 0.5625 + 3 * 0.0625) / 6, DIGITS);
  });

  test('the calibration curve and its error are those worked by hand', () => {
    const sample = {
      probability: [0.1, 0.2, 0.6, 0.8],
      successes: [0, 1, 1, 3],
      trials: [2, 2, 1, 3],
    };
    // total mass 8, two bins of 4: {0.1, 0.2} and {0.6, 0.8}
    expect(calibrationCurve(sample, 2)).toEqual([
      {
        lower: 0.1,
        upper: 0.2,
        meanProbability: expect.closeTo(0.15, DIGITS),
        observedRate: 0.25,
        mass: 4,
      },
      {
        lower: 0.6,
        upper: 0.8,
        meanProbability: expect.closeTo(0.75, DIGITS),
        observedRate: 1,
        mass: 4,
      },
    ]);
    expect(expectedCalibrationError(sample, 2)).toBeCloseTo((0.1 + 0.25) / 2, DIGITS);
  });

  test('a perfect prediction has AUC 1 and a loss of nothing, an impossible one stays finite', () => {
    const perfect = { probability: [1, 0], successes: [1, 0] };
    expect(areaUnderRoc(perfect)).toBe(1);
    expect(areaUnderPrecisionRecall(perfect)).toBe(1);
    expect(brierScore(perfect)).toBe(0);
    expect(logLoss(perfect)).toBeLessThan(2e-15);
    expect(logLoss({ probability: [0], successes: [1] })).toBeCloseTo(-Math.log(1e-15), 6);
  });
});

interface Row {
  p: number;
  n: number;
  s: number;
  w: number;
}
const row = fc
  .record({
    p: fc.integer({ min: 1, max: 99 }).map((x) => x / 100),
    n: fc.integer({ min: 0, max: 20 }),
    share: fc.double({ min: 0, max: 1, noNaN: true }),
    w: fc.integer({ min: 0, max: 3 }),
  })
  .map(({ p, n, share, w }): Row => ({ p, n, s: Math.round(n * share), w }));
/** Always at least one success and one failure. */
const rows = fc
  .array(row, { maxLength: 30 })
  .map((list): Row[] => [...list, { p: 0.3, n: 1, s: 1, w: 1 }, { p: 0.5, n: 1, s: 0, w: 1 }]);
const sampleOf = (list: readonly Row[]): BinomialSample => ({
  probability: list.map((r) => r.p),
  successes: list.map((r) => r.s),
  trials: list.map((r) => r.n),
  weights: list.map((r) => r.w),
});
const metrics: [string, (sample: BinomialSample) => number][] = [
  ['logLoss', logLoss],
  ['backgroundEntropy', backgroundEntropy],
  ['normalisedEntropy', normalisedEntropy],
  ['areaUnderRoc', areaUnderRoc],
  ['areaUnderPrecisionRecall', areaUnderPrecisionRecall],
  ['brierScore', brierScore],
  ['expectedCalibrationError', expectedCalibrationError],
];

describe('laws', () => {
  test.each(metrics)('%s does not depend on the order of rows', (_name, metric) => {
    fc.assert(
      fc.property(rows, fc.infiniteStream(fc.nat()), (list, keys) => {
        const shuffled = list
          .map((r) => ({ r, key: keys.next().value as number }))
          .sort((a, b) => a.key - b.key)
          .map(({ r }) => r);
        expect(metric(sampleOf(shuffled))).toBeCloseTo(metric(sampleOf(list)), 9);
      }),
    );
  });

  test.each(metrics)('%s sees a weight of two as the row standing there twice', (_name, metric) => {
    fc.assert(
      fc.property(rows, (list) => {
        const repeated = list.flatMap((r) => Array.from({ length: r.w }, () => ({ ...r, w: 1 })));
        expect(metric(sampleOf(repeated))).toBeCloseTo(metric(sampleOf(list)), 9);
      }),
    );
  });

  test.each(metrics)('%s sees counts as the same number of binary rows', (_name, metric) => {
    fc.assert(
      fc.property(rows, (list) => {
        const unrolled = list.flatMap((r) =>
          Array.from({ length: r.n }, (_, i) => ({ p: r.p, n: 1, s: i < r.s ? 1 : 0, w: r.w })),
        );
        expect(metric(sampleOf(unrolled))).toBeCloseTo(metric(sampleOf(list)), 9);
      }),
    );
  });

  test('AUC and PR-AUC only see the order of predictions', () => {
    fc.assert(
      fc.property(rows, (list) => {
        const squashed = list.map((r) => ({ ...r, p: r.p ** 3 / 2 + 0.1 }));
        expect(areaUnderRoc(sampleOf(squashed))).toBeCloseTo(areaUnderRoc(sampleOf(list)), 12);
        expect(areaUnderPrecisionRecall(sampleOf(squashed))).toBeCloseTo(
          areaUnderPrecisionRecall(sampleOf(list)),
          12,
        );
      }),
    );
  });

  test('AUC of the opposite prediction is its complement', () => {
    fc.assert(
      fc.property(rows, (list) => {
        const opposite = list.map((r) => ({ ...r, p: 1 - r.p }));
        expect(areaUnderRoc(sampleOf(opposite)) + areaUnderRoc(sampleOf(list))).toBeCloseTo(1, 12);
      }),
    );
  });

  test('the base rate has normalised entropy 1, gain 0, AUC ½ and no calibration error', () => {
    fc.assert(
      fc.property(rows, (list) => {
        const successes = list.reduce((sum, r) => sum + r.w * r.s, 0);
        const trials = list.reduce((sum, r) => sum + r.w * r.n, 0);
        const constant = sampleOf(list.map((r) => ({ ...r, p: successes / trials })));
        expect(normalisedEntropy(constant)).toBeCloseTo(1, 9);
        expect(relativeInformationGain(constant)).toBeCloseTo(0, 9);
        expect(areaUnderRoc(constant)).toBeCloseTo(0.5, 12);
        expect(areaUnderPrecisionRecall(constant)).toBeCloseTo(successes / trials, 9);
        expect(expectedCalibrationError(constant)).toBeCloseTo(0, 9);
      }),
    );
  });

  test('no prediction beats each row’s own rate in log-loss or Brier score', () => {
    fc.assert(
      fc.property(rows, (list) => {
        const own = sampleOf(list.map((r) => ({ ...r, p: r.n === 0 ? 0.5 : r.s / r.n })));
        expect(logLoss(own)).toBeLessThanOrEqual(logLoss(sampleOf(list)) + 1e-12);
        expect(brierScore(own)).toBeLessThanOrEqual(brierScore(sampleOf(list)) + 1e-12);
      }),
    );
  });

  test('the bins of a calibration curve hold all mass, ascending and apart', () => {
    fc.assert(
      fc.property(rows, fc.integer({ min: 1, max: 40 }), (list, nBins) => {
        const bins = calibrationCurve(sampleOf(list), nBins);
        expect(bins.length).toBeLessThanOrEqual(nBins);
        const mass = list.reduce((sum, r) => sum + r.w * r.n, 0);
        expect(bins.reduce((sum, b) => sum + b.mass, 0)).toBeCloseTo(mass, 9);
        bins.forEach((bin, i) => {
          expect(bin.meanProbability).toBeGreaterThanOrEqual(bin.lower - 1e-12);
          expect(bin.meanProbability).toBeLessThanOrEqual(bin.upper + 1e-12);
          if (i > 0) expect(bin.lower).toBeGreaterThan(bins[i - 1]!.upper);
        });
      }),
    );
  });
});

describe('bad input', () => {
  const ok = { probability: [0.5, 0.5], successes: [1, 0] };
  test.each([
    ['a label above its trials', { ...ok, successes: [2, 0] }, 'WAGGLE_MEASUREMENT_OUT_OF_RANGE'],
    ['a negative label', { ...ok, successes: [-1, 0] }, 'WAGGLE_MEASUREMENT_OUT_OF_RANGE'],
    ['a probability above 1', { ...ok, probability: [1.01, 0] }, 'WAGGLE_MEASUREMENT_OUT_OF_RANGE'],
    ['a negative weight', { ...ok, weights: [1, -1] }, 'WAGGLE_MEASUREMENT_OUT_OF_RANGE'],
    [
      'negative trials',
      { ...ok, successes: [0, 0], trials: [1, -1] },
      'WAGGLE_MEASUREMENT_OUT_OF_RANGE',
    ],
    [
      'a NaN prediction',
      { ...ok, probability: [0.5, Number.NaN] },
      'WAGGLE_MEASUREMENT_NOT_FINITE',
    ],
    [
      'an infinite weight',
      { ...ok, weights: [1, Number.POSITIVE_INFINITY] },
      'WAGGLE_MEASUREMENT_NOT_FINITE',
    ],
    ['columns of different length', { ...ok, trials: [1] }, 'WAGGLE_MEASUREMENT_SHAPE'],
    ['no rows', { probability: [], successes: [] }, 'WAGGLE_MEASUREMENT_EMPTY'],
    ['rows without weight', { ...ok, weights: [0, 0] }, 'WAGGLE_MEASUREMENT_EMPTY'],
  ] as [string, BinomialSample, string][])(
    '%s is refused by every metric',
    (_name, sample, code) => {
      for (const [name, metric] of metrics) {
        // the background entropy has no predictions to refuse
        if (name === 'backgroundEntropy' && /prediction|probability/.test(_name)) continue;
        expect(() => metric(sample), name).toThrowError(expect.objectContaining({ code }));
      }
    },
  );

  test('a sample of one class has a loss but no AUC, PR-AUC or normalised entropy', () => {
    const sample = { probability: [0.9, 0.8], successes: [1, 1] };
    expect(logLoss(sample)).toBeCloseTo(-(Math.log(0.9) + Math.log(0.8)) / 2, DIGITS);
    expect(backgroundEntropy(sample)).toBeCloseTo(0, 9);
    for (const metric of [areaUnderRoc, areaUnderPrecisionRecall, normalisedEntropy]) {
      expect(() => metric(sample)).toThrowError(
        expect.objectContaining({ code: 'WAGGLE_MEASUREMENT_SINGLE_CLASS' }),
      );
    }
  });

  test('an error names the column and the row', () => {
    expect(() => logLoss({ ...ok, probability: [0.5, Number.NaN] })).toThrow('probability[1]');
  });

  test('a silly number of bins is refused', () => {
    for (const nBins of [0, 1.5, -3, Number.NaN, 1e9]) {
      expect(() => calibrationCurve(ok, nBins)).toThrowError(
        expect.objectContaining({ code: 'WAGGLE_MEASUREMENT_OUT_OF_RANGE' }),
      );
    }
  });
});
