import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { logGamma, philox4x32, Rng } from '../src/index.js';

/** Mean and variance of n draws. */
function moments(n: number, draw: () => number): { mean: number; variance: number } {
  let sum = 0;
  let squares = 0;
  for (let i = 0; i < n; i++) {
    const x = draw();
    sum += x;
    squares += x * x;
  }
  const mean = sum / n;
  return { mean, variance: squares / n - mean * mean };
}

/** Mean within 4.5 standard errors, variance within a stated relative error. */
function expectMoments(draw: () => number, mean: number, variance: number, tolerance = 0.05): void {
  const n = 40_000;
  const seen = moments(n, draw);
  expect(Math.abs(seen.mean - mean)).toBeLessThan(4.5 * Math.sqrt(variance / n) + 1e-12);
  expect(Math.abs(seen.variance / variance - 1)).toBeLessThan(tolerance);
}

describe('Philox4x32-10', () => {
  // Known answers distributed with Random123 (Salmon et al., SC'11).
  test.each([
    [
      [0, 0, 0, 0],
      [0, 0],
      [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
    ],
    [
      [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
      [0xffffffff, 0xffffffff],
      [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
    ],
    [
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      [0xa4093822, 0x299f31d0],
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ])('counter %j with key %j gives the published block', (counter, key, expected) => {
    const block = Uint32Array.from(counter);
    philox4x32(block, key[0]!, key[1]!);
    expect([...block]).toEqual(expected);
  });

  test('a stream is the blocks of its counter in order', () => {
    const rng = new Rng(2 ** 40 + 7, 11, 22);
    for (let blockIndex = 0; blockIndex < 3; blockIndex++) {
      const block = Uint32Array.from([blockIndex, 0, 11, 22]);
      philox4x32(block, 7, 2 ** 8);
      for (const word of block) expect(rng.uint32()).toBe(word);
    }
  });
});

describe('streams', () => {
  test('the same name gives the same draws, another name others', () => {
    fc.assert(
      fc.property(fc.nat(), fc.nat(), fc.nat(1000), fc.nat(1000), (seed, low, high, other) => {
        const draws = (a: number, b: number, c: number): number[] => {
          const rng = new Rng(a, b, c);
          return Array.from({ length: 8 }, () => rng.uint32());
        };
        const reference = draws(seed, low, high);
        expect(draws(seed, low, high)).toEqual(reference);
        expect(draws(seed + 1, low, high)).not.toEqual(reference);
        expect(draws(seed, low + 1, high)).not.toEqual(reference);
        expect(draws(seed, low, high + 1 + other)).not.toEqual(reference);
      }),
    );
  });

  test('neighbouring streams are not correlated', () => {
    const n = 20_000;
    for (const step of [1, 2, 256]) {
      const a = new Rng(5, 100);
      const b = new Rng(5, 100 + step);
      let product = 0;
      for (let i = 0; i < n; i++) product += (a.uniform() - 0.5) * (b.uniform() - 0.5);
      // Correlation of uniforms; its standard error is 1/√n.
      expect(Math.abs((product / n) * 12)).toBeLessThan(4.5 / Math.sqrt(n));
    }
  });

  test('first draws across streams are uniform', () => {
    const counts = new Float64Array(16);
    const n = 32_000;
    for (let stream = 0; stream < n; stream++) counts[new Rng(9, stream).uint32() >>> 28]!++;
    let chiSquare = 0;
    for (const count of counts) chiSquare += (count - n / 16) ** 2 / (n / 16);
    expect(chiSquare).toBeLessThan(45); // 15 degrees of freedom, p ≈ 1e-4
  });
});

describe('distributions', () => {
  const rng = new Rng(20_260_302, 3, 1);

  test('uniform draws lie in [0, 1) with the right moments', () => {
    for (let i = 0; i < 10_000; i++) {
      const u = rng.uniform();
      expect(u >= 0 && u < 1).toBe(true);
    }
    expectMoments(() => rng.uniform(), 0.5, 1 / 12);
  });

  test('integers are even over their range', () => {
    expectMoments(() => rng.integer(10), 4.5, 99 / 12);
    expect(new Set(Array.from({ length: 500 }, () => rng.integer(7))).size).toBe(7);
  });

  test('normal, exponential and Bernoulli draws have the right moments', () => {
    expectMoments(() => rng.normal(), 0, 1);
    expectMoments(() => rng.exponential(), 1, 1, 0.08);
    expectMoments(() => (rng.bernoulli(0.3) ? 1 : 0), 0.3, 0.21);
  });

  test.each([0.1, 0.5, 1, 2.5, 40])(
    'gamma(%d) has mean and variance equal to its shape',
    (shape) => {
      expectMoments(() => rng.gamma(shape), shape, shape, 0.15);
    },
  );

  test('beta draws have the right moments', () => {
    expectMoments(() => rng.beta(3, 9), 0.25, (3 * 9) / (144 * 13));
  });

  test.each([0.05, 1, 7, 29.9, 30.1, 400, 1e6])(
    'Poisson(%d) has mean and variance equal',
    (mean) => {
      expectMoments(() => rng.poisson(mean), mean, mean, 0.08);
    },
  );

  test.each([
    [1, 0.5],
    [20, 0.1],
    [1_000, 0.002],
    [1_000, 0.4],
    [500_000, 0.002],
    [300, 0.97],
  ])('binomial(%d, %d) has the right moments and range', (n, p) => {
    expectMoments(() => rng.binomial(n, p), n * p, n * p * (1 - p), 0.08);
    for (let i = 0; i < 1_000; i++) {
      const k = rng.binomial(n, p);
      expect(Number.isInteger(k) && k >= 0 && k <= n).toBe(true);
    }
  });

  test('degenerate parameters give degenerate draws', () => {
    expect(rng.poisson(0)).toBe(0);
    expect(rng.binomial(0, 0.5)).toBe(0);
    expect(rng.binomial(12, 0)).toBe(0);
    expect(rng.binomial(12, 1)).toBe(12);
  });

  test('weighted draws follow the weights and skip zeros', () => {
    const counts = [0, 0, 0];
    for (let i = 0; i < 30_000; i++) counts[rng.weighted([1, 0, 3])]!++;
    expect(counts[1]).toBe(0);
    expect(Math.abs(counts[2]! / 30_000 - 0.75)).toBeLessThan(0.012);
  });

  test('a shuffle keeps the items and moves them evenly', () => {
    const first = [0, 0, 0, 0];
    for (let i = 0; i < 8_000; i++) {
      const items = rng.shuffle([0, 1, 2, 3]);
      expect([...items].sort()).toEqual([0, 1, 2, 3]);
      first[items[0]!]!++;
    }
    for (const count of first) expect(Math.abs(count / 8_000 - 0.25)).toBeLessThan(0.025);
  });
});

test('ln Γ matches factorials and Γ(1/2)', () => {
  let factorial = 1;
  for (let n = 1; n < 20; n++) {
    expect(logGamma(n)).toBeCloseTo(Math.log(factorial), 10);
    factorial *= n;
  }
  expect(logGamma(0.5)).toBeCloseTo(0.5 * Math.log(Math.PI), 12);
});
