import { mkdtemp, readdir, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { manualClock, silentLogger } from '@waggle/core';
import type { RankRequestBody } from '@waggle/core/contract';
import { WriteAheadLog } from '@waggle/store/wal';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { type AnswerLog, DurableAnswers } from '../src/durable-answers.js';
import { IdempotencyCache } from '../src/idempotency.js';
import { CLICK, OFFERS, rankResponse, testGateway } from './rank-fixture.js';

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const FILL: RankRequestBody = { mode: 'fill', publication_id: 'pub_1', slots: [{ id: 'slot_1' }] };

// `inject` starts when it is awaited: an async function starts it at once.
const post = async (
  app: ReturnType<typeof testGateway>['app'],
  key: string,
  body: unknown,
  url = '/v1/rank',
) =>
  app
    .inject({
      method: 'POST',
      url,
      headers: { 'content-type': 'application/json', 'idempotency-key': key },
      payload: typeof body === 'string' ? body : JSON.stringify(body),
    })
    .then((response) => response);

describe('an Idempotency-Key', () => {
  test('gives the same bytes for the same body, and runs it once', async () => {
    const { app, ranked } = testGateway();
    const first = await post(app, 'k1', OFFERS);
    const second = await post(app, 'k1', OFFERS);
    expect(second.body).toBe(first.body);
    expect(second.headers['content-type']).toBe(first.headers['content-type']);
    expect(first.headers['idempotent-replayed']).toBeUndefined();
    expect(second.headers['idempotent-replayed']).toBe('true');
    expect(ranked).toHaveLength(1);
    await app.close();
  });

  test('answers as a request without a key would', async () => {
    const { app } = testGateway();
    const plain = await app.inject({
      method: 'POST',
      url: '/v1/rank',
      payload: { ...OFFERS, request_id: 'r' },
    });
    const keyed = await post(app, 'k1', { ...OFFERS, request_id: 'r' });
    expect(keyed.body).toBe(plain.body);
    expect(keyed.headers['content-type']).toBe(plain.headers['content-type']);
    await app.close();
  });

  test('with another body is refused, and the first answer stays', async () => {
    const { app, ranked } = testGateway();
    const first = await post(app, 'k1', OFFERS);
    const other = await post(app, 'k1', { ...OFFERS, k: 2 });
    expect([other.statusCode, other.json().error.code]).toEqual([
      409,
      'WAGGLE_IDEMPOTENCY_CONFLICT',
    ]);
    expect((await post(app, 'k1', OFFERS)).body).toBe(first.body);
    expect(ranked).toHaveLength(1);
    await app.close();
  });

  test('is remembered for 24 hours and no longer', async () => {
    const { app, clock, ranked } = testGateway();
    await post(app, 'k1', OFFERS);
    clock.advance(DAY_MS);
    await post(app, 'k1', OFFERS);
    expect(ranked).toHaveLength(1);
    clock.advance(1);
    await post(app, 'k1', { ...OFFERS, k: 2 });
    expect(ranked).toHaveLength(2);
    await app.close();
  });

  test('does not keep failures: a retry runs again', async () => {
    let calls = 0;
    const { app } = testGateway({
      engine: {
        rank(request, context) {
          if (calls++ === 0) throw new Error('first time unlucky');
          return rankResponse(request, context);
        },
      },
    });
    expect((await post(app, 'k1', OFFERS)).statusCode).toBe(500);
    expect((await post(app, 'k1', OFFERS)).statusCode).toBe(200);
    await app.close();
  });

  test('coalesces requests that run at the same time', async () => {
    let calls = 0;
    let release: () => void = () => {};
    const gate = new Promise<void>((resolve) => {
      release = resolve;
    });
    const { app } = testGateway({
      engine: {
        async rank(request, context) {
          calls++;
          await gate;
          return rankResponse(request, context);
        },
      },
    });
    const running = Array.from({ length: 20 }, () => post(app, 'k1', FILL));
    const conflicting = post(app, 'k1', OFFERS);
    expect((await conflicting).statusCode).toBe(409);
    release();
    const answers = await Promise.all(running);
    expect(new Set(answers.map((a) => a.body)).size).toBe(1);
    expect(answers.every((a) => a.statusCode === 200)).toBe(true);
    expect(calls).toBe(1);
    await app.close();
  });

  test('is separate for each tenant and route', async () => {
    const keys = 'key-of-tenant-a-000:ten_a,key-of-tenant-b-000:ten_b';
    const { app, ranked } = testGateway({ config: { apiKeys: keys }, release: { ...serveAll } });
    for (const tenant of ['a', 'b']) {
      const response = await app.inject({
        method: 'POST',
        url: '/v1/rank',
        headers: { authorization: `Bearer key-of-tenant-${tenant}-000`, 'idempotency-key': 'same' },
        payload: OFFERS,
      });
      expect(response.headers['idempotent-replayed']).toBeUndefined();
    }
    expect(ranked.map((r) => r.context.tenantId)).toEqual(['ten_a', 'ten_b']);
    await app.close();
  });

  test('works for events too', async () => {
    const { app } = testGateway();
    const first = await post(app, 'k', { events: [CLICK] }, '/v1/events');
    const second = await post(app, 'k', { events: [CLICK] }, '/v1/events');
    expect([first.statusCode, second.statusCode]).toEqual([202, 202]);
    expect(second.json()).toEqual({ accepted: 1, duplicates: 0 });
    await app.close();
  });
});

const serveAll = { id: 'rel_a', tenantId: undefined, knows: () => true, summary: () => ({}) };

/** An append-only log in memory with a WriteAheadLog's promises. */
class MemoryLog implements AnswerLog {
  readonly records: { sequence: number; payload: Uint8Array }[] = [];
  #next = 0;
  async append(payload: Uint8Array): Promise<number> {
    this.records.push({ sequence: this.#next, payload });
    return this.#next++;
  }
  async *read(from: number) {
    for (const record of this.records) if (record.sequence >= from) yield record;
  }
  async truncateBefore(sequence: number): Promise<void> {
    while (this.records.length > 0 && this.records[0]!.sequence < sequence) this.records.shift();
  }
}

describe('answers with effects', () => {
  let dir: string;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'waggle-answers-'));
  });
  afterEach(() => rm(dir, { recursive: true, force: true }));

  const maxBytes = 20_000;
  const body = (name: string) => JSON.stringify({ name, rest: 'x'.repeat(500) });
  const open = async (clock = manualClock(0), options: { segmentBytes?: number } = {}) => {
    const log = await WriteAheadLog.open({ dir, ...options });
    const journal = new DurableAnswers({ log, clock, logger: silentLogger, ttlMs: DAY_MS });
    const cache = new IdempotencyCache({
      clock,
      logger: silentLogger,
      ttlMs: DAY_MS,
      maxBytes,
      journal,
    });
    await journal.restoreInto(cache);
    const runs: string[] = [];
    const ask = (key: string, durable: boolean, digest = 'd') =>
      cache.answer(key, digest, durable, async () => {
        runs.push(key);
        return { status: 200, body: body(key) };
      });
    return { log, cache, clock, runs, ask };
  };

  test('outlive any number of others, in memory', async () => {
    const { log, cache, runs, ask } = await open();
    await ask('fill', true);
    const read = vi.spyOn(log, 'read');
    for (let i = 0; i < 200; i++) await ask(`offers ${i}`, false);
    expect(cache.evicted).toBeGreaterThan(150);
    expect(await ask('fill', true)).toEqual({ status: 200, body: body('fill'), replayed: true });
    expect(read).not.toHaveBeenCalled();
    expect(runs.filter((key) => key === 'fill')).toHaveLength(1);
    await log.close();
  });

  test('leave half of the memory to others', async () => {
    const { log, cache, ask } = await open();
    for (let i = 0; i < 5; i++) await ask(`offers ${i}`, false);
    for (let i = 0; i < 200; i++) await ask(`fill ${i}`, true);
    for (let i = 0; i < 5; i++) expect((await ask(`offers ${i}`, false)).replayed).toBe(true);
    expect(cache.evicted).toBe(0);
    await log.close();
  });

  test.each(['before', 'after'])(
    'are read back when memory has dropped them, %s a restart',
    async (when) => {
      let gateway = await open();
      const keys = Array.from({ length: 100 }, (_, i) => `fill ${i}`);
      for (const key of keys) await gateway.ask(key, true);
      if (when === 'after') {
        await gateway.log.close();
        gateway = await open(gateway.clock);
      }
      const { log, cache, clock, runs, ask } = gateway;
      runs.length = 0;
      expect([cache.size, cache.evicted]).toEqual([keys.length, 0]);
      expect(cache.bytes).toBeLessThanOrEqual(maxBytes + 96 * keys.length);
      for (const key of keys) {
        expect(await ask(key, true)).toEqual({ status: 200, body: body(key), replayed: true });
      }
      await expect(ask('fill 0', false, 'other')).rejects.toMatchObject({
        code: 'WAGGLE_IDEMPOTENCY_CONFLICT',
      });
      // Dropped again by those that followed, and asked for by several at once, one of them with another body.
      const read = vi.spyOn(log, 'read');
      const [wrong, ...right] = await Promise.allSettled([
        ask('fill 1', true, 'other'),
        ask('fill 1', true),
        ask('fill 1', true),
      ]);
      expect(wrong.status).toBe('rejected');
      expect(right.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled']);
      expect(read).toHaveBeenCalledTimes(1);
      expect(runs).toEqual([]);
      clock.advance(DAY_MS + 1);
      const late = await Promise.all([ask('fill 2', true), ask('fill 2', true)]);
      expect([late.map(({ replayed }) => replayed), runs]).toEqual([[false, true], ['fill 2']]);
      await log.close();
    },
  );

  test('leave the disk a day later, with a restart every day', async () => {
    const clock = manualClock(0);
    const segments: number[] = [];
    for (let day = 0; day < 5; day++) {
      const { log, ask } = await open(clock, { segmentBytes: 4_000 });
      for (let hour = 0; hour < 24; hour++) {
        await ask(`${day} ${hour}`, true);
        clock.advance(HOUR_MS);
      }
      await log.close();
      segments.push((await readdir(dir)).length);
    }
    // Five answers a segment; what lies in one with a younger answer stays with it.
    expect(segments[0]).toBeGreaterThanOrEqual(4);
    for (const n of segments.slice(1)) expect(n).toBeLessThanOrEqual(segments[0]! + 2);
  });

  test('are not made again while the disk cannot be read', async () => {
    const { log, runs, ask } = await open();
    for (let i = 0; i < 100; i++) await ask(`fill ${i}`, true);
    runs.length = 0;
    const files = (await readdir(dir)).filter((name) => name.endsWith('.wal'));
    for (const name of files) await rename(join(dir, name), join(dir, `${name}.away`));
    await expect(ask('fill 0', true)).rejects.toMatchObject({
      code: 'WAGGLE_IDEMPOTENCY_UNREADABLE',
    });
    for (const name of files) await rename(join(dir, `${name}.away`), join(dir, name));
    expect((await ask('fill 0', true)).body).toBe(body('fill 0'));
    expect(runs).toEqual([]);
    await log.close();
  });
});

