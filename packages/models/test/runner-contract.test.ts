import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isWaggleError } from '@waggle/core';
import { afterAll, describe, expect, it } from 'vitest';
import { InlineRunner, OnnxRunner, type Runner, tensor } from '../src/index.js';
import { logisticModel, sigmoid } from './fixtures/onnx-model.js';

/** float32 sigmoid against doubles: a few units in the last place. */
const FLOAT_TOLERANCE = 1e-6;
const HOOKS = new URL('./fixtures/hooks.js', import.meta.url);
const folder = mkdtempSync(join(tmpdir(), 'waggle-models-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function codeOf(action: Promise<unknown>): Promise<string> {
  try {
    await action;
  } catch (error) {
    expect(isWaggleError(error)).toBe(true);
    return (error as { code: string }).code;
  }
  throw new Error('nothing was thrown');
}

const row = (...values: number[]) =>
  tensor('float32', Float32Array.from(values), [1, values.length]);

const kinds: [string, () => Runner][] = [
  ['InlineRunner', () => new InlineRunner()],
  ['OnnxRunner', () => new OnnxRunner({ workers: 2, threads: 2 })],
];

describe.each(kinds)('%s', (_name, open) => {
  const runner = open();
  afterAll(() => runner.close());

  it('answers what the model computes', async () => {
    const signature = await runner.load({ id: 'logistic', bytes: logisticModel([2, -1], 0.5) });
    expect(signature.inputs).toEqual([{ name: 'features', dtype: 'float32', dims: ['N', 2] }]);
    const outputs = await runner.run('logistic', { features: row(1, 3) });
    expect(outputs['probability']!.dims).toEqual([1, 1]);
    expect(Number(outputs['probability']!.data[0])).toBeCloseTo(sigmoid(-0.5), 6);
  });

  it('leaves the inputs of the caller untouched', async () => {
    await runner.load({ id: 'logistic', bytes: logisticModel([2, -1], 0.5) });
    const features = row(4, 5);
    await runner.run('logistic', { features });
    expect([...features.data]).toEqual([4, 5]);
  });

  it('answers no rows for no rows', async () => {
    await runner.load({ id: 'logistic', bytes: logisticModel([2, -1], 0.5) });
    const outputs = await runner.run('logistic', {
      features: tensor('float32', new Float32Array(0), [0, 2]),
    });
    expect(outputs['probability']!.dims).toEqual([0, 1]);
  });

  it('uses the new content after the same id was loaded again', async () => {
    await runner.load({ id: 'swapped', bytes: logisticModel([1, 0], 0) });
    await runner.load({ id: 'swapped', bytes: logisticModel([-1, 0], 0) });
    const outputs = await runner.run('swapped', { features: row(3, 0) });
    expect(Math.abs(Number(outputs['probability']!.data[0]) - sigmoid(-3))).toBeLessThan(
      FLOAT_TOLERANCE,
    );
  });

  it('refuses inputs that are missing, unknown, of the wrong type or of the wrong shape', async () => {
    await runner.load({ id: 'logistic', bytes: logisticModel([2, -1], 0.5) });
    const bad = [
      {},
      { features: row(1, 2), extra: row(1) },
      { features: tensor('float64', Float64Array.of(1, 2), [1, 2]) },
      { features: row(1, 2, 3) },
      { features: tensor('float32', Float32Array.of(1, 2), [2]) },
      { features: { dtype: 'float32' as const, data: Float32Array.of(1, 2, 3), dims: [2, 2] } },
    ];
    for (const inputs of bad) {
      expect(await codeOf(runner.run('logistic', inputs))).toBe('WAGGLE_MODEL_INPUT_MISMATCH');
    }
  });

  it('refuses a model file with other inputs than its caller was written for', async () => {
    const expected = { inputs: [{ name: 'features', dtype: 'float32', dims: [null, 2] }] };
    const load = (bytes: Uint8Array) => runner.load({ id: 'other', bytes, expected });
    expect(await codeOf(load(logisticModel([1, 2, 3], 0)))).toBe('WAGGLE_MODEL_INPUT_MISMATCH');
    expect(await codeOf(load(logisticModel([1, 2], 0, { input: 'x' })))).toBe(
      'WAGGLE_MODEL_INPUT_MISMATCH',
    );
    await expect(load(logisticModel([1, 2], 0))).resolves.toBeDefined();
  });

  it('names what is wrong with a model file', async () => {
    const path = join(folder, 'broken.onnx');
    writeFileSync(path, 'not a model');
    expect(await codeOf(runner.load({ id: 'broken', path }))).toBe('WAGGLE_MODEL_INVALID');
    expect(await codeOf(runner.load({ id: 'broken', path, sha256: '0'.repeat(64) }))).toBe(
      'WAGGLE_MODEL_CORRUPT',
    );
    expect(await codeOf(runner.load({ id: 'gone', path: join(folder, 'gone.onnx') }))).toBe(
      'WAGGLE_MODEL_NOT_FOUND',
    );
    expect(await codeOf(runner.run('never-loaded', {}))).toBe('WAGGLE_MODEL_NOT_FOUND');
    // A repaired file loads.
    writeFileSync(path, logisticModel([1], 0));
    await expect(runner.load({ id: 'broken', path })).resolves.toBeDefined();
  });

  it('runs a hook and carries its failures over with code and details', async () => {
    const call = (name: string, payload: unknown = {}) =>
      runner.call<unknown>({ module: HOOKS, name }, payload);
    expect(await call('double', { values: [1, 2.5] })).toEqual(Float64Array.of(2, 5));
    expect(await codeOf(call('failPlainly'))).toBe('WAGGLE_RUNNER_HOOK_FAILED');
    expect(await codeOf(call('noSuchHook'))).toBe('WAGGLE_RUNNER_HOOK_FAILED');
    await expect(call('failPlainly')).rejects.toThrow('a plain failure');
  });

  it('gives a hook the sessions of its thread', async () => {
    const path = join(folder, 'hooked.onnx');
    writeFileSync(path, logisticModel([1, 1], 0));
    const value = await runner.call<number>(
      { module: HOOKS, name: 'runModel' },
      { model: { id: 'hooked', path }, row: [1, 1] },
    );
    expect(value).toBeCloseTo(sigmoid(2), 6);
  });

  it('refuses an aborted request before it starts', async () => {
    await runner.load({ id: 'logistic', bytes: logisticModel([2, -1], 0.5) });
    const signal = AbortSignal.abort();
    expect(await codeOf(runner.run('logistic', { features: row(1, 2) }, { signal }))).toBe(
      'WAGGLE_ABORTED',
    );
  });

  it('refuses work after close, and closes twice', async () => {
    const other = open();
    await other.close();
    await other.close();
    expect(await codeOf(other.run('logistic', {}))).toBe('WAGGLE_RUNNER_CLOSED');
    expect(await codeOf(other.load({ id: 'x', bytes: new Uint8Array(1) }))).toBe(
      'WAGGLE_RUNNER_CLOSED',
    );
  });
});
