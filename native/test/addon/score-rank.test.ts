import { SCORE_TERMS } from '@waggle/core/contract';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  SCORE_TERM_COUNT,
  type ScoreRankInput,
  type ScoreRankResult,
  scoreRank,
  scoreRankSync,
} from '../../ts/index.js';
import { codeOf, detached, randomFloats, randomNumbers } from './arrays.js';

const OPTIONAL = ['advertiser', 'explore', 'goalUnits', 'frequency', 'mu', 'omega', 'rho'] as const;

function input(n: number, seed = 1, overrides: Partial<ScoreRankInput> = {}): ScoreRankInput {
  return {
    nCandidates: n,
    k: 10,
    q: randomFloats(n, seed).map(Math.abs),
    spend: randomFloats(n, seed + 1, 1e7).map(Math.abs),
    payout: randomFloats(n, seed + 2, 7e6).map(Math.abs),
    fit: randomFloats(n, seed + 3),
    advertiser: randomFloats(n, seed + 4),
    explore: randomFloats(n, seed + 5),
    goalUnits: randomFloats(n, seed + 6),
    frequency: randomFloats(n, seed + 7, 1e5),
    mu: randomFloats(n, seed + 8),
    omega: randomFloats(n, seed + 9),
    rho: randomFloats(n, seed + 10),
    weights: { margin: 0.3, fit: 1_000, advertiser: 20, payout: 0.05, explore: 1e4 },
    ...overrides,
  };
}

/** The definition, in JavaScript doubles: no contraction there, so the bits must agree. */
function reference(o: ScoreRankInput): ScoreRankResult {
  const n = o.nCandidates;
  const terms = Array.from({ length: n }, (_, i) => {
    const q = o.q[i]!;
    return [
      q * (o.weights.margin * o.spend[i]!),
      q * (o.weights.fit * o.fit[i]!),
      o.advertiser ? q * (o.weights.advertiser * o.advertiser[i]!) : 0,
      q * (o.weights.payout * o.payout[i]!),
      o.mu ? -(q * (o.spend[i]! * o.mu[i]!)) : 0,
      o.goalUnits && o.omega ? q * (o.goalUnits[i]! * o.omega[i]!) : 0,
      o.rho ? q * (o.payout[i]! * o.rho[i]!) : 0,
      o.explore ? q * (o.weights.explore * o.explore[i]!) : 0,
      o.frequency ? -o.frequency[i]! : 0,
    ];
  });
  const scores = terms.map((row) => row.slice(1).reduce((sum, term) => sum + term, row[0]!));
  const eligible = scores
    .map((_, i) => i)
    .filter((i) => o.filter === undefined || ((o.filter[i >> 3]! >> (i & 7)) & 1) === 1);
  const order = [...eligible].sort((a, b) => scores[b]! - scores[a]! || a - b);
  const chosen: number[] = [];
  for (const i of order) {
    if (chosen.length === o.k) break;
    const sameGroup = chosen.filter(
      (c) => o.group !== undefined && o.group[c] === o.group[i],
    ).length;
    if (o.maxPerGroup !== undefined && sameGroup >= o.maxPerGroup) continue;
    const competitor = o.separation?.[i] ?? -1;
    const blocked =
      competitor >= 0 &&
      chosen.some(
        (c) =>
          o.separation![c] === competitor && (o.group === undefined || o.group[c] !== o.group[i]),
      );
    if (!blocked) chosen.push(i);
  }
  return {
    rows: Int32Array.from(chosen),
    scores: Float64Array.from(chosen, (i) => scores[i]!),
    terms: Float64Array.from(chosen.flatMap((i) => terms[i]!)),
    nEligible: eligible.length,
  };
}

