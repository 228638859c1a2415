import { Rng } from '@waggle/core';
import { openTreesModel, parseHeadModel } from '@waggle/ranking';
import * as ort from 'onnxruntime-node';
import { describe, expect, test } from 'vitest';
import {
  renderModelCard,
  selectRows,
  type TrainingDataset,
  trainTrees,
  treesModelCard,
} from '../src/index.js';
import { ctrSet, synthetic } from './synthetic.js';

const options = { featureSet: ctrSet, seed: 1, bootstrapReplicates: 300 };
const WIDTH = ctrSet.names.length;
const COSINE = ctrSet.names.indexOf('cosine');
/** Beyond every cosine of the synthetic rows, so that the absolute value tells it. */
const FOLD = 10;

/** The same rows with the cosine told as ±(cosine + 10): no line can tell it, two splits can. */
function folded(dataset: TrainingDataset, seed: number): TrainingDataset {
  const rng = new Rng(seed, 5);
  const x = Float32Array.from(dataset.x);
  for (let i = 0; i < dataset.nRows; i++) {
    const at = i * WIDTH + COSINE;
    x[at] = (x[at]! + FOLD) * (rng.bernoulli(0.5) ? 1 : -1);
  }
  return { ...dataset, x };
}

describe('a tree head', () => {
  test('sees what a line cannot, passes its gate against the linear model, and scores as its ONNX twin', async () => {
    const dataset = folded(synthetic({ seed: 1, signal: 0.6, publicationNoise: 0.1 }).dataset, 1);
    const trained = await trainTrees('pctr', dataset, options);
    expect(trained.gate.passed, trained.gate.summary).toBe(true);
    expect(trained.gate.relativeLogLoss!.estimate).toBeLessThan(-0.005);
    expect(trained.summary.gain[0]!.name).toBe('cosine');
    const { model, trees, onnx } = trained.head!;
    expect(parseHeadModel(JSON.parse(JSON.stringify(model)))).toEqual(model);

    const nRows = 200;
    const x = dataset.x.slice(0, nRows * WIDTH);
    const scorer = await openTreesModel(model, trees);
    const ours = scorer.scoreInto(x, nRows, new Float64Array(nRows));
    await scorer.close();
    const session = await ort.InferenceSession.create(onnx, { logSeverityLevel: 3 });
    const out = await session.run({ features: new ort.Tensor('float32', x, [nRows, WIDTH]) });
    const theirs = out['probability']!.data as Float32Array;
    for (let i = 0; i < nRows; i++) {
      expect(Math.abs(theirs[i]! - ours[i]!)).toBeLessThanOrEqual(trained.summary.onnxTolerance);
    }

    const card = treesModelCard(trained, { ...ctrSet, features: [] });
    expect(renderModelCard(card)).toContain(`${trained.summary.nTrees} trees`);
    expect(card.gate.summary).toMatch(/differs from the (linear model|prior)'s/);
  });

  test('equal input and seed give equal bytes', async () => {
    const dataset = folded(synthetic({ seed: 3, nRows: 2_000, signal: 0.8 }).dataset, 3);
    const [first, second] = [
      await trainTrees('pctr', dataset, options),
      await trainTrees('pctr', dataset, options),
    ];
    expect(first.head).toBeDefined();
    expect(second.head!.model.version).toBe(first.head!.model.version);
    expect(Buffer.compare(second.head!.trees, first.head!.trees)).toBe(0);
    expect(Buffer.compare(second.head!.onnx, first.head!.onnx)).toBe(0);
  });

  test('where a line says it all, the linear model keeps its place', async () => {
    const { dataset } = synthetic({ seed: 2, signal: 0.6, publicationNoise: 0.1 });
    const { gate, linear } = await trainTrees('pctr', dataset, options);
    expect(linear.gate.passed).toBe(true);
    expect(gate).toMatchObject({ passed: false, released: 'linear' });
    expect(gate.summary).toContain('the linear model keeps its place');
  });

  test('a level that only the latest rows have fails the gate on calibration', async () => {
    const { dataset } = synthetic({ seed: 5, signal: 0.8, levelShift: -1, shiftDay: 23 });
    const { gate, head } = await trainTrees('pctr', folded(dataset, 5), options);
    expect(head).toBeDefined();
    expect(gate.passed).toBe(false);
    expect(gate.summary).toMatch(/expected over observed/);
  });

  test.each([
    ['too few rows', (d: TrainingDataset) => selectRows(d, Uint32Array.from([0, 1, 2, 3]))],
    ['no success', (d: TrainingDataset) => ({ ...d, successes: d.successes.map(() => 0) })],
    ['no failure', (d: TrainingDataset) => ({ ...d, successes: d.trials.slice() })],
    ['no rows', (d: TrainingDataset) => selectRows(d, new Uint32Array(0))],
  ])('%s: no trees, a gate that says why', async (_, spoil) => {
    const { dataset } = synthetic({ seed: 6, nRows: 1_000 });
    const { head, gate, summary } = await trainTrees('pctr', spoil(dataset), options);
    expect(head).toBeUndefined();
    expect(gate.passed).toBe(false);
    expect(gate.checks.find((check) => check.name === 'fit')).toMatchObject({ passed: false });
    expect(summary.nTrees).toBeNull();
  });

  test('stops when told to', async () => {
    const { dataset } = synthetic({ seed: 7, nRows: 1_000 });
    await expect(
      trainTrees('pctr', dataset, { ...options, signal: AbortSignal.abort() }),
    ).rejects.toMatchObject({ code: 'WAGGLE_ABORTED' });
  });
});
