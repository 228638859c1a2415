import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Ftrl, type FtrlLearnInput, glmFitSparse } from '../../ts/index.js';
import { addonFile, codeOf, detached } from './arrays.js';
import { logLoss, part, stream } from './sparse-data.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'waggle-ftrl-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Algorithm 1 as printed, one example at a time, in plain JavaScript. */
function algorithm1(
  o: FtrlLearnInput,
  { alpha, beta, l1, l2 }: { alpha: number; beta: number; l1: number; l2: number },
) {
  const z = new Map<number, number>();
  const n = new Map<number, number>();
  const weight = (i: number): number => {
    const zi = z.get(i) ?? 0;
    if (Math.abs(zi) <= l1) return 0;
    return -(1 / ((beta + Math.sqrt(n.get(i) ?? 0)) / alpha + l2)) * (zi - Math.sign(zi) * l1);
  };
  const predictions: number[] = [];
  for (let t = 0; t < o.nRows; t++) {
    const active = [...o.indices.subarray(o.indptr[t], o.indptr[t + 1])];
    const w = active.map(weight);
    const p = 1 / (1 + Math.exp(-w.reduce((a, b) => a + b, 0)));
    predictions.push(p);
    for (const [at, i] of active.entries()) {
      const g = p - o.successes[t]!;
      const before = n.get(i) ?? 0;
      const sigma = (Math.sqrt(before + g * g) - Math.sqrt(before)) / alpha;
      z.set(i, (z.get(i) ?? 0) + g - sigma * w[at]!);
      n.set(i, before + g * g);
    }
  }
  return { predictions, weight };
}