describe('scoreRank', () => {
  it('has one term for each name in the contract', () => {
    expect(SCORE_TERM_COUNT).toBe(SCORE_TERMS.length);
  });

  it('agrees in every bit with the definition, for any columns and constraints', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 0, max: 300 }),
        fc.integer({ min: 1, max: 40 }),
        fc.integer({ min: 0, max: 2 ** 30 }),
        fc.subarray([...OPTIONAL]),
        fc.boolean(),
        fc.option(fc.integer({ min: 1, max: 12 }), { nil: undefined }),
        fc.option(fc.integer({ min: 1, max: 3 }), { nil: undefined }),
        fc.option(fc.integer({ min: 1, max: 9 }), { nil: undefined }),
        fc.boolean(),
        async (n, k, seed, absent, filtered, nGroups, maxPerGroup, nSeparations, coarse) => {
          const next = randomNumbers(seed);
          const o: Record<string, unknown> = { ...input(n, seed, { k }) };
          for (const name of absent) delete o[name];
          if (coarse) {
            for (const name of ['q', 'spend', 'payout', 'fit', ...OPTIONAL]) {
              if (o[name] !== undefined)
                o[name] = Float32Array.from({ length: n }, () => Math.floor(next() * 3));
            }
            o['weights'] = { margin: 1, fit: 1, advertiser: 2, payout: 1, explore: 1 };
          }
          if (filtered) {
            o['filter'] = Uint8Array.from({ length: Math.ceil(n / 8) }, () =>
              Math.floor(next() * 256),
            );
          }
          if (nGroups !== undefined) {
            o['group'] = Int32Array.from({ length: n }, () => Math.floor(next() * nGroups));
            if (maxPerGroup !== undefined) o['maxPerGroup'] = maxPerGroup;
          }
          if (nSeparations !== undefined) {
            o['separation'] = Int32Array.from(
              { length: n },
              () => Math.floor(next() * (nSeparations + 1)) - 1,
            );
          }
          const request = o as unknown as ScoreRankInput;
          const expected = reference(request);
          expect(scoreRankSync(request)).toEqual(expected);
          expect(await scoreRank(request)).toEqual(expected);
        },
      ),
      { numRuns: 200 },
    );
  });

  it('returns terms whose left-to-right sum is the score', () => {
    const { scores, terms } = scoreRankSync(input(2_000, 5, { k: 100 }));
    scores.forEach((score, i) => {
      const row = terms.subarray(i * SCORE_TERM_COUNT, (i + 1) * SCORE_TERM_COUNT);
      expect(row.slice(1).reduce((sum, term) => sum + term, row[0]!)).toBe(score);
    });
  });

  it('keeps one advertiser per competitor group but lets that advertiser have several', () => {
    const o = input(6, 1, {
      ...Object.fromEntries(OPTIONAL.map((name) => [name, undefined])),
      k: 6,
      q: new Float32Array(6).fill(1),
      spend: Float32Array.from([6, 5, 4, 3, 2, 1]),
      payout: new Float32Array(6),
      fit: new Float32Array(6),
      group: Int32Array.from([1, 2, 1, 3, 2, 1]),
      separation: Int32Array.from([7, 7, 7, -1, 8, 8]),
      weights: { margin: 1, fit: 0, advertiser: 0, payout: 0, explore: 0 },
    });
    expect([...scoreRankSync(o).rows]).toEqual([0, 2, 3, 4]);
    expect([...scoreRankSync({ ...o, maxPerGroup: 1 }).rows]).toEqual([0, 3, 4]);
    expect([...scoreRankSync({ ...o, group: undefined }).rows]).toEqual([0, 3, 4]);
  });

  it('returns answers that later calls do not overwrite', () => {
    const first = scoreRankSync(input(50, 1));
    const copy = structuredClone(first);
    scoreRankSync(input(50, 99));
    expect(first).toEqual(copy);
  });

  it('takes k as large as the candidates', () => {
    expect(scoreRankSync(input(5_000, 3, { k: 5_000 })).rows.length).toBe(5_000);
    expect(scoreRankSync(input(20, 3, { k: 1_000_000 })).rows.length).toBe(20);
  });

  const column = (at: number, value: number) => randomFloats(50, 3).fill(value, at, at + 1);
  const refusals: [string, Partial<ScoreRankInput>, string][] = [
    ['k = 0', { k: 0 }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['a NaN k', { k: Number.NaN }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['a negative size', { nCandidates: -1 }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['a group limit without groups', { maxPerGroup: 1 }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    [
      'a group limit of 0',
      { maxPerGroup: 0, group: new Int32Array(50) },
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    ],
    [
      'no weights',
      { weights: undefined as unknown as ScoreRankInput['weights'] },
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    ],
    [
      'a missing weight',
      { weights: { margin: 1 } as unknown as ScoreRankInput['weights'] },
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    ],
    ['a short column', { fit: new Float32Array(49) }, 'WAGGLE_NATIVE_SHAPE'],
    ['a short filter', { filter: new Uint8Array(6) }, 'WAGGLE_NATIVE_SHAPE'],
    ['short groups', { group: new Int32Array(3) }, 'WAGGLE_NATIVE_SHAPE'],
    ['a missing column', { q: undefined as unknown as Float32Array }, 'WAGGLE_NATIVE_DTYPE'],
    ['doubles', { q: new Float64Array(50) as unknown as Float32Array }, 'WAGGLE_NATIVE_DTYPE'],
    [
      'unsigned groups',
      { group: new Uint32Array(50) as unknown as Int32Array },
      'WAGGLE_NATIVE_DTYPE',
    ],
    [
      'shared memory',
      { mu: new Float32Array(new SharedArrayBuffer(200)) as unknown as Float32Array<ArrayBuffer> },
      'WAGGLE_NATIVE_DTYPE',
    ],
    ['a detached column', { payout: detached(new Float32Array(50)) }, 'WAGGLE_NATIVE_DETACHED'],
    ['a NaN weight', { weights: { ...input(1).weights, fit: Number.NaN } }, 'WAGGLE_NATIVE_NAN'],
  ];

  it.each(refusals)('refuses %s', async (_title, overrides, code) => {
    expect(await codeOf(() => scoreRankSync(input(50, 1, overrides)))).toBe(code);
    expect(await codeOf(() => scoreRank(input(50, 1, overrides)))).toBe(code);
  });

  it.each(['q', 'spend', 'payout', 'fit', ...OPTIONAL])(
    'names column %s when it holds NaN or infinity',
    async (name) => {
      for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
        const o = input(50, 1, { [name]: column(37, bad) });
        await expect(async () => scoreRankSync(o)).rejects.toMatchObject({
          code: 'WAGGLE_NATIVE_NAN',
          message: expect.stringContaining(
            `column ${name} is ${Number.isNaN(bad) ? 'NaN' : 'infinite'} at candidate 37`,
          ),
        });
        expect(await codeOf(() => scoreRank(o))).toBe('WAGGLE_NATIVE_NAN');
      }
    },
  );

  it('refuses synchronous calls beyond 5,000 candidates and ranks them asynchronously', async () => {
    const o = input(20_000, 1);
    expect(await codeOf(() => scoreRankSync(o))).toBe('WAGGLE_NATIVE_TOO_LARGE');
    expect(await scoreRank(o)).toEqual(reference(o));
  });

  it('honours an abort', async () => {
    expect(await codeOf(() => scoreRank({ ...input(50), signal: AbortSignal.abort() }))).toBe(
      'WAGGLE_ABORTED',
    );
  });
});
