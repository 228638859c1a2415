import { describe, expect, it } from 'vitest';
import { hashFeatures } from '../../ts/index.js';
import { codeOf } from './arrays.js';

const MASK = 2n ** 64n - 1n;
const [P1, P2, P3, P4, P5] = [
  0x9e3779b185ebca87n,
  0xc2b2ae3d27d4eb4fn,
  0x165667b19e3779f9n,
  0x85ebca77c2b2ae63n,
  0x27d4eb2f165667c5n,
] as const;

/** XXH64 of its specification, in big integers. */
function xxh64(bytes: Uint8Array, seed: bigint): bigint {
  const wrap = (v: bigint): bigint => v & MASK;
  const rotate = (v: bigint, by: bigint): bigint => wrap((v << by) | (v >> (64n - by)));
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const round = (lane: bigint, input: bigint): bigint =>
    wrap(rotate(wrap(lane + wrap(input * P2)), 31n) * P1);
  let at = 0;
  let hash: bigint;
  if (bytes.length >= 32) {
    const lanes = [wrap(seed + P1 + P2), wrap(seed + P2), seed, wrap(seed - P1)];
    for (; at + 32 <= bytes.length; at += 32) {
      for (let l = 0; l < 4; l++) lanes[l] = round(lanes[l]!, view.getBigUint64(at + 8 * l, true));
    }
    hash = wrap(
      rotate(lanes[0]!, 1n) +
        rotate(lanes[1]!, 7n) +
        rotate(lanes[2]!, 12n) +
        rotate(lanes[3]!, 18n),
    );
    for (const lane of lanes) hash = wrap((hash ^ round(0n, lane)) * P1 + P4);
  } else {
    hash = wrap(seed + P5);
  }
  hash = wrap(hash + BigInt(bytes.length));
  for (; at + 8 <= bytes.length; at += 8) {
    hash = wrap(rotate(hash ^ round(0n, view.getBigUint64(at, true)), 27n) * P1 + P4);
  }
  if (at + 4 <= bytes.length) {
    hash = wrap(rotate(hash ^ wrap(BigInt(view.getUint32(at, true)) * P1), 23n) * P2 + P3);
    at += 4;
  }
  for (; at < bytes.length; at++)
    hash = wrap(rotate(hash ^ wrap(BigInt(bytes[at]!) * P5), 11n) * P1);
  hash = wrap((hash ^ (hash >> 33n)) * P2);
  hash = wrap((hash ^ (hash >> 29n)) * P3);
  return hash ^ (hash >> 32n);
}

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

function integer(value: bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigInt64(0, value, true);
  return bytes;
}

describe('hashFeatures', () => {
  it('is XXH64 of field and value as documented', async () => {
    expect(xxh64(utf8('abc'), 0n)).toBe(0x44bc2cf5ad770999n);
    const texts = ['', 'a', '7', 'naïve', '🐝', 'x'.repeat(31), 'y'.repeat(32), 'z'.repeat(1_000)];
    const narrow = Int32Array.of(0, 1, 7, -1, 2 ** 31 - 1, -(2 ** 31), 12, 13);
    const wide = BigInt64Array.from([0n, 1n, 7n, -1n, 2n ** 63n - 1n, -(2n ** 63n), 12n, 13n]);
    const seed = 2n ** 64n - 3n;
    const hashed = await hashFeatures({
      nRows: 8,
      columns: [
        { field: 'publication', values: texts },
        { field: 'hour', values: narrow },
        { field: 'hour', values: wide },
      ],
      bits: 22,
      seed,
      signed: true,
    });
    const expected = texts.flatMap((text, i) => [
      xxh64(utf8(text), xxh64(utf8('publication'), seed)),
      xxh64(integer(BigInt(narrow[i]!)), (xxh64(utf8('hour'), seed) + 1n) & MASK),
      xxh64(integer(wide[i]!), (xxh64(utf8('hour'), seed) + 1n) & MASK),
    ]);
    expect([...hashed.indices]).toEqual(expected.map((h) => Number(h % 2n ** 22n)));
    expect([...hashed.values!]).toEqual(expected.map((h) => (h >> 63n === 1n ? -1 : 1)));
    expect([...hashed.indptr]).toEqual([0, 3, 6, 9, 12, 15, 18, 21, 24]);
    expect(hashed).toMatchObject({ nFeatures: 2 ** 22, nFields: 3, distinct: [8, 8, 8] });
    // Equal integers hash alike whatever array they come in; so they "collide" as values of two columns.
    expect(hashed.indices[1]).toBe(hashed.indices[2]);
  });

  it('reports collisions as often as chance has them', async () => {
    const n = 20_000;
    const bits = 16;
    const { distinct, buckets, collisions } = await hashFeatures({
      nRows: n,
      columns: [{ field: 'id', values: Int32Array.from({ length: n }, (_, i) => i) }],
      bits,
    });
    expect(distinct).toEqual([n]);
    expect(buckets + collisions).toBe(n);
    const m = 2 ** bits;
    const expected = m * (1 - (1 - 1 / m) ** n);
    expect(Math.abs(buckets - expected)).toBeLessThan(5 * Math.sqrt(n * (n / m)));
    const uncounted = await hashFeatures({
      nRows: 1,
      columns: [{ field: 'id', values: ['x'] }],
      bits,
      count: false,
    });
    expect(uncounted).toMatchObject({ distinct: [], collisions: 0 });
  });

  it('takes no rows and no columns', async () => {
    expect((await hashFeatures({ nRows: 0, columns: [], bits: 4 })).indices).toHaveLength(0);
    expect((await hashFeatures({ nRows: 2, columns: [], bits: 4 })).indptr).toEqual(
      Int32Array.of(0, 0, 0),
    );
  });

  it('refuses what it cannot hash', async () => {
    const one = (values: unknown, more = {}) =>
      codeOf(() =>
        hashFeatures({
          nRows: 2,
          columns: [{ field: 'f', values: values as Int32Array }],
          bits: 8,
          ...more,
        }),
      );
    expect(await one(['a', '\ud800'])).toBe('WAGGLE_NATIVE_INVALID_ARGUMENT');
    expect(await one(['a', 3])).toBe('WAGGLE_NATIVE_DTYPE');
    expect(await one(['a'])).toBe('WAGGLE_NATIVE_SHAPE');
    expect(await one(Int32Array.of(1))).toBe('WAGGLE_NATIVE_SHAPE');
    expect(await one(new Float64Array(2))).toBe('WAGGLE_NATIVE_DTYPE');
    expect(await one(['a', 'b'], { bits: 29 })).toBe('WAGGLE_NATIVE_INVALID_ARGUMENT');
    expect(await one(['a', 'b'], { seed: -1n })).toBe('WAGGLE_NATIVE_INVALID_ARGUMENT');
  });
});
