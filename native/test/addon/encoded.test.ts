import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type EncodedDtype,
  type EncodedMatrix,
  encodeMatrix,
  type Metric,
  queueDepth,
  type TopkEncodedInput,
  topk,
  topkEncoded,
} from '../../ts/index.js';
import { codeOf, detached, randomFloats } from './arrays.js';

const METRICS: readonly Metric[] = ['ip', 'cosine', 'l2'];
const DTYPES: readonly EncodedDtype[] = ['f16', 'bf16', 'int8'];

const matrix = randomFloats(50 * 8, 2);
const shape = { matrix, nRows: 50, dim: 8 };

function decoded(e: EncodedMatrix, row: number, i: number): number {
  const code = e.data[row * e.dim + i]!;
  const scale = e.scale?.[row] ?? 1;
  if (e.dtype === 'int8') return scale * code;
  if (e.dtype === 'bf16') {
    return new Float32Array(new Uint32Array([code << 16]).buffer)[0]!;
  }
  const sign = (code & 0x8000) === 0 ? 1 : -1;
  const exponent = (code >> 10) & 31;
  const mantissa = code & 1023;
  return (
    scale * sign * (exponent === 0 ? mantissa * 2 ** -24 : (1024 + mantissa) * 2 ** (exponent - 25))
  );
}

function length(n: number, at: (i: number) => number): number {
  return Math.sqrt(Array.from({ length: n }, (_, i) => at(i) ** 2).reduce((a, b) => a + b, 0));
}

async function query(overrides: Partial<TopkEncodedInput> = {}): Promise<TopkEncodedInput> {
  return {
    queries: randomFloats(2 * 8, 1),
    nQueries: 2,
    encoded: await encodeMatrix({ ...shape, dtype: 'int8' }),
    matrix,
    k: 5,
    metric: 'ip',
    ...overrides,
  };
}

