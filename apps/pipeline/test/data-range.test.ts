import type { Store } from '@waggle/store';
import { type TemporaryStore, temporaryStore } from '@waggle/store/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { asOfOption, dataRange, knownAsOf } from '../src/data-range.js';

const ms = (ts: string): number => Date.parse(`${ts}Z`);

let temporary: TemporaryStore;
let store: Store;

beforeAll(async () => {
  temporary = await temporaryStore();
  store = temporary.store;
}, 60_000);
afterAll(() => temporary.dispose());

/** One row of a table whose other columns are empty. */
const put = (table: string, tenant: string, ts: string) =>
  store.insert(table, [
    ['campaigns', 'publications'].includes(table)
      ? { tenant_id: tenant, updated_at: ts }
      : { tenant_id: tenant, ts },
  ]);

describe('the time that data cover', () => {
  it('begins with the first event and ends with the last, whenever campaigns were made and edited', async () => {
    await put('campaigns', 'a', '2026-01-01 00:00:00.000');
    await put('campaigns', 'a', '2026-09-09 00:00:00.000');
    await put('sends', 'other', '2020-01-01 00:00:00.000');
    await put('offers', 'a', '2026-03-01 07:00:00.250');
    await put('sends', 'a', '2026-03-02 00:00:00.000');
    await put('placements', 'a', '2026-03-03 00:00:00.000');
    await put('clicks', 'a', '2026-03-04 00:00:00.500');
    expect(await dataRange(store, 'a')).toEqual({
      fromMs: ms('2026-03-01T07:00:00.250'),
      asOfMs: ms('2026-03-04T00:00:00.501'),
    });
    // The hour that the first opens are kept under had begun before.
    await put('opens', 'a', '2026-03-01 06:00:00.000');
    await put('conversions', 'a', '2026-03-10 00:00:00.000');
    expect(await dataRange(store, 'a')).toEqual({
      fromMs: ms('2026-03-01T07:00:00.250'),
      asOfMs: ms('2026-03-10T00:00:00.001'),
    });
  });

  it('is none of campaigns or conversions alone', async () => {
    await put('campaigns', 'b', '2026-01-01 00:00:00.000');
    await expect(dataRange(store, 'b')).rejects.toMatchObject({ code: 'WAGGLE_NO_DATA' });
    await put('conversions', 'b', '2026-01-01 00:00:00.000');
    // Rows may be of a tenant that WAGGLE_TENANT does not name.
    await expect(dataRange(store, 'b')).rejects.toMatchObject({
      remedy: 'It holds events of a, other: set WAGGLE_TENANT to the tenant_id of your rows.',
    });
    await expect(dataRange(store, 'b')).rejects.toMatchObject({ code: 'WAGGLE_NO_DATA' });
  });

  it('ends where it is asked to, though not before it began', async () => {
    await put('clicks', 'c', '2026-03-04 00:00:00.000');
    const at = '2026-03-05T00:00:00Z';
    expect((await asOfOption(store, 'c', at)).asOfMs).toBe(Date.parse(at));
    await expect(asOfOption(store, 'c', '2026-03-04T00:00:00Z')).rejects.toMatchObject({
      code: 'WAGGLE_NO_DATA',
    });
    expect((await asOfOption(store, 'c', '2026-03-05T02:00:00+02:00')).asOfMs).toBe(Date.parse(at));
    // Of no calendar, or of the zone of this machine.
    for (const text of [
      'soon',
      '2026-03-32T00:00:00Z',
      '2026-02-30T00:00:00Z',
      '2026-03-05T00:00:00',
      '5',
    ]) {
      await expect(asOfOption(store, 'c', text)).rejects.toMatchObject({ code: 'WAGGLE_USAGE' });
    }
  });

  it('entities and money are known as they stand now, though events end before', async () => {
    const asOfMs = ms('2026-03-04T00:00:00.001');
    const known = (now: string) => knownAsOf(store, 'd', { asOfMs, nowMs: ms(now) });
    await put('campaigns', 'd', '2026-03-01 00:00:00.000');
    expect(await known('2026-03-09T00:00:00')).toBe(asOfMs);
    await put('campaigns', 'd', '2026-03-05 00:00:00.000');
    await put('campaigns', 'e', '2026-03-06 00:00:00.000');
    await store.insert('ledger_entries', [
      { tenant_id: 'd', ts: '2026-03-06 00:00:00.000', event_id: 'wl_0123456789ab_reserve_x' },
    ]);
    expect(await known('2026-03-09T00:00:00')).toBe(ms('2026-03-05T00:00:00'));
    await put('settlements', 'd', '2026-03-07 00:00:00.000');
    // What is to change tomorrow has not changed yet.
    await put('publications', 'd', '2026-03-10 00:00:00.000');
    expect(await known('2026-03-09T00:00:00')).toBe(ms('2026-03-07T00:00:00'));
    expect(await known('2026-03-10T00:00:00')).toBe(ms('2026-03-10T00:00:00'));
  });
});
