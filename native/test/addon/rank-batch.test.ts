import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  type RankBatchInput,
  rankBatch,
  SCORE_TERM_COUNT,
  scoreRank,
  Trees,
  topk,
} from '../../ts/index.js';

const folder = fileURLToPath(new URL('../trees/models/', import.meta.url));
const weights = { margin: 0.3, fit: 1.5, advertiser: 0.7, payout: 0.2, explore: 1.1 };
const f = Math.fround;

/** A generator of its own, so that a seed names a case. */
function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

function floats(n: number, random: () => number): Float32Array {
  return Float32Array.from({ length: n }, () => random() * 2 - 0.5);
}

describe('rankBatch', () => {
  let trees: Trees;
  beforeAll(async () => {
    trees = await Trees.load(`${folder}logistic-categorical.xgboost.json`);
  });
  afterAll(async () => {
    await trees.close();
  });

  // The model has five features: two of the item, two of the request, the similarity.
  function input(seed: number, nRequests: number, nItems: number, k: number): RankBatchInput {
    const random = randomOf(seed);
    const dim = 6;
    return {
      nRequests,
      nItems,
      k,
      similarity: {
        queries: floats(nRequests * dim, random),
        embeddings: floats(nItems * dim, random),
        dim,
        metric: 'cosine',
        isFeature: true,
      },
      itemFeatures: floats(nItems * 2, random),
      nItemFeatures: 2,
      requestFeatures: floats(nRequests * 2, random),
      nRequestFeatures: 2,
      model: trees,
      columns: {
        price: floats(nItems, random),
        payoutShare: floats(nItems, random),
        fixedSpend: floats(nItems, random),
        explore: floats(nItems, random),
        mu: floats(nItems, random),
      },
      volume: floats(nRequests, random),
      weights,
      group: Int32Array.from({ length: nItems }, () => Math.floor(random() * 9)),
      maxPerGroup: 2,
    };
  }

  it('answers to the bit what its stages give one after the other', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer(),
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 1, max: 150 }),
        fc.integer({ min: 1, max: 12 }),
        fc.constantFrom('all', 'shared', 'own', 'lists'),
        async (seed, nRequests, nItems, k, kind) => {
          const random = randomOf(seed + 1);
          const o = input(seed, nRequests, nItems, k);
          const rowBytes = Math.ceil(nItems / 8);
          const bitmap = Uint8Array.from(
            { length: rowBytes * (kind === 'own' ? nRequests : 1) },
            () => random() * 256,
          );
          const lists = Array.from({ length: nRequests }, () =>
            Array.from({ length: Math.floor(random() * nItems) }, () =>
              Math.floor(random() * nItems),
            ),
          );
          const offsets = new Int32Array(nRequests + 1);
          for (const [r, list] of lists.entries()) offsets[r + 1] = offsets[r]! + list.length;
          const found = await rankBatch({
            ...o,
            ...(kind === 'shared' ? { eligible: bitmap } : {}),
            ...(kind === 'own' ? { eligiblePerRequest: bitmap } : {}),
            ...(kind === 'lists'
              ? { candidates: { items: Int32Array.from(lists.flat()), offsets } }
              : {}),
          });
          const { similarity, columns } = o;
          const { queries, embeddings, dim, metric } = similarity!;
          const { scores, rows } = await topk({
            queries,
            matrix: embeddings,
            dim,
            metric,
            nQueries: nRequests,
            nRows: nItems,
            k: nItems,
          });
          for (let r = 0; r < nRequests; r++) {
            const sim = new Float32Array(nItems);
            for (let i = 0; i < nItems; i++) sim[rows[r * nItems + i]!] = scores[r * nItems + i]!;
            const base = kind === 'own' ? r * rowBytes : 0;
            const items =
              kind === 'lists'
                ? lists[r]!
                : Array.from({ length: nItems }, (_, i) => i).filter(
                    (i) => kind === 'all' || ((bitmap[base + (i >> 3)]! >> (i & 7)) & 1) === 1,
                  );
            const x = Float32Array.from(
              items.flatMap((i) => [
                o.itemFeatures![2 * i]!,
                o.itemFeatures![2 * i + 1]!,
                o.requestFeatures![2 * r]!,
                o.requestFeatures![2 * r + 1]!,
                sim[i]!,
              ]),
            );
            const p = await trees.predict({ x, nRows: items.length });
            const gather = (column: Float32Array): Float32Array =>
              Float32Array.from(items, (i) => column[i]!);
            const spend = Float32Array.from(items, (i, c) =>
              f(f(f(p[c]! * columns.price[i]!) * o.volume![r]!) + columns.fixedSpend![i]!),
            );
            const expected = await scoreRank({
              nCandidates: items.length,
              k,
              q: new Float32Array(items.length).fill(1),
              spend,
              payout: Float32Array.from(items, (i, c) => spend[c]! * columns.payoutShare![i]!),
              fit: gather(sim),
              explore: gather(columns.explore!),
              mu: gather(columns.mu!),
              weights,
              group: Int32Array.from(items, (i) => o.group![i]!),
              maxPerGroup: 2,
            });
            const n = expected.rows.length;
            expect(Array.from(found.counts.subarray(2 * r, 2 * r + 2))).toEqual([n, items.length]);
            const at = r * k;
            expect(Array.from(found.items.subarray(at, at + n))).toEqual(
              Array.from(expected.rows, (row) => items[row]),
            );
            expect(found.scores.slice(at, at + n)).toEqual(expected.scores);
            expect(found.terms.slice(at * SCORE_TERM_COUNT, (at + n) * SCORE_TERM_COUNT)).toEqual(
              expected.terms,
            );
            expect(Array.from(found.predictions.subarray(at, at + n))).toEqual(
              Array.from(expected.rows, (row) => p[row]),
            );
            expect(found.items.subarray(at + n, at + k).every((i) => i === -1)).toBe(true);
            expect(found.scores.subarray(at + n, at + k).every((s) => s === -Infinity)).toBe(true);
          }
        },
      ),
      { numRuns: 60 },
    );
  });

  it('takes a linear model with its calibration', async () => {
    const o = input(4, 3, 50, 4);
    const coefficients = Float64Array.of(0.3, -1.2, 0.5, 0.9, 2);
    const model = { coefficients, intercept: -0.5, calibration: { a: 1.4, b: 0.1 } };
    const found = await rankBatch({ ...o, model });
    const item = found.items[0]!;
    const { queries, embeddings, dim } = o.similarity!;
    const { scores } = await topk({
      queries: queries.slice(0, dim),
      nQueries: 1,
      matrix: embeddings.slice(item * dim, (item + 1) * dim),
      nRows: 1,
      dim,
      k: 1,
      metric: 'cosine',
    });
    const x = [
      ...o.itemFeatures!.slice(2 * item, 2 * item + 2),
      ...o.requestFeatures!.slice(0, 2),
      scores[0]!,
    ];
    let sum = model.intercept;
    for (const [j, value] of x.entries()) sum += coefficients[j]! * value;
    const logit = model.calibration.a * sum + model.calibration.b;
    expect(found.predictions[0]).toBeCloseTo(1 / (1 + Math.exp(-logit)), 6);
  });

  it('fills the arrays it is given, again and again', async () => {
    const o = input(9, 4, 40, 3);
    const out = await rankBatch(o);
    const again = await rankBatch({
      ...o,
      out: {
        items: new Int32Array(12),
        scores: new Float64Array(12),
        terms: new Float64Array(12 * SCORE_TERM_COUNT),
        predictions: new Float32Array(12),
        counts: new Int32Array(8),
      },
    });
    expect(again).toEqual(out);
  });

  it('reads a shared bitmap for every request, however much room is behind it', async () => {
    const o = input(7, 4, 20, 20);
    const padded = new Uint8Array(4 * 3);
    padded.set([0b1011_0001, 0xff, 0x0f]);
    const nEligible = async (change: Partial<RankBatchInput>): Promise<(number | undefined)[]> => {
      const { counts } = await rankBatch({ ...o, ...change });
      return [counts[1], counts[3], counts[5], counts[7]];
    };
    expect(await nEligible({ eligible: padded })).toEqual([16, 16, 16, 16]);
    expect(await nEligible({ eligible: padded.slice(0, 3) })).toEqual([16, 16, 16, 16]);
    expect(await nEligible({ eligiblePerRequest: padded })).toEqual([16, 0, 0, 0]);
  });

  it('takes an item that a list names twice for two candidates', async () => {
    const { items, counts } = await rankBatch({
      nRequests: 1,
      nItems: 3,
      k: 4,
      candidates: { items: Int32Array.of(2, 2, 0), offsets: Int32Array.of(0, 3) },
      model: { coefficients: new Float64Array(0), intercept: 0 },
      columns: { price: Float32Array.of(1, 2, 3) },
      weights,
    });
    expect(Array.from(items)).toEqual([2, 2, 0, -1]);
    expect(Array.from(counts)).toEqual([3, 3]);
  });

  it('refuses what contradicts itself, with a code', async () => {
    const o = input(2, 2, 20, 3);
    const code = (change: object): Promise<string> =>
      rankBatch({ ...o, ...change }).then(
        () => 'accepted',
        (error: { code: string }) => error.code,
      );
    const lists = { items: Int32Array.of(0, 19), offsets: Int32Array.of(0, 1, 2) };
    expect(await code({})).toBe('accepted');
    expect(await code({ candidates: lists })).toBe('accepted');
    expect(await code({ k: 0 })).toBe('WAGGLE_NATIVE_INVALID_ARGUMENT');
    expect(await code({ candidates: lists, eligible: new Uint8Array(3) })).toBe(
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    );
    expect(await code({ candidates: { ...lists, items: Int32Array.of(0, 20) } })).toBe(
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    );
    expect(await code({ candidates: { ...lists, offsets: Int32Array.of(0, 2, 1) } })).toBe(
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    );
    expect(await code({ candidates: { ...lists, offsets: Int32Array.of(0, 1, 3) } })).toBe(
      'WAGGLE_NATIVE_SHAPE',
    );
    expect(await code({ eligible: new Uint8Array(2) })).toBe('WAGGLE_NATIVE_SHAPE');
    expect(await code({ eligiblePerRequest: new Uint8Array(5) })).toBe('WAGGLE_NATIVE_SHAPE');
    expect(await code({ eligible: new Uint8Array(3), eligiblePerRequest: new Uint8Array(6) })).toBe(
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    );
    expect(await code({ candidates: lists, eligiblePerRequest: new Uint8Array(6) })).toBe(
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    );
    expect(await code({ nItemFeatures: 1 })).toBe('WAGGLE_NATIVE_SHAPE');
    for (const forgotten of ['nItemFeatures', 'nRequestFeatures']) {
      expect(await code({ [forgotten]: undefined })).toBe('WAGGLE_NATIVE_INVALID_ARGUMENT');
    }
    for (const [length, answer] of [
      [4, 'WAGGLE_NATIVE_SHAPE'],
      [5, 'accepted'],
      [6, 'WAGGLE_NATIVE_SHAPE'],
    ] as const) {
      const model = { coefficients: new Float64Array(length), intercept: 0 };
      expect(await code({ model })).toBe(answer);
    }
    expect(await code({ columns: { ...o.columns, frequncy: new Float32Array(20) } })).toBe(
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    );
    expect(await code({ output: 1 })).toBe('WAGGLE_NATIVE_INVALID_ARGUMENT');
    expect(await code({ columns: { price: new Float32Array(19) } })).toBe('WAGGLE_NATIVE_SHAPE');
    expect(await code({ columns: { price: new Float32Array(20).fill(NaN) } })).toBe(
      'WAGGLE_NATIVE_NAN',
    );
    expect(await code({ columns: { ...o.columns, omega: new Float32Array(20) } })).toBe(
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    );
    expect(await code({ group: undefined })).toBe('WAGGLE_NATIVE_INVALID_ARGUMENT');
    expect(await code({ weights: { ...weights, fit: NaN } })).toBe('WAGGLE_NATIVE_NAN');
    expect(
      await code({ similarity: { ...o.similarity, queries: new Float32Array(12).fill(NaN) } }),
    ).toBe('WAGGLE_NATIVE_NAN');
    expect(await code({ signal: AbortSignal.abort() })).toBe('WAGGLE_ABORTED');
    const closed = await Trees.load(`${folder}logistic-categorical.xgboost.ubj`);
    await closed.close();
    expect(await code({ model: closed })).toBe('WAGGLE_NATIVE_CLOSED');
  });
});
