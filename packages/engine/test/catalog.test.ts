import { HOUR_MS, numericData } from '@waggle/core';
import { type TemporaryStore, temporaryStore } from '@waggle/store/testing';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { buildCatalog } from '../src/index.js';

const SENT_MS = Date.UTC(2026, 2, 1, 9, 30);
const tenant_id = 'ten_test';
const at = (ms: number): string => new Date(ms).toISOString().replace('T', ' ').replace('Z', '');

let temporary: TemporaryStore;
beforeAll(async () => {
  temporary = await temporaryStore();
  const { store } = temporary;
  const updated_at = at(SENT_MS - 1_000 * HOUR_MS);
  await store.insert('publications', [
    { tenant_id, publication_id: 'pub_1', version: 1, updated_at, active_subscribers: 100_000 },
  ]);
  await store.insert('campaigns', [{ tenant_id, campaign_id: 'cmp_1', version: 1, updated_at }]);
  const post = { tenant_id, post_id: 'pst_1', publication_id: 'pub_1' };
  await store.insert('sends', [
    { ...post, event_id: 'evt_send', type: 'send.sent', ts: at(SENT_MS), delivered: 100_000 },
  ]);
  // 100 in the hour of the send and each that follows, for a week.
  await store.insert(
    'opens',
    Array.from({ length: 168 }, (_, h) => ({
      ...post,
      event_id: `evt_${h}`,
      type: 'open.hour',
      ts: at(Math.floor(SENT_MS / HOUR_MS) * HOUR_MS + h * HOUR_MS),
      human_opens: 100,
    })),
  );
}, 60_000);
afterAll(() => temporary?.dispose());

test('opens count when their hour is over within 72 h of the send, however late they are looked at', async () => {
  const { store } = temporary;
  for (const hours of [72, 100, 1_000]) {
    const request = { tenantId: tenant_id, asOfMs: SENT_MS + hours * HOUR_MS };
    const { publications } = await buildCatalog(store, request);
    // 09:00 to 09:00 three days later: of the hour from then on half is too late.
    expect(numericData(publications, 'eligible_open_rate', 'f64')[0], `${hours} h`).toBeCloseTo(
      7_200 / 100_000,
      9,
    );
  }
});

test('a send whose 72 h are not over has no rate yet', async () => {
  const request = { tenantId: tenant_id, asOfMs: SENT_MS + 71 * HOUR_MS };
  const { publications } = await buildCatalog(temporary.store, request);
  expect(numericData(publications, 'eligible_open_rate', 'f64')[0]).toBeCloseTo(0.3, 9);
});
