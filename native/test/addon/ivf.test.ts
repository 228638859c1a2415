import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import {
  type IvfBuildInput,
  IvfIndex,
  type IvfSearchInput,
  type IvfStage,
  type Metric,
  queueDepth,
  topk,
} from '../../ts/index.js';
import { codeOf, detached, randomFloats, randomNumbers } from './arrays.js';

const METRICS: readonly Metric[] = ['ip', 'cosine', 'l2'];
const folder = mkdtempSync(join(tmpdir(), 'waggle-ivf-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Rows around `nCentres` centres, some twice. */
function clustered(n: number, dim: number, nCentres: number, seed: number): Float32Array {
  const centres = randomFloats(nCentres * dim, 77, 2);
  const next = randomNumbers(seed);
  const rows = new Float32Array(n * dim);
  for (let r = 0; r < n; r++) {
    const c = Math.floor(next() ** 2 * nCentres);
    for (let i = 0; i < dim; i++) rows[r * dim + i] = centres[c * dim + i]! + (next() - 0.5) * 0.8;
  }
  return rows;
}

const N = 6_000;
const DIM = 24;
const matrix = clustered(N, DIM, 40, 1);
const queries = clustered(50, DIM, 40, 2);

function input(overrides: Partial<IvfBuildInput> = {}): IvfBuildInput {
  return { matrix, nRows: N, dim: DIM, metric: 'l2', ...overrides };
}

async function withIndex(
  overrides: Partial<IvfBuildInput>,
  use: (index: IvfIndex) => Promise<void>,
): Promise<void> {
  const index = await IvfIndex.build(input(overrides));
  try {
    await use(index);
  } finally {
    await index.close();
  }
}

function shareFound(found: Int32Array, truth: Int32Array, k: number): number {
  let hits = 0;
  for (let at = 0; at < truth.length; at += k) {
    const wanted = new Set(truth.subarray(at, at + k));
    for (const row of found.subarray(at, at + k)) if (wanted.has(row)) hits += 1;
  }
  return hits / truth.length;
}

describe('IvfIndex', () => {
  it.each(METRICS)(
    'reaches its recall with few rows read, in scores of topk (%s)',
    async (metric) => {
      await withIndex({ metric, recall: 0.97 }, async (index) => {
        const truth = await topk({
          queries,
          nQueries: 50,
          matrix,
          nRows: N,
          dim: DIM,
          k: 10,
          metric,
        });
        const answer = await index.search({ queries, nQueries: 50, k: 10 });
        expect(shareFound(answer.rows, truth.rows, 10)).toBeGreaterThan(0.9);
        expect(answer.rowsScanned).toBeLessThan(50 * N * 0.5);
        expect(answer.exhaustive).toBe(0);
        const { curve, nProbe, recallTarget, heldOut, nMeasured } = index.stats();
        const chosen = curve.find((point) => point.nProbe === nProbe)!;
        expect(chosen.recall - chosen.standardError).toBeGreaterThanOrEqual(0.97);
        expect({ recallTarget, heldOut, nMeasured }).toEqual({
          recallTarget: 0.97,
          heldOut: false,
          nMeasured: 256,
        });
        const all = await index.search({
          queries,
          nQueries: 50,
          k: 10,
          nProbe: index.stats().nLists,
        });
        expect(all.scores).toEqual(truth.scores);
        expect(all.rows).toEqual(truth.rows);
      });
    },
  );

  it('answers as a brute force does when every list is probed, for any data', async () => {
    const value = fc.float({ noNaN: true, noDefaultInfinity: true, min: -4, max: 4 });
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 90 }),
        fc.integer({ min: 1, max: 12 }),
        fc.integer({ min: 1, max: 12 }),
        fc.integer({ min: 1, max: 20 }),
        fc.constantFrom(...METRICS),
        fc.constantFrom('none', 'filter', 'filters', 'allowRows'),
        fc.infiniteStream(value),
        fc.infiniteStream(fc.integer({ min: 0, max: 255 })),
        async (nRows, dim, nLists, k, metric, kind, values, bytes) => {
          const take = (n: number) =>
            Float32Array.from({ length: n }, () => values.next().value as number);
          const bits = (n: number) =>
            Uint8Array.from({ length: n }, () => bytes.next().value as number);
          const rows = take(nRows * dim);
          const asked = take(3 * dim);
          const width = Math.ceil(nRows / 8);
          const allow: Pick<IvfSearchInput, 'filter' | 'filters' | 'allowRows'> = {
            ...(kind === 'filter' ? { filter: bits(width) } : {}),
            ...(kind === 'filters' ? { filters: bits(3 * width) } : {}),
            ...(kind === 'allowRows'
              ? {
                  allowRows: Int32Array.from(
                    Array.from({ length: nRows }, (_, r) => r).filter(
                      () => (bytes.next().value as number) > 100,
                    ),
                  ),
                }
              : {}),
          };
          const index = await IvfIndex.build({
            matrix: rows,
            nRows,
            dim,
            metric,
            nLists,
            lists: 'f32',
            nSample: 5,
          });
          const found = await index.search({
            queries: asked,
            nQueries: 3,
            k,
            nProbe: nLists,
            ...allow,
          });
          const truth = await topk({
            queries: asked,
            nQueries: 3,
            matrix: rows,
            nRows,
            dim,
            k,
            metric,
            ...allow,
          });
          expect(found.rows).toEqual(truth.rows);
          expect(found.scores).toEqual(truth.scores);
          await index.close();
        },
      ),
      { numRuns: 60 },
    );
  });

  it('does without the rows in a fraction of the memory', async () => {
    await withIndex({ keepRows: false, recall: 0.9 }, async (index) => {
      expect(index.stats().keepsRows).toBe(false);
      const kept = await IvfIndex.build(input());
      expect(index.stats().bytes).toBeLessThan(kept.stats().bytes - N * DIM * 4 + 1);
      await kept.close();
      const truth = await topk({
        queries,
        nQueries: 50,
        matrix,
        nRows: N,
        dim: DIM,
        k: 10,
        metric: 'l2',
      });
      const answer = await index.search({ queries, nQueries: 50, k: 10 });
      expect(shareFound(answer.rows, truth.rows, 10)).toBeGreaterThan(0.85);
      for (let i = 0; i < answer.rows.length; i += 10) {
        if (answer.rows[i] === truth.rows[i]) {
          expect(answer.scores[i]!).toBeCloseTo(truth.scores[i]!, 1);
        }
      }
    });
  });

  it('measures on given queries when there are any', async () => {
    await withIndex({ heldOut: queries, nHeldOut: 50 }, async (index) => {
      expect(index.stats()).toMatchObject({ heldOut: true, nMeasured: 50 });
    });
  });

  it('comes back from its file as it was, and refuses any other file', async () => {
    const path = join(folder, 'index.ivf');
    await withIndex({ metric: 'cosine' }, async (index) => {
      await index.save(path);
      const loaded = await IvfIndex.load(path);
      const ask = { queries, nQueries: 50, k: 7 };
      expect(await loaded.search(ask)).toEqual(await index.search(ask));
      expect(loaded.stats()).toEqual(index.stats());
      const again = join(folder, 'again.ivf');
      await loaded.save(again);
      expect(readFileSync(again).equals(readFileSync(path))).toBe(true);
      await loaded.close();
      const bytes = readFileSync(path);
      for (const wrong of [
        bytes.subarray(0, 1_000),
        Buffer.from('not an index'),
        Buffer.alloc(0),
      ]) {
        writeFileSync(join(folder, 'wrong.ivf'), wrong);
        expect(await codeOf(() => IvfIndex.load(join(folder, 'wrong.ivf')))).toBe(
          'WAGGLE_NATIVE_FILE',
        );
      }
    });
    expect(await codeOf(() => IvfIndex.load(join(folder, 'absent.ivf')))).toBe(
      'WAGGLE_NATIVE_FILE',
    );
    expect(await codeOf(() => IvfIndex.load(''))).toBe('WAGGLE_NATIVE_INVALID_ARGUMENT');
    expect(await codeOf(() => IvfIndex.load('a\0b'))).toBe('WAGGLE_NATIVE_INVALID_ARGUMENT');
  });

  it('tells how far it is, and stops when asked', async () => {
    const large = clustered(60_000, 48, 300, 5);
    const stages = new Set<IvfStage>();
    const job = { matrix: large, nRows: 60_000, dim: 48, metric: 'l2', nLists: 3_000 } as const;
    const index = await IvfIndex.build({
      ...job,
      onProgress: (stage, done) => {
        expect(done).toBeGreaterThanOrEqual(0);
        expect(done).toBeLessThanOrEqual(1);
        stages.add(stage);
      },
    });
    await index.close();
    expect(stages.has('measure')).toBe(true);
    const controller = new AbortController();
    const building = IvfIndex.build({ ...job, signal: controller.signal });
    setTimeout(() => controller.abort(), 20);
    expect(await codeOf(() => building)).toBe('WAGGLE_ABORTED');
    expect(queueDepth()).toBe(0);
  });

  it('closes once what runs is done, and refuses everything after', async () => {
    const index = await IvfIndex.build(input());
    const searches = Array.from({ length: 20 }, () =>
      index.search({ queries, nQueries: 50, k: 5 }),
    );
    const closed = index.close();
    expect(index.close()).toBe(closed);
    expect(await codeOf(() => index.search({ queries, nQueries: 50, k: 5 }))).toBe(
      'WAGGLE_NATIVE_CLOSED',
    );
    expect(await codeOf(() => index.save(join(folder, 'late.ivf')))).toBe('WAGGLE_NATIVE_CLOSED');
    expect(await codeOf(() => index.stats())).toBe('WAGGLE_NATIVE_CLOSED');
    await closed;
    expect((await Promise.all(searches)).every((answer) => answer.rows[0]! >= 0)).toBe(true);
  });

  const refusals: [string, Partial<IvfBuildInput>, string][] = [
    ['no rows', { nRows: 0 }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['dim = 0', { dim: 0 }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['an unknown metric', { metric: 'dot' as Metric }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['nLists = 0', { nLists: 0 }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['unknown lists', { lists: 'pq' as 'int8' }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['f32 lists without rows', { lists: 'f32', keepRows: false }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['uncounted held-out', { heldOut: new Float32Array(DIM) }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['recall above 1', { recall: 1.01 }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['a NaN recall', { recall: Number.NaN }, 'WAGGLE_NATIVE_NAN'],
    ['a fractional seed', { seed: 0.5 }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['a short matrix', { nRows: N + 1 }, 'WAGGLE_NATIVE_SHAPE'],
    ['held-out queries that are missing', { nHeldOut: 3 }, 'WAGGLE_NATIVE_DTYPE'],
    [
      'a detached matrix',
      { matrix: detached(new Float32Array(N * DIM)) },
      'WAGGLE_NATIVE_DETACHED',
    ],
    ['NaN', { matrix: matrix.slice().fill(Number.NaN, 50, 51) }, 'WAGGLE_NATIVE_NAN'],
  ];
  it.each(refusals)('refuses to be built from %s', async (_title, overrides, code) => {
    expect(await codeOf(() => IvfIndex.build(input(overrides)))).toBe(code);
  });

  it('refuses searches that cannot be', async () => {
    await withIndex({}, async (index) => {
      const ask = (o: Partial<IvfSearchInput>) =>
        codeOf(() => index.search({ queries, nQueries: 50, k: 5, ...o }));
      expect(await ask({ k: 0 })).toBe('WAGGLE_NATIVE_INVALID_ARGUMENT');
      expect(await ask({ nProbe: 0 })).toBe('WAGGLE_NATIVE_INVALID_ARGUMENT');
      expect(await ask({ nQueries: 51 })).toBe('WAGGLE_NATIVE_SHAPE');
      expect(await ask({ filter: new Uint8Array(2) })).toBe('WAGGLE_NATIVE_SHAPE');
      expect(await ask({ filters: new Uint8Array(N / 8) })).toBe('WAGGLE_NATIVE_SHAPE');
      expect(await ask({ allowRows: Int32Array.of(5, 5) })).toBe('WAGGLE_NATIVE_INVALID_ARGUMENT');
      expect(await ask({ allowRows: Int32Array.of(N) })).toBe('WAGGLE_NATIVE_INVALID_ARGUMENT');
      expect(await ask({ allowRows: Int32Array.of(1), filter: new Uint8Array(N / 8) })).toBe(
        'WAGGLE_NATIVE_INVALID_ARGUMENT',
      );
      expect(await ask({ queries: queries.slice().fill(Number.POSITIVE_INFINITY, 30, 31) })).toBe(
        'WAGGLE_NATIVE_NAN',
      );
      const out = { scores: new Float32Array(250), rows: new Int32Array(250) };
      const first = index.search({ queries, nQueries: 50, k: 5, out });
      expect(await ask({ out })).toBe('WAGGLE_NATIVE_LEASED');
      expect((await first).rows).toBe(out.rows);
      const none = await index.search({ queries, nQueries: 1, k: 3, allowRows: new Int32Array(0) });
      expect([...none.rows]).toEqual([-1, -1, -1]);
    });
  });
});
