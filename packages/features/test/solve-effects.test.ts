import { Rng } from '@waggle/core';
import { describe, expect, test } from 'vitest';
import { type EffectBeliefs, type EffectRows, solveEffects } from '../src/index.js';

/** Columns as rows. */
function interleaved(columns: readonly Int32Array[]): Int32Array {
  const out = new Int32Array(columns.length * columns[0]!.length);
  columns.forEach((column, c) => {
    column.forEach((code, i) => {
      out[i * columns.length + c] = code;
    });
  });
  return out;
}

/** Crossed groups with known effects, one column, rows with a shock of their own. */
function crossed(seed: number, link: 'log' | 'logit', nRows = 6_000) {
  const rng = new Rng(seed, 12);
  const sizes = [120, 40];
  const sds = [0.5, 0.4];
  const truth = sizes.map((size, l) =>
    Float64Array.from({ length: size }, () => sds[l]! * rng.normal()),
  );
  const shock = link === 'log' ? 0.3 : 0;
  const codes = sizes.map((size) => Int32Array.from({ length: nRows }, () => rng.integer(size)));
  const column = Float64Array.from({ length: nRows }, () => rng.normal());
  const exposure = new Float64Array(nRows);
  const successes = new Float64Array(nRows);
  const offset = Float64Array.from({ length: nRows }, () => 0.2 * rng.normal());
  for (let i = 0; i < nRows; i++) {
    exposure[i] = link === 'log' ? 1_000 + rng.integer(30_000) : 1;
    const eta =
      (link === 'log' ? -6 : -0.5) +
      offset[i]! +
      0.3 * column[i]! +
      truth[0]![codes[0]![i]!]! +
      truth[1]![codes[1]![i]!]! +
      shock * rng.normal() -
      shock ** 2 / 2;
    const rate = link === 'log' ? Math.exp(eta) : 1 / (1 + Math.exp(-eta));
    successes[i] = rng.binomial(exposure[i]!, rate);
  }
  const rows: EffectRows = {
    successes,
    exposure,
    offset,
    codes: interleaved(codes),
    columns: column,
  };
  const beliefs: EffectBeliefs = {
    link,
    levels: sizes.map((size, l) => ({ size, variance: sds[l]! ** 2 })),
    columns: [{ mean: 0, variance: 1 }],
    base: { mean: link === 'log' ? -6 : -0.5, variance: 1 },
    dispersion: shock ** 2,
  };
  return { rows, beliefs, truth };
}

function correlation(a: Float64Array, b: Float64Array): number {
  const mean = (v: Float64Array) => v.reduce((s, x) => s + x, 0) / v.length;
  const [ma, mb] = [mean(a), mean(b)];
  let ab = 0;
  let aa = 0;
  let bb = 0;
  a.forEach((x, i) => {
    ab += (x - ma) * (b[i]! - mb);
    aa += (x - ma) ** 2;
    bb += (b[i]! - mb) ** 2;
  });
  return ab / Math.sqrt(aa * bb);
}

