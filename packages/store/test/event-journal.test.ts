import { cp, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { silentLogger, systemClock } from '@waggle/core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { deduplicated, type Store } from '../src/index.js';
import {
  BudgetLedger,
  DecisionLog,
  EventJournal,
  LEDGER_EVENT_PREFIX,
  LEDGER_ID_PATTERN,
} from '../src/ledger/index.js';
import { type TemporaryStore, temporaryStore } from '../src/testing/index.js';
import { WriteAheadLog } from '../src/wal/index.js';

let subject: TemporaryStore;
let store: Store;
let root: string;
beforeAll(async () => {
  subject = await temporaryStore();
  store = subject.store;
});
afterAll(() => subject.dispose());
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'waggle-journal-'));
});
afterEach(async () => {
  await rm(root, { recursive: true, force: true });
  for (const table of ['sends', 'decisions', 'ledger_entries'])
    await store.command(`TRUNCATE TABLE ${table}`);
});

const common = { clock: systemClock, logger: silentLogger, intervalMs: 1, maxBackoffMs: 5 };
async function openJournal(dir = root) {
  const wal = await WriteAheadLog.open({ dir });
  const journal = await EventJournal.open({ wal, ...common });
  return {
    wal,
    journal,
    async close() {
      await journal.stop();
      await wal.close();
    },
  };
}
const send = (n: number) => ({
  kind: 'sends' as const,
  row: {
    tenant_id: 't',
    event_id: `evt_${n}`,
    type: 'send.sent',
    ts: '2026-03-01T10:00:00.000Z',
    post_id: `post_${n}`,
    publication_id: 'pub',
    recipients: 10,
    delivered: 9,
    unsubscribes: 0,
    n_slots: 1,
    n_ads: 1,
  },
});
const stored = async (table = 'sends') =>
  (await store.query<{ n: number }>(`SELECT count() AS n FROM ${deduplicated(table)}`))[0]!.n;

/** The store, refusing inserts while `down`; counts what it is asked. */
function moody(): { store: Store; down: boolean; failures: number; batches: number } {
  const mood = {
    down: false,
    failures: 0,
    batches: 0,
    store: new Proxy(store, {
      get(target, name) {
        if (name !== 'insert')
          return Reflect.get(target, name).bind?.(target) ?? Reflect.get(target, name);
        return async (...args: Parameters<Store['insert']>) => {
          if (mood.down) {
            mood.failures++;
            throw Object.assign(new Error('the store is down'), {
              code: 'WAGGLE_STORE_UNAVAILABLE',
            });
          }
          mood.batches++;
          return target.insert(...args);
        };
      },
    }),
  };
  return mood;
}

