import { describe, expect, it } from 'vitest';
import { Ffm, Ftrl, IvfIndex, kmeans, queueDepth, treesFit } from '../../ts/index.js';
import { codeOf, countListeners, randomFloats } from './arrays.js';

/** Rows of `perRow` features each, enough of them to be told about before the end. */
function sparseRows(nRows: number, perRow: number) {
  const indices = new Int32Array(nRows * perRow);
  for (let i = 0; i < indices.length; i++) indices[i] = (i * 7919) % 1000;
  const indptr = new Int32Array(nRows + 1);
  for (let row = 0; row <= nRows; row++) indptr[row] = row * perRow;
  const successes = new Float64Array(nRows);
  for (let row = 0; row < nRows; row++) successes[row] = row % 3 === 0 ? 1 : 0;
  return { nRows, indptr, indices, successes };
}

describe('a progress callback that throws', () => {
  const thrown = new Error('from the callback');
  let calls = 0;
  const onProgress = (): never => {
    calls += 1;
    throw thrown;
  };

  const [nRows, dim] = [300_000, 32];
  const x = randomFloats(nRows * dim, 1);
  const y = Float64Array.from({ length: nRows }, (_, i) => i % 7);
  const jobs: Record<string, () => Promise<unknown>> = {
    kmeans: () => kmeans({ x, nRows, dim, k: 512, samplesPerCluster: 0, onProgress }),
    'IvfIndex.build': () =>
      IvfIndex.build({ matrix: x, nRows, dim, metric: 'ip', nLists: 8_192, onProgress }),
    treesFit: () =>
      treesFit({
        x,
        nRows,
        nFeatures: dim,
        y,
        objective: 'squared',
        nTrees: 5_000,
        progress: onProgress,
      }),
    'Ftrl.learn': async () => {
      const model = await Ftrl.create({ nFeatures: 1000 });
      try {
        await model.learn({ ...sparseRows(2_000_000, 8), onProgress });
      } finally {
        const { nRows: learned } = await model.stats();
        expect(learned).toBeLessThan(2_000_000);
      }
    },
    'Ffm.fit': async () => {
      const model = await Ffm.create({ nFeatures: 1000, nFields: 8 });
      await model.fit({ ...sparseRows(100_000, 8), epochs: 1_000, onProgress });
    },
  };

  it.each(Object.keys(jobs))('ends %s with its error', async (name) => {
    calls = 0;
    await expect(jobs[name]!()).rejects.toBe(thrown);
    expect(calls).toBe(1);
    expect(queueDepth()).toBe(0);
  });

  it('at the end is an error like any other', async () => {
    const small = { x: x.slice(0, 40 * dim), nRows: 40, dim, k: 3, onProgress };
    await expect(kmeans(small)).rejects.toBe(thrown);
  });

  it('leaves the signal of the caller in force, and no listener on it', async () => {
    const controller = new AbortController();
    const { signal } = controller;
    const listeners = countListeners(signal);
    const job = { x, nRows, dim, k: 512, samplesPerCluster: 0, onProgress: () => {}, signal };
    const running = codeOf(() => kmeans(job));
    setImmediate(() => controller.abort());
    expect(await running).toBe('WAGGLE_ABORTED');
    expect(listeners).toEqual({ now: 0, most: 1 });
    expect(await codeOf(() => kmeans(job))).toBe('WAGGLE_ABORTED');
  });
});
