import { Rng } from '@waggle/core';
import { type Calibration, type LinearModel, LinearScorer, sealLinearModel } from '@waggle/ranking';
import fc from 'fast-check';
import * as ort from 'onnxruntime-node';
import { describe, expect, test } from 'vitest';
import { decodeOnnx, exportLinearOnnx, ONNX_TOLERANCE } from '../src/index.js';

function modelOf(coefficients: number[], intercept: number, calibration: Calibration): LinearModel {
  return sealLinearModel({
    kind: 'linear_logistic',
    name: 'pctr',
    featureNames: coefficients.map((_, i) => `f${i}`),
    featureSetFingerprint: 'ctr_x',
    coefficients,
    intercept,
    calibration,
    priorOnly: false,
    dataRange: {},
    metrics: {},
  });
}

async function runOnnx(
  bytes: Uint8Array,
  x: Float32Array,
  nRows: number,
  nFeatures: number,
): Promise<Float32Array> {
  const session = await ort.InferenceSession.create(bytes, {
    intraOpNumThreads: 1,
    logSeverityLevel: 3,
  });
  expect(session.inputNames).toEqual(['features']);
  expect(session.outputNames).toEqual(['probability']);
  const { probability } = await session.run({
    features: new ort.Tensor('float32', x, [nRows, nFeatures]),
  });
  expect(probability!.dims).toEqual([nRows]);
  await session.release();
  return probability!.data as Float32Array;
}

