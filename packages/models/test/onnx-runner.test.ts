import { isWaggleError } from '@waggle/core';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import {
  checkSignature,
  OnnxRunner,
  type OnnxRunnerOptions,
  type TensorValue,
  tensor,
} from '../src/index.js';
import { doublingModel, logisticModel, sigmoid } from './fixtures/onnx-model.js';

const HOOKS = new URL('./fixtures/hooks.js', import.meta.url);
const FLOAT_TOLERANCE = 1e-6;
const open: OnnxRunner[] = [];

function runnerWith(options: OnnxRunnerOptions): OnnxRunner {
  const runner = new OnnxRunner(options);
  open.push(runner);
  return runner;
}

afterEach(async () => {
  await Promise.all(open.splice(0).map((runner) => runner.close()));
});

const rows = (values: readonly (readonly number[])[]): TensorValue =>
  tensor('float32', Float32Array.from(values.flat()), [values.length, values[0]!.length]);

async function codeOf(action: Promise<unknown>): Promise<string> {
  const error = await action.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(isWaggleError(error)).toBe(true);
  return (error as { code: string }).code;
}

/** Waits until the hook has set the second word: it is inside the worker. */
async function settled(flag: Int32Array): Promise<void> {
  // In Node 20 already, in TypeScript's library from ES2024.
  const { waitAsync } = Atomics as unknown as {
    waitAsync(array: Int32Array, index: number, value: number): { async: boolean; value: unknown };
  };
  await waitAsync(flag, 1, 0).value;
}

/** Occupies one worker until `release()`; settles once the worker is inside. */
async function holdWorker(runner: OnnxRunner): Promise<{ release(): Promise<string> }> {
  const flag = new Int32Array(new SharedArrayBuffer(8));
  const held = runner.call<string>({ module: HOOKS, name: 'hold' }, { flag: flag.buffer });
  await settled(flag);
  return {
    release() {
      Atomics.store(flag, 0, 1);
      Atomics.notify(flag, 0);
      return held;
    },
  };
}

describe('options', () => {
  it.each([
    { workers: 0 },
    { maxQueue: Number.NaN },
    { maxWaitMs: -1 },
    { maxWaitMs: '5ms' },
    { maxBatch: 8 },
  ])('%j are refused', (options) => {
    expect(() => new OnnxRunner(options as OnnxRunnerOptions)).toThrow(
      expect.objectContaining({ code: 'WAGGLE_INVALID_ARGUMENT' }),
    );
  });

  it('a free dimension without a name is shown as one', () => {
    const signature = (dims: readonly (number | string | null)[]) => ({
      inputs: [{ name: 'x', dtype: 'float32', dims }],
      outputs: [],
    });
    expect(() => checkSignature('m', signature(['', 16]), signature([null, 31]))).toThrow(
      /float32\[\?, 16\].*float32\[\?, 31\]/,
    );
  });
});

