import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type ForeignContract, InlineRunner, parseContract } from '@waggle/models';
import { Trees } from '@waggle/native';
import { afterAll, describe, expect, test } from 'vitest';
import {
  checkExamples,
  OnnxScorer,
  sigmoid,
  TreesScorer,
  type TreesScorerOptions,
} from '../src/index.js';
import { LINEAR_ONNX } from './fixtures/linear-onnx.js';

const folder = fileURLToPath(new URL('../../../native/test/trees/models/', import.meta.url));
const runner = new InlineRunner();
afterAll(() => runner.close());
const code = (expected: string) => expect.objectContaining({ code: expected });

/** Rows and what the library that trained the model predicted. */
function recorded(name: string): { nRows: number; x: Float32Array; expected: Float32Array } {
  const file = readFileSync(`${folder}${name}.rows`);
  const bytes = file.buffer.slice(file.byteOffset, file.byteOffset + file.length);
  const [nRows = 0, nFeatures = 0] = new Int32Array(bytes, 0, 2);
  const x = new Float32Array(bytes, 12, nRows * nFeatures).slice();
  return { nRows, x, expected: new Float32Array(bytes, 12 + x.byteLength).slice() };
}

const NAMES = ['prior', 'b', 'c', 'd', 'topic'];

function contractOf(format: ForeignContract['format'], more: object = {}): ForeignContract {
  return parseContract(
    {
      contractVersion: 1,
      name: 'foreign',
      format,
      features: NAMES.map((name) => ({ name, dtype: 'float32' })),
      featureSetFingerprint: 'set-1',
      missing: 'nan',
      output: { meaning: 'probability' },
      producer: 'a library',
      dataRange: { from: '2026-01-01T00:00:00Z', to: '2026-02-01T00:00:00Z' },
      ...more,
    },
    'contract.json',
  );
}

/** Rows without infinities and with a prior. */
function servable(x: Float32Array): Float32Array {
  return x.map((v, i) => (Math.abs(v) === Infinity || (i % 5 === 0 && Number.isNaN(v)) ? 0.5 : v));
}

