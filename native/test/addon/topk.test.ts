import { isWaggleError } from '@waggle/core';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type Metric,
  queueDepth,
  TOPK_SYNC_MAX_WORK,
  type TopkInput,
  topk,
  topkSync,
} from '../../ts/index.js';
import { codeOf, detached, randomFloats } from './arrays.js';

const METRICS: readonly Metric[] = ['ip', 'cosine', 'l2'];

// The sum of dim products in any order errs by at most dim unit roundoffs of the sum of magnitudes.
const FLOAT_ROUNDOFF = 2 ** -24;

function allowed(o: TopkInput, query: number, row: number): boolean {
  if (o.allowRows !== undefined) return o.allowRows.includes(row);
  const bits = o.filters?.subarray(query * Math.ceil(o.nRows / 8)) ?? o.filter;
  return bits === undefined || ((bits[row >> 3]! >> (row & 7)) & 1) === 1;
}

function trueScore(o: TopkInput, query: number, row: number): { value: number; bound: number } {
  let dot = 0;
  let magnitude = 0;
  let aa = 0;
  let bb = 0;
  let distance = 0;
  for (let i = 0; i < o.dim; i++) {
    const a = o.queries[query * o.dim + i]!;
    const b = o.matrix[row * o.dim + i]!;
    dot += a * b;
    magnitude += Math.abs(a * b);
    aa += a * a;
    bb += b * b;
    distance += (a - b) * (a - b);
  }
  const roundoff = (o.dim + 8) * FLOAT_ROUNDOFF;
  if (o.metric === 'ip') return { value: dot, bound: roundoff * magnitude + 1e-40 };
  if (o.metric === 'l2') return { value: -distance, bound: 3 * roundoff * distance + 1e-40 };
  if (aa === 0 || bb === 0) return { value: 0, bound: 0 };
  return { value: dot / Math.sqrt(aa) / Math.sqrt(bb), bound: 3 * roundoff };
}

function expectExact(o: TopkInput, answer: { scores: Float32Array; rows: Int32Array }): void {
  for (let query = 0; query < o.nQueries; query++) {
    const rows = Array.from({ length: o.nRows }, (_, row) => row).filter((row) =>
      allowed(o, query, row),
    );
    const found = Math.min(o.k, rows.length);
    const gotRows = answer.rows.subarray(query * o.k, (query + 1) * o.k);
    const gotScores = answer.scores.subarray(query * o.k, (query + 1) * o.k);
    const taken = new Set(gotRows.subarray(0, found));
    expect(taken.size).toBe(found);
    let worst = Number.POSITIVE_INFINITY;
    for (let i = 0; i < o.k; i++) {
      if (i >= found) {
        expect(gotRows[i]).toBe(-1);
        expect(gotScores[i]).toBe(Number.NEGATIVE_INFINITY);
        continue;
      }
      expect(allowed(o, query, gotRows[i]!)).toBe(true);
      const { value, bound } = trueScore(o, query, gotRows[i]!);
      expect(Math.abs(gotScores[i]! - value)).toBeLessThanOrEqual(bound);
      worst = Math.min(worst, value + bound);
      if (i > 0) {
        expect(gotScores[i - 1]!).toBeGreaterThanOrEqual(gotScores[i]!);
        if (gotScores[i - 1] === gotScores[i]) expect(gotRows[i - 1]!).toBeLessThan(gotRows[i]!);
      }
    }
    if (found < o.k) continue;
    const missed = rows.filter((row) => {
      if (taken.has(row)) return false;
      const { value, bound } = trueScore(o, query, row);
      return value - bound > worst;
    });
    expect(missed).toEqual([]);
  }
}

/** Random bits (and whatever they are beyond the last row) as one of the three kinds of filter. */
function filterOf(
  kind: 'none' | 'filter' | 'filters' | 'allowRows',
  nQueries: number,
  nRows: number,
  byte: () => number,
): Partial<TopkInput> {
  const bitmap = (n: number) => Uint8Array.from({ length: n * Math.ceil(nRows / 8) }, byte);
  if (kind === 'none') return {};
  if (kind === 'filters') return { filters: bitmap(nQueries) };
  const filter = bitmap(1);
  if (kind === 'filter') return { filter };
  const rows = Array.from({ length: nRows }, (_, row) => row);
  return {
    allowRows: Int32Array.from(rows.filter((r) => ((filter[r >> 3]! >> (r & 7)) & 1) === 1)),
  };
}