describe('the event journal', () => {
  test('accepts an id once and forwards what it accepted', async () => {
    const { journal, close } = await openJournal();
    expect(await journal.append([send(1), send(2), send(1)])).toEqual({
      accepted: 2,
      duplicates: 1,
    });
    expect(await journal.append([send(2), send(3)])).toEqual({ accepted: 1, duplicates: 1 });
    journal.start(store);
    await journal.idle();
    expect(await stored()).toBe(3);
    expect(journal.status()).toEqual({ ok: true, backlog: 0, lagMs: 0 });
    await close();
  });

  test('refuses a known id with other content, whole, and takes any order of fields for the same', async () => {
    const first = await openJournal();
    await first.journal.append([send(1)]);
    const changed = { ...send(1), row: { ...send(1).row, delivered: 8 } };
    const conflict = { code: 'WAGGLE_JOURNAL_CONFLICT', details: { index: 1, event_id: 'evt_1' } };
    await expect(first.journal.append([send(2), changed])).rejects.toMatchObject(conflict);
    await expect(
      first.journal.append([send(3), { ...send(3), row: { ...send(3).row, delivered: 8 } }]),
    ).rejects.toMatchObject({ details: { index: 1, event_id: 'evt_3' } });
    const turned = Object.fromEntries(Object.entries(send(1).row).reverse());
    expect(await first.journal.append([{ kind: 'sends', row: turned }])).toEqual({
      accepted: 0,
      duplicates: 1,
    });
    await first.close();

    const second = await openJournal();
    await expect(second.journal.append([send(2), changed])).rejects.toMatchObject(conflict);
    // Nothing of the refused requests is remembered or stored.
    expect(await second.journal.append([send(2)])).toEqual({ accepted: 1, duplicates: 0 });
    second.journal.start(store);
    await second.journal.idle();
    expect(await stored()).toBe(2);
    await second.close();
  });

  test('a duplicate of an event that is being written waits for its durability', async () => {
    const { journal, wal, close } = await openJournal();
    const first = journal.append([send(1)]);
    const second = journal.append([send(1)]);
    expect(await second).toEqual({ accepted: 0, duplicates: 1 });
    expect(wal.durableSequence).toBe(1);
    await first;
    await close();
  });

  test('remembers ids and the place reached across a restart', async () => {
    const first = await openJournal();
    await first.journal.append([send(1), send(2)]);
    await first.close();
    const second = await openJournal();
    expect(await second.journal.append([send(2), send(3)])).toEqual({ accepted: 1, duplicates: 1 });
    second.journal.start(store);
    await second.journal.idle();
    expect(await stored()).toBe(3);
    await second.close();
    const third = await openJournal();
    expect(third.journal.status().backlog).toBe(0);
    await third.close();
  });

  test('keeps everything while the store is down and sends it when it is back', async () => {
    const mood = moody();
    mood.down = true;
    const { journal, close } = await openJournal();
    journal.start(mood.store);
    for (let i = 0; i < 5; i++) await journal.append([send(i)]);
    while (mood.failures < 3) await new Promise((wake) => setTimeout(wake, 1));
    expect(journal.status()).toMatchObject({
      ok: false,
      backlog: 5,
      detail: expect.stringContaining('down'),
    });
    mood.down = false;
    while ((await stored()) < 5) await journal.idle();
    expect(journal.status().ok).toBe(true);
    await close();
  });

  test('a crash between sending and noting it sends twice and counts once', async () => {
    const live = join(root, 'live');
    const before = join(root, 'before');
    const first = await openJournal(live);
    await first.journal.append(Array.from({ length: 20 }, (_, i) => send(i)));
    await cp(live, before, { recursive: true, filter: (f) => !f.endsWith('/lock') });
    first.journal.start(store);
    await first.journal.idle();
    await first.close();
    const raw = async () =>
      (await store.query<{ n: number }>('SELECT count() AS n FROM sends'))[0]!.n;
    expect(await raw()).toBe(20);
    const second = await openJournal(before);
    second.journal.start(store);
    await second.journal.idle();
    expect(await stored()).toBe(20);
    // The same batch under the same token: not even the raw table has it twice.
    expect(await raw()).toBe(20);
    await second.close();
  });

  test('sets aside a row the store will never take, and goes on', async () => {
    const { journal, close } = await openJournal();
    const poison = { kind: 'sends' as const, row: { ...send(2).row, recipients: 'many' } };
    await journal.append([send(1), poison, send(3)]);
    await journal.append([send(4)]);
    journal.start(store);
    await journal.idle();
    expect(await stored()).toBe(3);
    const rejected = (await readFile(join(root, 'rejected.ndjson'), 'utf8')).trim().split('\n');
    expect(rejected.map((line) => JSON.parse(line).row.event_id)).toEqual(['evt_2']);
    await close();
  });

  test('sends many events in few batches', async () => {
    const mood = moody();
    const { journal, close } = await openJournal();
    await Promise.all(Array.from({ length: 300 }, (_, i) => journal.append([send(i)])));
    journal.start(mood.store);
    await journal.idle();
    expect(await stored()).toBe(300);
    expect(mood.batches).toBeLessThanOrEqual(3);
    await close();
  });

  test('refuses after it was stopped', async () => {
    const { journal, close } = await openJournal();
    await close();
    await expect(journal.append([send(1)])).rejects.toMatchObject({ code: 'WAGGLE_LEDGER_CLOSED' });
  });
});