describe('ONNX export', () => {
  test('agrees with the double scorer in onnxruntime on features of very different scale', async () => {
    const rng = new Rng(1);
    const nFeatures = 40;
    const scale = Array.from({ length: nFeatures }, (_, f) => 10 ** ((f % 7) - 3));
    const center = Float64Array.from(scale, (s) => 30 * s * rng.normal());
    const coefficients = scale.map((s) => (0.3 * rng.normal()) / s);
    const logitAtCenter = coefficients.reduce((sum, c, f) => sum + c * center[f]!, 0);
    const model = modelOf(coefficients, -2 - logitAtCenter, { kind: 'platt', a: 0.93, b: 0.11 });
    const nRows = 500;
    const x = new Float32Array(nRows * nFeatures);
    for (let i = 0; i < x.length; i++)
      x[i] = center[i % nFeatures]! + scale[i % nFeatures]! * rng.normal();
    const { bytes } = exportLinearOnnx(model, center);
    const expected = new LinearScorer(model).scoreInto(x, nRows, new Float64Array(nRows));
    const actual = await runOnnx(bytes, x, nRows, nFeatures);
    let worst = 0;
    for (let i = 0; i < nRows; i++) worst = Math.max(worst, Math.abs(actual[i]! - expected[i]!));
    expect(worst).toBeLessThanOrEqual(ONNX_TOLERANCE);
    expect(Math.max(...expected) - Math.min(...expected)).toBeGreaterThan(0.3);
  });

  test('agrees for any model and row of ordinary size', async () => {
    const number = fc.double({ min: -3, max: 3, noNaN: true });
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(number, number, number), { minLength: 1, maxLength: 12 }),
        number,
        fc.double({ min: 0.1, max: 2, noNaN: true }),
        number,
        async (features, intercept, a, b) => {
          const model = modelOf(
            features.map(([w]) => w / features.length),
            intercept,
            { kind: 'platt', a, b },
          );
          const x = Float32Array.from(features, ([, c, z]) => c + z);
          const { bytes } = exportLinearOnnx(
            model,
            Float64Array.from(features, ([, c]) => c),
          );
          const expected = new LinearScorer(model).scoreInto(x, 1, new Float64Array(1))[0]!;
          const actual = (await runOnnx(bytes, x, 1, features.length))[0]!;
          expect(Math.abs(actual - expected)).toBeLessThanOrEqual(ONNX_TOLERANCE);
        },
      ),
      { numRuns: 25 },
    );
  });

  test('agrees where the calibration bends: beta, isotonic, one after the other', async () => {
    const x = [-7, -6.5, -6, -5.2, -3];
    const y = [-7.4, -6.3, -6.2, -5, -3.3];
    const bends: Calibration[] = [
      { kind: 'beta', a: 0.8, b: 1.3, c: -0.2 },
      { kind: 'isotonic', x, y },
      { kind: 'isotonic', x: [-6], y: [-5.5] },
      {
        kind: 'composed',
        steps: [
          { kind: 'platt', a: 0.9, b: -0.4 },
          { kind: 'isotonic', x, y },
        ],
      },
      {
        kind: 'composed',
        steps: [
          { kind: 'isotonic', x, y },
          { kind: 'beta', a: 1.1, b: 0.9, c: 0.1 },
          { kind: 'platt', a: 1.2, b: 0 },
        ],
      },
    ];
    const nRows = 801;
    const x1 = Float32Array.from({ length: nRows }, (_, i) => -10 + i / 50);
    for (const calibration of bends) {
      const model = modelOf([1], 0, calibration);
      const { bytes } = exportLinearOnnx(model);
      const expected = new LinearScorer(model).scoreInto(x1, nRows, new Float64Array(nRows));
      const actual = await runOnnx(bytes, x1, nRows, 1);
      let worst = 0;
      for (let i = 0; i < nRows; i++) worst = Math.max(worst, Math.abs(actual[i]! - expected[i]!));
      expect(worst).toBeLessThanOrEqual(ONNX_TOLERANCE);
      expect(await runOnnx(bytes, new Float32Array(0), 0, 1)).toHaveLength(0);
    }
  });

  test('a shift by slice has no twin, since the slice is no feature', () => {
    const shift: Calibration = { kind: 'shift', by: 'category', shifts: { food: 0.1 } };
    for (const calibration of [shift, { kind: 'composed', steps: [shift] } as const]) {
      expect(() => exportLinearOnnx(modelOf([1], 0, calibration))).toThrowError(
        expect.objectContaining({ code: 'WAGGLE_TRAINING_EXPORT_MISMATCH' }),
      );
    }
  });

  test('scores no rows as no rows', async () => {
    const { bytes } = exportLinearOnnx(modelOf([1, 2], 0, { kind: 'identity' }));
    expect(await runOnnx(bytes, new Float32Array(0), 0, 2)).toHaveLength(0);
  });

  test('equal models are equal bytes, and the file says what it is', () => {
    const model = modelOf([0.5, -0.25], -1, { kind: 'identity' });
    const first = exportLinearOnnx(model);
    expect(exportLinearOnnx(model)).toEqual(first);
    const decoded = decodeOnnx(first.bytes) as {
      irVersion: number;
      opsetImport: { version: number }[];
      metadataProps: { key: string; value: string }[];
    };
    expect(decoded.irVersion).toBeLessThanOrEqual(10);
    expect(decoded.opsetImport[0]!.version).toBe(17);
    expect(decoded.metadataProps).toContainEqual({ key: 'waggle.feature_set', value: 'ctr_x' });
  });

  test('a number that float32 cannot hold is refused', () => {
    expect(() => exportLinearOnnx(modelOf([1e300], 0, { kind: 'identity' }))).toThrowError(
      expect.objectContaining({ code: 'WAGGLE_TRAINING_EXPORT_MISMATCH' }),
    );
    expect(() => exportLinearOnnx(modelOf([1], 1e300, { kind: 'identity' }))).toThrowError(
      expect.objectContaining({ code: 'WAGGLE_TRAINING_EXPORT_MISMATCH' }),
    );
    expect(() => exportLinearOnnx(modelOf([1], 0, { kind: 'identity' }), [1, 2])).toThrowError(
      expect.objectContaining({ code: 'WAGGLE_TRAINING_SHAPE' }),
    );
  });
});
