import { DAY_MS, Rng } from '@waggle/core';
import { LinearScorer, parseLinearModel } from '@waggle/ranking';
import * as ort from 'onnxruntime-node';
import { describe, expect, test } from 'vitest';
import {
  evaluateOracleGap,
  fitLogistic,
  ONNX_TOLERANCE,
  rawLogits,
  selectRows,
  splitByTime,
  type TrainingDataset,
  trainAccept,
  trainCtr,
} from '../src/index.js';
import { ctrSet, START_MS, synthetic } from './synthetic.js';

const options = { featureSet: ctrSet, seed: 1, bootstrapReplicates: 300 };

describe('training', () => {
  test('learns what the prior does not know, passes its gate and closes most of the gap to the oracle', async () => {
    const { dataset, oracle } = synthetic({ seed: 1, publicationNoise: 0.1 });
    const trained = await trainCtr(dataset, options);
    expect(trained.gate.passed, trained.gate.summary).toBe(true);
    expect(trained.model.priorOnly).toBe(false);
    const coefficient = (name: string) => trained.model.coefficients[ctrSet.names.indexOf(name)]!;
    expect(coefficient('cosine')).toBeCloseTo(0.4, 1);
    expect(coefficient('position')).toBeCloseTo(-0.2, 1);
    expect(coefficient('always_one')).toBe(0);
    expect(Math.abs(coefficient('noise'))).toBeLessThan(0.03);
    expect(trained.summary.constantFeatures).toEqual(['always_one']);

    const { gate } = splitByTime(dataset.decisionTsMs);
    const at = <T>(column: ArrayLike<T>) => Array.from(gate, (r) => column[r]!);
    const x = Float32Array.from(
      gate.length * ctrSet.names.length ? at(rowsOf(dataset)).flat() : [],
    );
    const probability = new LinearScorer(trained.model).scoreInto(
      x,
      gate.length,
      new Float64Array(gate.length),
    );
    const trainSuccesses = trained.summary.trainSuccesses / trained.summary.trainTrials;
    const gap = evaluateOracleGap({
      model: probability,
      oracle: at(oracle),
      global: trainSuccesses,
      successes: at(dataset.successes),
      trials: at(dataset.trials),
      publications: at(dataset.publication.codes),
      campaigns: at(dataset.campaign.codes),
    });
    expect(gap.gapClosed).toBeGreaterThan(0.85);
    expect(gap.gapClosed).toBeLessThan(1.1);
    expect(Math.abs(gap.calibration.logRatio)).toBeLessThan(
      Math.max(0.05, 2 * gap.calibration.logStandardError),
    );
  });

  test('the released file parses, names its content and its ONNX twin agrees', async () => {
    const { dataset } = synthetic({ seed: 2 });
    const { model, onnx } = await trainCtr(dataset, options);
    expect(parseLinearModel(JSON.parse(JSON.stringify(model)))).toEqual(model);
    const nRows = 200;
    const x = dataset.x.slice(0, nRows * ctrSet.names.length);
    const expected = new LinearScorer(model).scoreInto(x, nRows, new Float64Array(nRows));
    const session = await ort.InferenceSession.create(onnx, { logSeverityLevel: 3 });
    const out = await session.run({
      features: new ort.Tensor('float32', x, [nRows, ctrSet.names.length]),
    });
    const actual = out['probability']!.data as Float32Array;
    for (let i = 0; i < nRows; i++) {
      expect(Math.abs(actual[i]! - expected[i]!)).toBeLessThanOrEqual(ONNX_TOLERANCE);
    }
  });

  test('equal input and seed give equal bytes', async () => {
    const { dataset } = synthetic({ seed: 3, nRows: 2_000 });
    const first = await trainCtr(dataset, options);
    const second = await trainCtr(dataset, options);
    expect(second.model.version).toBe(first.model.version);
    expect(Buffer.compare(second.onnx, first.onnx)).toBe(0);
  });

  test('a level that moved after training is caught by calibration on later rows', async () => {
    const { dataset } = synthetic({
      seed: 4,
      levelShift: 0.2,
      shiftDay: 16,
      publicationNoise: 0.1,
    });
    const { summary, candidate, gate } = await trainCtr(dataset, options);
    expect(summary.calibrationReason).toBe('fitted');
    expect(candidate!.calibration.kind).toBe('platt');
    expect(gate.modelMetrics!.calibrationRatio).toBeGreaterThan(0.9);
    expect(gate.modelMetrics!.calibrationRatio).toBeLessThan(1.1);
  });

  test('a model gone wrong on the gate’s rows is not released; the prior is, and the report says why', async () => {
    const { dataset } = synthetic({ seed: 5, levelShift: -1, shiftDay: 23 });
    const trained = await trainCtr(dataset, options);
    expect(trained.gate).toMatchObject({ passed: false, released: 'prior_only' });
    expect(trained.model.priorOnly).toBe(true);
    expect(trained.candidate?.priorOnly).toBe(false);
    expect(trained.gate.summary).toMatch(/expected over observed/);
    expect(parseLinearModel(JSON.parse(JSON.stringify(trained.model))).onnxSha256).toHaveLength(64);
  });

  test('acceptance is learned from single offers', async () => {
    const { dataset } = synthetic({ seed: 11, nRows: 6_000, publicationNoise: 0.3, sendNoise: 0 });
    const rng = new Rng(11, 1);
    const x = Float32Array.from(dataset.x, (v, i) => (i % ctrSet.names.length === 0 ? v + 5 : v));
    const successes = Float64Array.from({ length: dataset.nRows }, (_, i) => {
      const row = x.subarray(i * ctrSet.names.length);
      return rng.bernoulli(1 / (1 + Math.exp(-(row[0]! + 0.8 * row[1]!)))) ? 1 : 0;
    });
    const acceptSet = {
      name: 'accept',
      names: ['prior_logit_accept', ...ctrSet.names.slice(1)],
      fingerprint: 'accept_test',
    } as const;
    const trained = await trainAccept(
      {
        ...dataset,
        featureNames: acceptSet.names,
        x,
        successes,
        trials: new Float64Array(dataset.nRows).fill(1),
      },
      { ...options, featureSet: acceptSet },
    );
    expect(trained.gate.passed, trained.gate.summary).toBe(true);
    expect(trained.model.name).toBe('accept');
    expect(trained.model.coefficients[1]).toBeCloseTo(0.8, 0);
    expect(trained.gate.modelMetrics!.auc).toBeGreaterThan(0.65);
  });

  test('offers too young to have run out are not learned from', async () => {
    const { dataset } = synthetic({ seed: 12, nRows: 3_000 });
    const acceptSet = {
      name: 'accept',
      names: ['prior_logit_accept', ...ctrSet.names.slice(1)],
      fingerprint: 'accept_test',
    } as const;
    const lastMs = Math.max(...dataset.decisionTsMs);
    const young = dataset.decisionTsMs.reduce((n, ts) => n + (ts > lastMs - 3 * DAY_MS ? 1 : 0), 0);
    const { summary } = await trainAccept(
      { ...dataset, featureNames: acceptSet.names },
      { ...options, featureSet: acceptSet },
    );
    const { train, calibrate, gate, gap, burnIn } = summary.rows;
    expect(young).toBeGreaterThan(100);
    expect(train + calibrate + gate + gap + burnIn).toBe(dataset.nRows - young);
  });

  test('a feature that drifts with the calendar is left out', async () => {
    const { dataset } = synthetic({ seed: 13 });
    const nFeatures = ctrSet.names.length;
    const x = Float32Array.from(dataset.x);
    for (let i = 0; i < dataset.nRows; i++) {
      x[i * nFeatures + 3] = (dataset.decisionTsMs[i]! - START_MS) / DAY_MS;
    }
    const { summary, candidate } = await trainCtr({ ...dataset, x }, options);
    expect(summary.movedFeatures.map((m) => m.name)).toEqual(['noise']);
    expect(summary.movedFeatures[0]!.shift).toBeGreaterThan(0.5);
    expect(candidate!.coefficients[3]).toBe(0);
  });

  test('a leaky feature fails the gate', async () => {
    const { dataset } = synthetic({ seed: 6, nRows: 1_500 });
    const binary = {
      ...dataset,
      trials: new Float64Array(dataset.nRows).fill(1),
      successes: Float64Array.from({ length: dataset.nRows }, (_, i) => (i % 3 === 0 ? 1 : 0)),
    };
    const x = Float32Array.from(dataset.x);
    for (let i = 0; i < dataset.nRows; i++) x[i * ctrSet.names.length + 3] = binary.successes[i]!;
    const { gate, summary } = await trainCtr({ ...binary, x }, options);
    expect(gate.passed).toBe(false);
    expect(summary.leaks).toEqual([{ feature: 'noise', auc: 1 }]);
    expect(gate.summary).toContain('noise alone orders the outcomes');
  });

  test('young rows teach as much as their maturity allows', async () => {
    const { dataset } = synthetic({ seed: 7, publicationNoise: 0, sendNoise: 0 });
    const maturity = dataset.maturity.map((_, i) => (i % 2 === 0 ? 1 : 0.4));
    const young = {
      ...dataset,
      maturity,
      successes: dataset.successes.map((s, i) => Math.round(s * maturity[i]!)),
    };
    const full = await trainCtr(dataset, options);
    const half = await trainCtr(young, options);
    const f = full.candidate!;
    const h = half.candidate!;
    expect(h.intercept - f.intercept).toBeLessThan(0.1);
    expect(h.coefficients[1]! - f.coefficients[1]!).toBeLessThan(0.05);
    expect(half.gate.modelMetrics!.calibrationRatio).toBeCloseTo(1, 1);
  });

  test('one giant publication with its own luck does not set the level for the rest', async () => {
    const { dataset } = synthetic({ seed: 8, signal: 0, publicationNoise: 0.1 });
    const giant = dataset.publication.codes[0]!;
    const trials = dataset.trials.map((n, i) => (dataset.publication.codes[i] === giant ? 3e6 : n));
    const successes = dataset.successes.map((s, i) =>
      dataset.publication.codes[i] === giant ? Math.round(3e6 * 0.02) : s,
    );
    const split = splitByTime(dataset.decisionTsMs);
    const rows = split.train;
    const nFeatures = ctrSet.names.length;
    const features = rowsOf(dataset);
    const at = (column: Float64Array) => Float64Array.from(rows, (r) => column[r]!);
    const fit = await fitLogistic(
      {
        x: Float32Array.from(Array.from(rows, (r) => features[r]!).flat()),
        nRows: rows.length,
        nFeatures,
        decisionTsMs: at(dataset.decisionTsMs),
        successes: at(successes),
        trials: at(trials),
        maturity: at(dataset.maturity),
        clusters: Uint32Array.from(rows, (r) => dataset.publication.codes[r]!),
        prior: Float64Array.from(rows, (r) => features[r]![0]!),
      },
      {},
    );
    expect(fit.effectiveShare).toBeLessThan(0.2);
    const other = Array.from({ length: dataset.nRows }, (_, i) => i).find(
      (i) => dataset.publication.codes[i] !== giant,
    )!;
    const row = Float32Array.from(features[other]!);
    const logit = row[0]! + rawLogits(row, 1, fit.coefficients, fit.intercept)[0]!;
    const truth = row[0]! - 0.2 * (row[2]! - 1);
    // The giant's clicks are ten times everybody else's together, at a level 2 higher.
    expect(Math.abs(logit - truth)).toBeLessThan(0.5);
  });
});

