import { Rng } from '@waggle/core';
import { BitSet } from '@waggle/retrieval';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  countBlocks,
  decisionSeed,
  drawList,
  type ExplorationInput,
  explorationDraw,
  propensityOf,
} from '../src/exploration.js';

/** Candidates in blocks, some of them not eligible. */
const inputs = fc
  .array(fc.tuple(fc.nat(5), fc.boolean()), { minLength: 1, maxLength: 40 })
  .filter((candidates) => candidates.some(([, eligible]) => eligible))
  .map((candidates): ExplorationInput => {
    const n = candidates.length;
    const eligible = new BitSet(n);
    candidates.forEach(([, ok], i) => {
      if (ok) eligible.add(i);
    });
    const names = [...new Set(candidates.map(([block]) => block))];
    return {
      eligible: eligible.bytes,
      nCandidates: n,
      blocks: Int32Array.from(candidates, ([block]) => names.indexOf(block)),
      nBlocks: names.length,
      sizes: new Int32Array(names.length),
    };
  });
const isEligible = (input: ExplorationInput, row: number) =>
  ((input.eligible[row >>> 3]! >>> (row & 7)) & 1) === 1;

test('a drawn list holds eligible candidates of different blocks, as many as there are', () => {
  fc.assert(
    fc.property(inputs, fc.integer({ min: 1, max: 12 }), fc.nat(), (input, k, seed) => {
      const present = countBlocks(input);
      const rows = drawList(input, k, new Rng(seed));
      expect(rows).toHaveLength(Math.min(k, present));
      expect(new Set([...rows].map((row) => input.blocks[row])).size).toBe(rows.length);
      for (const row of rows) expect(isEligible(input, row)).toBe(true);
    }),
  );
});

test('the propensities of all candidates add up to one at every rank that a list reaches', () => {
  fc.assert(
    fc.property(
      inputs,
      fc.double({ min: 0, max: 1, noNaN: true }),
      fc.nat(),
      (input, epsilon, seed) => {
        const present = countBlocks(input);
        const greedy = drawList(input, 40, new Rng(seed));
        for (let rank = 0; rank < greedy.length; rank++) {
          let sum = 0;
          for (let row = 0; row < input.nCandidates; row++) {
            if (!isEligible(input, row)) continue;
            const p = propensityOf({
              epsilon,
              atGreedyRank: greedy[rank] === row,
              nBlocks: present,
              blockSize: input.sizes[input.blocks[row]!]!,
              rank,
            });
            expect(p).toBeGreaterThanOrEqual(0);
            sum += p;
          }
          expect(sum).toBeCloseTo(1, 12);
        }
      },
    ),
  );
});

/** 20,000 draws: four standard errors of a share near 0.1 are 0.0085. */
const DRAWS = 20_000;
const SHARE_TOLERANCE = 0.01;

test('drawn lists occur as often as their propensities say', () => {
  const blocks = Int32Array.of(0, 0, 0, 1, 1, 2);
  const eligible = BitSet.full(6);
  eligible.delete(4);
  const input = {
    eligible: eligible.bytes,
    nCandidates: 6,
    blocks,
    nBlocks: 3,
    sizes: new Int32Array(3),
  };
  const present = countBlocks(input);
  const seen = [new Map<number, number>(), new Map<number, number>()];
  for (let seed = 0; seed < DRAWS; seed++) {
    const { rng } = explorationDraw(seed, 0, 1);
    drawList(input, 2, rng).forEach((row, rank) => {
      seen[rank]!.set(row, (seen[rank]!.get(row) ?? 0) + 1 / DRAWS);
    });
  }
  for (let rank = 0; rank < 2; rank++) {
    for (const row of [0, 1, 2, 3, 5]) {
      const p = propensityOf({
        epsilon: 1,
        atGreedyRank: false,
        nBlocks: present,
        blockSize: input.sizes[blocks[row]!]!,
        rank,
      });
      expect(Math.abs((seen[rank]!.get(row) ?? 0) - p)).toBeLessThan(SHARE_TOLERANCE);
    }
  }
});

test('a decision explores with the stated probability, the same way every time', () => {
  let explored = 0;
  for (let i = 0; i < DRAWS; i++) {
    const seed = decisionSeed(`req_${i}`, 'rel_a');
    expect(decisionSeed(`req_${i}`, 'rel_a')).toBe(seed);
    if (explorationDraw(seed, 0, 0.1).explore) explored++;
  }
  expect(Math.abs(explored / DRAWS - 0.1)).toBeLessThan(SHARE_TOLERANCE);
  expect(decisionSeed('req_1', 'rel_a')).not.toBe(decisionSeed('req_1', 'rel_b'));
});

test('without exploration nothing is drawn', () => {
  for (let seed = 0; seed < 100; seed++) expect(explorationDraw(seed, 0, 0).explore).toBe(false);
});
