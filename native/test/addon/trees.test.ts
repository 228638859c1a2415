import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { WaggleError } from '@waggle/core';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TREES_SYNC_MAX_WORK, Trees } from '../../ts/index.js';

const folder = fileURLToPath(new URL('../trees/models/', import.meta.url));
const models = readdirSync(folder).filter((name) => !name.endsWith('.rows'));

function recorded(name: string): {
  nRows: number;
  nFeatures: number;
  x: Float32Array;
  expected: Float32Array;
} {
  const file = readFileSync(`${folder}${name}.rows`);
  const bytes = file.buffer.slice(file.byteOffset, file.byteOffset + file.length);
  const [nRows = 0, nFeatures = 0, nOutputs = 0] = new Int32Array(bytes, 0, 3);
  const x = new Float32Array(bytes, 12, nRows * nFeatures).slice();
  const expected = new Float32Array(bytes, 12 + x.byteLength, nRows * nOutputs).slice();
  return { nRows, nFeatures, x, expected };
}

describe('Trees', () => {
  it.each(models)('predicts what the library of %s predicts', async (name) => {
    const { nRows, nFeatures, x, expected } = recorded(name);
    const trees = await Trees.load(`${folder}${name}`);
    expect(trees.nFeatures).toBe(nFeatures);
    const out = await trees.predict({ x, nRows });
    expect(out.length).toBe(expected.length);
    // ONNX Runtime inverts the error function by a formula good to about 1e-4; all others add floats in float.
    const tolerance = name.includes('probit') ? 5e-4 : 3e-6;
    for (const [i, e] of expected.entries()) {
      if (Object.is(out[i], e) || out[i] === e) continue;
      expect(Math.abs(out[i]! - e), `output ${i}: ${out[i]} and ${e}`).toBeLessThanOrEqual(
        tolerance * (1 + Math.abs(e)),
      );
    }
    const again = await Trees.load(trees.toBytes(), { format: 'waggle' });
    expect(await again.predict({ x, nRows })).toEqual(out);
    await Promise.all([trees.close(), again.close()]);
  });

  it('gives a row the same bits alone, in any batch and on any number of threads', async () => {
    const name = 'logistic-categorical.xgboost.json';
    const { nRows, nFeatures, x } = recorded(name);
    const trees = await Trees.load(readFileSync(`${folder}${name}`));
    const all = await trees.predict({ x, nRows });
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 0, max: nRows - 1 }),
        fc.integer({ min: 1, max: nRows }),
        fc.integer({ min: 1, max: 4 }),
        async (first, count, threads) => {
          const n = Math.min(count, nRows - first);
          const part = x.slice(first * nFeatures, (first + n) * nFeatures);
          const expected = all.slice(first, first + n);
          expect(await trees.predict({ x: part, nRows: n, threads })).toEqual(expected);
          expect(trees.predictSync({ x: part, nRows: n })).toEqual(expected);
        },
      ),
      { numRuns: 40 },
    );
    await trees.close();
  });

  it('returns raw scores, and fills the array it is given', async () => {
    const name = 'logistic-categorical.xgboost.ubj';
    const { nRows, x } = recorded(name);
    const trees = await Trees.load(`${folder}${name}`, { format: 'xgboost-ubj' });
    expect(trees.kind).toBe('classification');
    const out = new Float32Array(nRows);
    const raw = await trees.predict({ x, nRows, raw: true, out });
    expect(raw).toBe(out);
    const probabilities = trees.predictSync({ x, nRows });
    for (const [i, score] of raw.entries()) {
      expect(probabilities[i]).toBeCloseTo(1 / (1 + Math.exp(-score)), 6);
    }
    await trees.close();
  });

  it('refuses work once closed, waits for what runs, and closes once', async () => {
    const trees = await Trees.load(`${folder}regressor.onnx`);
    const nRows = 100_000;
    const x = new Float32Array(nRows * trees.nFeatures);
    let settled = false;
    const running = trees.predict({ x, nRows }).then(() => {
      settled = true;
    });
    const closing = trees.close();
    await expect(trees.predict({ x, nRows })).rejects.toMatchObject({
      code: 'WAGGLE_NATIVE_CLOSED',
    });
    expect(() => trees.predictSync({ x, nRows: 1 })).toThrow(/closed/);
    expect(() => trees.toBytes()).toThrow(/closed/);
    await closing;
    expect(settled).toBe(true);
    await running;
    await expect(trees.close()).resolves.toBeUndefined();
  });

  it('names what is wrong with a model', async () => {
    const refused = (source: string | Uint8Array): Promise<unknown> =>
      expect(
        Trees.load(typeof source === 'string' ? new TextEncoder().encode(source) : source),
      ).rejects.toMatchObject({ code: 'WAGGLE_NATIVE_MODEL' });
    await refused('nothing known');
    await refused('{"learner":{}}');
    await refused(new Uint8Array(0));
    await refused(readFileSync(`${folder}regressor.onnx`).subarray(0, 300));
    await expect(Trees.load('/no/such/file')).rejects.toMatchObject({
      code: 'WAGGLE_NATIVE_FILE',
      message: 'cannot read /no/such/file (ENOENT)',
    });
    // A model's text is no path, and not repeated whole.
    const text = await Trees.load('tree\n'.repeat(10_000)).catch((error: WaggleError) => error);
    expect(text).toMatchObject({
      code: 'WAGGLE_NATIVE_FILE',
      remedy: expect.stringContaining('Uint8Array') as string,
    });
    expect((text as WaggleError).message.length).toBeLessThan(1_100);
    await expect(
      Trees.load(new Uint8Array(4), { format: 'pickle' as 'auto' }),
    ).rejects.toMatchObject({ code: 'WAGGLE_NATIVE_INVALID_ARGUMENT' });
  });

  it('refuses arrays and sizes that do not fit, before it starts', async () => {
    const trees = await Trees.load(`${folder}regressor.onnx`);
    const x = new Float32Array(8);
    const code = (o: object): Promise<string> =>
      trees.predict({ x, nRows: 2, ...o }).then(
        () => 'accepted',
        (error: { code: string }) => error.code,
      );
    expect(await code({})).toBe('accepted');
    expect(await code({ nRows: 3 })).toBe('WAGGLE_NATIVE_SHAPE');
    expect(await code({ nFeatures: trees.nFeatures })).toBe('accepted');
    expect(await code({ nFeatures: trees.nFeatures + 1, nRows: 1 })).toBe('WAGGLE_NATIVE_SHAPE');
    expect(await code({ row: true })).toBe('WAGGLE_NATIVE_INVALID_ARGUMENT');
    await expect(trees.shap({ x, nRows: 1, nFeatures: 1 })).rejects.toThrow(/the model takes/);
    await expect(trees.shap({ x, nRows: 1, ...{ backgrond: x } })).rejects.toThrow(/backgrond/);
    expect(await code({ nRows: -1 })).toBe('WAGGLE_NATIVE_INVALID_ARGUMENT');
    expect(await code({ x: new Float64Array(8) })).toBe('WAGGLE_NATIVE_DTYPE');
    expect(await code({ out: new Float32Array(1) })).toBe('WAGGLE_NATIVE_SHAPE');
    expect(await code({ threads: 0 })).toBe('WAGGLE_NATIVE_INVALID_ARGUMENT');
    expect(await code({ signal: AbortSignal.abort() })).toBe('WAGGLE_ABORTED');
    expect(await code({ nRows: 0 })).toBe('accepted');
    const nRows = Math.ceil(TREES_SYNC_MAX_WORK / trees.nTrees) + 1;
    const large = new Float32Array(nRows * trees.nFeatures);
    expect(() => trees.predictSync({ x: large, nRows })).toThrow(/predictSync/);
    await trees.close();
  });

  it('is opened and closed many times without growing', async () => {
    const bytes = readFileSync(`${folder}softprob.xgboost.json`);
    const cycle = async (): Promise<void> => {
      const trees = await Trees.load(bytes);
      trees.predictSync({ x: new Float32Array(trees.nFeatures), nRows: 1 });
      await trees.close();
    };
    for (let i = 0; i < 200; ++i) await cycle();
    const before = process.memoryUsage().rss;
    for (let i = 0; i < 1000; ++i) await cycle();
    expect(process.memoryUsage().rss - before).toBeLessThan(64 * 1024 * 1024);
  });
});
