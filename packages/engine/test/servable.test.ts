import { type ColumnTable, numericColumn, stringColumn, stringListColumn } from '@waggle/core';
import { EligibilityIndex } from '@waggle/retrieval';
import { expect, test } from 'vitest';
import { countServable } from '../src/index.js';

const table = (rows: Record<string, string>[], more: ColumnTable['columns'] = {}): ColumnTable => ({
  nRows: rows.length,
  meta: {},
  columns: {
    ...Object.fromEntries(
      Object.keys(rows[0]!).map((name) => [name, stringColumn(rows.map((row) => row[name]!))]),
    ),
    ...more,
  },
});

test('what statuses let be served is counted, and why the rest may not be, as requests will find it', () => {
  const campaign = (campaign_id: string, advertiser_id: string, status: string) => ({
    ...{ campaign_id, advertiser_id, status, category: 'tech' },
  });
  const rows = [
    campaign('live', 'adv', 'live'),
    campaign('scheduled', 'adv', 'scheduled'),
    campaign('active', 'adv', 'active'),
    campaign('running', 'adv', 'RUNNING'),
    campaign('paused', 'adv', 'paused'),
    campaign('bare', 'adv', 'live'),
    campaign('retired', 'adv', 'live'),
    campaign('banned', 'adv_banned', 'live'),
    campaign('orphan', 'adv_nobody', 'live'),
  ];
  const lists = stringListColumn(rows.map(() => []));
  const times = (ms: number) =>
    numericColumn(
      'f64',
      Float64Array.from(rows, () => ms),
    );
  const catalog = {
    publications: table(
      ['active', 'eligible', 'paused', 'Active'].map((status, i) => ({
        ...{ publication_id: `pub_${i}`, status },
      })),
    ),
    advertisers: table([
      { advertiser_id: 'adv', status: 'active' },
      { advertiser_id: 'adv_banned', status: 'suspended' },
    ]),
    campaigns: table(rows, {
      ...{ target_languages: lists, target_categories: lists },
      ...{ flight_start_ms: times(0), flight_end_ms: times(1) },
    }),
    creatives: table(
      rows
        .filter((row) => row.campaign_id !== 'bare')
        .map(({ campaign_id }) => ({
          ...{ creative_id: `crv_${campaign_id}`, campaign_id },
          status: campaign_id === 'retired' ? 'retired' : 'active',
        })),
    ),
  };
  const { publications, campaigns } = countServable(catalog);
  expect(publications).toEqual({
    ...{ total: 4, servable: 2 },
    reasons: { 'status paused': 1, 'status Active': 1 },
  });
  expect(campaigns).toEqual({
    ...{ total: 9, servable: 3 },
    reasons: {
      'status RUNNING': 1,
      'status paused': 1,
      'no servable creative': 2,
      'advertiser status suspended': 1,
      'unknown advertiser': 1,
    },
  });
  const index = new EligibilityIndex(catalog);
  const served = rows.filter((_, row) => index.status.has(row) && index.creative.has(row));
  expect(served.map((row) => row.campaign_id)).toEqual(['live', 'scheduled', 'active']);
});
