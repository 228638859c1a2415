import { DAY_MS, HOUR_MS } from '@waggle/core';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { checkDataset, LABEL_HORIZON_MS, splitByTime, type TrainingDataset } from '../src/index.js';
import { rowsToCut } from '../src/rows-to-cut.js';
import { ctrSet, START_MS, synthetic } from './synthetic.js';

describe('time-ordered split', () => {
  test('each slice is later than the one before, the gate later than all earlier labels', () => {
    const { dataset } = synthetic({ seed: 1, days: 40 });
    const split = splitByTime(dataset.decisionTsMs);
    expect(split.gapMs).toBe(LABEL_HORIZON_MS);
    const times = (rows: Uint32Array) => Array.from(rows, (r) => dataset.decisionTsMs[r]!);
    const train = times(split.train);
    const calibrate = times(split.calibrate);
    const gate = times(split.gate);
    expect(Math.max(...train)).toBeLessThan(Math.min(...calibrate));
    expect(Math.max(...calibrate) + LABEL_HORIZON_MS).toBeLessThan(Math.min(...gate));
    expect(train).toEqual([...train].sort((a, b) => a - b));
  });

  test('a window shorter than ten label horizons keeps a shorter gap and says so', () => {
    const { dataset } = synthetic({ seed: 1, days: 14 });
    const split = splitByTime(dataset.decisionTsMs);
    expect(split.gapMs).toBeGreaterThan(1.3 * DAY_MS);
    expect(split.gapMs).toBeLessThanOrEqual(1.4 * DAY_MS);
  });

  test('every row lands in one slice or in a gap, whatever the times', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 500 }), { maxLength: 200 }),
        fc.double({ min: 0.1, max: 0.7, noNaN: true }),
        fc.double({ min: 0, max: 0.25, noNaN: true }),
        (hours, trainShare, calibrateShare) => {
          const ts = Float64Array.from(hours, (h) => START_MS + h * HOUR_MS);
          const split = splitByTime(ts, undefined, { trainShare, calibrateShare });
          const rows = [...split.train, ...split.calibrate, ...split.gate];
          expect(new Set(rows).size).toBe(rows.length);
          expect(rows.length + split.nGapRows + split.nBurnInRows).toBe(ts.length);
          const last = (slice: Uint32Array) => Math.max(...Array.from(slice, (r) => ts[r]!));
          const first = (slice: Uint32Array) => Math.min(...Array.from(slice, (r) => ts[r]!));
          if (split.train.length && split.calibrate.length) {
            expect(last(split.train)).toBeLessThan(first(split.calibrate));
          }
          if (split.calibrate.length && split.gate.length) {
            expect(last(split.calibrate)).toBeLessThan(first(split.gate));
          }
          if (split.train.length && split.gate.length) {
            expect(last(split.train)).toBeLessThan(first(split.gate));
          }
        },
      ),
    );
  });

  test('the first days, when no outcome was known, are left out', () => {
    const { dataset } = synthetic({ seed: 1, days: 40 });
    const split = splitByTime(dataset.decisionTsMs);
    const first = Math.min(...dataset.decisionTsMs);
    expect(dataset.decisionTsMs[split.train[0]!]!).toBeGreaterThanOrEqual(first + 5 * DAY_MS);
    expect(split.nBurnInRows).toBeGreaterThan(300);
    expect(splitByTime(dataset.decisionTsMs, undefined, { burnInMs: 0 }).nBurnInRows).toBe(0);
  });

  test('rows of one instant stay together', () => {
    const split = splitByTime(new Float64Array(50).fill(START_MS));
    expect(split.train.length).toBe(0);
    expect(split.gate.length).toBe(50);
  });

  test('nothing splits into nothing', () => {
    expect(splitByTime(new Float64Array(0))).toMatchObject({ nGapRows: 0, gapMs: 0 });
  });

  test('shares that leave nothing to gate on are refused', () => {
    expect(() =>
      splitByTime(new Float64Array(3), undefined, { trainShare: 0.9, calibrateShare: 0.2 }),
    ).toThrowError(expect.objectContaining({ code: 'WAGGLE_TRAINING_SHAPE' }));
  });
});