describe('Ftrl', () => {
  it('is Algorithm 1 of the paper', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 400 }),
        fc.integer({ min: 1, max: 2 ** 30 }),
        fc.constantFrom(0, 0.3, 2),
        fc.constantFrom(0, 1),
        async (n, seed, l1, l2) => {
          const s = stream({ n, nFields: 3, perField: 9, seed });
          const rates = { alpha: 0.2, beta: 0.5, l1, l2 };
          const model = await Ftrl.create({ nFeatures: 27, ...rates, intercept: false });
          const predictions = new Float64Array(n);
          await model.learn({ ...s, predictions });
          const expected = algorithm1(s, rates);
          for (const [i, p] of expected.predictions.entries()) {
            expect(Math.abs(predictions[i]! - p)).toBeLessThan(1e-12);
          }
          const { indices, values } = await model.weights();
          for (let i = 0; i < 27; i++) {
            const at = indices.indexOf(i);
            expect(Math.abs((at < 0 ? 0 : values[at]!) - expected.weight(i))).toBeLessThan(1e-12);
          }
          await model.close();
        },
      ),
      { numRuns: 25 },
    );
  });

  it('reports the loss of each row before it was learned', async () => {
    const s = stream({ n: 3_000, nFields: 4, perField: 20, seed: 2 });
    const model = await Ftrl.create({ nFeatures: s.nFeatures });
    const predictions = new Float64Array(s.nRows);
    const seen: number[] = [];
    const learned = await model.learn({ ...s, predictions, onProgress: (d) => seen.push(d) });
    expect(predictions[0]).toBe(0.5);
    expect(learned.nRows).toBe(3_000);
    expect(learned.meanLoss).toBeCloseTo(logLoss(predictions, s.successes), 12);
    expect(seen.at(-1)).toBe(1);
    const more = await model.learn(s);
    expect(more.meanLoss).toBeLessThan(learned.meanLoss);
    const stats = await model.stats();
    expect(stats.nRows).toBe(6_000);
    expect(stats.loss).toBeCloseTo(learned.loss + more.loss, 9);
    await model.close();
  });

  it('saved half-way and loaded, goes on with the same bits', async () => {
    const s = stream({ n: 20_000, nFields: 5, perField: 200, seed: 3 });
    const options = { nFeatures: s.nFeatures, l1: 0.4, l2: 0.2 };
    const whole = await Ftrl.create(options);
    await whole.learn(s);
    const first = await Ftrl.create(options);
    await first.learn(part(s, 0, 7_777));
    const path = join(folder, 'half.ftrl');
    await first.save(path);
    await first.close();
    const second = await Ftrl.load(path);
    expect(second.options).toEqual({ ...options, alpha: 0.1, beta: 1, intercept: true });
    await second.learn(part(s, 7_777, 20_000));
    expect(await second.weights()).toEqual(await whole.weights());
    expect(await second.predict(s)).toEqual(await whole.predict(s));
    await Promise.all([whole.close(), second.close()]);
  });

  it('predicts what its weights say', async () => {
    const s = stream({ n: 2_000, nFields: 3, perField: 30, seed: 4 });
    const model = await Ftrl.create({ nFeatures: s.nFeatures, l1: 0.5 });
    await model.learn(s);
    const { indices, values, intercept } = await model.weights();
    const dense = new Float64Array(s.nFeatures);
    indices.forEach((i, at) => {
      dense[i] = values[at]!;
    });
    const offset = new Float64Array(s.nRows).fill(0.25);
    const probabilities = await model.predict({ ...s, offset });
    for (let i = 0; i < s.nRows; i++) {
      let eta = intercept + 0.25;
      for (const j of s.indices.subarray(3 * i, 3 * i + 3)) eta += dense[j]!;
      expect(Math.abs(probabilities[i]! - 1 / (1 + Math.exp(-eta)))).toBeLessThan(1e-14);
    }
    await model.close();
  });

  it('with the learning rate spent over many passes comes to what the batch fit finds', async () => {
    const s = stream({ n: 4_000, nFields: 2, perField: 6, seed: 5 });
    const batch = await glmFitSparse({ ...s, l2: 1 });
    const model = await Ftrl.create({ nFeatures: s.nFeatures, alpha: 0.05, l2: 0 });
    for (let pass = 0; pass < 30; pass++) await model.learn(s);
    const online = logLoss(await model.predict(s), s.successes);
    expect(online).toBeLessThan(-batch.logLikelihood / s.nRows + 1e-3);
    await model.close();
  });

  it('counts, weights and copies of a row mean the same loss', async () => {
    const rows = { nRows: 1, indptr: Int32Array.of(0, 1), indices: Int32Array.of(0) };
    const model = await Ftrl.create({ nFeatures: 1 });
    const { loss, totalWeight } = await model.learn({
      ...rows,
      successes: Float64Array.of(3),
      trials: Float64Array.of(10),
      weights: Float64Array.of(2),
    });
    expect(loss).toBeCloseTo(20 * Math.log(2), 12);
    expect(totalWeight).toBe(20);
    await model.close();
  });

  it('makes a large table without holding the event loop', async () => {
    let least = Number.POSITIVE_INFINITY;
    for (let attempt = 0; attempt < 3; attempt++) {
      let at = performance.now();
      let longest = 0;
      const timer = setInterval(() => {
        longest = Math.max(longest, performance.now() - at);
        at = performance.now();
      }, 1);
      const model = await Ftrl.create({ nFeatures: 1 << 25 });
      // What settled the promise runs before the timer does.
      longest = Math.max(longest, performance.now() - at);
      clearInterval(timer);
      least = Math.min(least, longest);
      await model.close();
    }
    expect(least).toBeLessThan(50);
  });

  it('runs calls in the order they were made', async () => {
    const s = stream({ n: 30_000, nFields: 4, perField: 50, seed: 6 });
    const model = await Ftrl.create({ nFeatures: s.nFeatures });
    const [, early, , late] = await Promise.all([
      model.learn(part(s, 0, 15_000)),
      model.predict(part(s, 0, 10)),
      model.learn(part(s, 15_000, 30_000)),
      model.predict(part(s, 0, 10)),
    ]);
    const alone = await Ftrl.create({ nFeatures: s.nFeatures });
    await alone.learn(part(s, 0, 15_000));
    expect(await alone.predict(part(s, 0, 10))).toEqual(early);
    await alone.learn(part(s, 15_000, 30_000));
    expect(await alone.predict(part(s, 0, 10))).toEqual(late);
    await Promise.all([model.close(), alone.close()]);
  });

  it('aborted before its turn, does not wait for it, and leaves the others in order', async () => {
    const s = stream({ n: 200_000, nFields: 4, perField: 50, seed: 6 });
    const model = await Ftrl.create({ nFeatures: s.nFeatures });
    const controller = new AbortController();
    const { signal } = controller;
    const settled: string[] = [];
    const learn = (name: string, o: { signal?: AbortSignal }) =>
      model
        .learn({ ...s, ...o })
        .then(
          () => name,
          (e: { code: string }) => e.code,
        )
        .then((what) => settled.push(what));
    const all = [learn('first', {}), learn('waiting', { signal }), learn('last', {})];
    // Before the event loop turns, and with it before the first can settle, however long this thread is kept waiting.
    await Promise.resolve();
    controller.abort();
    await Promise.all(all);
    expect(settled).toEqual(['WAGGLE_ABORTED', 'first', 'last']);
    expect((await model.stats()).nRows).toBe(400_000);
    await model.close();
  });

  it('aborted, says after how many rows, from where the same bits follow', async () => {
    const s = stream({ n: 400_000, nFields: 4, perField: 5_000, seed: 7 });
    const model = await Ftrl.create({ nFeatures: s.nFeatures });
    const controller = new AbortController();
    const running = model.learn({ ...s, signal: controller.signal });
    setImmediate(() => controller.abort());
    const error = await running.then(
      () => undefined,
      (e: { code: string; details: { rowsLearned: number } }) => e,
    );
    expect(error?.code).toBe('WAGGLE_ABORTED');
    const { rowsLearned } = error!.details;
    expect(rowsLearned).toBe((await model.stats()).nRows);
    await model.learn(part(s, rowsLearned, s.nRows));
    const whole = await Ftrl.create({ nFeatures: s.nFeatures });
    await whole.learn(s);
    expect(await model.weights()).toEqual(await whole.weights());
    await Promise.all([model.close(), whole.close()]);
  });

  const base = stream({ n: 50, nFields: 2, perField: 5, seed: 8 });
  const refusals: [string, Partial<FtrlLearnInput>, string][] = [
    [
      'an index too high',
      { indices: base.indices.slice().fill(10, 7, 8) },
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    ],
    [
      'a negative index',
      { indices: base.indices.slice().fill(-1, 7, 8) },
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    ],
    [
      'an indptr that falls',
      { indptr: base.indptr.slice().fill(0, 7, 8) },
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    ],
    [
      'an indptr that ends below 0',
      { indptr: base.indptr.slice().fill(-5, 50) },
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    ],
    ['short indices', { indices: base.indices.slice(0, 99) }, 'WAGGLE_NATIVE_SHAPE'],
    ['a short indptr', { indptr: base.indptr.slice(0, 50) }, 'WAGGLE_NATIVE_SHAPE'],
    ['short values', { values: new Float32Array(99) }, 'WAGGLE_NATIVE_SHAPE'],
    ['NaN values', { values: new Float32Array(100).fill(Number.NaN, 3, 4) }, 'WAGGLE_NATIVE_NAN'],
    [
      'a label above 1',
      { successes: new Float64Array(50).fill(2) },
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    ],
    [
      'a negative label',
      { successes: new Float64Array(50).fill(-1) },
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    ],
    ['a NaN label', { successes: new Float64Array(50).fill(Number.NaN) }, 'WAGGLE_NATIVE_NAN'],
    [
      'weights beyond 1e50',
      { weights: new Float64Array(50).fill(1e51) },
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    ],
    ['an infinite offset', { offset: new Float64Array(50).fill(Infinity) }, 'WAGGLE_NATIVE_NAN'],
    [
      'indices of the wrong class',
      { indices: new Float32Array(100) as unknown as Int32Array },
      'WAGGLE_NATIVE_DTYPE',
    ],
    [
      'shared memory',
      { indices: new Int32Array(new SharedArrayBuffer(400)) as unknown as Int32Array },
      'WAGGLE_NATIVE_DTYPE',
    ],
    ['detached memory', { indices: detached(base.indices.slice()) }, 'WAGGLE_NATIVE_DETACHED'],
  ];

  it.each(refusals)('refuses %s and learns nothing', async (_title, wrong, code) => {
    const model = await Ftrl.create({ nFeatures: 10 });
    expect(await codeOf(() => model.learn({ ...base, ...wrong }))).toBe(code);
    expect((await model.stats()).nRows).toBe(0);
    await model.close();
  });

  it('refuses options that make no sense', async () => {
    for (const wrong of [
      { alpha: 0 },
      { beta: 0 },
      { l1: -1 },
      { nFeatures: 0 },
      { nFeatures: 2 ** 29 },
    ]) {
      expect(await codeOf(() => Ftrl.create({ nFeatures: 10, ...wrong }))).toBe(
        'WAGGLE_NATIVE_INVALID_ARGUMENT',
      );
    }
    expect(await codeOf(() => Ftrl.create({ nFeatures: 10, l2: Number.NaN }))).toBe(
      'WAGGLE_NATIVE_NAN',
    );
  });

  it('refuses files that are truncated, altered, foreign or missing', async () => {
    const model = await Ftrl.create({ nFeatures: 10 });
    await model.learn(base);
    const path = join(folder, 'good.ftrl');
    await model.save(path);
    const good = readFileSync(path);
    const bad = join(folder, 'bad.ftrl');
    const altered = Buffer.from(good);
    altered[good.length - 5]! ^= 1;
    for (const bytes of [
      good.subarray(0, good.length - 1),
      altered,
      Buffer.from('something else'),
      Buffer.alloc(0),
    ]) {
      writeFileSync(bad, bytes);
      expect(await codeOf(() => Ftrl.load(bad))).toBe('WAGGLE_NATIVE_FILE');
    }
    expect(await codeOf(() => Ftrl.load(join(folder, 'none')))).toBe('WAGGLE_NATIVE_FILE');
    expect(await codeOf(() => model.save(join(folder, 'no', 'folder')))).toBe('WAGGLE_NATIVE_FILE');
    await model.close();
  });

  it('closes once what was asked for before is done, and then refuses', async () => {
    const model = await Ftrl.create({ nFeatures: 10 });
    const running = model.learn(base);
    await Promise.all([model.close(), model.close()]);
    expect((await running).nRows).toBe(50);
    expect(await codeOf(() => model.learn(base))).toBe('WAGGLE_NATIVE_CLOSED');
    expect(await codeOf(() => model.stats())).toBe('WAGGLE_NATIVE_CLOSED');
  });

  it('works in worker threads, also in one that ends while it learns', async () => {
    const code = `
      const { parentPort, workerData } = require('node:worker_threads');
      const engine = require(workerData.addon);
      const n = 2_000_000;
      const indptr = Int32Array.from({ length: n + 1 }, (_, i) => i);
      engine.ftrlCreate(1000, 0.1, 1, 0, 0, true).promise.then(({ handle }) => {
        const learn = (rows) => engine.ftrlLearn(handle, rows, indptr, new Int32Array(n), undefined, undefined,
          new Float64Array(n), undefined, undefined, undefined, undefined, new Float64Array(1), new Float64Array(3)).promise;
        learn(10).then(() => { learn(n); parentPort.postMessage('learning'); });
      });`;
    const worker = new Worker(code, { eval: true, workerData: { addon: addonFile } });
    await new Promise((resolve, reject) => {
      worker.once('message', resolve);
      worker.once('error', reject);
    });
    await worker.terminate();
  });
});
