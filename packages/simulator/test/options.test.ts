import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { DEFAULT_END_MS, resolveWorld, SCALE_NAMES, simulateWorld } from '../src/index.js';

describe('options', () => {
  test('every scale resolves, ends on Monday 2026-03-02 and starts its days before', () => {
    expect(new Date(DEFAULT_END_MS).getUTCDay()).toBe(1);
    for (const scale of SCALE_NAMES) {
      const config = resolveWorld({ scale });
      expect(config.endMs).toBe(DEFAULT_END_MS);
      expect(config.startMs).toBe(DEFAULT_END_MS - config.days * 86_400_000);
    }
  });

  test.each([
    [{ scale: 'huge' }],
    [{ scale: 'tiny', seed: -1 }],
    [{ scale: 'tiny', seed: 1.5 }],
    [{ scale: 'tiny', seed: Number.NaN }],
    [{ scale: 'tiny', endMs: 12 }],
    [{ scale: 'tiny', endMs: Number.POSITIVE_INFINITY }],
    [{ scale: 'tiny', overrides: { publications: 0 } }],
    [{ scale: 'tiny', overrides: { campaigns: 1e9 } }],
    [{ scale: 'tiny', overrides: { days: 2.5 } }],
  ])('%j is refused with a code', (options) => {
    expect(() => resolveWorld(options as never)).toThrowError(
      expect.objectContaining({ code: 'WAGGLE_SIMULATOR_OPTION' }),
    );
  });

  test('small worlds of any size and date run', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 6 }),
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 0, max: 400 }),
        fc.nat(),
        (publications, campaigns, days, shift, seed) => {
          const world = simulateWorld({
            scale: 'tiny',
            seed,
            endMs: DEFAULT_END_MS + shift * 3_600_000 * 24,
            overrides: { publications, campaigns, days },
          });
          expect(new Set(world.tables['publications']!.strings('publication_id')).size).toBe(
            publications,
          );
        },
      ),
      { numRuns: 15 },
    );
  });
});