describe('too little data ends in the prior, with a reason', () => {
  const { dataset } = synthetic({ seed: 9, nRows: 600 });
  const only = (rows: number[]): TrainingDataset => selectRows(dataset, Uint32Array.from(rows));
  test.each([
    ['no rows at all', only([])],
    ['one row', only([0])],
    ['no clicks in the window', { ...dataset, successes: new Float64Array(600) }],
    ['nothing but clicks', { ...dataset, successes: dataset.trials }],
    [
      'all rows of one publication',
      {
        ...dataset,
        publication: { kind: 'string', dictionary: ['p'], codes: new Uint32Array(600) },
      },
    ],
    ['all rows at one instant', { ...dataset, decisionTsMs: new Float64Array(600).fill(START_MS) }],
  ] as [string, TrainingDataset][])('%s', async (_name, poor) => {
    const trained = await trainCtr(poor, options);
    expect(trained.model.priorOnly).toBe(true);
    expect(trained.gate).toMatchObject({ passed: false, released: 'prior_only' });
    expect(trained.gate.summary.length).toBeGreaterThan(40);
    expect(() => JSON.stringify(trained.gate)).not.toThrow();
  });
});

describe('bad input', () => {
  const { dataset } = synthetic({ seed: 10, nRows: 300 });
  test('a wrong dataset is an error before any work', async () => {
    const x = Float32Array.from(dataset.x);
    x[12] = Number.NaN;
    await expect(trainCtr({ ...dataset, x }, options)).rejects.toMatchObject({
      code: 'WAGGLE_TRAINING_NOT_FINITE',
    });
    await expect(
      trainCtr(dataset, { ...options, asOfMs: START_MS + DAY_MS }),
    ).rejects.toMatchObject({
      code: 'WAGGLE_TRAINING_TIME',
    });
    await expect(
      trainCtr(dataset, { ...options, featureSet: { ...ctrSet, name: 'accept' } }),
    ).rejects.toMatchObject({ code: 'WAGGLE_TRAINING_SHAPE' });
    const noPrior = { ...ctrSet, names: ['a', 'cosine', 'position', 'noise', 'always_one'] };
    await expect(
      trainCtr({ ...dataset, featureNames: noPrior.names }, { ...options, featureSet: noPrior }),
    ).rejects.toMatchObject({ code: 'WAGGLE_TRAINING_SHAPE' });
  });

  test('an aborted training says so', async () => {
    const { dataset: large } = synthetic({ seed: 10 });
    await expect(
      trainCtr(large, { ...options, signal: AbortSignal.abort() }),
    ).rejects.toMatchObject({
      code: 'WAGGLE_ABORTED',
    });
  });
});

function rowsOf(dataset: TrainingDataset): number[][] {
  const nFeatures = dataset.featureNames.length;
  return Array.from({ length: dataset.nRows }, (_, i) =>
    Array.from(dataset.x.subarray(i * nFeatures, (i + 1) * nFeatures)),
  );
}
