import { Rng } from '@waggle/core';
import { describe, expect, test } from 'vitest';
import { type EntityVectors, findNeighbourhoods, neighbourEffect } from '../src/index.js';

function randomVectors(n: number, dim: number, seed: number): EntityVectors {
  const rng = new Rng(seed, 5);
  const vectors = new Float32Array(n * dim);
  for (let i = 0; i < n; i++) {
    const row = Array.from({ length: dim }, () => rng.normal() + 1);
    const norm = Math.hypot(...row);
    vectors.set(
      row.map((x) => x / norm),
      i * dim,
    );
  }
  return {
    model: 'm',
    dim,
    rowOf: new Map(Array.from({ length: n }, (_, i) => [`e${i}`, i])),
    vectors,
  };
}

/** Cosines with the mean vector taken away, in double precision. */
function centredCosines({ vectors, dim }: EntityVectors): number[][] {
  const n = vectors.length / dim;
  const rows = Array.from({ length: n }, (_, i) => [...vectors.subarray(i * dim, (i + 1) * dim)]);
  const mean = Array.from({ length: dim }, (_, d) => rows.reduce((s, r) => s + r[d]!, 0) / n);
  const centred = rows.map((r) => r.map((x, d) => x - mean[d]!));
  const cosine = (a: number[], b: number[]) =>
    a.reduce((s, x, d) => s + x * b[d]!, 0) / (Math.hypot(...a) * Math.hypot(...b));
  return centred.map((a) => centred.map((b) => cosine(a, b)));
}

describe('neighbours by text', () => {
  test('are the 64 nearest others, weighed by the square of the centred cosine', async () => {
    const all = randomVectors(200, 16, 1);
    const near = await findNeighbourhoods(all);
    const cosines = centredCosines(all);
    expect(near.width).toBe(64);
    for (let e = 0; e < 200; e++) {
      const expected = cosines[e]!.map((c, j) => ({ c, j }))
        .filter(({ c, j }) => j !== e && c > 0)
        .sort((a, b) => b.c - a.c)
        .slice(0, 64);
      for (let j = 0; j < 64; j++) {
        const at = e * 64 + j;
        const weight = expected[j] === undefined ? 0 : expected[j]!.c ** 2;
        expect(near.weights[at]).toBeCloseTo(weight, 5);
        expect(near.rows[at]).toBe(expected[j]?.j ?? -1);
      }
    }
  });

  test('suggest the mean of their effects as they were seen, and doubt it', async () => {
    // Two kinds of texts: three of one, two of the other.
    const vectors = Float32Array.from([1, 0, 1, 0, 1, 0, 0, 1, 0, 1]);
    const rowOf = new Map(['a', 'b', 'c', 'x', 'y'].map((id, i) => [id, i]));
    const near = await findNeighbourhoods({ model: 'm', dim: 2, rowOf, vectors });
    const strength = 4;
    const evidence = Float64Array.from([12, 4, 0]);
    // Seen 0.8 and 0.4, shrunken by 12/16 and 4/8; the third group has never been seen.
    const effects = Float64Array.from([0.8 * 0.75, 0.4 * 0.5, 0]);
    const o = { groupOfRow: Int32Array.from([0, 1, 2, -1, -1]), effects, evidence, strength };
    expect(neighbourEffect(near, 2, o)).toBeCloseTo((0.6 + 0.2) / (1 + 0.75 + 0.5), 6);
    // One's own effect says nothing about oneself.
    expect(neighbourEffect(near, 0, o)).toBeCloseTo(0.2 / 1.5, 6);
    expect(neighbourEffect(near, 3, o)).toBe(0);
  });

  test('are none where there is nobody else, or no text at all', async () => {
    const one = await findNeighbourhoods(randomVectors(1, 8, 2));
    const o = {
      groupOfRow: Int32Array.of(0),
      effects: Float64Array.of(1),
      evidence: Float64Array.of(9),
      strength: 1,
    };
    expect(neighbourEffect(one, 0, o)).toBe(0);
    const none = { model: '', dim: 0, rowOf: new Map(), vectors: new Float32Array(0) };
    expect((await findNeighbourhoods(none)).rows).toHaveLength(0);
  });

  test('of texts that are all the same are finite', async () => {
    const vectors = Float32Array.from([0.6, 0.8, 0.6, 0.8]);
    const rowOf = new Map([
      ['a', 0],
      ['b', 1],
    ]);
    const near = await findNeighbourhoods({ model: 'm', dim: 2, rowOf, vectors });
    expect([...near.weights].every(Number.isFinite)).toBe(true);
  });
});
