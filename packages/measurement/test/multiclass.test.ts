import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  brierScore,
  confusionMatrix,
  logLoss,
  type MultiClassSample,
  multiClassBrierScore,
  multiClassLogLoss,
} from '../src/index.js';

const DIGITS = 12;

const sample: MultiClassSample = {
  nClasses: 3,
  probability: [
    [0.7, 0.2, 0.1],
    [0.1, 0.6, 0.3],
    [0.3, 0.3, 0.4],
    [0.2, 0.5, 0.3],
    [0.05, 0.15, 0.8],
    [0.5, 0.25, 0.25],
    [0.1, 0.1, 0.8],
    [0.4, 0.35, 0.25],
  ].flat(),
  labels: [0, 1, 2, 2, 2, 1, 0, 0],
};
const weights = [1, 2, 0.5, 1, 3, 1, 0.25, 2];

describe('reference values of scikit-learn 1.9.1', () => {
  test('log_loss and brier_score_loss(scale_by_half=False)', () => {
    expect(multiClassLogLoss(sample)).toBeCloseTo(0.9770097301508893, DIGITS);
    expect(multiClassBrierScore(sample)).toBeCloseTo(0.583125, DIGITS);
    expect(multiClassLogLoss({ ...sample, weights })).toBeCloseTo(0.6980834524458669, DIGITS);
    expect(multiClassBrierScore({ ...sample, weights })).toBeCloseTo(0.393953488372093, DIGITS);
  });

  test('confusion_matrix, precision_recall_fscore_support and accuracy_score', () => {
    const matrix = confusionMatrix({ ...sample, weights });
    expect([...matrix.counts]).toEqual([3, 0, 0.25, 1, 2, 0, 0, 1, 3.5]);
    const { classes } = matrix;
    const closeTo = (values: number[]) => values.map((v) => expect.closeTo(v, 8));
    expect(classes.map((c) => c.precision)).toEqual(closeTo([0.75, 2 / 3, 0.9333333333]));
    expect(classes.map((c) => c.recall)).toEqual(closeTo([0.9230769231, 2 / 3, 0.7777777778]));
    expect(classes.map((c) => c.f1)).toEqual(closeTo([0.8275862069, 2 / 3, 0.8484848485]));
    expect(classes.map((c) => c.support)).toEqual([3.25, 3, 4.5]);
    expect(matrix.accuracy).toBeCloseTo(0.7906976744186046, DIGITS);
    expect(matrix.macroF1).toBeCloseTo(0.7809125740160222, DIGITS);
    expect([...confusionMatrix(sample).counts]).toEqual([2, 0, 1, 1, 1, 0, 0, 1, 2]);
  });
});

test('a class that neither occurs nor is predicted has no figures, one that is never predicted no precision', () => {
  const { classes, macroF1 } = confusionMatrix({
    nClasses: 3,
    probability: [1, 0, 0, 0.8, 0.2, 0],
    labels: [0, 1],
  });
  expect(classes[2]).toEqual({ precision: null, recall: null, f1: null, support: 0 });
  expect(classes[1]).toEqual({ precision: null, recall: 0, f1: 0, support: 1 });
  expect(macroF1).toBeCloseTo((2 / 3 + 0) / 2, DIGITS);
});

const row = fc
  .record({
    raw: fc.array(fc.integer({ min: 0, max: 20 }), { minLength: 3, maxLength: 3 }),
    label: fc.integer({ min: 0, max: 2 }),
    w: fc.integer({ min: 0, max: 3 }),
  })
  .map(({ raw, label, w }) => {
    const total = raw.reduce((a, b) => a + b + 1, 0);
    return { p: raw.map((v) => (v + 1) / total), label, w };
  });
const rows = fc
  .array(row, { maxLength: 20 })
  .map((list) => [...list, { p: [0.5, 0.3, 0.2], label: 1, w: 1 }]);
const sampleOf = (
  list: readonly { p: number[]; label: number; w: number }[],
): MultiClassSample => ({
  nClasses: 3,
  probability: list.flatMap((r) => r.p),
  labels: list.map((r) => r.label),
  weights: list.map((r) => r.w),
});
const metrics: [string, (s: MultiClassSample) => number][] = [
  ['multiClassLogLoss', multiClassLogLoss],
  ['multiClassBrierScore', multiClassBrierScore],
  ['accuracy', (s) => confusionMatrix(s).accuracy],
  ['macroF1', (s) => confusionMatrix(s).macroF1],
];

describe('laws', () => {
  test.each(metrics)('%s sees a weight of two as the row standing there twice', (_name, metric) => {
    fc.assert(
      fc.property(rows, (list) => {
        const repeated = list.flatMap((r) => Array.from({ length: r.w }, () => ({ ...r, w: 1 })));
        expect(metric(sampleOf(repeated))).toBeCloseTo(metric(sampleOf(list)), 9);
      }),
    );
  });

  test('two classes are the binary case: the same log-loss, twice the Brier score', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.record({
            p: fc.integer({ min: 1, max: 99 }).map((x) => x / 100),
            y: fc.integer({ min: 0, max: 1 }),
          }),
          { minLength: 1, maxLength: 20 },
        ),
        (list) => {
          const binary = { probability: list.map((r) => r.p), successes: list.map((r) => r.y) };
          const two = {
            nClasses: 2,
            probability: list.flatMap((r) => [1 - r.p, r.p]),
            labels: binary.successes,
          };
          expect(multiClassLogLoss(two)).toBeCloseTo(logLoss(binary), 9);
          expect(multiClassBrierScore(two)).toBeCloseTo(2 * brierScore(binary), 9);
        },
      ),
    );
  });

  test('the matrix holds all weight: rows sum to supports', () => {
    fc.assert(
      fc.property(rows, (list) => {
        const { counts, classes } = confusionMatrix(sampleOf(list));
        const total = list.reduce((sum, r) => sum + r.w, 0);
        expect(counts.reduce((a, b) => a + b, 0)).toBeCloseTo(total, 9);
        expect(classes.reduce((a, c) => a + c.support, 0)).toBeCloseTo(total, 9);
      }),
    );
  });
});

describe('bad input', () => {
  test.each([
    ['a label that is no class', { ...sample, labels: [0, 1, 2, 3, 0, 0, 0, 0] }, 'OUT_OF_RANGE'],
    ['half a label', { ...sample, labels: [0.5, 1, 2, 2, 0, 0, 0, 0] }, 'OUT_OF_RANGE'],
    ['one class', { nClasses: 1, probability: [1], labels: [0] }, 'OUT_OF_RANGE'],
    [
      'a row that does not sum to 1',
      { nClasses: 2, probability: [0.5, 0.6], labels: [0] },
      'OUT_OF_RANGE',
    ],
    ['a NaN', { nClasses: 2, probability: [Number.NaN, 1], labels: [0] }, 'NOT_FINITE'],
    ['too few probabilities', { nClasses: 2, probability: [1], labels: [0] }, 'SHAPE'],
    ['no rows', { nClasses: 2, probability: [], labels: [] }, 'EMPTY'],
    ['rows without weight', { ...sample, weights: weights.map(() => 0) }, 'EMPTY'],
  ])('%s is refused', (_name, bad, code) => {
    for (const [, metric] of metrics) {
      expect(() => metric(bad)).toThrowError(
        expect.objectContaining({ code: `WAGGLE_MEASUREMENT_${code}` }),
      );
    }
  });
});
