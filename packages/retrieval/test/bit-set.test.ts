import fc from 'fast-check';
import { expect, test } from 'vitest';
import { BitSet, popcount32 } from '../src/index.js';

const rowsOf = (n: number) => fc.array(fc.nat(n - 1)).map((rows) => [...new Set(rows)]);
const pair = fc
  .integer({ min: 1, max: 200 })
  .chain((n) => fc.tuple(fc.constant(n), rowsOf(n), rowsOf(n)));
const sorted = (rows: Iterable<number>) => [...rows].sort((a, b) => a - b);

test('set operations agree with sets of numbers', () => {
  fc.assert(
    fc.property(pair, ([n, a, b]) => {
      const A = BitSet.of(n, a);
      const B = BitSet.of(n, b);
      const inB = new Set(b);
      expect([...A.toRows()]).toEqual(sorted(a));
      expect(A.count()).toBe(a.length);
      expect([...A.clone().and(B).toRows()]).toEqual(sorted(a.filter((r) => inB.has(r))));
      expect([...A.clone().andNot(B).toRows()]).toEqual(sorted(a.filter((r) => !inB.has(r))));
      expect([...A.clone().or(B).toRows()]).toEqual(sorted(new Set([...a, ...b])));
      for (let r = 0; r < n; r++) expect(A.has(r)).toBe(a.includes(r));
      for (const r of a) A.delete(r);
      expect(A.count()).toBe(0);
    }),
  );
});

test('a full set holds every row and nothing past the end', () => {
  for (const n of [0, 1, 31, 32, 33, 64, 100]) {
    const full = BitSet.full(n);
    expect(full.count()).toBe(n);
    expect(full.toRows()).toHaveLength(n);
    expect(full.has(n)).toBe(false);
    full.add(n);
    full.add(-1);
    expect(full.count()).toBe(n);
  }
});

test('bytes are the bitmap that native filters read', () => {
  const set = BitSet.of(40, [0, 9, 33]);
  expect([...set.bytes.slice(0, 5)]).toEqual([1, 2, 0, 0, 2]);
});

test('bits of a word are counted', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 0xffffffff }), (word) => {
      expect(popcount32(word)).toBe(word.toString(2).replaceAll('0', '').length);
    }),
  );
});

test('sets of different sizes do not combine, and impossible sizes are refused', () => {
  expect(() => new BitSet(3).and(new BitSet(4))).toThrow(
    expect.objectContaining({ code: 'WAGGLE_RETRIEVAL_SHAPE' }),
  );
  expect(() => new BitSet(-1)).toThrow(expect.objectContaining({ code: 'WAGGLE_RETRIEVAL_SHAPE' }));
});
