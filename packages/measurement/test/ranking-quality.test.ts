import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  averagePrecisionAtK,
  meanOverQueries,
  ndcgAtK,
  precisionAtK,
  type RankedList,
  recallAtK,
  reciprocalRank,
} from '../src/index.js';

const inOrder = { scores: [0.6, 0.5, 0.4, 0.3, 0.2, 0.1], gains: [3, 2, 3, 0, 1, 2] };
const shuffled = { scores: [2.5, 0.1, 1.1, 0.7, 3.2, -1, 0], gains: [0, 1, 0, 3, 2, 0, 1] };

describe('reference values', () => {
  test.each([
    [inOrder, 1, 1],
    [inOrder, 3, 0.9777813616305048],
    [inOrder, 6, 0.9608081943360616],
    [shuffled, 1, 0.6666666666666666],
    [shuffled, 3, 0.4200039915079282],
    [shuffled, 7, 0.7770942017317796],
  ] as [RankedList, number, number][])(
    'NDCG agrees with scikit-learn (case %#)',
    (list, k, expected) => {
      expect(ndcgAtK(list, k)).toBeCloseTo(expected, 12);
    },
  );

  test('average precision agrees with scikit-learn', () => {
    expect(averagePrecisionAtK(shuffled)).toBeCloseTo(0.6916666666666667, 12);
  });

  test('the binary metrics are those worked by hand', () => {
    // order by score: gains 2 0 0 3 1 1 0 → relevant at ranks 1, 4, 5, 6
    expect(reciprocalRank(shuffled)).toBe(1);
    expect(reciprocalRank({ scores: [3, 2, 1], gains: [0, 0, 1] })).toBeCloseTo(1 / 3, 15);
    expect(reciprocalRank({ scores: [3, 2, 1], gains: [0, 0, 1] }, 2)).toBe(0);
    expect(precisionAtK(shuffled, 4)).toBe(0.5);
    expect(recallAtK(shuffled, 4)).toBe(0.5);
    expect(recallAtK(shuffled, 7)).toBe(1);
    expect(averagePrecisionAtK(shuffled, 4)).toBeCloseTo((1 + 2 / 4) / 4, 15);
    // a list shorter than k leaves places empty
    expect(precisionAtK({ scores: [1], gains: [1] }, 4)).toBe(0.25);
    expect(recallAtK({ scores: [1], gains: [1] }, 4)).toBe(1);
  });

  test('the lower row wins ties', () => {
    expect(reciprocalRank({ scores: [1, 1, 1], gains: [0, 1, 0] })).toBe(0.5);
  });

  test('means leave lists without a relevant item out and say how many', () => {
    const result = meanOverQueries(
      [
        { scores: [2, 1], gains: [1, 0] },
        { scores: [2, 1], gains: [0, 1] },
        { scores: [2, 1], gains: [0, 0] },
      ],
      reciprocalRank,
    );
    expect(result).toEqual({ mean: 0.75, nLists: 2, nSkipped: 1 });
  });
});

const lists = fc
  .array(
    fc.record({ score: fc.integer({ min: -50, max: 50 }), gain: fc.integer({ min: 0, max: 3 }) }),
    {
      minLength: 1,
      maxLength: 25,
    },
  )
  .filter((items) => items.some((item) => item.gain > 0))
  .map(
    (items): RankedList => ({ scores: items.map((i) => i.score), gains: items.map((i) => i.gain) }),
  );
const depth = fc.integer({ min: 1, max: 30 });

