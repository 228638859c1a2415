import { describe, expect, it } from 'vitest';
import { type EffectsFitInput, effectsFit } from '../../ts/index.js';
import { codeOf, detached, randomNumbers } from './arrays.js';

/** Two crossed levels and a column. */
function crossed(link: 'log' | 'logit', nRows = 800): EffectsFitInput {
  const next = randomNumbers(7);
  const truth = [30, 8].map((size) => Float64Array.from({ length: size }, () => next() - 0.5));
  const codes = Int32Array.from({ length: nRows * 2 }, (_, i) =>
    Math.floor(next() * truth[i % 2]!.length),
  );
  const values = Float64Array.from({ length: nRows }, () => next() - 0.5);
  const exposure = Float64Array.from({ length: nRows }, () =>
    link === 'log' ? 50_000 * next() : 1,
  );
  const successes = Float64Array.from({ length: nRows }, (_, i) => {
    const eta = truth[0]![codes[2 * i]!]! + truth[1]![codes[2 * i + 1]!]! + values[i]!;
    return link === 'log'
      ? Math.round(exposure[i]! * Math.exp(eta - 6))
      : Number(next() < 1 / (1 + Math.exp(-eta)));
  });
  return {
    link,
    nRows,
    successes,
    exposure,
    levels: truth.map(({ length }) => ({ size: length, mean: 0, variance: 0.2 })),
    codes,
    columns: { values, beliefs: [{ mean: 0, variance: 4 }] },
    base: { mean: link === 'log' ? -6 : 0, variance: 1 },
    dispersion: link === 'log' ? 0.01 : 0,
  };
}

/** Rate of each row at a solution. */
function rates(o: EffectsFitInput, state: Float64Array): Float64Array {
  return o.exposure.map((exposure, i) => {
    const eta =
      state[0]! +
      state[1]! * o.columns!.values[i]! +
      state[2 + o.codes[2 * i]!]! +
      state[2 + 30 + o.codes[2 * i + 1]!]!;
    return exposure * (o.link === 'log' ? Math.exp(eta) : 1 / (1 + Math.exp(-eta)));
  });
}

describe('effectsFit', () => {
  it.each(['log', 'logit'] as const)(
    'finds the mode of a %s rate with its priors',
    async (link) => {
      const o = crossed(link);
      const { state, information, converged } = await effectsFit(o);
      expect(converged).toBe(true);
      const mean = rates(o, state);
      let score = -state[0]! + o.base.mean;
      let known = 0;
      mean.forEach((m, i) => {
        const variance = link === 'log' ? m : m * (1 - m);
        score += (o.successes[i]! - m) / (1 + o.dispersion! * variance);
        known += variance / (1 + o.dispersion! * variance);
      });
      expect(Math.abs(score)).toBeLessThan(1e-4 * known);
      expect(information[0]).toBeCloseTo(known, 6);
      expect(state[1]).toBeGreaterThan(0.5);
    },
  );

  it('adds up what is not known about the groups of a level', async () => {
    // One level alone: a group's posterior variance is 1 / (information + precision).
    const o = crossed('log');
    const codes = o.codes.filter((_, i) => i % 2 === 0);
    const { columns: _, ...rest } = o;
    const { information, traces } = await effectsFit({
      ...rest,
      codes,
      levels: [o.levels[0]!],
      base: { mean: -6, variance: 1e-12 },
      traceProbes: 3,
    });
    const expected = information.subarray(1).reduce((sum, own) => sum + 1 / (own + 5), 0);
    // The base cannot move, so signs of probes do not matter.
    expect(traces[0]! / expected).toBeCloseTo(1, 3);
  });

  it('predicts what was seen at the means of all multipliers', async () => {
    const o = { ...crossed('log'), dispersion: 0, base: { mean: -6, variance: 100 } };
    const { state, information } = await effectsFit({ ...o, meanRates: true });
    // The mean of a multiplier adds half of what is open about it.
    const means = state.map((value, u) => value + (u < 2 ? 0 : 0.5 / (information[u]! + 5)));
    const total = (values: Float64Array) => values.reduce((sum, v) => sum + v, 0);
    expect(total(rates(o, means)) / total(o.successes)).toBeCloseTo(1, 4);
  });

  it('ends where it began when it starts from its solution', async () => {
    const o = crossed('log');
    const first = await effectsFit(o);
    const again = await effectsFit({ ...o, start: first.state });
    expect(again.iterations).toBeLessThanOrEqual(2);
    first.state.forEach((value, u) => {
      expect(Math.abs(again.state[u]! - value)).toBeLessThan(1e-7);
    });
  });

  it('believes what it was told where there are no rows', async () => {
    const { state, information } = await effectsFit({
      link: 'log',
      nRows: 0,
      successes: new Float64Array(0),
      exposure: new Float64Array(0),
      levels: [{ size: 2, mean: -0.1, variance: 0.2 }],
      codes: new Int32Array(0),
      base: { mean: 3, variance: 1 },
    });
    expect([...state]).toEqual([3, -0.1, -0.1]);
    expect([...information]).toEqual([0, 0, 0]);
  });

  it('refuses what is wrong and says where', async () => {
    const o = crossed('log', 10);
    const wrong = (change: Partial<EffectsFitInput>) =>
      codeOf(() => effectsFit({ ...o, ...change }));
    expect(await wrong({ codes: o.codes.map((c, i) => (i === 5 ? 99 : c)) })).toBe(
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    );
    expect(await wrong({ successes: o.successes.map((s, i) => (i === 3 ? Number.NaN : s)) })).toBe(
      'WAGGLE_NATIVE_NAN',
    );
    expect(await wrong({ exposure: o.exposure.map(() => -1) })).toBe(
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    );
    expect(await wrong({ levels: [{ size: 30, mean: 0, variance: 0 }, o.levels[1]!] })).toBe(
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    );
    expect(await wrong({ link: 'logit', meanRates: true })).toBe('WAGGLE_NATIVE_INVALID_ARGUMENT');
    for (const link of ['Log', 'identity', undefined]) {
      expect(await wrong({ link: link as 'log' })).toBe('WAGGLE_NATIVE_INVALID_ARGUMENT');
    }
    expect(await wrong({ codes: new Int32Array(3) })).toBe('WAGGLE_NATIVE_SHAPE');
    expect(await wrong({ offset: detached(new Float64Array(10)) })).toBe('WAGGLE_NATIVE_DETACHED');
    await expect(effectsFit({ ...o, signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: 'WAGGLE_ABORTED',
    });
  });
});
