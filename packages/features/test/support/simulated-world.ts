import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { simulateWorld, type World, type WorldOptions, writeWorld } from '@waggle/simulator';
import type { Store } from '@waggle/store';
import { openTemporaryStore } from './small-world.js';

/** A simulated network in a store of its own, and the same in memory to count by hand. */
export interface LoadedWorld {
  readonly store: Store;
  readonly world: World;
  readonly range: { tenantId: string; fromMs: number; toMs: number; asOfMs: number };
  close(): Promise<void>;
}

export async function loadSimulatedWorld(
  options: WorldOptions,
  tables: readonly string[],
): Promise<LoadedWorld> {
  const world = simulateWorld(options);
  const { tenantId, startMs, endMs } = world.config;
  const directory = mkdtempSync(join(tmpdir(), 'waggle-world-'));
  try {
    const { manifest } = writeWorld(options, join(directory, 'world'));
    const { store, close } = await openTemporaryStore();
    for (const table of tables) {
      const file = manifest.tables[table];
      if (file === undefined) continue;
      await store.load(table, { path: join(directory, 'world', file.path), format: 'parquet' });
    }
    const range = { tenantId, fromMs: startMs, toMs: endMs, asOfMs: endMs };
    return { store, world, range, close };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

export type PlainRow = Record<string, string | number | boolean>;

export const rowsOf = (world: World, table: string): PlainRow[] => [
  ...(world.tables[table]!.rows() as Iterable<PlainRow>),
];