describe('laws', () => {
  test('every metric lies in [0, 1]', () => {
    fc.assert(
      fc.property(lists, depth, (list, k) => {
        for (const metric of [
          ndcgAtK,
          reciprocalRank,
          averagePrecisionAtK,
          precisionAtK,
          recallAtK,
        ]) {
          const value = metric(list, k);
          expect(value).toBeGreaterThanOrEqual(0);
          expect(value).toBeLessThanOrEqual(1 + 1e-12);
        }
      }),
    );
  });

  test('ranking by the gains themselves is ideal', () => {
    fc.assert(
      fc.property(lists, depth, ({ gains }, k) => {
        const ideal = { scores: gains, gains };
        expect(ndcgAtK(ideal, k)).toBeCloseTo(1, 12);
        expect(reciprocalRank(ideal)).toBe(1);
        expect(averagePrecisionAtK(ideal, k)).toBeCloseTo(1, 12);
      }),
    );
  });

  test('only the order of scores counts, and the scale of gains does not', () => {
    fc.assert(
      fc.property(lists, depth, (list, k) => {
        const other = { scores: Array.from(list.scores, (s) => s ** 3 - 7), gains: list.gains };
        expect(ndcgAtK(other, k)).toBe(ndcgAtK(list, k));
        const scaled = { scores: list.scores, gains: Array.from(list.gains, (g) => g * 8) };
        expect(ndcgAtK(scaled, k)).toBeCloseTo(ndcgAtK(list, k), 12);
      }),
    );
  });

  test('recall grows with k and is 1 at the end', () => {
    fc.assert(
      fc.property(lists, depth, (list, k) => {
        expect(recallAtK(list, k + 1)).toBeGreaterThanOrEqual(recallAtK(list, k));
        expect(recallAtK(list, list.scores.length)).toBe(1);
      }),
    );
  });
});

describe('bad input', () => {
  test.each([
    ['no relevant item', { scores: [1], gains: [0] }, 1, 'WAGGLE_MEASUREMENT_NO_RELEVANT'],
    ['an empty list', { scores: [], gains: [] }, 1, 'WAGGLE_MEASUREMENT_EMPTY'],
    ['a NaN score', { scores: [Number.NaN], gains: [1] }, 1, 'WAGGLE_MEASUREMENT_NOT_FINITE'],
    ['a negative gain', { scores: [1], gains: [-1] }, 1, 'WAGGLE_MEASUREMENT_OUT_OF_RANGE'],
    ['columns of different length', { scores: [1, 2], gains: [1] }, 1, 'WAGGLE_MEASUREMENT_SHAPE'],
    ['k of 0', { scores: [1], gains: [1] }, 0, 'WAGGLE_MEASUREMENT_OUT_OF_RANGE'],
    ['k of NaN', { scores: [1], gains: [1] }, Number.NaN, 'WAGGLE_MEASUREMENT_OUT_OF_RANGE'],
    ['a broken k', { scores: [1], gains: [1] }, 1.5, 'WAGGLE_MEASUREMENT_OUT_OF_RANGE'],
  ] as [string, RankedList, number, string][])('%s is refused', (_name, list, k, code) => {
    for (const metric of [ndcgAtK, reciprocalRank, averagePrecisionAtK, precisionAtK, recallAtK]) {
      expect(() => metric(list, k)).toThrowError(expect.objectContaining({ code }));
    }
  });

  test('a mean over nothing relevant is refused, and other errors pass through', () => {
    expect(() => meanOverQueries([{ scores: [1], gains: [0] }], reciprocalRank)).toThrowError(
      expect.objectContaining({ code: 'WAGGLE_MEASUREMENT_NO_RELEVANT' }),
    );
    expect(() =>
      meanOverQueries([{ scores: [Number.NaN], gains: [1] }], reciprocalRank),
    ).toThrowError(expect.objectContaining({ code: 'WAGGLE_MEASUREMENT_NOT_FINITE' }));
  });
});

test('a list of weight two counts as the list twice, one of weight 0 not at all', () => {
  const lists = [
    { scores: [3, 2, 1], gains: [0, 1, 0] },
    { scores: [3, 2, 1], gains: [1, 1, 0] },
    { scores: [1, 2], gains: [1, 0] },
  ];
  const recall = (list: RankedList) => recallAtK(list, 1);
  for (const metric of [reciprocalRank, recall]) {
    const weighted = meanOverQueries(
      lists.map((list, i) => ({ ...list, weight: [2, 1, 0][i]! })),
      metric,
    );
    const repeated = meanOverQueries([lists[0]!, lists[0]!, lists[1]!], metric);
    expect(weighted.mean).toBeCloseTo(repeated.mean, 12);
    expect(weighted.nLists).toBe(2);
  }
  expect(() => meanOverQueries([{ ...lists[0]!, weight: -1 }], reciprocalRank)).toThrowError(
    expect.objectContaining({ code: 'WAGGLE_MEASUREMENT_OUT_OF_RANGE' }),
  );
});
