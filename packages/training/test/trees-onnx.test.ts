import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Rng } from '@waggle/core';
import { Trees } from '@waggle/native';
import { sigmoid } from '@waggle/ranking';
import fc from 'fast-check';
import * as ort from 'onnxruntime-node';
import { describe, expect, test } from 'vitest';
import {
  decodeOnnx,
  exportTreesOnnx,
  TREES_ONNX_TOLERANCE,
  type TreesOnnxOptions,
} from '../src/index.js';
import { randomLightgbm, randomTreeRows } from './random-trees.js';

const folder = fileURLToPath(new URL('../../../native/test/trees/models/', import.meta.url));
const models = readdirSync(folder).filter((name) => !name.endsWith('.rows'));

function optionsFor(trees: Trees, more: Partial<TreesOnnxOptions> = {}): TreesOnnxOptions {
  const featureNames = Array.from({ length: trees.nFeatures }, (_, i) => `f${i}`);
  return { name: 'forest', featureNames, featureSetFingerprint: 'set-1', ...more };
}

async function run(
  trees: Trees,
  x: Float32Array,
  nRows: number,
  options: TreesOnnxOptions,
): Promise<Float32Array> {
  const { bytes, output, outputDims } = exportTreesOnnx(trees, options);
  const session = await ort.InferenceSession.create(bytes, {
    intraOpNumThreads: 1,
    logSeverityLevel: 3,
  });
  expect(session.inputNames).toEqual(['features']);
  expect(session.outputNames).toEqual([output]);
  const answer = await session.run({
    features: new ort.Tensor('float32', x, [nRows, trees.nFeatures]),
  });
  const tensor = answer[output]!;
  expect(tensor.dims).toEqual(outputDims.map((dim) => dim ?? nRows));
  await session.release();
  return tensor.data as Float32Array;
}

function worst(found: Float32Array, expected: ArrayLike<number>, relative: boolean): number {
  expect(found.length).toBe(expected.length);
  let most = 0;
  for (let i = 0; i < found.length; i++) {
    const e = expected[i]!;
    if (Object.is(found[i], e) || found[i] === e) continue;
    most = Math.max(most, Math.abs(found[i]! - e) / (relative ? 1 + Math.abs(e) : 1));
  }
  return most;
}