describe('encodeMatrix', () => {
  it.each(DTYPES)('stores %s codes with bounds that hold and are tight', async (dtype) => {
    const e = await encodeMatrix({ ...shape, dtype });
    for (let row = 0; row < e.nRows; row++) {
      const x = (i: number): number => matrix[row * 8 + i]!;
      const lost = length(8, (i) => x(i) - decoded(e, row, i));
      const norm = length(8, x);
      expect(e.error[row]!).toBeGreaterThanOrEqual(lost * (1 - 1e-14));
      expect(e.error[row]!).toBeLessThanOrEqual(lost * (1 + 2 ** -23));
      expect(e.norm[row]!).toBeGreaterThanOrEqual(norm * (1 - 1e-14));
      expect(e.norm[row]!).toBeLessThanOrEqual(norm * (1 + 2 ** -23));
      expect(lost).toBeLessThan(norm * { f16: 2 ** -11, bf16: 2 ** -8, int8: 0.02 }[dtype]);
    }
  });

  it('takes 0.26 of the floats as int8 at dim 384', async () => {
    const floats = randomFloats(100 * 384, 3);
    const e = await encodeMatrix({ matrix: floats, nRows: 100, dim: 384, dtype: 'int8' });
    const bytes = e.data.byteLength + e.scale!.byteLength + e.error.byteLength + e.norm.byteLength;
    expect(bytes / floats.byteLength).toBeLessThan(0.26);
  });

  it('loses nothing of the floats where they are cut in halves, in their own memory', async () => {
    const e = await encodeMatrix({ ...shape, dtype: 'bf16', lossless: true });
    const joined = Uint32Array.from(e.data, (upper, i) => ((upper << 16) | e.lower![i]!) >>> 0);
    expect(new Float32Array(joined.buffer)).toEqual(matrix);
    expect(e.data.byteLength + e.lower!.byteLength).toBe(matrix.byteLength);
    for (let row = 0; row < e.nRows; row++) {
      const lost = length(8, (i) => matrix[row * 8 + i]! - decoded(e, row, i));
      expect(e.error[row]!).toBeGreaterThanOrEqual(lost * (1 - 1e-14));
      expect(e.error[row]!).toBeLessThanOrEqual(lost * (1 + 2 ** -23));
    }
    expect((await encodeMatrix({ ...shape, dtype: 'bf16' })).lower).toBeUndefined();
  });

  const refusals: [string, object, string][] = [
    ['halves of codes that are none', { lossless: true }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['lossless = 1', { dtype: 'bf16', lossless: 1 }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['an unknown dtype', { dtype: 'int4' }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['a dtype from the prototype', { dtype: 'toString' }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['dim = 0', { dim: 0 }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['a short matrix', { nRows: 51 }, 'WAGGLE_NATIVE_SHAPE'],
    ['doubles', { matrix: new Float64Array(400) }, 'WAGGLE_NATIVE_DTYPE'],
    ['a detached buffer', { matrix: detached(new Float32Array(400)) }, 'WAGGLE_NATIVE_DETACHED'],
    ['infinity', { matrix: new Float32Array(400).fill(Infinity) }, 'WAGGLE_NATIVE_NAN'],
  ];
  it.each(refusals)('refuses %s', async (_title, overrides, code) => {
    const input = { ...shape, dtype: 'f16' as const, ...overrides };
    expect(await codeOf(() => encodeMatrix(input))).toBe(code);
  });

  it('names the first row that is not finite', async () => {
    const bad = randomFloats(400, 2);
    bad[17 * 8 + 3] = Number.NaN;
    bad[30 * 8] = Number.NaN;
    await expect(encodeMatrix({ ...shape, matrix: bad, dtype: 'int8' })).rejects.toThrow('row 17 ');
  });
});

describe('topkEncoded', () => {
  it('returns what topk returns, bit for bit, for any matrix, near ties included', async () => {
    const finite = fc.float({ noNaN: true, noDefaultInfinity: true, min: -100, max: 100 });
    const value = fc.oneof(
      { weight: 6, arbitrary: finite },
      { weight: 1, arbitrary: fc.constantFrom(0, 1e-42, -1e-30, 5e7) },
    );
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          nQueries: fc.integer({ min: 0, max: 12 }),
          nRows: fc.integer({ min: 0, max: 80 }),
          dim: fc.integer({ min: 1, max: 40 }),
          k: fc.integer({ min: 1, max: 70 }),
          metric: fc.constantFrom(...METRICS),
          dtype: fc.constantFrom(...DTYPES),
          // Rows are copies of so many, of which each may differ in the last bit of one value.
          nDistinct: fc.integer({ min: 1, max: 80 }),
          filter: fc.constantFrom('none', 'filter', 'filters', 'sparse filters', 'allowRows'),
        }),
        fc.infiniteStream(value),
        fc.infiniteStream(fc.integer({ min: 0, max: 255 })),
        async (s, values, bytes) => {
          const take = (n: number): Float32Array =>
            Float32Array.from({ length: n }, () => values.next().value as number);
          const byte = (): number => bytes.next().value as number;
          const floats = take(s.nRows * s.dim);
          const bits = new Int32Array(floats.buffer);
          for (let row = s.nDistinct; row < s.nRows; row++) {
            const from = (row % s.nDistinct) * s.dim;
            floats.copyWithin(row * s.dim, from, from + s.dim);
            const at = row * s.dim + (byte() % s.dim);
            if (byte() < 128 && floats[at] !== 0) bits[at]! += 1;
          }
          const bitmap = Math.ceil(s.nRows / 8);
          const filters = {
            none: {},
            filter: { filter: Uint8Array.from({ length: bitmap }, byte) },
            filters: { filters: Uint8Array.from({ length: bitmap * s.nQueries }, byte) },
            'sparse filters': {
              filters: Uint8Array.from(
                { length: bitmap * s.nQueries },
                () => byte() & byte() & byte() & byte(),
              ),
            },
            allowRows: {
              allowRows: Int32Array.from(
                Array.from({ length: s.nRows }, (_, row) => row).filter(() => byte() < 100),
              ),
            },
          }[s.filter];
          const input = {
            queries: take(s.nQueries * s.dim),
            nQueries: s.nQueries,
            k: s.k,
            metric: s.metric,
            ...filters,
          };
          const { nRows, dim, dtype } = s;
          const encoded = await encodeMatrix({ matrix: floats, nRows, dim, dtype });
          const truth = await topk({ ...input, matrix: floats, nRows, dim });
          const answer = await topkEncoded({ ...input, encoded, matrix: floats });
          expect(answer.rows).toEqual(truth.rows);
          expect(answer.scores).toEqual(truth.scores);
          expect(answer.certified).toBe(true);
          expect(answer.nInDoubt.every((n) => n === 0)).toBe(true);
          if (dtype === 'bf16') {
            const halves = await encodeMatrix({
              matrix: floats,
              nRows,
              dim,
              dtype,
              lossless: true,
            });
            const joined = await topkEncoded({ ...input, encoded: halves });
            expect([joined.rows, joined.scores]).toEqual([truth.rows, truth.scores]);
            expect(joined.certified).toBe(true);
            expect(joined.nInDoubt.every((n) => n === 0)).toBe(true);
          }
          const without = await topkEncoded({ ...input, encoded });
          for (let q = 0; q < s.nQueries; q++) {
            const got = without.rows.subarray(q * s.k, (q + 1) * s.k);
            const want = truth.rows.subarray(q * s.k, (q + 1) * s.k);
            if (without.isCertified[q] === 1) expect(got).toEqual(want);
            const missing = want.filter((row) => !got.includes(row)).length;
            expect(2 * missing).toBeLessThanOrEqual(without.nInDoubt[q]!);
          }
        },
      ),
      { numRuns: 300 },
    );
  });

  it.each(DTYPES)('re-scores few rows of a large matrix (%s)', async (dtype) => {
    const [nRows, dim, k] = [20_000, 96, 20];
    const floats = randomFloats(nRows * dim, 4);
    const encoded = await encodeMatrix({ matrix: floats, nRows, dim, dtype });
    const input = { queries: randomFloats(20 * dim, 5), nQueries: 20, k, metric: 'ip' } as const;
    const answer = await topkEncoded({ ...input, encoded, matrix: floats });
    const truth = await topk({ ...input, matrix: floats, nRows, dim });
    expect(answer.rows).toEqual(truth.rows);
    expect(answer.scores).toEqual(truth.scores);
    expect(answer.nRescored / 20).toBeLessThan(0.03 * nRows);
  });

  it.each([
    [1, 60, true],
    [1, 30, false],
    [20, 30, true],
    [20, 15, false],
  ])(
    'multiplies floats outright where few rows are shared (%d queries, 1 row in %d: %s)',
    async (nQueries, part, outright) => {
      const [nRows, dim, k] = [90_000, 16, 10];
      const floats = randomFloats(nRows * dim, 7);
      const encoded = await encodeMatrix({ matrix: floats, nRows, dim, dtype: 'int8' });
      const filter = new Uint8Array(Math.ceil(nRows / 8));
      for (let row = 0; row < nRows; row += part) filter[row >> 3]! |= 1 << (row & 7);
      const input = {
        queries: randomFloats(nQueries * dim, 8),
        nQueries,
        k,
        metric: 'ip',
        filter,
      } as const;
      const answer = await topkEncoded({ ...input, encoded, matrix: floats });
      const truth = await topk({ ...input, matrix: floats, nRows, dim });
      expect(answer.rows).toEqual(truth.rows);
      expect(answer.scores).toEqual(truth.scores);
      expect(answer.certified).toBe(true);
      expect(answer.nRescored === nQueries * (nRows / part)).toBe(outright);
      const halves = { matrix: floats, nRows, dim, dtype: 'bf16', lossless: true } as const;
      const joined = await topkEncoded({ ...input, encoded: await encodeMatrix(halves) });
      expect([joined.rows, joined.scores]).toEqual([truth.rows, truth.scores]);
    },
  );

  it.each(DTYPES)('finds what each query allows, block by block (%s)', async (dtype) => {
    const [nRows, dim, k, nQueries] = [60_037, 32, 20, 40];
    const floats = randomFloats(nRows * dim, 6);
    const encoded = await encodeMatrix({ matrix: floats, nRows, dim, dtype });
    const stride = Math.ceil(nRows / 8);
    const base = {
      queries: randomFloats(nQueries * dim, 7),
      nQueries,
      k,
      metric: 'cosine',
    } as const;
    for (const every of [20, 100, 5_000]) {
      const filters = new Uint8Array(nQueries * stride);
      for (let q = 0; q < nQueries; q++) {
        for (let row = (q * 31) % every; row < nRows; row += every) {
          filters[q * stride + (row >> 3)]! |= 1 << (row & 7);
        }
      }
      filters.fill(0, 0, stride);
      filters.fill(255, stride, 2 * stride);
      const truth = await topk({ ...base, matrix: floats, nRows, dim, filters });
      const answer = await topkEncoded({ ...base, encoded, matrix: floats, filters });
      expect(answer.rows).toEqual(truth.rows);
      expect(answer.scores).toEqual(truth.scores);
      expect(answer.rows.subarray(0, k)).toEqual(new Int32Array(k).fill(-1));
    }
  });

  it('says what is certain when the floats were dropped', async () => {
    // Far apart: certain. Two copies of the best row at k = 1: nobody can say which.
    const floats = new Float32Array(40);
    for (let row = 0; row < 10; row++) floats[row * 4 + 1] = row;
    const encoded = await encodeMatrix({ matrix: floats, nRows: 10, dim: 4, dtype: 'int8' });
    const queries = Float32Array.of(0, 1, 0, 0);
    const input = { queries, nQueries: 1, k: 3, metric: 'ip' } as const;
    const sure = await topkEncoded({ ...input, encoded });
    expect(sure).toMatchObject({ certified: true, isCertified: Uint8Array.of(1) });
    expect([...sure.rows, ...sure.nInDoubt]).toEqual([9, 8, 7, 0]);
    floats.copyWithin(4, 36, 40);
    const twins = await encodeMatrix({ matrix: floats, nRows: 10, dim: 4, dtype: 'int8' });
    const unsure = await topkEncoded({ ...input, encoded: twins, k: 1 });
    expect(unsure).toMatchObject({ certified: false, isCertified: Uint8Array.of(0) });
    expect([...unsure.rows, ...unsure.nInDoubt]).toEqual([1, 2]);
  });

  const refusals: [string, Partial<TopkEncodedInput>, string][] = [
    ['k = 0', { k: 0 }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['k beyond the limit', { k: 2_049 }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['an unknown metric', { metric: 'dot' as Metric }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['short queries', { nQueries: 3 }, 'WAGGLE_NATIVE_SHAPE'],
    ['a short matrix', { matrix: new Float32Array(399) }, 'WAGGLE_NATIVE_SHAPE'],
    ['a short filter', { filter: new Uint8Array(6) }, 'WAGGLE_NATIVE_SHAPE'],
    [
      'two filters',
      { filter: new Uint8Array(7), allowRows: new Int32Array(0) },
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    ],
    ['a list out of order', { allowRows: Int32Array.of(3, 1) }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['NaN in a query', { queries: new Float32Array(16).fill(NaN) }, 'WAGGLE_NATIVE_NAN'],
    ['a detached query', { queries: detached(new Float32Array(16)) }, 'WAGGLE_NATIVE_DETACHED'],
  ];
  it.each(refusals)('refuses %s', async (_title, overrides, code) => {
    const input = await query(overrides);
    expect(await codeOf(() => topkEncoded(input))).toBe(code);
  });

  it('refuses an encoded matrix whose parts do not fit', async () => {
    const good = await query();
    const change = (part: Partial<EncodedMatrix>): Promise<string> =>
      codeOf(() => topkEncoded({ ...good, encoded: { ...good.encoded, ...part } }));
    expect(await change({ nRows: 51 })).toBe('WAGGLE_NATIVE_SHAPE');
    expect(await change({ error: new Float32Array(49) })).toBe('WAGGLE_NATIVE_SHAPE');
    expect(await change({ dtype: 'f16' })).toBe('WAGGLE_NATIVE_DTYPE');
    expect(await change({ scale: undefined })).toBe('WAGGLE_NATIVE_DTYPE');
    const lower = new Uint16Array(400);
    expect(await change({ lower })).toBe('WAGGLE_NATIVE_INVALID_ARGUMENT');
    const bf16 = await encodeMatrix({ ...shape, dtype: 'bf16' });
    const input = { ...good, encoded: { ...bf16, lower: lower.subarray(1) } };
    expect(await codeOf(() => topkEncoded(input))).toBe('WAGGLE_NATIVE_SHAPE');
  });

  it('refuses scores that overflow, as topk does', async () => {
    const floats = new Float32Array(400).fill(3e38);
    const encoded = await encodeMatrix({ ...shape, matrix: floats, dtype: 'f16' });
    const input = await query({
      encoded,
      matrix: floats,
      queries: new Float32Array(16).fill(3e38),
    });
    expect(await codeOf(() => topkEncoded(input))).toBe('WAGGLE_NATIVE_NAN');
  });

  it('stops when the signal fires', async () => {
    const [nRows, dim] = [100_000, 64];
    const floats = randomFloats(nRows * dim, 6);
    const encoded = await encodeMatrix({ matrix: floats, nRows, dim, dtype: 'int8' });
    const controller = new AbortController();
    const input = {
      queries: randomFloats(512 * dim, 7),
      nQueries: 512,
      k: 10,
      metric: 'ip',
    } as const;
    const running = topkEncoded({ ...input, encoded, matrix: floats, signal: controller.signal });
    setImmediate(() => controller.abort());
    expect(await codeOf(() => running)).toBe('WAGGLE_ABORTED');
    expect(queueDepth()).toBe(0);
  });
});
