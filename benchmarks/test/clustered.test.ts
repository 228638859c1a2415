import { describe, expect, it } from 'vitest';
import { Clustered, fingerprint } from '../src/data/clustered.js';

describe('clustered vectors', () => {
  const small = new Clustered({ dim: 48, nCentres: 500 }, 7);

  it('are the ones that the C++ generator draws', () => {
    expect(fingerprint(small.rows(40, 3))).toBe(256_125_010);
    expect(fingerprint(small.queries(5))).toBe(2_497_786_982);
  });

  it('depend on seed and row alone', () => {
    expect(small.rows(4, 10)).toEqual(small.rows(14).subarray(10 * 48));
    expect(new Clustered({ dim: 48, nCentres: 500 }, 8).rows(4)).not.toEqual(small.rows(4));
    expect(small.queries(4)).not.toEqual(small.rows(4));
  });

  it('have unit length and cluster', () => {
    const rows = small.rows(600);
    const dot = (a: number, b: number) => {
      let sum = 0;
      for (let i = 0; i < 48; i++) sum += rows[a * 48 + i]! * rows[b * 48 + i]!;
      return sum;
    };
    let near = 0;
    for (let r = 0; r < 600; r++) {
      expect(dot(r, r)).toBeCloseTo(1, 5);
      let best = -1;
      for (let other = 0; other < 600; other++) {
        if (other !== r) best = Math.max(best, dot(r, other));
      }
      if (best > 0.8) near += 1;
    }
    expect(near).toBeGreaterThan(300);
  });
});