function input(overrides: Partial<TopkInput> = {}): TopkInput {
  return {
    queries: randomFloats(2 * 8, 1),
    nQueries: 2,
    matrix: randomFloats(50 * 8, 2),
    nRows: 50,
    dim: 8,
    k: 5,
    metric: 'ip',
    ...overrides,
  };
}

describe('topk', () => {
  it('returns what a brute force in doubles returns, for any shape, metric and filter', async () => {
    const finite = fc.float({ noNaN: true, noDefaultInfinity: true, min: -100, max: 100 });
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 0, max: 5 }),
        fc.integer({ min: 0, max: 60 }),
        fc.integer({ min: 1, max: 40 }),
        fc.integer({ min: 1, max: 70 }),
        fc.constantFrom(...METRICS),
        fc.constantFrom('none', 'filter', 'filters', 'allowRows'),
        fc.infiniteStream(finite),
        fc.infiniteStream(fc.integer({ min: 0, max: 255 })),
        async (nQueries, nRows, dim, k, metric, kind, values, bytes) => {
          const take = (n: number) =>
            Float32Array.from({ length: n }, () => values.next().value as number);
          const o: TopkInput = {
            queries: take(nQueries * dim),
            nQueries,
            matrix: take(nRows * dim),
            nRows,
            dim,
            k,
            metric,
            ...filterOf(kind, nQueries, nRows, () => bytes.next().value as number),
          };
          const answer = await topk(o);
          expectExact(o, answer);
          expect(topkSync(o)).toEqual(answer);
        },
      ),
      { numRuns: 150 },
    );
  });

  it.each(METRICS)('is exact on a large matrix (%s)', async (metric) => {
    const o: TopkInput = {
      queries: randomFloats(5 * 48, 3),
      nQueries: 5,
      matrix: randomFloats(30_000 * 48, 4),
      nRows: 30_000,
      dim: 48,
      k: 100,
      metric,
    };
    expectExact(o, await topk(o));
  });

  it('gives equal rows in ascending order', () => {
    const { rows } = topkSync(
      input({
        matrix: new Float32Array(50 * 8).fill(1),
        queries: new Float32Array(16).fill(1),
        k: 7,
      }),
    );
    expect([...rows]).toEqual([0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5, 6]);
  });

  it('accepts views into the middle of a buffer', () => {
    const buffer = new Float32Array(3 + 50 * 8);
    buffer.set(randomFloats(50 * 8, 2), 3);
    expect(topkSync(input({ matrix: buffer.subarray(3) }))).toEqual(topkSync(input()));
  });

  it('fills the arrays it is given', async () => {
    const out = { scores: new Float32Array(10), rows: new Int32Array(10) };
    const answer = await topk(input({ out }));
    expect(answer.rows).toBe(out.rows);
    expect(out).toEqual(topkSync(input()));
  });

  const refusals: [string, Partial<TopkInput>, string][] = [
    ['k = 0', { k: 0 }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['k beyond the limit', { k: 2_049 }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['a fractional k', { k: 1.5 }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['a NaN size', { nRows: Number.NaN }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['dim = 0', { dim: 0 }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['an unknown metric', { metric: 'dot' as Metric }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    [
      'a metric from the prototype',
      { metric: 'toString' as Metric },
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    ],
    ['a short matrix', { nRows: 51 }, 'WAGGLE_NATIVE_SHAPE'],
    ['short queries', { nQueries: 3 }, 'WAGGLE_NATIVE_SHAPE'],
    ['a short filter', { filter: new Uint8Array(6) }, 'WAGGLE_NATIVE_SHAPE'],
    ['bitmaps for fewer queries', { filters: new Uint8Array(13) }, 'WAGGLE_NATIVE_SHAPE'],
    [
      'two filters',
      { filter: new Uint8Array(7), allowRows: new Int32Array(0) },
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    ],
    [
      'allowed rows out of order',
      { allowRows: Int32Array.of(4, 3) },
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    ],
    ['an allowed row twice', { allowRows: Int32Array.of(3, 3) }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    [
      'an allowed row that is not there',
      { allowRows: Int32Array.of(3, 50) },
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    ],
    [
      'a negative allowed row',
      { allowRows: Int32Array.of(-1, 3) },
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    ],
    [
      'allowed rows as doubles',
      { allowRows: Float64Array.of(3) as unknown as Int32Array },
      'WAGGLE_NATIVE_DTYPE',
    ],
    ['sizes beyond memory', { nRows: 2_147_483_647, dim: 2_147_483_647 }, 'WAGGLE_NATIVE_SHAPE'],
    [
      'doubles',
      { matrix: new Float64Array(400) as unknown as Float32Array },
      'WAGGLE_NATIVE_DTYPE',
    ],
    [
      'a plain array',
      { queries: Array(16).fill(0) as unknown as Float32Array },
      'WAGGLE_NATIVE_DTYPE',
    ],
    ['nothing', { queries: undefined as unknown as Float32Array }, 'WAGGLE_NATIVE_DTYPE'],
    [
      'shared memory',
      {
        matrix: new Float32Array(
          new SharedArrayBuffer(1_600),
        ) as unknown as Float32Array<ArrayBuffer>,
      },
      'WAGGLE_NATIVE_DTYPE',
    ],
    ['a detached buffer', { matrix: detached(new Float32Array(400)) }, 'WAGGLE_NATIVE_DETACHED'],
    ['NaN in a query', { queries: new Float32Array(16).fill(Number.NaN) }, 'WAGGLE_NATIVE_NAN'],
    [
      'NaN in the matrix',
      { matrix: randomFloats(400, 2).fill(Number.NaN, 399) },
      'WAGGLE_NATIVE_NAN',
    ],
    [
      'infinity',
      { matrix: randomFloats(400, 2).fill(Number.POSITIVE_INFINITY, 8, 9) },
      'WAGGLE_NATIVE_NAN',
    ],
    [
      'a score that overflows',
      { matrix: new Float32Array(400).fill(3e38), queries: new Float32Array(16).fill(3e38) },
      'WAGGLE_NATIVE_NAN',
    ],
  ];

  it.each(refusals)('refuses %s', async (_title, overrides, code) => {
    expect(await codeOf(() => topk(input(overrides)))).toBe(code);
    expect(await codeOf(() => topkSync(input(overrides)))).toBe(code);
  });

  it('refuses memory that can be resized', async () => {
    const buffer = new (ArrayBuffer as unknown as new (n: number, o: object) => ArrayBuffer)(
      1_600,
      {
        maxByteLength: 3_200,
      },
    );
    if ((buffer as { resizable?: boolean }).resizable !== true) return;
    expect(await codeOf(() => topk(input({ matrix: new Float32Array(buffer) })))).toBe(
      'WAGGLE_NATIVE_DTYPE',
    );
  });

  it('ignores rows that the filter leaves out, NaN included', () => {
    const matrix = randomFloats(400, 2).fill(Number.NaN, 0, 8);
    const filter = new Uint8Array(7).fill(255);
    filter[0] = 0b1111_1110;
    expect(topkSync(input({ matrix, filter })).rows).not.toContain(0);
  });

  it('says what to do about an error', async () => {
    const error = await topk(input({ nRows: 51 })).catch((e: unknown) => e);
    expect(isWaggleError(error) && error.remedy).toMatch(/at least/);
  });

  it('refuses synchronous work that would hold the event loop', async () => {
    const nRows = Math.floor(TOPK_SYNC_MAX_WORK / 16) + 1;
    const matrix = new Float32Array(nRows * 16);
    const big = input({ matrix, nRows, dim: 16, queries: new Float32Array(32), nQueries: 1 });
    expect(await codeOf(() => topkSync(big))).toBe('WAGGLE_NATIVE_TOO_LARGE');
    expect((await topk(big)).rows[0]).toBe(0);
  });
});

describe('topk as a job', () => {
  const large = {
    queries: randomFloats(256 * 64, 5),
    nQueries: 256,
    matrix: randomFloats(100_000 * 64, 6),
    nRows: 100_000,
    dim: 64,
    k: 10,
    metric: 'ip',
  } as const;

  it('does not start when the signal has fired', async () => {
    expect(await codeOf(() => topk({ ...large, signal: AbortSignal.abort() }))).toBe(
      'WAGGLE_ABORTED',
    );
    expect(queueDepth()).toBe(0);
  });

  it('refuses what is no signal before it starts, and takes null for none', async () => {
    const bad = { ...large, queries: new Float32Array(large.queries.length).fill(Number.NaN) };
    for (const signal of [new AbortController(), 'abort', true, {}, { aborted: false }]) {
      const running = codeOf(() => topk({ ...bad, signal: signal as AbortSignal }));
      expect(queueDepth()).toBe(0);
      expect(await running).toBe('WAGGLE_NATIVE_INVALID_ARGUMENT');
    }
    const { rows } = await topk({ ...input(), signal: null as unknown as undefined });
    expect(rows).toEqual((await topk(input())).rows);
  });

  it('stops when the signal fires, with the reason as cause', async () => {
    const controller = new AbortController();
    const running = topk({ ...large, signal: controller.signal });
    setImmediate(() => controller.abort(new Error('enough')));
    const error = await running.catch((e: unknown) => e);
    expect(isWaggleError(error) && error.code).toBe('WAGGLE_ABORTED');
    expect((error as Error).cause).toMatchObject({ message: 'enough' });
    expect(queueDepth()).toBe(0);
  });

  it('puts one listener on a signal that many jobs follow, and leaves none', async () => {
    const { signal } = new AbortController();
    let added = 0;
    let removed = 0;
    const add = signal.addEventListener.bind(signal);
    const remove = signal.removeEventListener.bind(signal);
    signal.addEventListener = ((...args: Parameters<typeof add>) => {
      added += 1;
      add(...args);
    }) as typeof signal.addEventListener;
    signal.removeEventListener = ((...args: Parameters<typeof remove>) => {
      removed += 1;
      remove(...args);
    }) as typeof signal.removeEventListener;
    await Promise.all(Array.from({ length: 30 }, () => topk({ ...input(), signal })));
    await topk({ ...input(), signal });
    expect(added).toBe(2);
    expect(removed).toBe(2);
  });

  it('settles queued jobs at once when they are aborted', async () => {
    const controller = new AbortController();
    const jobs = Array.from({ length: 40 }, () => topk({ ...large, signal: controller.signal }));
    expect(queueDepth()).toBe(40);
    controller.abort();
    const results = await Promise.allSettled(jobs);
    expect(results.every((r) => r.status === 'rejected')).toBe(true);
    expect(queueDepth()).toBe(0);
  });

  it('lets timers and file reads through while it runs', async () => {
    let turns = 0;
    const tick = (): void => {
      turns += 1;
      if (queueDepth() > 0) setImmediate(tick);
    };
    const jobs = Array.from({ length: 4 }, () => topk(large));
    setImmediate(tick);
    await Promise.all(jobs);
    expect(turns).toBeGreaterThan(10);
  });

  it('refuses a second job that would write memory in use, and takes it afterwards', async () => {
    const out = { scores: new Float32Array(2_560), rows: new Int32Array(2_560) };
    const first = topk({ ...large, out });
    expect(await codeOf(() => topk({ ...large, out }))).toBe('WAGGLE_NATIVE_LEASED');
    expect(await codeOf(() => topk(input({ queries: out.scores })))).toBe('WAGGLE_NATIVE_LEASED');
    const overInput = { scores: large.matrix.subarray(0, 2_560), rows: new Int32Array(2_560) };
    expect(await codeOf(() => topk({ ...large, out: overInput }))).toBe('WAGGLE_NATIVE_LEASED');
    const small = { scores: large.matrix.subarray(0, 10), rows: new Int32Array(10) };
    expect(await codeOf(() => topkSync(input({ out: small })))).toBe('WAGGLE_NATIVE_LEASED');
    const neighbour = input({ queries: large.queries.subarray(0, 16) });
    expect(await codeOf(() => topk(neighbour))).toBe('nothing');
    const before = await first;
    const again = await topk({ ...large, out });
    expect(again).toBe(out);
    expect(before).toBe(out);
  });

  it('refuses outputs that overlap each other', async () => {
    const buffer = new ArrayBuffer(80);
    const out = { scores: new Float32Array(buffer, 0, 10), rows: new Int32Array(buffer, 36, 10) };
    expect(await codeOf(() => topk(input({ out })))).toBe('WAGGLE_NATIVE_LEASED');
    expect(await codeOf(() => topkSync(input({ out })))).toBe('WAGGLE_NATIVE_LEASED');
  });

  it('refuses more jobs than may be in flight', async () => {
    const jobs = Array.from({ length: 1_024 }, () => topk(input()));
    expect(await codeOf(() => topk(input()))).toBe('WAGGLE_NATIVE_BUSY');
    await Promise.all(jobs);
    expect(await codeOf(() => topk(input()))).toBe('nothing');
  });

  it('answers many concurrent jobs as it answers one', async () => {
    const alone = await topk({ ...large, nQueries: 8 });
    const together = await Promise.all(
      Array.from({ length: 12 }, () => topk({ ...large, nQueries: 8 })),
    );
    for (const answer of together) expect(answer).toEqual(alone);
  });
});
