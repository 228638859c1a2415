import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import type { MemoryTable } from '../src/index.js';
import { simulateWorld, tinyWorld, type World } from '../src/index.js';

function fingerprint(world: World): string {
  const hash = createHash('sha256');
  for (const group of [world.tables, world.truth]) {
    for (const table of Object.values(group)) {
      for (const row of table.rows()) hash.update(JSON.stringify(row));
    }
  }
  return hash.digest('hex');
}

/** Rows of `ids` only, as text. */
function rowsOf(table: MemoryTable, column: string, ids: ReadonlySet<string>): string[] {
  const out: string[] = [];
  for (const row of table.rows()) if (ids.has(row[column] as string)) out.push(JSON.stringify(row));
  return out;
}

function idsOf(table: MemoryTable, column: string): Set<string> {
  return new Set(table.strings(column));
}

describe('determinism', () => {
  test('equal configurations give equal worlds, row for row', () => {
    expect(fingerprint(tinyWorld(7))).toBe(fingerprint(tinyWorld(7)));
  });

  test('another seed gives another world', () => {
    expect(fingerprint(tinyWorld(7))).not.toBe(fingerprint(tinyWorld(8)));
  });
});

describe('streams', () => {
  const small = simulateWorld({ scale: 'tiny', seed: 3 });

  test('one more publication leaves the others, their posts, slots and sends alone', () => {
    const larger = simulateWorld({ scale: 'tiny', seed: 3, overrides: { publications: 51 } });
    const ids = idsOf(small.tables['publications']!, 'publication_id');
    expect(ids.size).toBe(50);
    for (const name of ['publications', 'posts', 'slots']) {
      const before = rowsOf(small.tables[name]!, 'publication_id', ids);
      expect(before.length).toBeGreaterThan(0);
      expect(rowsOf(larger.tables[name]!, 'publication_id', ids)).toEqual(before);
    }
    // How many ads a send carries depends on everybody's budgets; the rest does not.
    const sends = (world: World) =>
      rowsOf(world.tables['sends']!, 'publication_id', ids)
        .map((row) => row.replace(/"n_ads":\d+/, ''))
        .sort();
    expect(sends(larger)).toEqual(sends(small));
    const opens = (world: World) => rowsOf(world.tables['opens']!, 'publication_id', ids).sort();
    expect(opens(larger)).toEqual(opens(small));
    expect(
      rowsOf(
        larger.tables['campaigns']!,
        'campaign_id',
        idsOf(small.tables['campaigns']!, 'campaign_id'),
      ),
    ).toHaveLength(small.tables['campaigns']!.nRows);
  });

  test('one more campaign leaves the other campaigns, their creatives and advertisers alone', () => {
    const larger = simulateWorld({ scale: 'tiny', seed: 3, overrides: { campaigns: 11 } });
    for (const [name, column] of [
      ['campaigns', 'campaign_id'],
      ['creatives', 'campaign_id'],
      ['advertisers', 'advertiser_id'],
    ] as const) {
      const ids = idsOf(small.tables[name]!, column);
      expect(rowsOf(larger.tables[name]!, column, ids)).toEqual(
        rowsOf(small.tables[name]!, column, ids),
      );
      expect(larger.tables[name]!.nRows).toBeGreaterThanOrEqual(small.tables[name]!.nRows);
    }
    expect(idsOf(larger.tables['campaigns']!, 'campaign_id').size).toBe(11);
  });
});
