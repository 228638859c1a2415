import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DAY_MS, HOUR_MS } from '@waggle/core';
import { simulateWorld, type World, writeWorld } from '@waggle/simulator';
import type { Store } from '@waggle/store';
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  buildHourlyCounts,
  buildSendHistory,
  CLICK_WINDOW_MS,
  isVerifiedClick,
  type NamedSendHistory,
} from '../src/index.js';
import { openTemporaryStore } from './support/small-world.js';

const TABLES = ['publications', 'posts', 'slots', 'sends', 'placements', 'opens', 'clicks'];
const WORLD = { scale: 'tiny', seed: 5 } as const;

let store: Store;
let close: () => Promise<void>;
let world: World;
let range: { tenantId: string; fromMs: number; toMs: number; asOfMs: number };

beforeAll(async () => {
  world = simulateWorld(WORLD);
  const { tenantId, startMs, endMs } = world.config;
  range = { tenantId, fromMs: startMs, toMs: endMs + 7 * DAY_MS, asOfMs: endMs };
  const directory = mkdtempSync(join(tmpdir(), 'waggle-world-'));
  try {
    const { manifest } = writeWorld(WORLD, join(directory, 'world'));
    ({ store, close } = await openTemporaryStore());
    for (const table of TABLES) {
      const file = manifest.tables[table]!;
      await store.load(table, { path: join(directory, 'world', file.path), format: 'parquet' });
    }
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});
afterAll(() => close?.());

type Row = Record<string, string | number | boolean>;
const rowsOf = (table: string): Row[] => [...world.tables[table]!.rows()] as Row[];
const postOf = (history: NamedSendHistory, i: number): string =>
  history.posts.dictionary[history.posts.codes[i]!]!;

test('counts what came of each send as a loop over the events does', async () => {
  const history = await buildSendHistory(store, range);
  const sends = new Map<unknown, Row>(rowsOf('sends').map((s) => [s['post_id'], s]));
  const opens = new Map<unknown, number>();
  for (const open of rowsOf('opens')) {
    const sentMs = Date.parse(String(sends.get(open['post_id'])!['ts']));
    if (Date.parse(String(open['ts'])) + HOUR_MS > sentMs + CLICK_WINDOW_MS) continue;
    opens.set(open['post_id'], (opens.get(open['post_id']) ?? 0) + Number(open['human_opens']));
  }
  const firstVerified = new Map<string, { post: unknown; ms: number }>();
  for (const click of rowsOf('clicks')) {
    if (!isVerifiedClick(click as never)) continue;
    const key = `${click['placement_id']}/${click['subscriber_key']}`;
    const ms = Date.parse(String(click['ts']));
    const seen = firstVerified.get(key);
    if (seen === undefined || ms < seen.ms) firstVerified.set(key, { post: click['post_id'], ms });
  }
  const clicks = new Map<unknown, number>();
  for (const { post, ms } of firstVerified.values()) {
    if (ms > Date.parse(String(sends.get(post)!['ts'])) + CLICK_WINDOW_MS) continue;
    clicks.set(post, (clicks.get(post) ?? 0) + 1);
  }
  const posts = rowsOf('posts').filter((p) => p['version'] === 1);
  expect(history.nSends).toBe(posts.length);
  let over = 0;
  let planned = 0;
  for (let i = 0; i < history.nSends; i++) {
    const id = postOf(history, i);
    const send = sends.get(id);
    if (i > 0) expect(history.plannedMs[i]).toBeGreaterThanOrEqual(history.plannedMs[i - 1]!);
    if (send === undefined) {
      expect(history.sentMs[i]).toBeNaN();
      expect(history.opens[i]).toBeNaN();
      planned++;
      continue;
    }
    const sentMs = Date.parse(String(send['ts']));
    expect(history.sentMs[i]).toBe(sentMs);
    expect(history.recipients[i]).toBe(send['recipients']);
    expect(history.delivered[i]).toBe(send['delivered']);
    if (sentMs + CLICK_WINDOW_MS > range.asOfMs) {
      expect(history.opens[i]).toBeNaN();
      expect(history.clicks[i]).toBeNaN();
    } else {
      expect(history.opens[i]).toBe(opens.get(id) ?? 0);
      expect(history.clicks[i]).toBe(clicks.get(id) ?? 0);
      over++;
    }
  }
  expect(over).toBeGreaterThan(20);
  expect(planned).toBeGreaterThan(20);
});

test('knows no more as of an earlier moment than what had happened by then', async () => {
  const asOfMs = range.asOfMs - 2 * DAY_MS - 5 * HOUR_MS;
  const now = await buildSendHistory(store, range);
  const then = await buildSendHistory(store, { ...range, asOfMs });
  const rowNow = new Map(Array.from({ length: now.nSends }, (_, i) => [postOf(now, i), i]));
  let unsent = 0;
  let partly = 0;
  for (let i = 0; i < then.nSends; i++) {
    const at = rowNow.get(postOf(then, i))!;
    if (now.sentMs[at]! <= asOfMs) {
      expect(then.delivered[i]).toBe(now.delivered[at]);
      const over = now.sentMs[at]! + CLICK_WINDOW_MS <= asOfMs;
      expect(then.opens[i]).toEqual(over ? now.opens[at] : Number.NaN);
      expect(then.clicks[i]).toEqual(over ? now.clicks[at] : Number.NaN);
      for (const kind of ['opens', 'clicks'] as const) {
        // Opens are counted by the clock.
        const fromMs =
          kind === 'opens' ? now.sentMs[at]! - (now.sentMs[at]! % HOUR_MS) : now.sentMs[at]!;
        for (let h = 0; h < 72; h++) {
          const isOver = fromMs + (h + 1) * HOUR_MS <= asOfMs;
          expect(then.hourly[kind][i * 72 + h]).toEqual(
            isOver ? now.hourly[kind][at * 72 + h] : Number.NaN,
          );
          if (!over && isOver) partly++;
        }
      }
    } else {
      expect(then.sentMs[i]).toBeNaN();
      expect(then.delivered[i]).toBeNaN();
      if (now.sentMs[at]! > 0) unsent++;
    }
  }
  expect(unsent).toBeGreaterThan(5);
  expect(partly).toBeGreaterThan(100);
  expect(Math.max(...then.lists.atMs)).toBeLessThanOrEqual(asOfMs);
});

test('lists report every version, and what was valid when the window begins', async () => {
  const { lists, publicationIds } = await buildSendHistory(store, range);
  const versions = rowsOf('publications');
  for (const id of publicationIds) {
    const own = versions.filter((v) => v['publication_id'] === id);
    const p = publicationIds.indexOf(id);
    const reported = Array.from(lists.publication, (code, i) => ({ code, i })).filter(
      ({ code }) => code === p,
    );
    const after = own.filter((v) => Date.parse(String(v['updated_at'])) > range.fromMs);
    expect(reported.length).toBe(after.length + (after.length < own.length ? 1 : 0));
    for (const { i } of reported) {
      expect(lists.atMs[i]).toBeGreaterThanOrEqual(range.fromMs);
      expect(own.map((v) => v['active_subscribers'])).toContain(lists.subscribers[i]);
    }
  }
});

test('local time is that of the publication', async () => {
  const history = await buildSendHistory(store, range);
  const zoneOf = new Map(rowsOf('publications').map((v) => [v['publication_id'], v['timezone']]));
  for (let i = 0; i < history.nSends; i++) {
    const timeZone = String(zoneOf.get(history.publicationIds[history.publication[i]!]!));
    const hour = new Date(history.plannedMs[i]!).toLocaleString('en-GB', {
      timeZone,
      hour: '2-digit',
    });
    expect(history.localHour[i]).toBe(Number(hour));
  }
});

test('hours of opens and clicks add up to those of the outcome window, and later hours are unknown', async () => {
  const history = await buildSendHistory(store, range);
  const { tenantId, asOfMs } = range;
  for (const kind of ['opens', 'clicks'] as const) {
    const nHours = 72;
    const counts = await buildHourlyCounts(store, history, { tenantId, asOfMs, kind, nHours });
    expect(history.hourly[kind]).toEqual(counts);
    let compared = 0;
    let partly = 0;
    for (let i = 0; i < history.nSends; i++) {
      const own = counts.subarray(i * nHours, (i + 1) * nHours);
      const sum = own.reduce((all, n) => all + n, 0);
      if (history.sentMs[i]! + CLICK_WINDOW_MS + HOUR_MS <= asOfMs) {
        expect(sum).toBe(history[kind][i]);
        compared++;
      } else if (history.sentMs[i]! + CLICK_WINDOW_MS - HOUR_MS > asOfMs) {
        const unknown = own.findIndex(Number.isNaN);
        expect(unknown).toBeGreaterThanOrEqual(0);
        expect(own.subarray(unknown).every(Number.isNaN)).toBe(true);
        partly++;
      } else if (Number.isNaN(history.sentMs[i]!)) {
        expect(own.every(Number.isNaN)).toBe(true);
      }
    }
    expect(compared).toBeGreaterThan(20);
    expect(partly).toBeGreaterThan(5);
  }
});

test('of one tenant never sees another, and an empty network is empty', async () => {
  const history = await buildSendHistory(store, { ...range, tenantId: 'ten_nobody' });
  expect(history.nSends).toBe(0);
  expect(history.lists.atMs.length).toBe(0);
});
