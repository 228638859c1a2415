import { describe, expect, test } from 'vitest';
import { type Batch, resolveWorld, type WorldOptions } from '../src/index.js';
import { runNetwork } from '../src/network.js';

/**
 * The volumes that the domain notes expect of each scale: `ci` 2.3k sends, 25M delivered, 0.15M ad clicks;
 * `demo` 20k sends, 214M delivered, 1.3M ad clicks, 3.3M hourly open rows; the others in proportion to
 * their publications and days.
 */
interface Volumes {
  sends: number;
  delivered: number;
  clicks: number;
  opens: number;
}

/** Counts without keeping a world. */
function volumesOf(options: WorldOptions): Volumes {
  const rows: Record<string, number> = {};
  let delivered = 0;
  const sink = (name: string) => ({
    accept(batch: Batch) {
      rows[name] = (rows[name] ?? 0) + batch.nRows;
      if (name !== 'sends') return;
      const column = batch.columns[DELIVERED_COLUMN]!;
      if (column.kind !== 'u32') throw new Error('delivered is not a count');
      for (let i = 0; i < batch.nRows; i++) delivered += column.data[i]!;
    },
  });
  runNetwork(resolveWorld(options), { table: sink, truth: () => ({ accept: () => undefined }) });
  const of = (name: string) => rows[name] ?? 0;
  return { sends: of('sends'), delivered, clicks: of('clicks'), opens: of('opens') };
}
const DELIVERED_COLUMN = 7;

function meanOf(worlds: readonly Volumes[]): Volumes {
  const mean = (f: (v: Volumes) => number) => worlds.reduce((s, v) => s + f(v), 0) / worlds.length;
  return {
    sends: mean((v) => v.sends),
    delivered: mean((v) => v.delivered),
    clicks: mean((v) => v.clicks),
    opens: mean((v) => v.opens),
  };
}

function expectNear(value: number, target: number, tolerance: number): void {
  expect(value / target).toBeGreaterThan(1 - tolerance);
  expect(value / target).toBeLessThan(1 + tolerance);
}

const SEEDS = [1, 2, 3, 4, 5, 6, 7, 8];

describe('volumes', () => {
  test('ci: every seed sends 2.3k issues to 25M readers within 7 %; 0.15M clicks within 10 % on average', () => {
    const worlds = SEEDS.map((seed) => volumesOf({ scale: 'ci', seed }));
    for (const world of worlds) {
      expectNear(world.sends, 2_300, 0.07);
      expectNear(world.delivered, 25e6, 0.07);
      // A handful of large lists and their ads move a small world.
      expectNear(world.clicks, 150_000, 0.25);
    }
    expectNear(meanOf(worlds).clicks, 150_000, 0.1);
  });

  test('demo: 20k sends, 214M delivered, 1.3M ad clicks within 10 %', () => {
    const world = volumesOf({ scale: 'demo', seed: 1 });
    expectNear(world.sends, 20_000, 0.1);
    expectNear(world.delivered, 214e6, 0.1);
    expectNear(world.clicks, 1.3e6, 0.1);
    // A week of hourly rows per send, less what lies beyond the world's end.
    expectNear(world.sends * 168, 3.3e6, 0.1);
    expect(world.opens / (world.sends * 168)).toBeGreaterThan(0.85);
    expect(world.opens / (world.sends * 168)).toBeLessThan(0.92);
  });

  test('tiny: a week of fifty publications', () => {
    const mean = meanOf(SEEDS.map((seed) => volumesOf({ scale: 'tiny', seed })));
    expectNear(mean.sends, (50 * 10 * 7) / 30, 0.1);
    expectNear(mean.delivered, (214e6 / 2_000 / 30) * 50 * 7, 0.1);
  });

  test.each([
    ['serving', 300, 14],
    ['base', 10_000, 30],
  ] as const)('%s: sends and delivered in proportion to its size', (scale, publications, days) => {
    const world = volumesOf({ scale, seed: 1, overrides: { labels: false, campaigns: 1 } });
    expectNear(world.sends, (publications * 10 * days) / 30, 0.1);
    expectNear(world.delivered, (214e6 / 2_000 / 30) * publications * days, 0.1);
  });
});
