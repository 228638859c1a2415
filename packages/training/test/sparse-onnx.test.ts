import { Rng } from '@waggle/core';
import { Ffm, Ftrl, hashFeatures } from '@waggle/native';
import * as ort from 'onnxruntime-node';
import { describe, expect, test } from 'vitest';
import {
  decodeOnnx,
  exportFfmOnnx,
  exportSparseLinearOnnx,
  SPARSE_ONNX_TOLERANCE,
} from '../src/index.js';

const N_ROWS = 2_000;
const FIELDS = ['publication', 'campaign', 'format', 'hour'];

async function hashedRows(seed: number) {
  const rng = new Rng(seed);
  const hashed = await hashFeatures({
    nRows: N_ROWS,
    columns: FIELDS.map((field, f) => ({
      field,
      values: Array.from(
        { length: N_ROWS },
        () => `${field}-${Math.floor(rng.uniform() * 30 * (f + 1))}`,
      ),
    })),
    bits: 12,
  });
  const values = Float32Array.from(
    { length: hashed.indices.length },
    () => 2 * rng.uniform() - 0.5,
  );
  values.fill(0, 4, 8); // a row of zeros
  const successes = Float64Array.from({ length: N_ROWS }, (_, i) =>
    rng.uniform() < ((hashed.indices[4 * i]! + hashed.indices[4 * i + 1]!) % 3 === 0 ? 0.6 : 0.05)
      ? 1
      : 0,
  );
  return { hashed, values, successes };
}

async function runOnnx(bytes: Uint8Array, indices: Int32Array, values?: Float32Array) {
  const session = await ort.InferenceSession.create(bytes, {
    intraOpNumThreads: 1,
    logSeverityLevel: 3,
  });
  const dims = [indices.length / FIELDS.length, FIELDS.length];
  const { probability } = await session.run({
    indices: new ort.Tensor('int64', BigInt64Array.from(indices, BigInt), dims),
    ...(values === undefined ? {} : { values: new ort.Tensor('float32', values, dims) }),
  });
  expect(probability!.dims).toEqual([dims[0]]);
  await session.release();
  return probability!.data as Float32Array;
}

function worstDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  expect(a.length).toBe(b.length);
  let worst = 0;
  for (let i = 0; i < a.length; i++) worst = Math.max(worst, Math.abs(a[i]! - b[i]!));
  return worst;
}

const spread = (p: Float64Array): number => Math.max(...p) - Math.min(...p);

describe('ONNX export of sparse models', () => {
  test.each([false, true])(
    'FTRL agrees with its own predictions in onnxruntime, values: %s',
    async (withValues) => {
      const { hashed, values, successes } = await hashedRows(1);
      const rows = withValues ? { ...hashed, values } : hashed;
      const model = await Ftrl.create({ nFeatures: hashed.nFeatures, l1: 0.2 });
      for (let pass = 0; pass < 5; pass++) await model.learn({ ...rows, successes });
      const weights = { ...(await model.weights()), nFeatures: hashed.nFeatures };
      const { bytes } = exportSparseLinearOnnx(weights, {
        name: 'pctr',
        nFields: 4,
        values: withValues,
      });
      const expected = await model.predict(rows);
      const actual = await runOnnx(bytes, hashed.indices, withValues ? values : undefined);
      expect(spread(expected)).toBeGreaterThan(0.3);
      expect(worstDifference(actual, expected)).toBeLessThanOrEqual(SPARSE_ONNX_TOLERANCE);
      await model.close();
    },
  );

  test.each([
    [4, true, true, false],
    [4, true, true, true],
    [7, false, true, true],
    [3, true, false, false],
    [16, false, false, false],
  ])(
    'FFM agrees, k = %s, normalize: %s, linear: %s, values: %s',
    async (k, normalize, linear, withValues) => {
      const { hashed, values, successes } = await hashedRows(2);
      const rows = withValues ? { ...hashed, values } : hashed;
      const model = await Ffm.create({
        nFeatures: hashed.nFeatures,
        nFields: 4,
        k,
        normalize,
        linear,
      });
      await model.fit({ ...rows, successes, epochs: 6 });
      const { bytes } = exportFfmOnnx(
        { options: model.options, ...(await model.weights()) },
        { name: 'pctr', values: withValues },
      );
      const expected = await model.predict(rows);
      const actual = await runOnnx(bytes, hashed.indices, withValues ? values : undefined);
      expect(spread(expected)).toBeGreaterThan(0.3);
      expect(worstDifference(actual, expected)).toBeLessThanOrEqual(SPARSE_ONNX_TOLERANCE);
      await model.close();
    },
  );

  test('calibration, hashing and no rows are carried along', async () => {
    const model = {
      indices: Int32Array.of(1, 3),
      values: Float64Array.of(2, -1),
      intercept: 0.5,
      nFeatures: 4,
    };
    const { bytes, sha256 } = exportSparseLinearOnnx(model, {
      name: 'pctr',
      nFields: 4,
      calibration: { kind: 'platt', a: 0.8, b: -0.1 },
      metadata: { 'waggle.hash': 'xxh64 bits=2 seed=0' },
    });
    const [p] = await runOnnx(bytes, Int32Array.of(1, 3, 0, 2));
    expect(p).toBeCloseTo(1 / (1 + Math.exp(-(0.8 * 1.5 - 0.1))), 7);
    expect(await runOnnx(bytes, new Int32Array(0))).toHaveLength(0);
    await expect(runOnnx(bytes, Int32Array.of(1, 3, 0, 4))).rejects.toThrow();
    expect(decodeOnnx(bytes)['metadataProps']).toContainEqual({
      key: 'waggle.hash',
      value: 'xxh64 bits=2 seed=0',
    });
    expect(sha256).toMatch(/^[0-9a-f]{64}$/);
  });

  test('what cannot be written is refused', () => {
    const model = {
      indices: Int32Array.of(1),
      values: Float64Array.of(2),
      intercept: 0,
      nFeatures: 4,
    };
    const code = (c: string) => expect.objectContaining({ code: c });
    const o = { name: 'pctr', nFields: 4 };
    expect(() => exportSparseLinearOnnx({ ...model, intercept: Number.NaN }, o)).toThrowError(
      code('WAGGLE_TRAINING_EXPORT_MISMATCH'),
    );
    expect(() => exportSparseLinearOnnx({ ...model, nFeatures: 2 ** 28 }, o)).toThrowError(
      code('WAGGLE_TRAINING_EXPORT_MISMATCH'),
    );
    expect(() => exportSparseLinearOnnx({ ...model, nFeatures: 1 }, o)).toThrowError(
      code('WAGGLE_TRAINING_SHAPE'),
    );
    expect(() => exportSparseLinearOnnx(model, { ...o, nFields: 0 })).toThrowError(
      code('WAGGLE_TRAINING_SHAPE'),
    );
  });
});