describe('stored answers', () => {
  const make = (log: AnswerLog, clock = manualClock(0)) => {
    const journal = new DurableAnswers({ log, clock, logger: silentLogger, ttlMs: DAY_MS });
    const cache = new IdempotencyCache({
      clock,
      logger: silentLogger,
      ttlMs: DAY_MS,
      maxBytes: 1e6,
      journal,
    });
    return { journal, cache, clock };
  };

  test('of fill survive a restart, and the log is cut behind those that expired', async () => {
    const log = new MemoryLog();
    const first = make(log);
    const run = async () => ({ status: 200, body: '{"first":true}' });
    await first.cache.answer('t\n/v1/rank\nk', 'digest', true, run);
    await first.cache.answer('t\n/v1/rank\noffers', 'digest', false, run);
    expect(log.records).toHaveLength(1);

    const second = make(log, first.clock);
    await second.journal.restoreInto(second.cache);
    const again = await second.cache.answer('t\n/v1/rank\nk', 'digest', true, async () => {
      throw new Error('must not run');
    });
    expect(again).toEqual({ status: 200, body: '{"first":true}', replayed: true });
    await expect(second.cache.answer('t\n/v1/rank\nk', 'other', true, run)).rejects.toMatchObject({
      code: 'WAGGLE_IDEMPOTENCY_CONFLICT',
    });

    for (let hour = 0; hour < 60; hour++) {
      second.clock.advance(3_600_000);
      await second.cache.answer(`k${hour}`, 'd', true, run);
    }
    expect(log.records.length).toBeGreaterThanOrEqual(24);
    expect(log.records.length).toBeLessThanOrEqual(26);
  });

  test('that are old are cut off by their own time, however often the process restarts', async () => {
    const log = new MemoryLog();
    const clock = manualClock(0);
    const run = async () => ({ status: 200, body: '{}' });
    const kept: number[] = [];
    for (let day = 0; day < 6; day++) {
      const { journal, cache } = make(log, clock);
      await journal.restoreInto(cache);
      kept.push(log.records.length);
      for (let hour = 0; hour < 20; hour++) {
        clock.advance(HOUR_MS);
        await cache.answer(`${day} ${hour}`, 'd', true, run);
      }
      clock.advance(4 * HOUR_MS);
    }
    expect(kept).toEqual([0, 20, 20, 20, 20, 20]);
    clock.advance(DAY_MS);
    const last = make(log, clock);
    await last.journal.restoreInto(last.cache);
    expect(log.records).toEqual([]);
    await last.cache.answer('k', 'd', true, run);
    expect((await last.cache.answer('k', 'd', true, run)).replayed).toBe(true);
  });

  test('stay while one among the older ones is young, as after a clock was set back', async () => {
    const log = new MemoryLog();
    const clock = manualClock(10 * DAY_MS);
    const first = make(log, clock);
    const run = async () => ({ status: 200, body: '{}' });
    await first.cache.answer('ahead', 'd', true, run);
    clock.set(0);
    await first.cache.answer('behind', 'd', true, run);
    clock.set(10 * DAY_MS + HOUR_MS);
    const second = make(log, clock);
    await second.journal.restoreInto(second.cache);
    expect(log.records).toHaveLength(2);
    expect((await second.cache.answer('ahead', 'd', true, run)).replayed).toBe(true);
    expect((await second.cache.answer('behind', 'd', true, run)).replayed).toBe(false);
  });

  test('damaged records are skipped', async () => {
    const log = new MemoryLog();
    for (const text of ['{"v":1', '{"v":2,"scope":"a","body":""}', 'null']) {
      await log.append(Buffer.from(text));
    }
    const { cache, journal } = make(log);
    await journal.restoreInto(cache);
    expect(cache.size).toBe(0);
  });

  test('a log that fails does not make the client fill twice', async () => {
    const log = new MemoryLog();
    log.append = () => Promise.reject(new Error('disk full'));
    const { cache } = make(log);
    let runs = 0;
    const run = async () => ({ status: 200, body: String(++runs) });
    await cache.answer('k', 'd', true, run);
    expect((await cache.answer('k', 'd', true, run)).body).toBe('1');
  });

  test('memory stays within its bound whatever is stored', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.string(), fc.nat(5_000)), { maxLength: 60 }),
        async (writes) => {
          const maxBytes = 20_000;
          const cache = new IdempotencyCache({
            clock: manualClock(0),
            logger: silentLogger,
            ttlMs: DAY_MS,
            maxBytes,
          });
          for (const [scope, length] of writes) {
            await cache.answer(scope, 'd', false, async () => ({
              status: 200,
              body: 'x'.repeat(length),
            }));
            expect(cache.bytes).toBeLessThanOrEqual(maxBytes);
          }
          expect(cache.size === 0).toBe(cache.bytes === 0);
        },
      ),
    );
  });

  test('the least recently used goes first', async () => {
    const cache = new IdempotencyCache({
      clock: manualClock(0),
      logger: silentLogger,
      ttlMs: DAY_MS,
      maxBytes: 5_000,
    });
    const store = (scope: string) =>
      cache.answer(scope, 'd', false, async () => ({ status: 200, body: 'x'.repeat(800) }));
    await store('a');
    await store('b');
    expect((await store('a')).replayed).toBe(true);
    await store('c');
    expect(cache.evicted).toBe(1);
    expect((await store('a')).replayed).toBe(true);
    expect((await store('b')).replayed).toBe(false);
  });
});
