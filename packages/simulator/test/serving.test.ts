import type { CampaignRow, LedgerRow, PublicationRow } from '@waggle/core/contract';
import { expect, test } from 'vitest';
import { simulateWorld, type World } from '../src/index.js';

/** How many campaigns each publication could run right after the world's end. */
function eligibleCounts(world: World): number[] {
  const end = new Date(world.config.endMs).toISOString();
  const spent = new Map<string, number>();
  for (const entry of world.tables['ledger_entries']!.rows<LedgerRow>()) {
    spent.set(entry.campaign_id, (spent.get(entry.campaign_id) ?? 0) + entry.amount_micros);
  }
  const current = <T extends object>(table: string, id: string): T[] => [
    ...new Map(
      [...world.tables[table]!.rows<T>()].map(
        (row) => [(row as Record<string, unknown>)[id], row] as const,
      ),
    ).values(),
  ];
  const live = current<CampaignRow>('campaigns', 'campaign_id').filter(
    (c) =>
      c.status === 'live' &&
      c.flight_start <= end &&
      c.flight_end > end &&
      (spent.get(c.campaign_id) ?? 0) < 0.98 * c.budget_micros,
  );
  return current<PublicationRow>('publications', 'publication_id').map(
    (p) =>
      live.filter(
        (c) =>
          (c.target_languages.length === 0 || c.target_languages.includes(p.language)) &&
          (c.target_categories.length === 0 || c.target_categories.includes(p.category)) &&
          (p.allowed_categories.length === 0 || p.allowed_categories.includes(c.category)) &&
          !p.blocked_categories.includes(c.category) &&
          !p.blocked_advertisers.includes(c.advertiser_id),
      ).length,
  );
}

test('the serving world has campaigns enough for load tests and no labels', () => {
  const world = simulateWorld({ scale: 'serving', seed: 1 });
  const counts = eligibleCounts(world);
  expect(counts).toHaveLength(300);
  expect(counts.filter((n) => n >= 200).length).toBeGreaterThanOrEqual(20);
  expect(counts.filter((n) => n >= 1_000).length).toBeGreaterThanOrEqual(5);
  for (const table of ['clicks', 'opens', 'offers', 'placements', 'conversions']) {
    expect(world.tables[table]!.nRows).toBe(0);
  }
  expect(world.tables['sends']!.nRows).toBeGreaterThan(500);
});

test('a typical publication of a small world can choose among fifteen live campaigns or more', () => {
  const counts = eligibleCounts(simulateWorld({ scale: 'ci', seed: 1 })).sort((a, b) => a - b);
  expect(counts[Math.floor(counts.length / 2)]).toBeGreaterThanOrEqual(15);
});

test('posts are planned past the end, with open slots', () => {
  const world = simulateWorld({ scale: 'tiny', seed: 1 });
  const sent = new Set(world.tables['sends']!.strings('post_id'));
  const planned = world.tables['posts']!.numbers('planned_at');
  const ids = world.tables['posts']!.strings('post_id');
  const ahead = ids.filter((id, i) => planned[i]! >= world.config.endMs && !sent.has(id));
  expect(ahead.length).toBeGreaterThan(20);
});
