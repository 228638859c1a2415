import { HOUR_MS } from '@waggle/core';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  CLICK_WINDOW_MS,
  clickMaturity,
  isVerifiedClick,
  normalCdf,
  numbers,
  VERIFIED_CLICK_SQL,
} from '../src/index.js';
import { openTemporaryStore } from './support/small-world.js';

test('maturity is the published share of clicks by age, relative to 72 hours', () => {
  const at72 = normalCdf((Math.log(72) - 1.03) / 2.45);
  // 33.6 % after 1 h, 51.4 % after 3 h, 81 % after 24 h of all clicks ever.
  expect(clickMaturity(HOUR_MS) * at72).toBeCloseTo(0.336, 2);
  expect(clickMaturity(3 * HOUR_MS) * at72).toBeCloseTo(0.514, 2);
  expect(clickMaturity(24 * HOUR_MS) * at72).toBeCloseTo(0.81, 2);
  expect(clickMaturity(CLICK_WINDOW_MS)).toBe(1);
  expect(clickMaturity(10 * CLICK_WINDOW_MS)).toBe(1);
});

test('maturity is in (0, 1] and never falls with age', () => {
  fc.assert(
    fc.property(
      fc.double({ min: -1e9, max: 1e9, noNaN: true }),
      fc.double({ min: 0, max: 1e9, noNaN: true }),
      (age, more) => {
        const a = clickMaturity(age);
        const b = clickMaturity(age + more);
        expect(a).toBeGreaterThan(0);
        expect(b).toBeLessThanOrEqual(1);
        // The approximation of Φ is good to 1.2e-7.
        expect(b).toBeGreaterThanOrEqual(a - 3e-7);
      },
    ),
  );
});

test('the verified-click rule says the same in SQL and in memory', async () => {
  const { store, close } = await openTemporaryStore();
  try {
    const click = fc.record({
      honeypot: fc.boolean(),
      ua_class: fc.constantFrom('human', 'bot', 'scanner', 'security', 'proxy', 'unknown'),
      links_within_10s: fc.integer({ min: 1, max: 5 }),
      ms_since_delivery: fc.constantFrom(0, 4_999, 5_000, 59_999, 60_000, 9e9),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(click, { minLength: 50, maxLength: 50 }), async (clicks) => {
        const rows = clicks.map(
          (c) => `(${c.honeypot}, '${c.ua_class}', ${c.links_within_10s}, ${c.ms_since_delivery})`,
        );
        const result = await store.queryColumns(
          `SELECT toUInt8(${VERIFIED_CLICK_SQL}) AS verified FROM values('honeypot Bool, ua_class String, links_within_10s UInt8, ms_since_delivery UInt64', ${rows.join(', ')})`,
        );
        expect(Array.from(numbers(result, 'verified'))).toEqual(
          clicks.map((c) => (isVerifiedClick(c) ? 1 : 0)),
        );
      }),
      { numRuns: 10 },
    );
  } finally {
    await close();
  }
});
