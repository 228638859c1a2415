import { Rng } from '@waggle/core';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { BitSet, ExactIndex, preselect } from '../src/index.js';

const DIM = 16;
function unitRows(n: number, seed: number): Float32Array {
  const rng = new Rng(seed);
  const out = new Float32Array(n * DIM);
  for (let r = 0; r < n; r++) {
    let norm = 0;
    for (let d = 0; d < DIM; d++) {
      const draw = rng.normal();
      out[r * DIM + d] = draw;
      norm += draw * draw;
    }
    for (let d = 0; d < DIM; d++) out[r * DIM + d]! /= Math.sqrt(norm);
  }
  return out;
}

test('search returns the most similar rows of the bitmap, synchronously and not', async () => {
  const n = 300;
  const matrix = unitRows(n, 1);
  const index = new ExactIndex(matrix, DIM);
  const query = unitRows(1, 2);
  const filter = BitSet.of(
    n,
    Array.from({ length: n }, (_, r) => r).filter((r) => r % 3 === 1),
  );
  const similarity = (r: number) => {
    let s = 0;
    for (let d = 0; d < DIM; d++) s += matrix[r * DIM + d]! * query[d]!;
    return s;
  };
  const expected = [...filter.toRows()].sort((a, b) => similarity(b) - similarity(a)).slice(0, 10);
  expect([...index.searchSync(query, { k: 10, filter }).rows]).toEqual(expected);
  const found = await index.search(query, { k: 10, filter });
  expect([...found.rows]).toEqual(expected);
  found.rows.forEach((r, i) => {
    expect(found.scores[i]).toBeCloseTo(similarity(r), 5);
  });
});

test('fewer rows than asked for come back without padding', () => {
  const index = new ExactIndex(unitRows(5, 1), DIM);
  expect(index.searchSync(unitRows(1, 2), { k: 9, filter: BitSet.of(5, [2]) }).rows).toEqual(
    Int32Array.of(2),
  );
  expect(index.searchSync(unitRows(1, 2), { k: 9 }).rows).toHaveLength(5);
});

test('an index larger than one synchronous search is searched in slices, with the same answer', async () => {
  const n = 600_000;
  const matrix = new Float32Array(n * DIM);
  const rng = new Rng(7);
  for (let i = 0; i < 5_000; i++) matrix[rng.integer(n) * DIM + rng.integer(DIM)] = rng.uniform();
  const index = new ExactIndex(matrix, DIM);
  const filter = new BitSet(n);
  for (let r = 0; r < n; r += 7) filter.add(r);
  const query = unitRows(1, 2);
  const expected = await index.search(query, { k: 50, filter });
  const found = index.searchSync(query, { k: 50, filter });
  expect([...found.rows]).toEqual([...expected.rows]);
  expect([...found.scores]).toEqual([...expected.scores]);
});

test('more rows than one native search returns come back in the same order', async () => {
  const nRows = 5_000;
  // Many ties, which go to the lower row across searches, too.
  const matrix = Float32Array.from({ length: nRows * 2 }, (_, i) =>
    i % 2 === 0 ? (i % 26) / 26 : 0,
  );
  const index = new ExactIndex(matrix, 2);
  const filter = BitSet.full(nRows);
  for (let row = 0; row < nRows; row += 10) filter.delete(row);
  const expected = [...filter.toRows()].sort((a, b) => matrix[b * 2]! - matrix[a * 2]! || a - b);
  for (const k of [2_500, 4_500, 6_000]) {
    const query = Float32Array.of(1, 0);
    const found = index.searchSync(query, { k, filter });
    expect([...found.rows]).toEqual(expected.slice(0, k));
    expect(await index.search(query, { k, filter })).toEqual(found);
  }
  expect(filter.count()).toBe(4_500);
});

test('wrong shapes are refused', () => {
  expect(() => new ExactIndex(new Float32Array(5), 2)).toThrow(
    expect.objectContaining({ code: 'WAGGLE_RETRIEVAL_SHAPE' }),
  );
  const index = new ExactIndex(unitRows(5, 1), DIM);
  expect(() => index.searchSync(new Float32Array(3), { k: 1 })).toThrow(/dimension/);
  expect(() => index.searchSync(unitRows(1, 1), { k: 1, filter: new BitSet(6) })).toThrow(/bitmap/);
});

test('preselection stays inside the eligible set, fills the limit and keeps both kinds of best', () => {
  fc.assert(
    fc.property(
      fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 1, maxLength: 120 }),
      fc.integer({ min: 1, max: 60 }),
      fc.nat(),
      (priors, limit, seed) => {
        const n = priors.length;
        const rng = new Rng(seed);
        const eligible = new BitSet(n);
        for (let r = 0; r < n; r++) if (rng.bernoulli(0.7)) eligible.add(r);
        const similar = Int32Array.from(rng.shuffle([...eligible.toRows()]));
        const prior = Float64Array.from(priors);
        const chosen = preselect({ eligible, similar, prior, limit });
        expect(chosen.count()).toBe(Math.min(limit, eligible.count()));
        expect(chosen.clone().andNot(eligible).count()).toBe(0);
        if (eligible.count() > limit) {
          for (let i = 0; i < limit >>> 1; i++) expect(chosen.has(similar[i]!)).toBe(true);
          const best = [...eligible.toRows()].sort((a, b) => prior[b]! - prior[a]! || a - b)[0]!;
          expect(chosen.has(best)).toBe(true);
        }
      },
    ),
  );
});