describe('exportTreesOnnx', () => {
  test.each(models)('%s scores the same in onnxruntime', async (name) => {
    const file = readFileSync(`${folder}${name}.rows`);
    const bytes = file.buffer.slice(file.byteOffset, file.byteOffset + file.length);
    const [nRows = 0, nFeatures = 0] = new Int32Array(bytes, 0, 2);
    const x = new Float32Array(bytes, 12, nRows * nFeatures).slice();
    const trees = await Trees.load(`${folder}${name}`);
    const tolerance = name.includes('probit') ? 5e-4 : TREES_ONNX_TOLERANCE;
    const expected = await trees.predict({ x, nRows });
    expect(
      worst(await run(trees, x, nRows, optionsFor(trees)), expected, true),
    ).toBeLessThanOrEqual(tolerance);
    if (!name.includes('probit')) {
      const raw = await trees.predict({ x, nRows, raw: true });
      const found = await run(trees, x, nRows, optionsFor(trees, { raw: true }));
      expect(worst(found, raw, true)).toBeLessThanOrEqual(TREES_ONNX_TOLERANCE);
    }
    await trees.close();
  });

  test('any ensemble of numbers and categories scores the same for any row', async () => {
    const objective = fc.constantFrom(
      ['binary sigmoid:1', 1],
      ['binary sigmoid:0.7', 1],
      ['multiclass num_class:3', 3],
      ['regression', 1],
      ['regression sqrt', 1],
      ['poisson', 1],
      ['cross_entropy_lambda', 1],
      ['lambdarank', 1],
    ) as fc.Arbitrary<[string, number]>;
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 2 ** 30 }),
        objective,
        fc.integer({ min: 0, max: 12 }),
        fc.integer({ min: 1, max: 40 }),
        async (seed, [name, nTargets], nTrees, nLeaves) => {
          const rng = new Rng(seed);
          const text = randomLightgbm(
            { nTrees, nLeaves, nFeatures: 6, firstCategory: 4, nTargets, objective: name },
            rng,
          );
          const trees = await Trees.load(new TextEncoder().encode(text));
          const nRows = 64;
          const x = randomTreeRows(nRows, 6, rng);
          const expected = await trees.predict({ x, nRows });
          const found = await run(trees, x, nRows, optionsFor(trees));
          const most = worst(found, expected, !/binary|multiclass/.test(name));
          // exp takes the score's rounding as a relative error.
          const scores = await trees.predict({ x, nRows, raw: true });
          const largest = scores.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
          const limit = TREES_ONNX_TOLERANCE * (name === 'poisson' ? 1 + largest : 1);
          expect(most, `seed ${seed}`).toBeLessThanOrEqual(limit);
          await trees.close();
        },
      ),
      { numRuns: 60 },
    );
  });

  test('a hundred trees of sixty leaves keep the tolerance', async () => {
    const rng = new Rng(11);
    const shape = { nTrees: 100, nLeaves: 60, nFeatures: 20, firstCategory: 15, nTargets: 1 };
    const text = randomLightgbm({ ...shape, objective: 'binary sigmoid:1' }, rng);
    const trees = await Trees.load(new TextEncoder().encode(text));
    const x = randomTreeRows(500, 20, rng);
    const expected = await trees.predict({ x, nRows: 500 });
    const found = await run(trees, x, 500, optionsFor(trees));
    expect(worst(found, expected, false)).toBeLessThanOrEqual(TREES_ONNX_TOLERANCE);
    expect(Math.max(...expected) - Math.min(...expected)).toBeGreaterThan(0.5);
    await trees.close();
  });

  test('a prior logit and a calibration become part of the graph', async () => {
    const rng = new Rng(3);
    const shape = { nTrees: 5, nLeaves: 8, nFeatures: 4, firstCategory: 3, nTargets: 1 };
    const text = randomLightgbm({ ...shape, objective: 'binary sigmoid:0.5' }, rng);
    const trees = await Trees.load(new TextEncoder().encode(text));
    const nRows = 50;
    const x = Float32Array.from({ length: nRows * 4 }, () => rng.normal());
    const raw = await trees.predict({ x, nRows, raw: true });
    const expected = Array.from(raw, (s, r) => sigmoid(0.9 * (0.5 * s + x[4 * r + 2]!) - 0.2));
    const calibration = { kind: 'platt', a: 0.9, b: -0.2 } as const;
    const options = optionsFor(trees, { offsetFeature: 'f2', calibration });
    expect(worst(await run(trees, x, nRows, options), expected, false)).toBeLessThanOrEqual(
      TREES_ONNX_TOLERANCE,
    );
    await trees.close();
  });

  test('scores no rows as no rows', async () => {
    const trees = await Trees.load(`${folder}binary-categorical.lightgbm.txt`);
    expect(await run(trees, new Float32Array(0), 0, optionsFor(trees))).toHaveLength(0);
    await trees.close();
  });

  test('equal models are equal bytes, and the file says what it is', async () => {
    const trees = await Trees.load(`${folder}binary-categorical.lightgbm.txt`);
    const first = exportTreesOnnx(trees, optionsFor(trees));
    expect(exportTreesOnnx(trees, optionsFor(trees))).toEqual(first);
    const decoded = decodeOnnx(first.bytes) as { metadataProps: { key: string; value: string }[] };
    expect(decoded.metadataProps).toContainEqual({ key: 'waggle.feature_set', value: 'set-1' });
    await trees.close();
  });

  test('names, offsets, calibrations and categories that do not fit are refused', async () => {
    const trees = await Trees.load(`${folder}multiclass.lightgbm.txt`);
    const refused = (more: Partial<TreesOnnxOptions>) =>
      expect(() => exportTreesOnnx(trees, optionsFor(trees, more))).toThrowError(
        expect.objectContaining({ code: 'WAGGLE_TRAINING_SHAPE' }),
      );
    refused({ featureNames: ['a'] });
    refused({ offsetFeature: 'nothing' });
    refused({ offsetFeature: 'f1' });
    refused({ calibration: { kind: 'platt', a: 1, b: 0.5 } });
    await trees.close();
    // Sixteen million categories in each of eight sets.
    const far = `${'0 '.repeat(2 ** 19 - 1)}`;
    const tree = (t: number) =>
      `Tree=${t}\nnum_leaves=2\nnum_cat=1\nsplit_feature=0\nthreshold=0\ndecision_type=9\nleft_child=-1\n` +
      `right_child=-2\nleaf_value=0 1\ncat_boundaries=0 ${2 ** 19}\ncat_threshold=${far}${2 ** 31 - t}\n`;
    const text = `tree\nversion=v4\nnum_tree_per_iteration=1\nmax_feature_idx=0\nobjective=regression\n${Array.from({ length: 8 }, (_, t) => tree(t)).join('\n')}\nend of trees\n`;
    const wide = await Trees.load(new TextEncoder().encode(text));
    expect(() => exportTreesOnnx(wide, optionsFor(wide))).toThrowError(
      expect.objectContaining({ code: 'WAGGLE_TRAINING_EXPORT_TOO_LARGE' }),
    );
    await wide.close();
  });
});
