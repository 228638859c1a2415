import { HOUR_MS, numericData, stringAt, stringData } from '@waggle/core';
import { type TemporaryStore, temporaryStore } from '@waggle/store/testing';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
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

test('entities are served as they stand when the release is made, rates as far as events tell', async () => {
  const { store } = temporary;
  const asOfMs = SENT_MS + 80 * HOUR_MS;
  const pausedMs = asOfMs + 500 * HOUR_MS;
  await store.insert('campaigns', [
    { tenant_id, campaign_id: 'cmp_1', version: 2, updated_at: at(pausedMs), status: 'paused' },
  ]);
  const of = async (times: { asOfMs: number; knownAsOfMs?: number }) => {
    const { campaigns, publications } = await buildCatalog(store, {
      tenantId: tenant_id,
      ...times,
    });
    return {
      status: stringAt(stringData(campaigns, 'status'), 0),
      asOfMs: campaigns.meta['as_of_ms'],
      openRate: numericData(publications, 'eligible_open_rate', 'f64')[0],
    };
  };
  const now = await of({ asOfMs, knownAsOfMs: pausedMs });
  const then = await of({ asOfMs });
  expect(then).toMatchObject({ status: '', asOfMs });
  expect(now).toEqual({ ...then, status: 'paused', asOfMs: pausedMs });
  // A send of the time in between would have no opens yet.
  await store.insert('sends', [
    {
      tenant_id,
      post_id: 'pst_2',
      publication_id: 'pub_1',
      event_id: 'evt_send_2',
      type: 'send.sent',
      ts: at(asOfMs + 1),
      delivered: 50_000,
    },
  ]);
  expect(await of({ asOfMs, knownAsOfMs: pausedMs })).toEqual(now);
});

describe('money of a platform that keeps no ledger', () => {
  const spent = async (ms: number): Promise<Record<string, number>> => {
    const { campaigns } = await buildCatalog(temporary.store, { tenantId: tenant_id, asOfMs: ms });
    const micros = numericData(campaigns, 'spent_micros', 'f64');
    return Object.fromEntries(
      Array.from(micros, (m, row) => [stringAt(stringData(campaigns, 'campaign_id'), row), m]),
    );
  };
  const placement =
    (placement_id: string, campaign_id: string) =>
    (type: string, ms: number, reserved_micros: number) => ({
      tenant_id,
      placement_id,
      campaign_id,
      reserved_micros,
      type,
      ts: at(ms),
      event_id: `${placement_id}_${type}`,
    });
  const settled = (
    placement_id: string,
    campaign_id: string,
    ms: number,
    charged_micros: number,
    event_id = `set_${placement_id}`,
  ) => ({
    tenant_id,
    placement_id,
    campaign_id,
    charged_micros,
    type: 'placement.settled',
    ts: at(ms),
    event_id,
  });
  const hour = (n: number): number => SENT_MS + n * HOUR_MS;

  beforeAll(async () => {
    const { store } = temporary;
    const updated_at = at(hour(-1_000));
    await store.insert(
      'campaigns',
      ['cmp_2', 'cmp_3'].map((campaign_id) => ({ tenant_id, campaign_id, version: 1, updated_at })),
    );
    const [open, done, off, again, live, kept] = [
      placement('plc_open', 'cmp_1'),
      placement('plc_done', 'cmp_1'),
      placement('plc_off', 'cmp_1'),
      placement('plc_again', 'cmp_1'),
      placement('plc_live', 'cmp_2'),
      placement('plc_kept', 'cmp_3'),
    ];
    await store.insert('placements', [
      // What the first report reserves is held, and stays held once the ad is sent.
      open('placement.reserved', hour(1), 1_000),
      open('placement.sent', hour(2), 9_999),
      done('placement.sent', hour(1), 20_000),
      off('placement.reserved', hour(1), 300_000),
      off('placement.no_show', hour(2), 300_000),
      again('placement.reserved', hour(1), 4_000_000),
      again('placement.cancelled', hour(5), 4_000_000),
      live('placement.sent', hour(1), 77),
      kept('placement.sent', hour(1), 77),
    ]);
    await store.insert('settlements', [
      settled('plc_done', 'cmp_1', hour(80), 15_000),
      settled('plc_done', 'cmp_1', hour(90), 16_000, 'set_later'),
      // Given back is given back; charged is charged.
      settled('plc_off', 'cmp_1', hour(3), 300_000),
      settled('plc_again', 'cmp_1', hour(4), 3_000_000),
    ]);
    const entry = { tenant_id, type: 'ledger.reserve', ts: at(hour(1)), decision_id: '' };
    await store.insert('ledger_entries', [
      {
        ...entry,
        event_id: 'wl_0123456789ab_reserve_plc_live',
        campaign_id: 'cmp_2',
        reference_id: 'plc_live',
        amount_micros: 77,
      },
      {
        ...entry,
        event_id: 'own_1',
        campaign_id: 'cmp_3',
        reference_id: 'invoice_1',
        amount_micros: 5,
      },
      // A correction is no book of its own.
      {
        ...entry,
        type: 'ledger.adjust',
        event_id: 'own_2',
        campaign_id: 'cmp_1',
        reference_id: 'credit_1',
        amount_micros: -7,
      },
    ]);
  });

  test('its placements are what its campaigns have spent', async () => {
    expect((await spent(hour(100)))['cmp_1']).toBe(1_000 + 15_000 + 3_000_000 - 7);
    expect((await spent(hour(1)))['cmp_1']).toBe(1_000 + 20_000 + 300_000 + 4_000_000 - 7);
  });

  test('what a live ledger holds or the platform’s own entries say is counted once', async () => {
    expect(await spent(hour(100))).toMatchObject({ cmp_2: 0, cmp_3: 5 });
  });
});
