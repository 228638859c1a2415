import { describe, expect, it } from 'vitest';
import { clickTable } from '../src/data/tables.js';
import { pairedDifference } from '../src/learning-metrics.js';

describe('figures of learning', () => {
  it('pairs differences and tells their standard error', () => {
    expect(pairedDifference([1, 2, 3], [0, 2, 4])).toEqual({
      difference: 0,
      standardError: Math.sqrt(1 / 3),
    });
    expect(() => pairedDifference([1], [1])).toThrow(RangeError);
    expect(() => pairedDifference([1, 2], [1])).toThrow(RangeError);
  });
});

describe('rows to learn from', () => {
  it('are the same for a seed, of the stated kinds, and succeed about every fifth time', () => {
    const table = clickTable(20_000, 3);
    const same = (seed: number) => Buffer.from(clickTable(20_000, seed).x.buffer);
    expect(same(3).equals(Buffer.from(table.x.buffer))).toBe(true);
    expect(same(4).equals(Buffer.from(table.x.buffer))).toBe(false);
    const rate = table.y.reduce((a, b) => a + b, 0) / table.nRows;
    expect(rate).toBeGreaterThan(0.15);
    expect(rate).toBeLessThan(0.25);
    expect(table.categorical).toHaveLength(10);
    for (const f of table.categorical) {
      for (let r = 0; r < 500; r++) {
        const value = table.x[r * table.nFeatures + f]!;
        expect(Number.isInteger(value) && value >= 0 && value < 200).toBe(true);
      }
    }
    expect(table.x.some(Number.isNaN)).toBe(true);
    expect(table.x.some((v) => Math.abs(v) === Infinity)).toBe(false);
  });
});