const decision = (n: number) => ({
  tenant_id: 't',
  event_id: `evt_d${n}`,
  type: 'decision.offers' as const,
  ts: '2026-03-01T10:00:00.000Z',
  decision_id: `dec_${n}`,
  request_id: 'r',
  publication_id: 'pub',
  post_id: '',
  release_id: 'rel_1',
  seed: 4_000_000_000,
  request: '{"k":1}',
  items: '[]',
  filtered: '{}',
  degraded: ['prior_only_model'],
  latency_us: 900,
  test: false,
});

test('decisions are recorded without waiting and reach their table', async () => {
  const wal = await WriteAheadLog.open({ dir: root });
  const log = await DecisionLog.open({ wal, ...common });
  log.start(store);
  for (let i = 0; i < 50; i++) log.record(decision(i));
  await log.idle();
  expect(await stored('decisions')).toBe(50);
  const [row] = await store.query(`SELECT * FROM decisions WHERE decision_id = 'dec_7'`);
  expect(row).toEqual(decision(7));
  expect(log.dropped).toBe(0);
  await log.stop();
  await wal.close();
});

test('decisions that the log refuses are counted, told of once each time, and forgotten when it takes others', async () => {
  const errors = vi.fn();
  const wal = await WriteAheadLog.open({ dir: root });
  const log = await DecisionLog.open({
    wal,
    ...common,
    logger: { ...silentLogger, error: errors },
  });
  const append = vi.spyOn(wal, 'appendLater');
  const refuse = () =>
    append.mockImplementationOnce(() => {
      throw new Error('full');
    });
  for (const i of [1, 2]) {
    refuse();
    log.record(decision(i));
  }
  expect([log.dropped, errors.mock.calls.length]).toEqual([2, 1]);
  log.record(decision(3));
  refuse();
  log.record(decision(4));
  log.record(decision(5));
  await wal.flush();
  expect([log.dropped, errors.mock.calls.length, log.status().ok]).toEqual([3, 2, true]);
  expect(log.status().backlog).toBe(2);
  await wal.close();
  log.record(decision(6));
  expect(log.dropped).toBe(4);
});

test('a decision the store will never take is set aside as it was, and the others arrive', async () => {
  const wal = await WriteAheadLog.open({ dir: root });
  const log = await DecisionLog.open({ wal, ...common });
  const odd = { ...decision(102), request: 'two\nlines, "quotes" and \u{1f41d}' };
  log.record({ ...decision(100), seed: 'many' as unknown as number });
  log.record(decision(101));
  log.record(odd);
  log.start(store);
  await log.idle();
  const rows = await store.query(
    `SELECT * FROM decisions WHERE decision_id IN ('dec_100', 'dec_101', 'dec_102') ORDER BY decision_id`,
  );
  expect(rows).toEqual([decision(101), odd]);
  const rejected = (await readFile(join(root, 'rejected.ndjson'), 'utf8')).trim().split('\n');
  expect(rejected.map((line) => JSON.parse(line).row)).toEqual([
    { ...decision(100), seed: 'many' },
  ]);
  await log.stop();
  await wal.close();
});

test('decisions go in several batches when there are many, whole and in order', async () => {
  const wal = await WriteAheadLog.open({ dir: root, segmentBytes: 300_000 });
  const log = await DecisionLog.open({ wal, ...common, batchRows: 300 });
  const bodies: { rows: number; token: string }[] = [];
  const watched = new Proxy(store, {
    get(target, name) {
      if (name !== 'insertRaw')
        return Reflect.get(target, name).bind?.(target) ?? Reflect.get(target, name);
      return async (...[table, format, body, options]: Parameters<Store['insertRaw']>) => {
        const parts: Buffer[] = [];
        for await (const part of body) parts.push(Buffer.from(part as Uint8Array));
        const text = Buffer.concat(parts);
        const rows = text.toString().split('\n').length - 1;
        bodies.push({ rows, token: options!.deduplicationToken! });
        await target.insertRaw(table, format, Readable.from([text]), options);
      };
    },
  });
  for (let i = 0; i < 1_000; i++) {
    log.record({ ...decision(i), event_id: `evt_many_${i}`, request: 'r'.repeat(i) });
  }
  await wal.flush();
  log.start(watched);
  await log.idle();
  expect(bodies.map(({ rows }) => rows)).toEqual([300, 300, 300, 100]);
  expect(new Set(bodies.map(({ token }) => token)).size).toBe(4);
  const [row] = await store.query<{ n: number; r: number }>(
    `SELECT count() AS n, sum(length(request)) AS r FROM ${deduplicated('decisions')} WHERE event_id LIKE 'evt_many_%'`,
  );
  expect(row).toEqual({ n: 1_000, r: (999 * 1_000) / 2 });
  await log.stop();
  await wal.close();
});