describe('OnnxRunner', () => {
  it('survives 10,000 runs on 8 workers', async () => {
    const runner = runnerWith({ workers: 8, threads: 8, maxQueue: 10_000, maxBatchRows: 4 });
    await runner.load({ id: 'm', bytes: logisticModel([1, -2], 0.25) });
    const outputs = await Promise.all(
      Array.from({ length: 10_000 }, (_, i) =>
        runner.run('m', { features: rows([[i / 1000, 1]]) }),
      ),
    );
    for (const [i, output] of outputs.entries()) {
      const found = Number(output['probability']!.data[0]);
      expect(Math.abs(found - sigmoid(i / 1000 - 1.75))).toBeLessThan(FLOAT_TOLERANCE);
    }
    expect(runner.stats().rows).toBeGreaterThanOrEqual(10_000);
  });

  it('divides its threads among its workers', () => {
    expect(runnerWith({ workers: 2, threads: 8 }).stats().threadsPerSession).toBe(4);
    expect(runnerWith({ workers: 4, threads: 2 }).stats().threadsPerSession).toBe(1);
  });

  it('gives each request its own rows whatever they were batched with', async () => {
    const runner = runnerWith({ workers: 1, threads: 1, maxBatchRows: 16 });
    await runner.load({ id: 'm', bytes: logisticModel([1, -2], 0.25) });
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.array(
            fc.tuple(
              fc.float({ min: -4, max: 4, noNaN: true }),
              fc.float({ min: -4, max: 4, noNaN: true }),
            ),
            {
              minLength: 1,
              maxLength: 5,
            },
          ),
          { minLength: 1, maxLength: 20 },
        ),
        async (requests) => {
          const answers = await Promise.all(
            requests.map((values) => runner.run('m', { features: rows(values) })),
          );
          for (const [i, answer] of answers.entries()) {
            expect(answer['probability']!.dims).toEqual([requests[i]!.length, 1]);
            for (const [j, [a, b]] of requests[i]!.entries()) {
              const found = Number(answer['probability']!.data[j]);
              expect(Math.abs(found - sigmoid(a - 2 * b + 0.25))).toBeLessThan(FLOAT_TOLERANCE);
            }
          }
        },
      ),
      { numRuns: 25 },
    );
  });

  it('runs requests together while the worker is busy', async () => {
    const runner = runnerWith({ workers: 1, threads: 1, maxBatchRows: 64 });
    await runner.load({ id: 'm', bytes: logisticModel([1], 0) });
    const before = runner.stats().batches;
    const held = await holdWorker(runner);
    const answers = Array.from({ length: 40 }, (_, i) =>
      runner.run('m', { features: rows([[i]]) }),
    );
    await held.release();
    await Promise.all(answers);
    // The held task and one batch.
    expect(runner.stats().batches - before).toBe(2);
  });

  it('does not batch above maxBatchRows', async () => {
    const runner = runnerWith({ workers: 1, threads: 1, maxBatchRows: 10 });
    await runner.load({ id: 'm', bytes: logisticModel([1], 0) });
    const before = runner.stats().batches;
    const held = await holdWorker(runner);
    const answers = Array.from({ length: 40 }, (_, i) =>
      runner.run('m', { features: rows([[i]]) }),
    );
    await held.release();
    await Promise.all(answers);
    expect(runner.stats().batches - before).toBe(5);
  });

  it('refuses what its queue cannot hold and answers the rest', async () => {
    const runner = runnerWith({ workers: 1, threads: 1, maxQueue: 3 });
    await runner.load({ id: 'm', bytes: logisticModel([1], 0) });
    const held = await holdWorker(runner);
    const accepted = [0, 1, 2].map((i) => runner.run('m', { features: rows([[i]]) }));
    expect(await codeOf(runner.run('m', { features: rows([[9]]) }))).toBe(
      'WAGGLE_RUNNER_QUEUE_FULL',
    );
    await held.release();
    expect((await Promise.all(accepted)).length).toBe(3);
  });

  it('takes an aborted request out of the queue and leaves its neighbours in', async () => {
    const runner = runnerWith({ workers: 1, threads: 1 });
    await runner.load({ id: 'm', bytes: logisticModel([1], 0) });
    const held = await holdWorker(runner);
    const abort = new AbortController();
    const dropped = runner.run('m', { features: rows([[1]]) }, { signal: abort.signal });
    const kept = runner.run('m', { features: rows([[2]]) });
    abort.abort();
    expect(await codeOf(dropped)).toBe('WAGGLE_ABORTED');
    expect(runner.stats().queued).toBe(1);
    await held.release();
    expect(Number((await kept)['probability']!.data[0])).toBeCloseTo(sigmoid(2), 6);
  });

  it('answers an aborted running task at once and keeps the worker', async () => {
    const runner = runnerWith({ workers: 1, threads: 1 });
    await runner.load({ id: 'm', bytes: logisticModel([1], 0) });
    const flag = new Int32Array(new SharedArrayBuffer(8));
    const abort = new AbortController();
    const held = runner.call(
      { module: HOOKS, name: 'hold' },
      { flag: flag.buffer },
      { signal: abort.signal },
    );
    await settled(flag);
    abort.abort();
    expect(await codeOf(held)).toBe('WAGGLE_ABORTED');
    Atomics.store(flag, 0, 1);
    Atomics.notify(flag, 0);
    await expect(runner.run('m', { features: rows([[2]]) })).resolves.toBeDefined();
  });

  it('goes on with a new worker after one was lost', async () => {
    const runner = runnerWith({ workers: 1, threads: 1 });
    await runner.load({ id: 'm', bytes: logisticModel([1], 0) });
    expect(await codeOf(runner.call({ module: HOOKS, name: 'exitThread' }, {}))).toBe(
      'WAGGLE_RUNNER_WORKER_LOST',
    );
    const answer = await runner.run('m', { features: rows([[2]]) });
    expect(Number(answer['probability']!.data[0])).toBeCloseTo(sigmoid(2), 6);
  });

  it('waits for accepted work when it is closed', async () => {
    const runner = runnerWith({ workers: 2, threads: 2 });
    await runner.load({ id: 'm', bytes: logisticModel([1], 0) });
    const answers = Array.from({ length: 50 }, (_, i) =>
      runner.run('m', { features: rows([[i]]) }),
    );
    await runner.close();
    expect((await Promise.all(answers)).length).toBe(50);
  });

  it('never batches a model that is loaded with batch: false or does not answer row by row', async () => {
    const runner = runnerWith({ workers: 1, threads: 1 });
    await runner.load({ id: 'twice', bytes: doublingModel(1), batch: false });
    const held = await holdWorker(runner);
    const answers = [1, 2, 3].map((value) => runner.run('twice', { features: rows([[value]]) }));
    await held.release();
    expect(
      (await Promise.all(answers)).map((answer) => [...(answer['twice']!.data as Float32Array)]),
    ).toEqual([
      [1, 1],
      [2, 2],
      [3, 3],
    ]);
  });

  it('reports a model that claims rows it does not answer', async () => {
    const runner = runnerWith({ workers: 1, threads: 1 });
    await runner.load({ id: 'twice', bytes: doublingModel(1) });
    const held = await holdWorker(runner);
    const answers = [1, 2].map((value) =>
      codeOf(runner.run('twice', { features: rows([[value]]) })),
    );
    await held.release();
    expect(await Promise.all(answers)).toEqual([
      'WAGGLE_MODEL_RUN_FAILED',
      'WAGGLE_MODEL_RUN_FAILED',
    ]);
  });

  it('detaches input buffers only when they are handed over', async () => {
    const runner = runnerWith({ workers: 1, threads: 1 });
    await runner.load({ id: 'm', bytes: logisticModel([1], 0) });
    const features = rows([[2]]);
    await runner.run('m', { features }, { transferInputs: true });
    expect(features.data.byteLength).toBe(0);
  });

  it('refuses options outside their domain', () => {
    for (const options of [
      { workers: 0 },
      { workers: 1.5 },
      { maxQueue: 0 },
      { maxBatchRows: Number.NaN },
    ]) {
      expect(() => new OnnxRunner(options)).toThrow(/must be a whole number/);
    }
  });
});
