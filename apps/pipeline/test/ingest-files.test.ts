import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { checkNdjson } from '../src/ingest-files.js';

const dir = mkdtempSync(join(tmpdir(), 'waggle-ingest-'));
afterAll(() => rmSync(dir, { recursive: true }));

const NOW_MS = Date.UTC(2026, 2, 1, 12);
const settlement = {
  tenant_id: 'ten_a',
  event_id: 'evt_1',
  ts: '2026-03-01T09:30:00Z',
  type: 'placement.settled',
  placement_id: 'plc_1',
  campaign_id: 'cmp_1',
  charged_micros: 1,
};
const advertiser = {
  tenant_id: 'ten_a',
  advertiser_id: 'adv_1',
  version: 1,
  updated_at: '2027-01-01T00:00:00Z',
  created_at: '1999-01-01T00:00:00Z',
  name: 'Größe & Co ☕',
  domain: 'x.example',
  category: 'tech',
  status: 'active',
};

const check = (table: string, ...rows: object[]) => {
  const path = join(dir, `${table}.ndjson`);
  writeFileSync(path, rows.map((row) => JSON.stringify(row)).join('\r\n'));
  return checkNdjson({ path, table, format: 'ndjson' }, NOW_MS);
};

describe('a line that is wrong', () => {
  it.each([
    ['settlements', { foo: 1 }, 'has an unknown field "foo"'],
    ['settlements', { campaign_id: undefined }, 'lacks "campaign_id"'],
    ['settlements', { charged_micros: '5' }, 'charged_micros is "5": must be integer'],
    ['settlements', { type: 'settled' }, 'type is "settled": must be "placement.settled"'],
    [
      'settlements',
      { ts: '2026-03-01 09:30:00' },
      'ts is "2026-03-01 09:30:00": must be a time in UTC like "2026-03-01T09:30:00.000Z"',
    ],
    [
      'settlements',
      { ts: '2026-02-30T00:00:00Z' },
      'ts is "2026-02-30T00:00:00Z", which is not a date on the calendar',
    ],
    [
      'settlements',
      { ts: '1970-01-01T00:00:00Z' },
      'ts is "1970-01-01T00:00:00Z", before the year 2000',
    ],
    [
      'settlements',
      { ts: '2036-03-01T00:00:00Z' },
      'ts is "2036-03-01T00:00:00Z", more than a day ahead of now',
    ],
    ['advertisers', { competitor_group: null }, 'competitor_group is null: must be string'],
    [
      'advertisers',
      { updated_at: '2026-13-01T00:00:00Z' },
      'updated_at is "2026-13-01T00:00:00Z", which is not a date on the calendar',
    ],
  ])('of %s with %j is named with what it says and may say', async (table, change, why) => {
    const row = table === 'settlements' ? settlement : advertiser;
    await expect(check(table, row, { ...row, ...change })).rejects.toMatchObject({
      code: 'WAGGLE_INGEST_INVALID',
      message: `${join(dir, table)}.ndjson:2: ${why}`,
    });
  });

  it('names the words that may stand there', async () => {
    const conversion = {
      ...{
        tenant_id: 'ten_a',
        event_id: 'evt_1',
        ts: settlement.ts,
        type: 'sale',
        click_id: 'clk',
      },
      ...{
        campaign_id: 'cmp_1',
        publication_id: 'pub_1',
        kind: 'sale',
        value_micros: 1,
        source: 's2s',
      },
    };
    await expect(check('conversions', conversion)).rejects.toThrow(
      'type is "sale": must be "conversion" or "conversion.reversed"',
    );
  });
});

it('entities may be older than events and change tomorrow; events up to a day ahead are clocks that differ', async () => {
  expect(await check('advertisers', advertiser)).toBe(1);
  expect(
    await check('settlements', settlement, { ...settlement, ts: '2026-03-02T11:59:59.9Z' }),
  ).toBe(2);
});