describe('checking a dataset', () => {
  const good = synthetic({ seed: 2, nRows: 50 }).dataset;
  const withValue = (
    column: 'successes' | 'trials' | 'maturity' | 'decisionTsMs',
    value: number,
  ): TrainingDataset => {
    const copy = Float64Array.from(good[column]);
    copy[7] = value;
    return { ...good, [column]: copy };
  };
  const withFeature = (value: number): TrainingDataset => {
    const x = Float32Array.from(good.x);
    x[3 * ctrSet.names.length + 1] = value;
    return { ...good, x };
  };

  test('a good one passes', () => {
    expect(() => checkDataset(good, ctrSet, START_MS + 31 * DAY_MS)).not.toThrow();
  });

  test.each([
    ['more successes than trials', withValue('successes', 1e9), 'WAGGLE_TRAINING_LABEL'],
    ['negative successes', withValue('successes', -1), 'WAGGLE_TRAINING_LABEL'],
    ['a NaN label', withValue('successes', Number.NaN), 'WAGGLE_TRAINING_LABEL'],
    ['infinite trials', withValue('trials', Number.POSITIVE_INFINITY), 'WAGGLE_TRAINING_LABEL'],
    ['maturity of 0', withValue('maturity', 0), 'WAGGLE_TRAINING_LABEL'],
    ['maturity above 1', withValue('maturity', 1.5), 'WAGGLE_TRAINING_LABEL'],
    ['a NaN time', withValue('decisionTsMs', Number.NaN), 'WAGGLE_TRAINING_NOT_FINITE'],
    ['a NaN feature', withFeature(Number.NaN), 'WAGGLE_TRAINING_NOT_FINITE'],
    ['an infinite feature', withFeature(Number.NEGATIVE_INFINITY), 'WAGGLE_TRAINING_NOT_FINITE'],
    [
      'a missing column value',
      { ...good, trials: good.trials.subarray(1) },
      'WAGGLE_TRAINING_SHAPE',
    ],
    ['a missing feature column', { ...good, x: good.x.subarray(1) }, 'WAGGLE_TRAINING_SHAPE'],
    ['features of another version', { ...good, fingerprint: 'ctr_old' }, 'WAGGLE_TRAINING_SHAPE'],
    [
      'features of another set',
      { ...good, featureNames: ['a', 'b', 'c', 'd', 'e'] },
      'WAGGLE_TRAINING_SHAPE',
    ],
  ])('%s is refused', (_name, dataset, code) => {
    expect(() => checkDataset(dataset, ctrSet)).toThrowError(expect.objectContaining({ code }));
  });

  test('the refusal names feature and row', () => {
    expect(() => checkDataset(withFeature(Number.NaN), ctrSet)).toThrow(
      /feature cosine is NaN in row 3 \(.+\)/,
    );
  });

  test('a decision that stands there twice is refused, and both rows are named', () => {
    const codes = good.rowIds.codes.slice();
    codes[7] = codes[2]!;
    expect(() => checkDataset({ ...good, rowIds: { ...good.rowIds, codes } }, ctrSet)).toThrowError(
      expect.objectContaining({
        code: 'WAGGLE_TRAINING_DUPLICATE',
        details: { before: 2, row: 7 },
      }),
    );
  });

  test('a decision after the as-of time is refused', () => {
    expect(() => checkDataset(good, ctrSet, START_MS + DAY_MS)).toThrowError(
      expect.objectContaining({ code: 'WAGGLE_TRAINING_TIME' }),
    );
  });
});

test('what is cut for a model: all rows of clicks, answers that have all come, outcomes after a week', () => {
  const { dataset } = synthetic({ seed: 9, nRows: 1_000, days: 80 });
  const asOfMs = START_MS + 80 * DAY_MS;
  expect(rowsToCut('pctr', dataset, { asOfMs })).toEqual({ rows: dataset, split: {} });
  const accept = rowsToCut('accept', dataset, { asOfMs }).rows;
  expect(accept.nRows).toBeLessThan(dataset.nRows);
  expect(Math.max(...accept.decisionTsMs)).toBeLessThanOrEqual(asOfMs - 3 * DAY_MS);
  const sent = rowsToCut('sent', dataset, { asOfMs });
  expect(sent.rows).toBe(dataset);
  expect(splitByTime(sent.rows.decisionTsMs, undefined, sent.split).gapMs).toBe(7 * DAY_MS);
});
