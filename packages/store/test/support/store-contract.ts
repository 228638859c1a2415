import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { type IncomingHttpHeaders, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { gunzipSync, gzipSync } from 'node:zlib';
import { ClickHouseLogLevel, createClient } from '@clickhouse/client';
import { parquetWriteBuffer } from 'hyparquet-writer';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { deduplicated } from '../../src/deduplicated.js';
import { migrate } from '../../src/migrations.js';
import type { Store } from '../../src/store.js';

/** A store under test, and where it listens if it listens at all. */
export interface ContractSubject {
  readonly store: Store;
  readonly http?: { readonly url: string; readonly user: string; readonly password: string };
  dispose(): Promise<void>;
}

/**
 * What every store must do, whatever is behind it: run in process, through `waggle store` and, where one is
 * configured, on a ClickHouse server.
 */
export function storeContractSuite(name: string, open: () => Promise<ContractSubject>): void {
  describe(`store contract: ${name}`, () => {
    let subject: ContractSubject;
    let store: Store;
    let scratch: string;
    // Tables of this run, so that a shared server is left as it was found.
    const prefix = `contract_${process.pid}_${Math.floor(Math.random() * 1e9).toString(36)}`;
    const table = (suffix: string) => `${prefix}_${suffix}`;

    beforeAll(async () => {
      subject = await open();
      store = subject.store;
      scratch = await mkdtemp(join(tmpdir(), 'waggle-contract-'));
      await migrate(store);
    });
    afterAll(async () => {
      if (store === undefined) return;
      const left = await store.query<{ name: string }>(
        'SELECT name FROM system.tables WHERE database = currentDatabase() AND startsWith(name, {prefix:String})',
        { params: { prefix } },
      );
      for (const { name } of left) await store.command(`DROP TABLE IF EXISTS ${name} SYNC`);
      await subject.dispose();
      await rm(scratch, { recursive: true, force: true });
    });

    describe('queries', () => {
      test('answer rows as objects with numbers, times and lists', async () => {
        expect(
          await store.query(
            `SELECT toInt64(-5) AS i, toUInt64(9007199254740991) AS u, 1.5 AS f, 'ä"\\n' AS s, [1, 2] AS a,
               toDateTime64('2026-03-02 01:02:03.456', 3, 'UTC') AS t, NULL AS n, true AS b`,
          ),
        ).toEqual([
          {
            i: -5,
            u: 9_007_199_254_740_991,
            f: 1.5,
            s: 'ä"\n',
            a: [1, 2],
            t: '2026-03-02T01:02:03.456Z',
            n: null,
            b: true,
          },
        ]);
        expect(await store.query('SELECT 1 AS x WHERE 0')).toEqual([]);
      });

      test('bind parameters of every kind, and never as SQL', async () => {
        const params = {
          s: "it's \\ a\ttab\nand ' OR 1=1 --",
          n: 42,
          f: -0.25,
          a: ["x'y", 'z\n'],
          d: new Date('2026-03-02T00:00:00.000Z'),
          o: null,
        };
        expect(
          await store.query(
            `SELECT {s:String} AS s, {n:UInt32} AS n, {f:Float64} AS f, {a:Array(String)} AS a,
               {d:DateTime('UTC')} AS d, {o:Nullable(String)} AS o`,
            { params },
          ),
        ).toEqual([{ ...params, d: '2026-03-02T00:00:00Z' }]);
      });

      test('keep parameters and settings of concurrent statements apart', async () => {
        const answers = await Promise.all(
          Array.from({ length: 24 }, (_, i) =>
            store.query<{ x: number; m: number }>(
              "SELECT {x:UInt32} AS x, toUInt32(getSetting('max_block_size')) AS m",
              { params: { x: i }, settings: { max_block_size: 1000 + i } },
            ),
          ),
        );
        expect(answers.map(([row]) => row)).toEqual(
          Array.from({ length: 24 }, (_, i) => ({ x: i, m: 1000 + i })),
        );
        const [after] = await store.query<{ m: number }>(
          "SELECT toUInt32(getSetting('max_block_size')) AS m",
        );
        expect(after!.m).toBeGreaterThan(2000);
      });

      test('answer columns with their dtypes', async () => {
        const result = await store.queryColumns(
          `SELECT toUInt8(number) AS u8, toInt32(number) - 2 AS i32, toFloat32(number / 2) AS f32,
             toUInt64(number * 1000000000000) AS wide, toLowCardinality(toString(number % 2)) AS word,
             [toFloat32(number), toFloat32(1)] AS vector, arrayMap(i -> toString(i), range(number)) AS list,
             if(number = 1, NULL, number) AS maybe,
             toDateTime64('1969-12-31 23:59:59.500', 3, 'UTC') AS early
           FROM numbers(4) ORDER BY number`,
        );
        expect(result.nRows).toBe(4);
        expect(result.columns['u8']).toMatchObject({
          dtype: 'u8',
          data: Uint8Array.of(0, 1, 2, 3),
        });
        expect(result.columns['f32']).toMatchObject({ data: Float32Array.of(0, 0.5, 1, 1.5) });
        expect(result.columns['wide']).toMatchObject({
          dtype: 'f64',
          data: Float64Array.of(0, 1e12, 2e12, 3e12),
        });
        expect(result.columns['word']).toMatchObject({
          kind: 'string',
          codes: Uint32Array.of(0, 1, 0, 1),
        });
        expect(result.columns['vector']).toMatchObject({
          width: 2,
          data: Float32Array.of(0, 1, 1, 1, 2, 1, 3, 1),
        });
        expect(result.columns['list']).toMatchObject({
          kind: 'strings',
          offsets: Uint32Array.of(0, 0, 1, 3, 6),
        });
        expect(result.columns['maybe']).toMatchObject({
          data: Float64Array.of(0, Number.NaN, 2, 3),
        });
        expect(result.columns['early']).toMatchObject({ data: new Float64Array(4).fill(-500) });
      });

      test('stream large results in batches and stop when the reader leaves', async () => {
        let rows = 0;
        let sum = 0;
        for await (const batch of store.stream<{ number: number }>(
          'SELECT number FROM numbers(200000)',
        )) {
          rows += batch.length;
          for (const { number } of batch) sum += number;
        }
        expect(rows).toBe(200_000);
        expect(sum).toBe((200_000 * 199_999) / 2);
        for await (const _ of store.stream('SELECT number FROM numbers(100000000000)')) break;
        await store.ping();
      });

      test('report a failure in the middle of a stream', async () => {
        const read = async () => {
          for await (const _ of store.stream(
            "SELECT throwIf(number = 300000, 'boom') FROM numbers(400000)",
            { settings: { max_block_size: 8_192, max_threads: 1 } },
          ));
        };
        await expect(read()).rejects.toMatchObject({
          code: 'WAGGLE_STORE_QUERY',
          message: expect.stringContaining('boom'),
        });
      });

      test('end at their time limit and when aborted, in the engine too', async () => {
        const endless = 'SELECT max(sipHash64(number)) FROM numbers(1000000000000)';
        await expect(store.query(endless, { timeoutMs: 150 })).rejects.toMatchObject({
          code: 'WAGGLE_STORE_TIMEOUT',
        });
        const controller = new AbortController();
        const running = store.query(endless, { signal: controller.signal });
        setTimeout(() => controller.abort(), 100);
        await expect(running).rejects.toMatchObject({ code: 'WAGGLE_STORE_ABORTED' });
        await expect(
          store.query('SELECT 1', { signal: AbortSignal.abort() }),
        ).rejects.toMatchObject({
          code: 'WAGGLE_STORE_ABORTED',
        });
        for (;;) {
          const left = await store.query<{ n: number }>(
            "SELECT count() AS n FROM system.processes WHERE query LIKE '%max(sipHash64%' AND query NOT LIKE '%processes%'",
          );
          if (left[0]!.n === 0) break;
        }
      });

      test('fail with Waggle’s codes, ClickHouse’s kept in the details', async () => {
        const cases: [string, string, number][] = [
          ['SELEC 1', 'WAGGLE_STORE_SYNTAX', 62],
          ['SELECT * FROM nowhere', 'WAGGLE_STORE_UNKNOWN_TABLE', 60],
          ['SELECT * FROM nodb.nowhere', 'WAGGLE_STORE_UNKNOWN_TABLE', 81],
          ['SELECT {x:UInt8}', 'WAGGLE_STORE_PARAMETER', 456],
          ['SELECT nocolumn', 'WAGGLE_STORE_QUERY', 47],
          ["SELECT throwIf(1, 'no')", 'WAGGLE_STORE_QUERY', 395],
          [
            'SELECT groupArray(number) FROM numbers(10000000) SETTINGS max_memory_usage = 1000000',
            'WAGGLE_STORE_MEMORY',
            241,
          ],
        ];
        for (const [sql, code, clickhouseCode] of cases) {
          await expect(store.query(sql), sql).rejects.toMatchObject({
            code,
            remedy: expect.any(String),
            details: { clickhouseCode },
          });
        }
        await expect(
          store.query('SELECT 1', { settings: { no_such_setting: 1 } }),
        ).rejects.toMatchObject({
          details: { clickhouseCode: 115 },
        });
      });
    });

    describe('sessions', () => {
      test('share temporary tables within a session and hide them outside', async () => {
        const sessionId = `${prefix}_session`;
        await store.command('CREATE TEMPORARY TABLE mine (x UInt8)', { sessionId });
        await store.command('INSERT INTO mine SELECT 7', { sessionId });
        expect(
          await store.query('SELECT x FROM mine', { sessionId, settings: { max_threads: 1 } }),
        ).toEqual([{ x: 7 }]);
        await expect(store.query('SELECT x FROM mine')).rejects.toMatchObject({
          code: 'WAGGLE_STORE_UNKNOWN_TABLE',
        });
      });

      test('refuse a second statement while one runs', async () => {
        const sessionId = `${prefix}_busy`;
        const slow = store.query('SELECT sleep(1)', { sessionId });
        await expect(
          (async () => {
            for (let i = 0; i < 20; i++) {
              await new Promise((wake) => setTimeout(wake, 20));
              await store.query('SELECT 1', { sessionId });
            }
          })(),
        ).rejects.toMatchObject({ code: 'WAGGLE_STORE_BUSY', details: { clickhouseCode: 373 } });
        await slow;
      });
    });

    describe('inserts', () => {
      const t = table('rows');
      beforeEach(async () => {
        await store.command(`DROP TABLE IF EXISTS ${t} SYNC`);
        await store.command(
          `CREATE TABLE ${t} (id UInt32, name String, ts DateTime64(3, 'UTC'), tags Array(String), x Float64 DEFAULT 7)
           ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 100`,
        );
      });
      const row = (id: number) => ({
        id,
        name: `n'${id}\n`,
        ts: '2026-03-02T01:02:03.456Z',
        tags: ['a', 'b'],
      });
      const count = async () =>
        (await store.query<{ n: number }>(`SELECT count() AS n FROM ${t}`))[0]!.n;

      test('store rows with RFC 3339 times and defaults', async () => {
        expect(await store.insert(t, [row(1), row(2)])).toEqual({ rows: 2 });
        expect(await store.query(`SELECT * FROM ${t} WHERE id = 2`)).toEqual([{ ...row(2), x: 7 }]);
        expect(await store.insert(t, [])).toEqual({ rows: 0 });
      });

      test('take an iterable in several batches', async () => {
        async function* rows() {
          for (let i = 0; i < 120_000; i++) yield { id: i, name: '', ts: 0, tags: [] };
        }
        expect(await store.insert(t, rows())).toEqual({ rows: 120_000 });
        expect(await count()).toBe(120_000);
      });

      test('store all of a batch or nothing', async () => {
        const rows: object[] = Array.from({ length: 20_000 }, (_, i) => row(i));
        rows[15_000] = { id: 'many' };
        await expect(store.insert(t, rows)).rejects.toMatchObject({
          code: 'WAGGLE_STORE_BAD_ROWS',
          message: expect.stringContaining(t),
        });
        await expect(store.insert(t, [row(1), { id: 2, unknown: 1 }])).rejects.toMatchObject({
          code: 'WAGGLE_STORE_UNKNOWN_COLUMN',
          details: { row: 2 },
        });
        expect(await count()).toBe(0);
        await expect(store.insert('no_such_table', [row(1)])).rejects.toMatchObject({
          code: 'WAGGLE_STORE_UNKNOWN_TABLE',
        });
      });

      test('count a retried batch once by its token', async () => {
        await store.insert(t, [row(1)], { deduplicationToken: 'batch-1' });
        await store.insert(t, [row(1)], { deduplicationToken: 'batch-1' });
        expect(await count()).toBe(1);
        await store.insert(t, [row(1)], { deduplicationToken: 'batch-2' });
        expect(await count()).toBe(2);
      });

      test('pass raw formats through, binary ones unharmed', async () => {
        await store.insertRaw(
          t,
          'TSV',
          Readable.from(["1\tü\t2026-03-02 00:00:00.000\t['q']\t1\n"]),
        );
        const parquet = Buffer.from(
          parquetWriteBuffer({
            columnData: [
              { name: 'id', data: Int32Array.from([2, 3]), type: 'INT32' },
              { name: 'name', data: ['\u0000ÿ', 'y'], type: 'STRING' },
            ],
          }),
        );
        await store.insertRaw(
          t,
          'Parquet',
          Readable.from([parquet.subarray(0, 50), parquet.subarray(50)]),
        );
        expect(await store.query(`SELECT id, name FROM ${t} ORDER BY id`)).toEqual([
          { id: 1, name: 'ü' },
          { id: 2, name: '\u0000ÿ' },
          { id: 3, name: 'y' },
        ]);
      });

      test('stream a large body with bounded memory', async () => {
        // Only memory that is still held counts, not what waits to be collected.
        setFlagsFromString('--expose-gc');
        const collect = runInNewContext('gc') as () => void;
        collect();
        const before = process.memoryUsage().arrayBuffers;
        const line = Buffer.from(
          `${JSON.stringify({ ...row(1), name: 'x'.repeat(1000) })}\n`.repeat(256),
        );
        let peak = 0;
        const body = Readable.from(
          (function* () {
            for (let i = 0; i < 150; i++) {
              if (i % 10 === 0) {
                collect();
                peak = Math.max(peak, process.memoryUsage().arrayBuffers - before);
              }
              yield line;
            }
          })(),
          { objectMode: false },
        );
        await store.insertRaw(t, 'JSONEachRow', body);
        expect(await count()).toBe(150 * 256);
        // 40 MB go through; a quarter of it may be in flight.
        expect(peak).toBeLessThan(12 << 20);
      });

      test('store nothing of a body that breaks off', async () => {
        const body = Readable.from(
          (async function* () {
            yield Buffer.from(`${JSON.stringify(row(1))}\n`);
            throw new Error('the source broke');
          })(),
          { objectMode: false },
        );
        await expect(store.insertRaw(t, 'JSONEachRow', body)).rejects.toMatchObject({
          code: expect.stringMatching(/^WAGGLE_STORE_/),
        });
        expect(await count()).toBe(0);
      });
    });

    describe('files', () => {
      const click = (n: number) => ({
        tenant_id: `${prefix}_t`,
        event_id: `evt_${n}`,
        type: 'click',
        ts: new Date(Date.parse('2026-02-20T00:00:00Z') + (n % 3) * 86_400_000 + n).toISOString(),
        placement_id: 'p',
        post_id: 'q',
        publication_id: 'r',
        campaign_id: 'c',
        creative_id: 'd',
        subscriber_key: `s${n}`,
        device: 'phone',
        ua_class: 'human',
        ip_prefix: '',
        ms_since_delivery: n,
        links_within_10s: 1,
        honeypot: false,
      });
      const ndjson = (from: number, to: number) =>
        Array.from({ length: to - from }, (_, i) => `${JSON.stringify(click(from + i))}\n`).join(
          '',
        );
      const once = async () =>
        (
          await store.query<{ n: number; ms: number }>(
            `SELECT count() AS n, sum(ms_since_delivery) AS ms FROM ${deduplicated('clicks')}
             WHERE tenant_id = {tenant:String}`,
            { params: { tenant: `${prefix}_t` } },
          )
        )[0]!;
      const write = async (name: string, content: string | Uint8Array) => {
        const path = join(scratch, name);
        await writeFile(path, content);
        return path;
      };
      afterAll(async () => {
        await store.command('DELETE FROM clicks WHERE tenant_id = {tenant:String}', {
          params: { tenant: `${prefix}_t` },
        });
      });

      test('load once, however often and however many batches lie between', async () => {
        const path = await write('clicks.ndjson', ndjson(0, 2000));
        expect(await store.load('clicks', { path, format: 'ndjson' })).toEqual({ rows: 2000 });
        const expected = await once();
        expect(expected.n).toBe(2000);
        // Far beyond any window of remembered blocks that a small table would have.
        for (let i = 0; i < 60; i++) {
          await store.insert('clicks', [
            { ...click(i), event_id: `other_${i}`, tenant_id: `${prefix}_u` },
          ]);
        }
        await store.load('clicks', { path, format: 'ndjson' });
        await store.insert(
          'clicks',
          Array.from({ length: 100 }, (_, i) => click(i + 500)),
        );
        expect(await once()).toEqual(expected);
        await store.command('OPTIMIZE TABLE clicks FINAL');
        expect(await once()).toEqual(expected);
        await store.load('clicks', { path, format: 'ndjson' }, { deduplicationToken: 'yesterday' });
        expect(await once()).toEqual(expected);
        await store.command('DELETE FROM clicks WHERE tenant_id = {tenant:String}', {
          params: { tenant: `${prefix}_u` },
        });
      });

      test('name the line of a bad row and store nothing of the file', async () => {
        const before = await once();
        const good = ndjson(5000, 5010);
        const cases: [string, string, object][] = [
          [
            'not-json.ndjson',
            `${good}not json\n`,
            { code: 'WAGGLE_STORE_BAD_FILE', details: { line: 11 } },
          ],
          [
            'cut.ndjson',
            good.slice(0, -30),
            { code: 'WAGGLE_STORE_BAD_FILE', details: { line: 10 } },
          ],
          [
            'type.ndjson',
            `${good}${JSON.stringify({ ...click(1), ms_since_delivery: -1 })}\n`,
            { code: 'WAGGLE_STORE_BAD_FILE' },
          ],
          [
            'unknown.ndjson',
            `${good}${JSON.stringify({ ...click(1), colour: 'red' })}\n`,
            { code: 'WAGGLE_STORE_UNKNOWN_COLUMN', details: { row: 11 } },
          ],
        ];
        for (const [name, content, problem] of cases) {
          const path = await write(name, content);
          await expect(
            store.load('clicks', { path, format: 'ndjson' }),
            name,
          ).rejects.toMatchObject(problem);
        }
        await expect(
          store.load('clicks', { path: join(scratch, 'absent'), format: 'ndjson' }),
        ).rejects.toMatchObject({ code: 'WAGGLE_STORE_FILE_NOT_FOUND' });
        expect(
          await store.load('clicks', { path: await write('empty', ''), format: 'ndjson' }),
        ).toEqual({ rows: 0 });
        expect(await once()).toEqual(before);
      });

      test('load Parquet, and refuse truncated or foreign files', async () => {
        const rows = Array.from({ length: 1500 }, (_, i) => click(10_000 + i));
        const text = (key: keyof ReturnType<typeof click>) => ({
          name: key,
          data: rows.map((r) => String(r[key])),
          type: 'STRING' as const,
        });
        const number = (key: 'ms_since_delivery' | 'links_within_10s') => ({
          name: key,
          data: Int32Array.from(rows, (r) => r[key]),
          type: 'INT32' as const,
        });
        const bytes = Buffer.from(
          parquetWriteBuffer({
            columnData: [
              ...(
                [
                  'tenant_id',
                  'event_id',
                  'type',
                  'placement_id',
                  'post_id',
                  'publication_id',
                ] as const
              ).map(text),
              ...(
                [
                  'campaign_id',
                  'creative_id',
                  'subscriber_key',
                  'device',
                  'ua_class',
                  'ip_prefix',
                ] as const
              ).map(text),
              { name: 'ts', data: rows.map((r) => new Date(r.ts)), type: 'TIMESTAMP' as const },
              number('ms_since_delivery'),
              number('links_within_10s'),
              { name: 'honeypot', data: rows.map(() => false), type: 'BOOLEAN' as const },
            ],
          }),
        );
        const before = await once();
        const path = await write('clicks.parquet', bytes);
        expect(await store.load('clicks', { path, format: 'parquet' })).toEqual({ rows: 1500 });
        await store.load('clicks', { path, format: 'parquet' });
        const after = await once();
        expect(after.n).toBe(before.n + 1500);
        const [first] = await store.query<{ ts: string }>(
          "SELECT ts FROM clicks WHERE tenant_id = {tenant:String} AND event_id = 'evt_10001' LIMIT 1",
          { params: { tenant: `${prefix}_t` } },
        );
        expect(first!.ts).toBe(click(10_001).ts);

        for (const size of [0, 3, 100, Math.floor(bytes.length / 2), bytes.length - 1]) {
          const cut = await write('cut.parquet', bytes);
          await truncate(cut, size);
          await expect(
            store.load('clicks', { path: cut, format: 'parquet' }),
            `${size} bytes`,
          ).rejects.toMatchObject({
            code: 'WAGGLE_STORE_BAD_FILE',
          });
        }
        // The marks are right and the inside is not.
        const hollow = Buffer.concat([
          Buffer.from('PAR1'),
          Buffer.alloc(200, 9),
          Buffer.from('PAR1'),
        ]);
        await expect(
          store.load('clicks', { path: await write('hollow.parquet', hollow), format: 'parquet' }),
        ).rejects.toMatchObject({ code: 'WAGGLE_STORE_BAD_FILE' });
        expect(await once()).toEqual(after);
      });

      test('large files appear whole or not at all', async () => {
        const t = table('staged');
        await store.command(
          `CREATE TABLE ${t} (id UInt64, text String) ENGINE = MergeTree ORDER BY id`,
        );
        const line = (id: number) => `{"id":${id},"text":"${'x'.repeat(1000)}"}\n`;
        const parts: string[] = [];
        for (let id = 0; id < 68_000; id++) parts.push(line(id));
        const path = await write('large.ndjson', parts.join(''));
        const bad = await write(
          'large-bad.ndjson',
          `${await readFile(path, 'utf8')}{"id":"last line is bad"}\n`,
        );
        await expect(store.load(t, { path: bad, format: 'ndjson' })).rejects.toMatchObject({
          code: 'WAGGLE_STORE_BAD_FILE',
        });
        expect(await store.query(`SELECT count() AS n FROM ${t}`)).toEqual([{ n: 0 }]);
        expect(await store.load(t, { path, format: 'ndjson' })).toEqual({ rows: 68_000 });
        expect(await store.query(`SELECT count() AS n, uniqExact(id) AS u FROM ${t}`)).toEqual([
          { n: 68_000, u: 68_000 },
        ]);
        expect(
          await store.query(
            "SELECT name FROM system.tables WHERE startsWith(name, 'waggle_loading_')",
          ),
        ).toEqual([]);
      });
    });

    describe('over HTTP', () => {
      const web = () => {
        if (subject.http === undefined) throw new Error('this store does not listen');
        return subject.http;
      };
      const call = (options: CallOptions) => httpCall(web(), options);
      const wired = (title: string, work: () => Promise<void>) =>
        test(title, async (context) => {
          if (subject.http === undefined) context.skip('this store does not listen');
          await work();
        });

      wired('/ping answers without credentials', async () => {
        expect(await call({ path: '/ping', password: undefined })).toMatchObject({
          status: 200,
          text: 'Ok.\n',
        });
      });

      wired('a wrong password or user is refused with code 516', async () => {
        for (const wrong of [{ password: 'wrong' }, { user: 'nobody' }, { password: '' }]) {
          const answer = await call({ path: '/?query=SELECT%201', ...wrong });
          expect(answer.status).toBe(403);
          expect(answer.headers['x-clickhouse-exception-code']).toBe('516');
          expect(answer.text).toContain('AUTHENTICATION_FAILED');
        }
        const { url, user } = web();
        const client = createClient({
          url,
          username: user,
          password: 'wrong',
          log: { level: ClickHouseLogLevel.OFF },
        });
        await expect(client.query({ query: 'SELECT 1' })).rejects.toMatchObject({
          code: '516',
          type: 'AUTHENTICATION_FAILED',
        });
        await client.close();
        const { user: u, password: p } = web();
        const keyed = await call({
          path: '/?query=SELECT%201',
          password: undefined,
          headers: { 'X-ClickHouse-User': u, 'X-ClickHouse-Key': p },
        });
        expect(keyed.text).toBe('1\n');
      });

      wired('errors have ClickHouse’s shape, status and headers', async () => {
        const syntax = await call({ body: 'SELEC 1' });
        expect(syntax.status).toBe(400);
        expect(syntax.headers['x-clickhouse-exception-code']).toBe('62');
        expect(syntax.text).toMatch(
          /^Code: 62\. DB::Exception: .*\(SYNTAX_ERROR\) \(version [^)]+/s,
        );
        expect((await call({ body: 'SELECT * FROM nowhere' })).status).toBe(404);
        const readonly = await call({
          path: `/?query=${encodeURIComponent(`CREATE TABLE ${table('no')} (x UInt8) ENGINE = Memory`)}`,
        });
        expect(readonly.headers['x-clickhouse-exception-code']).toBe('164');
        expect((await call({ path: '/nothing-here', body: '' })).status).toBe(404);
      });

      wired('statements come by URL, by body or by both, with id and summary', async () => {
        const answer = await call({
          path: '/?query_id=my-id-1&query=SELECT%20number',
          body: 'FROM numbers(3) FORMAT CSV',
        });
        expect(answer).toMatchObject({ status: 200, text: '0\n1\n2\n' });
        expect(answer.headers['x-clickhouse-query-id']).toBe('my-id-1');
        expect(answer.headers['x-clickhouse-format']).toBe('CSV');
        expect(JSON.parse(String(answer.headers['x-clickhouse-summary']))).toHaveProperty(
          'read_rows',
        );
        const compact = await call({
          path: '/?default_format=JSONCompactEachRow',
          body: 'SELECT 1, 2',
        });
        expect(JSON.parse(compact.text)).toEqual([1, 2]);
        expect(
          (await call({ path: '/?param_x=a%5Ctb', body: 'SELECT length({x:String})' })).text,
        ).toBe('3\n');
        expect(
          (await call({ path: '/?max_block_size=77', body: "SELECT getSetting('max_block_size')" }))
            .text,
        ).toBe('77\n');
        expect(
          (await call({ path: '/?database=system', body: 'SELECT currentDatabase()' })).text,
        ).toBe('system\n');
      });

      wired('bodies are compressed both ways', async () => {
        const t = table('gz');
        await call({ body: `CREATE TABLE ${t} (x UInt32) ENGINE = MergeTree ORDER BY x` });
        const insert = await call({
          path: `/?query=${encodeURIComponent(`INSERT INTO ${t} FORMAT TSV`)}`,
          body: gzipSync('1\n2\n3\n'),
          headers: { 'Content-Encoding': 'gzip' },
        });
        expect(insert.status).toBe(200);
        expect(JSON.parse(String(insert.headers['x-clickhouse-summary'])).written_rows).toBe('3');
        const query = await call({
          path: '/?enable_http_compression=1',
          body: `SELECT x FROM ${t} ORDER BY x FORMAT TSV`,
          headers: { 'Accept-Encoding': 'gzip' },
        });
        expect(query.headers['content-encoding']).toBe('gzip');
        expect(gunzipSync(query.bytes).toString()).toBe('1\n2\n3\n');
        const broken = await call({
          path: `/?query=${encodeURIComponent(`INSERT INTO ${t} FORMAT TSV`)}`,
          body: gzipSync('4\n5\n6\n').subarray(0, 12),
          headers: { 'Content-Encoding': 'gzip' },
        });
        expect(broken.status).toBeGreaterThanOrEqual(400);
        const { url, user, password } = web();
        const client = createClient({
          url,
          username: user,
          password,
          compression: { request: true, response: true },
        });
        await client.insert({ table: t, values: [{ x: 9 }], format: 'JSONEachRow' });
        const rows = await client.query({
          query: `SELECT x FROM ${t} ORDER BY x`,
          format: 'JSONEachRow',
        });
        expect(await rows.json()).toEqual([{ x: 1 }, { x: 2 }, { x: 3 }, { x: 9 }]);
        await client.close();
      });

      wired('rows may follow the INSERT in the body', async () => {
        const t = table('inline');
        await call({
          body: `CREATE TABLE ${t} (x UInt32, s String) ENGINE = MergeTree ORDER BY x`,
        });
        await call({
          body: `INSERT INTO ${t} FORMAT JSONEachRow {"x":1,"s":"a;b"}\n{"x":2,"s":"FORMAT CSV"}`,
        });
        await call({ body: `INSERT INTO ${t} (s, x) VALUES ('it''s', 3), ('(', 4)` });
        const big = Array.from({ length: 60_000 }, (_, i) => `${i + 10}\t${'ü'.repeat(3)}`).join(
          '\n',
        );
        expect((await call({ body: `INSERT INTO ${t} FORMAT TSV\n${big}\n` })).status).toBe(200);
        expect(
          (await call({ body: `SELECT count(), sum(x), any(length(s)) FROM ${t} WHERE x >= 10` }))
            .text,
        ).toBe(`60000\t${(60_000 * 59_999) / 2 + 600_000}\t6\n`);
        expect((await call({ body: `SELECT s FROM ${t} WHERE x < 10 ORDER BY x` })).text).toBe(
          "a;b\nFORMAT CSV\nit\\'s\n(\n",
        );
      });

      wired('a dropped connection ends the query and harms nobody', async () => {
        const sql =
          'SELECT sipHash64(number) AS dropped_query FROM numbers(1000000000000) FORMAT TSV';
        await dropAfterFirstBytes(web(), sql);
        for (;;) {
          const left = await store.query<{ n: number }>(
            "SELECT count() AS n FROM system.processes WHERE query LIKE '%dropped\\_query%' AND query NOT LIKE '%processes%'",
          );
          if (left[0]!.n === 0) break;
          await new Promise((wake) => setTimeout(wake, 20));
        }
        const t = table('dropped');
        await call({ body: `CREATE TABLE ${t} (x UInt32) ENGINE = MergeTree ORDER BY x` });
        await dropDuringBody(web(), `INSERT INTO ${t} FORMAT TSV`, '1\n2\n3\n');
        expect(await store.query(`SELECT count() AS n FROM ${t}`)).toEqual([{ n: 0 }]);
        await store.ping();
      });

      wired('a failure after the first bytes reaches the client as an error', async () => {
        const { url, user, password } = web();
        const client = createClient({
          url,
          username: user,
          password,
          log: { level: ClickHouseLogLevel.OFF },
        });
        const rows = await client.query({
          query: "SELECT throwIf(number = 300000, 'late boom') AS x, number FROM numbers(400000)",
          format: 'JSONEachRow',
          clickhouse_settings: { max_block_size: '8192', max_threads: 1 },
        });
        await expect(rows.json()).rejects.toThrow('late boom');
        await client.close();
      });

      wired('sessions are kept by id and may be required to exist', async () => {
        const id = `${prefix}_http`;
        await call({
          path: `/?session_id=${id}&session_timeout=60`,
          body: 'CREATE TEMPORARY TABLE s (x UInt8)',
        });
        await call({ path: `/?session_id=${id}`, body: 'INSERT INTO s VALUES (5)' });
        expect((await call({ path: `/?session_id=${id}`, body: 'SELECT x FROM s' })).text).toBe(
          '5\n',
        );
        const absent = await call({
          path: `/?session_id=${prefix}_absent&session_check=1`,
          body: 'SELECT 1',
        });
        expect(absent.headers['x-clickhouse-exception-code']).toBe('372');
      });
    });
  });
}

interface CallOptions {
  readonly path?: string;
  readonly body?: string | Buffer;
  readonly headers?: Record<string, string>;
  readonly user?: string | undefined;
  readonly password?: string | undefined;
}

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly bytes: Buffer;
  readonly text: string;
}

