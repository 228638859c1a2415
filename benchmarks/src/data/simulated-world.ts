import { join } from 'node:path';
import { DAY_MS } from '@waggle/core';
import { readManifest, type WorldConfig } from '@waggle/simulator';
import type { Store } from '@waggle/store';
import { openStoreOf, waggle } from '../local-store.js';
import { measureCommand } from '../process-tree.js';
import { openScratch, removeScratch } from '../scratch.js';

/** The last week of a world is never trained on: what is measured are its decisions. */
const HELD_OUT_MS = 7 * DAY_MS;

interface Window {
  readonly tenantId: string;
  readonly fromMs: number;
  readonly toMs: number;
  readonly asOfMs: number;
}

export interface SimulatedWorld {
  readonly store: Store;
  /** Folder of the world, for those who may read its truth. */
  readonly world: string;
  readonly config: WorldConfig;
  readonly seed: number;
  /** What was known a week before the world's end, and that week. */
  readonly past: Window;
  readonly later: Window;
}

/**
 * Simulates a network, loads it into a store of its own, embeds its texts unless told otherwise, and hands it over; nothing
 * of it stays.
 */
export async function withSimulatedWorld<T>(
  o: { readonly scale: string; readonly seed: number; readonly embed?: boolean },
  use: (world: SimulatedWorld) => Promise<T>,
): Promise<T> {
  const { scale, seed, embed = true } = o;
  const dir = openScratch('waggle-world-');
  try {
    const env = { ...process.env, WAGGLE_DIR: dir };
    const cli = (...args: string[]) => measureCommand(process.execPath, [waggle, ...args], { env });
    const world = join(dir, 'worlds', `${scale}-${seed}`);
    await cli('simulate', '--scale', scale, '--seed', String(seed));
    await cli('ingest', world);
    if (embed) await cli('embed');
    const { config } = readManifest(world);
    const store = await openStoreOf(dir);
    try {
      const { tenantId, startMs, endMs } = config;
      const cutMs = endMs - HELD_OUT_MS;
      return await use({
        store,
        world,
        config,
        seed,
        past: { tenantId, fromMs: startMs, toMs: cutMs, asOfMs: cutMs },
        later: { tenantId, fromMs: cutMs, toMs: endMs, asOfMs: endMs },
      });
    } finally {
      await store.close();
    }
  } finally {
    removeScratch(dir);
  }
}
