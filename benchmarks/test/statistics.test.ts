import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { median, pairedRatios, quantile, recall, summarize } from '../src/statistics.js';

const values = fc.array(fc.double({ min: -1e6, max: 1e6, noNaN: true }), { minLength: 1 });

describe('quantiles', () => {
  it('interpolate between order statistics', () => {
    expect(quantile([4, 1, 3, 2], 0.25)).toBe(1.75);
    expect(median([5, 1, 9])).toBe(5);
    expect(summarize([1, 2, 3, 4, 5])).toEqual({ value: 3, runs: 5, iqr: 2 });
    expect(() => median([])).toThrow(RangeError);
  });

  it('lie within the values, rise with p, and know no order', () => {
    fc.assert(
      fc.property(values, fc.double({ min: 0, max: 1, noNaN: true }), (x, p) => {
        const q = quantile(x, p);
        expect(q).toBeGreaterThanOrEqual(Math.min(...x));
        expect(q).toBeLessThanOrEqual(Math.max(...x));
        expect(quantile(x, 0)).toBe(Math.min(...x));
        expect(quantile(x, 1)).toBe(Math.max(...x));
        expect(quantile([...x].reverse(), p)).toBe(q);
      }),
    );
  });
});

describe('ratios', () => {
  it('are taken round by round', () => {
    // The second round met a machine half as fast: the pairs do not notice.
    expect(pairedRatios([4, 8, 4], [2, 4, 2])).toEqual([2, 2, 2]);
    expect(() => pairedRatios([1], [1, 2])).toThrow(RangeError);
    expect(() => pairedRatios([], [])).toThrow(RangeError);
  });
});

describe('recall', () => {
  it('counts true rows once each, whatever their order', () => {
    expect(recall(Int32Array.of(3, 1, 7, 8), Int32Array.of(1, 2, 8, 7), 2)).toBe(0.75);
    expect(recall(Int32Array.of(1, 1), Int32Array.of(1, 2), 2)).toBe(0.5);
  });

  it('asks for no more rows than there are', () => {
    expect(recall(Int32Array.of(5, -1), Int32Array.of(5, -1), 2)).toBe(1);
    expect(recall(Int32Array.of(-1, -1), Int32Array.of(-1, -1), 2)).toBe(1);
    expect(recall(Int32Array.of(-1, -1), Int32Array.of(4, -1), 2)).toBe(0);
    expect(() => recall(new Int32Array(3), new Int32Array(3), 2)).toThrow(RangeError);
  });
});