test('a store that gives up in the middle of a batch gets it again under the same token', async () => {
  const wal = await WriteAheadLog.open({ dir: root });
  const log = await DecisionLog.open({ wal, ...common });
  const tokens: string[] = [];
  const shaky = new Proxy(store, {
    get(target, name) {
      if (name !== 'insertRaw')
        return Reflect.get(target, name).bind?.(target) ?? Reflect.get(target, name);
      return async (...args: Parameters<Store['insertRaw']>) => {
        tokens.push(args[3]!.deduplicationToken!);
        if (tokens.length > 2) return target.insertRaw(...args);
        // One takes a piece and breaks off, one does not even look.
        if (tokens.length === 1) for await (const _ of args[2]) break;
        throw Object.assign(new Error('broken off'), { code: 'WAGGLE_STORE_UNAVAILABLE' });
      };
    },
  });
  for (let i = 0; i < 500; i++) log.record({ ...decision(i), request: 'r'.repeat(2_000) });
  await wal.flush();
  log.start(shaky);
  while (tokens.length < 3) await log.idle();
  await log.idle();
  expect(new Set(tokens).size).toBe(1);
  expect(await stored('decisions')).toBe(500);
  await log.stop();
  await wal.close();
});

test('ledger entries reach the store, each once', async () => {
  const nowMs = Date.parse('2026-03-02T12:00:00Z');
  const wal = await WriteAheadLog.open({ dir: root });
  // Of the time before ledgers had ids: it was perhaps sent already, and keeps its name.
  const old = { t: 'reserve', c: 'c', r: 'old', a: 1, d: 'd', at: nowMs };
  await wal.append(Buffer.from(JSON.stringify(old)));
  const ledger = await BudgetLedger.open({ wal, ...common, tenantId: 't' });
  ledger.setBudgets([{ campaignId: 'c', budgetMicros: 1000, dailyBudgetMicros: 0 }]);
  const reserve = (referenceId: string) =>
    ledger.reserve({ campaignId: 'c', referenceId, amountMicros: 100, decisionId: 'd', nowMs });
  await Promise.all([reserve('a'), reserve('b'), reserve('b'.repeat(64))]);
  await ledger.charge('a', 60);
  await ledger.release('b');
  ledger.start(store);
  await ledger.idle();
  await ledger.snapshot();
  const rows = await store.query<{
    type: string;
    reference_id: string;
    amount_micros: number;
    event_id: string;
  }>(
    `SELECT type, reference_id, amount_micros, event_id FROM ${deduplicated('ledger_entries')} ORDER BY type, reference_id`,
  );
  expect(rows.map((r) => [r.type, r.reference_id.slice(0, 1), r.amount_micros])).toEqual([
    ['ledger.charge', 'a', 60],
    ['ledger.release', 'b', 100],
    ['ledger.reserve', 'a', 100],
    ['ledger.reserve', 'b', 100],
    ['ledger.reserve', 'b', 100],
    ['ledger.reserve', 'o', 1],
  ]);
  for (const { event_id, reference_id } of rows) {
    const own = new RegExp(LEDGER_ID_PATTERN).exec(event_id);
    if (reference_id === 'old') expect(event_id).toBe(`${LEDGER_EVENT_PREFIX}reserve_old`);
    else expect(own?.[1]).toBe(ledger.id);
    expect(event_id.length).toBeLessThanOrEqual(64);
  }
  expect(new Set(rows.map((r) => r.event_id)).size).toBe(6);
  await ledger.close();
  await wal.close();
});
