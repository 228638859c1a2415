import { DAY_MS, stringAt } from '@waggle/core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { buildOfferAnswers, OFFER_ANSWERS } from '../src/index.js';
import { type LoadedWorld, loadSimulatedWorld, rowsOf } from './support/simulated-world.js';

let loaded: LoadedWorld;
beforeAll(async () => {
  loaded = await loadSimulatedWorld({ scale: 'tiny', seed: 6 }, ['offers']);
}, 60_000);
afterAll(() => loaded?.close());

test.each([
  ['at the end', 0],
  ['a day earlier', DAY_MS],
])('answers are what publishers said before time was up, %s', async (_, earlier) => {
  const { store, range, world } = loaded;
  const asOfMs = range.asOfMs - earlier;
  const shown = new Map<string, { expires: number; answer: string; at: number }>();
  for (const o of rowsOf(world, 'offers')) {
    const id = String(o['offer_id']);
    const ms = Date.parse(String(o['ts']));
    if (ms > asOfMs) continue;
    if (o['type'] === 'offer.shown') {
      shown.set(id, {
        expires: Date.parse(String(o['expires_at'])),
        answer: 'expired',
        at: Number.POSITIVE_INFINITY,
      });
    }
  }
  for (const o of rowsOf(world, 'offers')) {
    const own = shown.get(String(o['offer_id']));
    const ms = Date.parse(String(o['ts']));
    if (
      own === undefined ||
      o['type'] === 'offer.shown' ||
      ms > asOfMs ||
      ms > own.expires ||
      ms >= own.at
    )
      continue;
    own.at = ms;
    own.answer = o['type'] === 'offer.downvoted' ? String(o['reason']) : String(o['type']).slice(6);
  }
  const want = [...shown].filter(([, s]) => s.expires <= asOfMs && s.answer !== 'withdrawn');
  const found = await buildOfferAnswers(store, { tenantId: range.tenantId, asOfMs });
  expect(found.nRows).toBe(want.length);
  for (let i = 0; i < found.nRows; i++) {
    expect(OFFER_ANSWERS[found.answers[i]!]).toBe(shown.get(stringAt(found.offers, i))!.answer);
  }
  expect(new Set(found.answers).size).toBeGreaterThan(3);
});

test('of one tenant never sees another', async () => {
  const none = await buildOfferAnswers(loaded.store, {
    tenantId: 'ten_nobody',
    asOfMs: loaded.range.asOfMs,
  });
  expect(none.nRows).toBe(0);
});