describe('crossed effects', () => {
  test.each([
    ['log', 6_000, 0.97],
    // An answer says little: 170 per group leave a reliability of 0.9, a correlation of 0.95.
    ['logit', 20_000, 0.92],
  ] as const)('of a %s rate are found beside a weighed column', async (link, nRows, least) => {
    const { rows, beliefs, truth } = crossed(1, link, nRows);
    const solution = await solveEffects(rows, beliefs);
    expect(correlation(solution.effects[0]!, truth[0]!)).toBeGreaterThan(least);
    expect(correlation(solution.effects[1]!, truth[1]!)).toBeGreaterThan(least);
    expect(solution.weights[0]).toBeCloseTo(0.3, 1);
    expect(solution.iterations).toBeLessThan(40);
  });

  test('one group alone has the posterior mean of its own likelihood', async () => {
    // 30 successes where 10 were expected, prior variance 0.2: N(u, s²) is nearest to the posterior where
    // 30 − 10·e^(u + s²/2) − (u + 0.1)/0.2 = 0, and the effect is u + s²/2.
    const solution = await solveEffects(
      {
        successes: Float64Array.of(30),
        exposure: Float64Array.of(10),
        offset: Float64Array.of(0),
        codes: Int32Array.of(0),
      },
      {
        link: 'log',
        levels: [{ size: 2, variance: 0.2 }],
        base: { mean: 0, variance: 1e-9 },
        dispersion: 0,
      },
    );
    const effect = solution.effects[0]![0]!;
    const mode = effect - solution.variances[0]![0]! / 2;
    expect(30 - 10 * Math.exp(effect) - (mode + 0.1) / 0.2).toBeCloseTo(0, 4);
    // The second group has no rows: no effect, no evidence, all of the prior's doubt.
    expect(solution.effects[0]![1]).toBe(0);
    expect(solution.evidence[0]![1]).toBe(0);
    expect(solution.variances[0]![1]).toBe(0.2);
  });

  test('what is not known is not counted once per level: predictions add up to what was seen', async () => {
    // Rows that hardly say anything, and the same group at six levels: each alone leaves its whole prior open.
    const nRows = 400;
    const levels = 6;
    const rng = new Rng(5, 12);
    const group = Int32Array.from({ length: nRows }, () => rng.integer(200));
    const codes = Int32Array.from(
      { length: nRows * levels },
      (_, i) => group[Math.floor(i / levels)]!,
    );
    const exposure = new Float64Array(nRows).fill(500);
    const successes = exposure.map((n) => rng.binomial(n, 0.01));
    const { base, effects } = await solveEffects(
      { successes, exposure, offset: new Float64Array(nRows), codes },
      {
        link: 'log',
        levels: Array.from({ length: levels }, () => ({ size: 200, variance: 0.1 })),
        base: { mean: Math.log(0.01), variance: 1 },
        dispersion: 0,
      },
    );
    let expected = 0;
    group.forEach((g, i) => {
      const sum = effects.reduce((total, level) => total + level[g]!, base);
      expected += exposure[i]! * Math.exp(sum);
    });
    expect(expected / successes.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 2);
  });

  test('what effects spread by is found again by expectation and maximisation', async () => {
    const { rows, beliefs } = crossed(6, 'log');
    const variances = [0.05, 1];
    let start: Float64Array | undefined;
    for (let round = 0; round < 15; round++) {
      const solution = await solveEffects(
        rows,
        {
          ...beliefs,
          levels: beliefs.levels.map(({ size }, l) => ({ size, variance: variances[l]! })),
        },
        { start, spreadProbes: 4 },
      );
      start = solution.state;
      solution.spreads.forEach(({ square, groups }, l) => {
        variances[l] = square / groups;
      });
    }
    // 120 and 40 groups: relative standard errors of 0.13 and 0.22.
    expect(variances[0]! / 0.25).toBeGreaterThan(0.65);
    expect(variances[0]! / 0.25).toBeLessThan(1.4);
    expect(variances[1]! / 0.16).toBeGreaterThan(0.45);
    expect(variances[1]! / 0.16).toBeLessThan(1.7);
  });

  test('from any start the same solution is reached', async () => {
    const { rows, beliefs } = crossed(2, 'log', 2_000);
    const cold = await solveEffects(rows, beliefs);
    const rng = new Rng(3, 12);
    const warm = await solveEffects(rows, beliefs, {
      start: cold.state.map((u) => u + 0.3 * rng.normal()),
    });
    cold.state.forEach((u, i) => {
      expect(Math.abs(u - warm.state[i]!)).toBeLessThan(1e-6);
    });
  });

  test('a giant whose luck is shared counts no more than its shock leaves of it', async () => {
    const one = (exposure: number, dispersion: number) =>
      solveEffects(
        {
          successes: Float64Array.of(exposure * 0.02),
          exposure: Float64Array.of(exposure),
          offset: Float64Array.of(Math.log(0.01)),
          codes: Int32Array.of(0),
        },
        {
          link: 'log',
          levels: [{ size: 1, variance: 0.1 }],
          base: { mean: 0, variance: 1e-9 },
          dispersion,
        },
      );
    const shared = await one(1e7, 0.1);
    const alone = await one(1e7, 0);
    expect(shared.evidence[0]![0]).toBeLessThan(10.01);
    expect(alone.evidence[0]![0]).toBeGreaterThan(1e5);
    expect(shared.effects[0]![0]).toBeLessThan(alone.effects[0]![0]!);
  });

  test('rows without exposure change nothing', async () => {
    const { rows, beliefs } = crossed(4, 'log', 500);
    const without = await solveEffects(rows, beliefs);
    const padded: EffectRows = {
      successes: Float64Array.from([...rows.successes, 0]),
      exposure: Float64Array.from([...rows.exposure, 0]),
      offset: Float64Array.from([...rows.offset, 3]),
      codes: Int32Array.from([...rows.codes, 0, 0]),
      columns: Float64Array.from([...rows.columns!, 5]),
    };
    expect((await solveEffects(padded, beliefs)).state).toEqual(without.state);
  });
});