describe('TreesScorer', () => {
  test.each([
    ['binary-categorical.lightgbm.txt', 'lightgbm'],
    ['logistic-categorical.xgboost.json', 'xgboost-json'],
    ['logistic-categorical.xgboost.ubj', 'xgboost-ubj'],
  ] as const)('serves %s as its library predicts, under its contract', async (name, format) => {
    const { x, expected, nRows } = recorded(name);
    const bytes = readFileSync(`${folder}${name}`);
    const at = (r: number) =>
      Array.from(x.subarray(5 * r, 5 * r + 5), (v) => (Number.isNaN(v) ? null : v));
    const rows = Array.from({ length: 20 }, (_, r) => at(r));
    const examples = { rows, outputs: Array.from(expected.subarray(0, 20)) };
    const contract = contractOf(format, { examples });
    const served = { names: NAMES, fingerprint: 'set-1' };
    const scorer = await TreesScorer.open({ version: 'foreign@1', contract, bytes }, served);
    const p = await scorer.score(x, nRows);
    for (const [r, e] of expected.entries()) expect(Math.abs(p[r]! - e)).toBeLessThan(3e-6);
    expect(scorer.version).toBe('foreign@1');
    expect(await scorer.score(x, 0)).toHaveLength(0);
    await scorer.close();
    await expect(scorer.score(x, 1)).rejects.toThrow(code('WAGGLE_NATIVE_CLOSED'));
    // Columns in another order show in the examples.
    const turned = { ...examples, rows: rows.map((row) => [...row].reverse()) };
    await expect(
      TreesScorer.open({
        version: 'f@1',
        contract: contractOf(format, { examples: turned }),
        bytes,
      }),
    ).rejects.toThrow(code('WAGGLE_RANKING_EXAMPLES'));
    // Another feature set is refused before anything is read.
    await expect(
      TreesScorer.open(
        { version: 'f@1', contract, bytes: new Uint8Array(3) },
        { names: NAMES, fingerprint: 'set-2' },
      ),
    ).rejects.toThrow(code('WAGGLE_MODEL_CONTRACT_MISMATCH'));
  });

  test('adds the prior to the logit and calibrates it', async () => {
    const name = 'binary-categorical.lightgbm.txt'; // its sigmoid has steepness 0.7
    const { x: raw, nRows } = recorded(name);
    const x = servable(raw);
    const trees = await Trees.load(`${folder}${name}`);
    const scores = await trees.predict({ x, nRows, raw: true });
    const scorer = new TreesScorer(trees, {
      version: 'v',
      featureNames: NAMES,
      offsetFeature: 'prior',
      calibration: { kind: 'platt', a: 0.8, b: -0.3 },
    });
    const p = await scorer.score(x, nRows);
    for (const [r, score] of scores.entries()) {
      const expected = sigmoid(0.8 * (0.7 * score + x[5 * r]!) - 0.3);
      expect(Math.abs(p[r]! - expected)).toBeLessThan(1e-7);
    }
    await scorer.close();
  });

  test('gives counts, raw scores and one of several outputs where that is what is meant', async () => {
    const poisson = recorded('poisson.lightgbm.txt');
    const counts = new TreesScorer(await Trees.load(`${folder}poisson.lightgbm.txt`), {
      version: 'v',
      featureNames: NAMES,
      meaning: 'count',
    });
    const found = await counts.score(poisson.x, poisson.nRows);
    for (const [r, e] of poisson.expected.entries()) {
      expect(Math.abs(found[r]! - e)).toBeLessThan(3e-6 * (1 + e));
    }
    await counts.close();
    const several = recorded('multiclass.lightgbm.txt');
    const trees = await Trees.load(`${folder}multiclass.lightgbm.txt`);
    const refused = () => new TreesScorer(trees, { version: 'v', featureNames: NAMES });
    expect(refused).toThrow(code('WAGGLE_MODEL_CONTRACT_MISMATCH'));
    const middle = new TreesScorer(trees, { version: 'v', featureNames: NAMES, column: 1 });
    const p = await middle.score(several.x, several.nRows);
    for (let r = 0; r < several.nRows; r++) {
      expect(Math.abs(p[r]! - several.expected[3 * r + 1]!)).toBeLessThan(3e-6);
    }
    const raw = new TreesScorer(trees, {
      ...{ version: 'v', featureNames: NAMES, column: 2 },
      meaning: 'raw',
    });
    const scores = await trees.predict({ x: several.x, nRows: several.nRows, raw: true });
    expect((await raw.score(several.x, several.nRows))[7]).toBe(scores[3 * 7 + 2]);
    await trees.close();
  });

  test('refuses a model that is not what is said of it', async () => {
    const binary = await Trees.load(`${folder}binary-categorical.lightgbm.txt`);
    const poisson = await Trees.load(`${folder}poisson.lightgbm.txt`);
    const refused = (trees: Trees, more: Partial<TreesScorerOptions>) =>
      expect(() => new TreesScorer(trees, { version: 'v', featureNames: NAMES, ...more })).toThrow(
        code('WAGGLE_MODEL_CONTRACT_MISMATCH'),
      );
    refused(binary, { featureNames: ['a', 'b'] });
    refused(binary, { offsetFeature: 'nothing' });
    refused(binary, { column: 1 });
    refused(binary, { meaning: 'count' });
    refused(poisson, {});
    refused(poisson, { meaning: 'count', offsetFeature: 'prior' });
    refused(binary, { meaning: 'raw', calibration: { kind: 'platt', a: 2, b: 0 } });
    await Promise.all([binary.close(), poisson.close()]);
    const contract = contractOf('lightgbm');
    await expect(
      TreesScorer.open({ version: 'v', contract, bytes: new Uint8Array(40) }),
    ).rejects.toThrow(code('WAGGLE_NATIVE_MODEL'));
  });

  test('names the row and the feature of what is no number', async () => {
    const bytes = readFileSync(`${folder}binary-categorical.lightgbm.txt`);
    const strict = await TreesScorer.open({
      version: 'v',
      contract: contractOf('lightgbm', { missing: 'refuse' }),
      bytes,
    });
    const x = Float32Array.of(0, 0, 0, 0, 1, 0, 0, Number.NaN, 0, 1);
    await expect(strict.score(x, 2)).rejects.toThrow(/row 1, feature c = NaN/);
    await expect(strict.score(x, 1)).resolves.toHaveLength(1);
    await expect(strict.score(x, 3)).rejects.toThrow(code('WAGGLE_RANKING_SHAPE'));
    await strict.close();
    const around = await TreesScorer.open({
      version: 'v',
      contract: contractOf('lightgbm', { offsetFeature: 'prior' }),
      bytes,
    });
    await expect(around.score(x, 2)).resolves.toHaveLength(2);
    x[0] = Number.NaN;
    await expect(around.score(x, 1)).rejects.toThrow(/offset prior = NaN/);
    x[0] = Infinity;
    await expect(around.score(x, 1)).rejects.toThrow(code('WAGGLE_RANKING_NAN'));
    await around.close();
  });
});

