import fc from 'fast-check';
import ort from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { type Ensemble, evaluateEnsemble, randomEnsemble } from '../src/data/ensemble.js';
import { gaussianRows } from '../src/data/vectors.js';
import { perceptronGraph, topkGraph, treesGraph } from '../src/peers/onnx-models.js';
import { ProtoWriter } from '../src/peers/onnx-writer.js';

/** Sums of a few dozen float32 products or leaves. */
const TOLERANCE = 1e-5;

async function open(bytes: Uint8Array): Promise<ort.InferenceSession> {
  return ort.InferenceSession.create(bytes, { intraOpNumThreads: 1, interOpNumThreads: 1 });
}

describe('protocol buffers', () => {
  it('are written as their encoding says', () => {
    // The examples of protobuf.dev/programming-guides/encoding.
    expect([...new ProtoWriter().int(1, 150).finish()]).toEqual([0x08, 0x96, 0x01]);
    expect([...new ProtoWriter().string(2, 'testing').finish()]).toEqual([
      0x12, 0x07, 0x74, 0x65, 0x73, 0x74, 0x69, 0x6e, 0x67,
    ]);
    const inner = new ProtoWriter().int(1, 150);
    expect([...new ProtoWriter().message(3, inner).finish()]).toEqual([0x1a, 3, 0x08, 0x96, 1]);
    expect([...new ProtoWriter().int(1, -1).finish()]).toEqual([8, ...Array(9).fill(0xff), 1]);
    expect([...new ProtoWriter().float(1, 1).finish()]).toEqual([0x0d, 0, 0, 0x80, 0x3f]);
  });
});

describe('the search graph', () => {
  it('finds what plain arithmetic finds', async () => {
    const [dim, k, nRows, nQueries] = [24, 7, 300, 5];
    const matrix = gaussianRows(nRows, dim, 1, 1);
    const queries = gaussianRows(nQueries, dim, 1, 2);
    const session = await open(topkGraph(dim, k));
    const answer = await session.run({
      queries: new ort.Tensor('float32', queries, [nQueries, dim]),
      matrix: new ort.Tensor('float32', matrix, [nRows, dim]),
    });
    const rows = [...(answer['rows']!.data as BigInt64Array)].map(Number);
    const scores = answer['scores']!.data as Float32Array;
    for (let q = 0; q < nQueries; q++) {
      const all = Array.from({ length: nRows }, (_, row) => {
        let score = 0;
        for (let d = 0; d < dim; d++) score += queries[q * dim + d]! * matrix[row * dim + d]!;
        return { row, score };
      }).sort((a, b) => b.score - a.score);
      for (let i = 0; i < k; i++) {
        expect(rows[q * k + i]).toBe(all[i]!.row);
        expect(Math.abs(scores[q * k + i]! - all[i]!.score)).toBeLessThan(TOLERANCE);
      }
    }
    await session.release();
  });
});

describe('the tree ensemble', () => {
  const check = async (ensemble: Ensemble, x: Float32Array) => {
    const n = x.length / ensemble.nFeatures;
    const session = await open(treesGraph(ensemble));
    const answer = await session.run({ x: new ort.Tensor('float32', x, [n, ensemble.nFeatures]) });
    const y = answer['y']!.data as Float32Array;
    const truth = evaluateEnsemble(ensemble, x, n);
    for (let row = 0; row < n; row++) {
      expect(Math.abs(y[row]! - truth[row]!)).toBeLessThan(TOLERANCE);
    }
    await session.release();
  };

  it('answers as plain arithmetic does', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          nTrees: fc.integer({ min: 1, max: 12 }),
          depth: fc.integer({ min: 1, max: 6 }),
          nFeatures: fc.integer({ min: 1, max: 9 }),
        }),
        fc.nat(1_000),
        async (shape, seed) => {
          const x = gaussianRows(33, shape.nFeatures, seed, 5).map((v) => v * 2);
          await check(randomEnsemble(shape, seed), x);
        },
      ),
      { numRuns: 20 },
    );
  });

  it('goes left on a threshold itself', async () => {
    const leaf = (value: number) => ({ feature: -1, threshold: value, left: -1, right: -1 });
    const ensemble: Ensemble = {
      nFeatures: 1,
      trees: [[{ feature: 0, threshold: 0.5, left: 1, right: 2 }, leaf(1), leaf(2)]],
    };
    expect([...evaluateEnsemble(ensemble, Float32Array.of(0.5, 0.6), 2)]).toEqual([1, 2]);
    await check(ensemble, Float32Array.of(0.5, 0.6, 0.4));
  });
});

describe('the perceptron graph', () => {
  it('computes what plain arithmetic computes', async () => {
    const widths = [9, 5, 3];
    const [nRows, weights] = [40, gaussianRows(100, 1, 1, 3)];
    const weight = (layer: number, input: number, output: number): number =>
      weights[layer * 50 + input * 5 + output] ?? 0.5;
    const x = gaussianRows(nRows, 9, 1, 4);
    const session = await open(perceptronGraph(widths, weight));
    const answer = await session.run({ x: new ort.Tensor('float32', x, [nRows, 9]) });
    const y = answer['y']!.data as Float32Array;
    let largest = 0;
    for (let r = 0; r < nRows; r++) {
      let active = Array.from(x.subarray(r * 9, (r + 1) * 9));
      for (const [layer, nOutputs] of [5, 3, 1].entries()) {
        const last = layer === 2;
        active = Array.from({ length: nOutputs }, (_, o) => {
          const sum = active.reduce((total, value, i) => total + value * weight(layer, i, o), 0);
          return last ? sum : Math.max(0, sum);
        });
      }
      largest = Math.max(largest, Math.abs(active[0]!));
      expect(Math.abs(y[r]! - active[0]!)).toBeLessThan(TOLERANCE * Math.max(1, largest));
    }
    expect(largest).toBeGreaterThan(0.1);
  });
});
