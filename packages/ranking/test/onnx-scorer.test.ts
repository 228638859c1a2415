import { createHash } from 'node:crypto';
import { Rng } from '@waggle/core';
import { InlineRunner } from '@waggle/models';
import { afterAll, expect, test } from 'vitest';
import { type LinearModel, LinearScorer, OnnxScorer, sealLinearModel } from '../src/index.js';
import { LINEAR_ONNX } from './fixtures/linear-onnx.js';

/** float32 sums of three terms against double ones. */
const FLOAT_TOLERANCE = 1e-6;
const runner = new InlineRunner();
afterAll(() => runner.close());

const model = (over: Partial<LinearModel> = {}): LinearModel =>
  sealLinearModel({
    kind: 'linear_logistic',
    name: 'pctr',
    featureNames: ['a', 'b'],
    featureSetFingerprint: 'ffffffff',
    coefficients: [2, -1],
    intercept: 0.5,
    calibration: { kind: 'platt', a: 0.9, b: -0.25 },
    priorOnly: false,
    dataRange: {},
    metrics: {},
    onnxSha256: createHash('sha256').update(LINEAR_ONNX).digest('hex'),
    ...over,
  });
const code = (expected: string) => expect.objectContaining({ code: expected });

test('the ONNX twin answers what the linear scorer answers', async () => {
  const onnx = await OnnxScorer.open(runner, model(), LINEAR_ONNX);
  const linear = new LinearScorer(model());
  const rng = new Rng(1);
  const x = Float32Array.from({ length: 400 }, () => rng.normal());
  const [a, b] = [await onnx.score(x, 200), await linear.score(x, 200)];
  for (let r = 0; r < 200; r++) expect(Math.abs(a[r]! - b[r]!)).toBeLessThan(FLOAT_TOLERANCE);
  expect(onnx.version).toBe(linear.version);
  expect(await onnx.score(x, 0)).toHaveLength(0);
});

test('a twin of another model, a foreign file and a missing one are refused', async () => {
  const wide = model({ featureNames: ['a', 'b', 'c'], coefficients: [1, 2, 3] });
  await expect(OnnxScorer.open(runner, wide, LINEAR_ONNX)).rejects.toThrow(
    code('WAGGLE_MODEL_INPUT_MISMATCH'),
  );
  const other = model({ onnxSha256: '0'.repeat(64) });
  await expect(OnnxScorer.open(runner, other, LINEAR_ONNX)).rejects.toThrow(
    code('WAGGLE_MODEL_CORRUPT'),
  );
  const { onnxSha256: _, ...without } = model();
  await expect(OnnxScorer.open(runner, without, LINEAR_ONNX)).rejects.toThrow(
    code('WAGGLE_RANKING_MODEL_INVALID'),
  );
});

test('rows that are not there and values that are not numbers are refused', async () => {
  const onnx = await OnnxScorer.open(runner, model(), LINEAR_ONNX);
  await expect(onnx.score(new Float32Array(3), 2)).rejects.toThrow(code('WAGGLE_RANKING_SHAPE'));
  await expect(onnx.score(Float32Array.of(0, 0, 1, Number.NaN), 2)).rejects.toThrow(
    code('WAGGLE_RANKING_NAN'),
  );
});
