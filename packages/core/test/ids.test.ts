import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { encodeUlid, hash32, ID_PREFIXES, idFactory, isId, makeId } from '../src/index.js';

const word = fc.integer({ min: 0, max: 0xffffffff });

describe('ids', () => {
  it('encode the ULID specification’s own example time', () => {
    // The specification's example: 01ARZ3NDEK is 1469918176385 ms... its first ten characters are the time.
    expect(encodeUlid(1469922850259, 0, 0, 0).slice(0, 10)).toBe('01ARZ3NDEK');
    expect(encodeUlid(281474976710655, 0xffff, 0xffffffff, 0xffffffff)).toBe(
      '7ZZZZZZZZZZZZZZZZZZZZZZZZZ',
    );
    expect(encodeUlid(0, 0, 0, 0)).toBe('00000000000000000000000000');
  });

  it('keep all 128 bits: decoding gives time and randomness back', () => {
    const alphabet = '0123456789ABCDEFGHJKMNPQRSTVWXYZ';
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 2 ** 48 - 1 }),
        fc.nat(0xffff),
        word,
        word,
        (t, hi, mid, lo) => {
          let value = 0n;
          for (const c of encodeUlid(t, hi, mid, lo))
            value = value * 32n + BigInt(alphabet.indexOf(c));
          expect(value).toBe(
            (BigInt(t) << 80n) | (BigInt(hi) << 64n) | (BigInt(mid) << 32n) | BigInt(lo),
          );
        },
      ),
    );
  });

  it('sort by time within a kind', () => {
    fc.assert(
      fc.property(
        fc.nat(2 ** 31),
        fc.integer({ min: 1, max: 2 ** 31 }),
        word,
        word,
        (t, dt, a, b) => {
          expect(makeId('click', t, [a, a, a]) < makeId('click', t + dt, [b, b, b])).toBe(true);
        },
      ),
    );
  });

  it('have distinct prefixes and match the accepted pattern', () => {
    const prefixes = Object.values(ID_PREFIXES);
    expect(new Set(prefixes).size).toBe(prefixes.length);
    const next = idFactory(() => 1_700_000_000_000);
    const made = new Set(Array.from({ length: 10_000 }, () => next('decision')));
    expect(made.size).toBe(10_000);
    for (const id of made) expect(isId(id)).toBe(true);
    for (const bad of ['', ' ', 'a b', 'ü', '-x', 'x'.repeat(65), 3, null])
      expect(isId(bad)).toBe(false);
  });

  it('refuse times outside 48 bits', () => {
    for (const t of [-1, 2 ** 48, 1.5, Number.NaN]) {
      expect(() => encodeUlid(t, 0, 0, 0)).toThrow(
        expect.objectContaining({ code: 'WAGGLE_INVALID_ARGUMENT' }),
      );
    }
  });
});

describe('hash32', () => {
  it('spreads consecutive names evenly over buckets', () => {
    const buckets = new Float64Array(64);
    const n = 64_000;
    for (let i = 0; i < n; i++) buckets[hash32(`pub_${i}`) % 64]!++;
    const expected = n / 64;
    const chi2 = buckets.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
    // 63 degrees of freedom: 0.9999 quantile is 115.
    expect(chi2).toBeLessThan(115);
  });
});