type Endpoint = NonNullable<ContractSubject['http']>;

function httpCall(http: Endpoint, options: CallOptions): Promise<Answer> {
  const user = options.user ?? http.user;
  const password = 'password' in options ? options.password : http.password;
  return new Promise((fulfil, reject) => {
    const outgoing = request(
      new URL(options.path ?? '/', http.url),
      {
        method: options.body === undefined ? 'GET' : 'POST',
        agent: false,
        ...(password === undefined ? {} : { auth: `${user}:${password}` }),
        headers: options.headers ?? {},
      },
      (response) => {
        const parts: Buffer[] = [];
        response.on('data', (part: Buffer) => parts.push(part));
        response.on('error', reject);
        response.on('end', () => {
          const bytes = Buffer.concat(parts);
          fulfil({
            status: response.statusCode ?? 0,
            headers: response.headers,
            bytes,
            text: bytes.toString(),
          });
        });
      },
    );
    outgoing.on('error', reject);
    outgoing.end(options.body);
  });
}

function dropAfterFirstBytes(http: Endpoint, sql: string): Promise<void> {
  return new Promise((fulfil, reject) => {
    const outgoing = request(
      new URL('/', http.url),
      { method: 'POST', agent: false, auth: `${http.user}:${http.password}` },
      (response) => {
        response.once('data', () => {
          response.destroy();
          fulfil();
        });
        response.on('error', () => {});
      },
    );
    outgoing.on('error', reject);
    outgoing.end(sql);
  });
}

function dropDuringBody(http: Endpoint, sql: string, part: string): Promise<void> {
  return new Promise((fulfil) => {
    const outgoing = request(new URL(`/?query=${encodeURIComponent(sql)}`, http.url), {
      method: 'POST',
      agent: false,
      auth: `${http.user}:${http.password}`,
      headers: { 'Transfer-Encoding': 'chunked' },
    });
    outgoing.on('error', () => {});
    outgoing.on('close', () => fulfil());
    outgoing.write(part, () => setTimeout(() => outgoing.destroy(), 30));
  });
}
