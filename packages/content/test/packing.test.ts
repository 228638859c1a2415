import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DEFAULT_PACKING, packByLength, paddingWaste } from '../src/index.js';

const lengthsOf = fc.array(fc.integer({ min: 2, max: 512 }), { maxLength: 400 });
const limitsOf = fc.record({
  tokenBudget: fc.integer({ min: 1, max: 5000 }),
  maxPadding: fc.double({ min: 0, max: 0.5, noNaN: true }),
});

describe('packByLength', () => {
  it('names every row exactly once', () => {
    fc.assert(
      fc.property(lengthsOf, limitsOf, (lengths, limits) => {
        const rows = packByLength(lengths, limits).flatMap((batch) => [...batch.rows]);
        expect(rows.sort((a, b) => a - b)).toEqual(lengths.map((_, row) => row));
      }),
    );
  });

  it('keeps every batch within its budget unless one text alone exceeds it', () => {
    fc.assert(
      fc.property(lengthsOf, limitsOf, (lengths, limits) => {
        for (const { rows, width } of packByLength(lengths, limits)) {
          expect(width).toBe(Math.max(...[...rows].map((row) => lengths[row]!)));
          expect(rows.length === 1 || rows.length * width <= limits.tokenBudget).toBe(true);
        }
      }),
    );
  });

  it('keeps the padding within its limit for any lengths, below 10 % by default', () => {
    fc.assert(
      fc.property(lengthsOf, limitsOf, (lengths, limits) => {
        expect(paddingWaste(lengths, packByLength(lengths, limits))).toBeLessThanOrEqual(
          limits.maxPadding + 1e-12,
        );
        expect(paddingWaste(lengths, packByLength(lengths))).toBeLessThan(0.1);
      }),
    );
  });

  it('puts the longest first and packs equal lengths full', () => {
    const lengths = [...new Array(100).fill(16), 200, 3];
    const batches = packByLength(lengths, { ...DEFAULT_PACKING, tokenBudget: 320 });
    expect(batches.map((batch) => batch.width)).toEqual([200, 16, 16, 16, 16, 16, 3]);
    expect(batches[1]!.rows.length).toBe(20);
  });

  it('packs nothing into nothing and refuses limits outside their domain', () => {
    expect(packByLength([])).toEqual([]);
    expect(paddingWaste([], [])).toBe(0);
    for (const limits of [
      { tokenBudget: 0, maxPadding: 0.1 },
      { tokenBudget: Number.NaN, maxPadding: 0.1 },
      { tokenBudget: 10, maxPadding: 1 },
      { tokenBudget: 10, maxPadding: -0.1 },
    ]) {
      expect(() => packByLength([3], limits)).toThrow(/tokenBudget/);
    }
  });
});