describe('OnnxScorer.openForeign', () => {
  const sha256 = createHash('sha256').update(LINEAR_ONNX).digest('hex');
  const features = ['a', 'b'].map((name) => ({ name, dtype: 'float32' }));
  const tensors = { input: 'features', output: 'probability' };
  const open = (more: object, served?: { names: string[]; fingerprint: string }) =>
    OnnxScorer.openForeign(
      runner,
      {
        version: 'foreign@1',
        contract: contractOf('onnx', { features, tensors, ...more }),
        bytes: LINEAR_ONNX,
        sha256,
      },
      served,
    );

  test('serves a graph under its contract and holds its examples', async () => {
    const examples = {
      rows: [
        [1, 2],
        [0, 0],
      ],
      outputs: [sigmoid(0.9 * 0.5 - 0.25), sigmoid(0.2)],
    };
    const scorer = await open({ examples });
    await checkExamples(scorer, contractOf('onnx', { features, tensors, examples }));
    expect((await scorer.score(Float32Array.of(1, 2), 1))[0]).toBeCloseTo(sigmoid(0.2), 6);
    const wrong = contractOf('onnx', {
      features,
      tensors,
      examples: { ...examples, outputs: [0, 0] },
    });
    await expect(checkExamples(scorer, wrong)).rejects.toThrow(code('WAGGLE_RANKING_EXAMPLES'));
  });

  test('takes the output for a logit where an offset or a calibration is declared', async () => {
    const x = Float32Array.of(1, 2, -0.5, 0.25);
    const plain = await (await open({})).score(x.slice(), 2);
    const around = await open({ offsetFeature: 'a', calibration: { a: 2, b: 0.5 } });
    expect(around.calibration).toEqual({ kind: 'platt', a: 2, b: 0.5 });
    const found = await around.score(x, 2);
    for (const row of [0, 1]) {
      expect(found[row]).toBeCloseTo(sigmoid(2 * (plain[row]! + x[2 * row]!) + 0.5), 6);
    }
    x[2] = Number.NaN;
    await expect(around.score(x, 2)).rejects.toThrow(code('WAGGLE_RANKING_NAN'));
  });

  test('refuses what the contract does not describe', async () => {
    const mismatch = code('WAGGLE_MODEL_CONTRACT_MISMATCH');
    await expect(open({ tensors: undefined })).rejects.toThrow(mismatch);
    await expect(open({ tensors: { ...tensors, output: 'label' } })).rejects.toThrow(mismatch);
    await expect(open({ output: { meaning: 'probability', column: 1 } })).rejects.toThrow(mismatch);
    await expect(open({}, { names: ['a', 'b'], fingerprint: 'other' })).rejects.toThrow(mismatch);
    await expect(
      open({ features: [...features, { name: 'c', dtype: 'float32' }] }),
    ).rejects.toThrow(code('WAGGLE_MODEL_INPUT_MISMATCH'));
    const strict = await open({ missing: 'refuse' });
    await expect(strict.score(Float32Array.of(0, Number.NaN), 1)).rejects.toThrow(
      /row 0, feature 1 = NaN/,
    );
  });
});
