import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { silentLogger, systemClock } from '@waggle/core';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { isAlive } from '../src/directory-lock.js';
import { openLocalStore, type Store } from '../src/index.js';
import { readLiveOwner, startStoreServer } from '../src/server/index.js';
import { fixtureCommand } from './fixtures/owner-command.js';

let dataDir: string;
const stores: Store[] = [];
const children: ChildProcess[] = [];
beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'waggle-local-'));
});
afterEach(async () => {
  for (const store of stores.splice(0)) await store.close();
  for (const child of children.splice(0)) child.kill('SIGKILL');
  await rm(dataDir, { recursive: true, force: true });
});

const directory = () => join(dataDir, 'store');
async function openStore(): Promise<Store> {
  const store = await openLocalStore({
    dataDir,
    logger: silentLogger,
    startOwner: fixtureCommand('./store-owner.ts', directory()),
  });
  stores.push(store);
  return store;
}
const owner = async () => (await readLiveOwner(directory()))!;
async function until(condition: () => Promise<boolean> | boolean): Promise<void> {
  while (!(await condition())) await new Promise((wake) => setTimeout(wake, 20));
}

test('two commands at once share one owner, which stops after the last of them', async () => {
  const [a, b] = await Promise.all([openStore(), openStore()]);
  const { pid, onDemand } = await owner();
  expect(onDemand).toBe(true);
  await a.command('CREATE TABLE t (x UInt32) ENGINE = MergeTree ORDER BY x');
  await b.insert('t', [{ x: 1 }, { x: 2 }]);
  await a.close();
  expect(await b.query('SELECT sum(x) AS s FROM t')).toEqual([{ s: 3 }]);
  expect(isAlive(pid)).toBe(true);
  await b.close();
  await until(() => !isAlive(pid));
  await expect(stat(join(directory(), 'owner.json'))).rejects.toMatchObject({ code: 'ENOENT' });
  const again = await openStore();
  expect(await again.query('SELECT sum(x) AS s FROM t')).toEqual([{ s: 3 }]);
});

test('owner.json is readable by its user alone', async () => {
  await openStore();
  const path = join(directory(), 'owner.json');
  expect((await stat(path)).mode & 0o777).toBe(0o600);
  const facts = JSON.parse(await readFile(path, 'utf8'));
  expect(Object.keys(facts).sort()).toEqual(['password', 'pid', 'startedAt', 'url', 'user']);
  expect(facts.password.length).toBeGreaterThanOrEqual(32);
});

test('a killed owner is replaced at the next statement, and what was stored is there', async () => {
  const store = await openStore();
  await store.command('CREATE TABLE t (x UInt32) ENGINE = MergeTree ORDER BY x');
  await store.insert('t', [{ x: 41 }]);
  const { pid } = await owner();
  process.kill(pid, 'SIGKILL');
  await until(() => !isAlive(pid));
  expect(await store.query('SELECT x FROM t')).toEqual([{ x: 41 }]);
  expect((await owner()).pid).not.toBe(pid);
});

test('killed in the middle of inserts, the store restarts clean with whole batches', async () => {
  const store = await openStore();
  await store.command(
    'CREATE TABLE t (batch UInt32, x UInt32) ENGINE = MergeTree ORDER BY (batch, x)',
  );
  let acknowledged = 0;
  const { pid } = await owner();
  const rows = (batch: number) => Array.from({ length: 500 }, (_, x) => ({ batch, x }));
  try {
    for (let batch = 0; ; batch++) {
      if (batch === 12) process.kill(pid, 'SIGKILL');
      await store.insert('t', rows(batch));
      // The next owner answers by now if a later insert got through.
      if ((await owner())?.pid !== pid) break;
      acknowledged++;
    }
  } catch (err) {
    expect(err).toMatchObject({ code: expect.stringMatching(/CONNECTION_LOST|UNAVAILABLE/) });
  }
  const counts = await store.query<{ batch: number; n: number }>(
    'SELECT batch, count() AS n FROM t GROUP BY batch ORDER BY batch',
  );
  expect(acknowledged).toBeGreaterThanOrEqual(11);
  expect(counts.length).toBeGreaterThanOrEqual(acknowledged);
  for (const { n } of counts) expect(n).toBe(500);
});

const lost: Record<string, (store: Store) => Promise<unknown>> = {
  query: (store) => store.query('SELECT 1 AS lost'),
  stream: (store) => store.stream('SELECT 1 AS lost')[Symbol.asyncIterator]().next(),
  insertRaw: (store) =>
    store.insertRaw('lost', 'JSONEachRow', Readable.from(['{"x":1}\n'], { objectMode: false })),
};
test.each(Object.keys(lost))(
  'an owner that is dying is asked for one statement, not for the next: %s',
  async (kind) => {
    // What a killed process looks like while its memory is taken back: its port accepts and resets, its lease still stands.
    let dying = false;
    const server = createServer((request, response) => {
      if (request.url === '/waggle/owner')
        response.end(JSON.stringify({ pid: process.pid, leases: 1 }));
      else if (request.url === '/waggle/lease') response.write('\n');
      else {
        let statement = '';
        request.on('data', (chunk) => {
          statement += String(chunk);
        });
        request.on('end', () => {
          dying = `${request.url}${statement}`.includes('lost');
          if (dying) request.socket.destroy();
          else response.end('1\n');
        });
      }
    });
    server.on('connection', (socket) => {
      if (dying) socket.resetAndDestroy();
    });
    await new Promise<void>((fulfil) => server.listen(0, '127.0.0.1', fulfil));
    try {
      await mkdir(directory(), { recursive: true });
      await writeFile(
        join(directory(), 'owner.json'),
        JSON.stringify({
          url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
          user: 'waggle',
          password: 'x',
          pid: process.pid,
          startedAt: '',
        }),
      );
      const store = await openStore();
      await expect(lost[kind]!(store)).rejects.toMatchObject({
        code: 'WAGGLE_STORE_CONNECTION_LOST',
      });
      expect(await store.query('SELECT 2 AS two')).toEqual([{ two: 2 }]);
    } finally {
      server.closeAllConnections();
      server.close();
    }
  },
);

test('a stale owner.json of a dead process or a reused pid does not mislead', async () => {
  for (const pid of [2 ** 22 - 1, process.pid]) {
    await mkdir(directory(), { recursive: true });
    await writeFile(
      join(directory(), 'owner.json'),
      JSON.stringify({
        url: 'http://127.0.0.1:9',
        user: 'waggle',
        password: 'x',
        pid,
        startedAt: '',
      }),
    );
    const store = await openStore();
    await store.ping();
    await store.close();
  }
});

test('an owner started by hand is used and left running', async () => {
  const { command, args } = fixtureCommand('./store-owner.ts', directory());
  const child = spawn(command, args, { stdio: 'ignore' });
  children.push(child);
  await until(async () => (await readLiveOwner(directory())) !== undefined);
  const store = await openStore();
  await store.ping();
  await store.close();
  expect((await owner()).pid).toBe(child.pid);
  child.kill('SIGTERM');
  await new Promise((fulfil) => child.once('exit', fulfil));
  expect(child.exitCode).toBe(0);
});

test('a second process on the same directory is refused with the owner’s address', async () => {
  await openStore();
  const { pid, url } = await owner();
  await expect(
    startStoreServer({ dir: directory(), logger: silentLogger, clock: systemClock }),
  ).rejects.toMatchObject({ code: 'WAGGLE_STORE_LOCKED', details: { pid, url } });
});

test('an owner that cannot start says why: this one, not one before it', async () => {
  const startOwner = (code: string) => ({ command: process.execPath, args: ['-e', code] });
  const failing = (code: string) =>
    openLocalStore({ dataDir, logger: silentLogger, startOwner: startOwner(code) });
  await expect(
    failing(
      'console.error("WAGGLE_STORE_DISK_FULL: the disk is full\\n  → Free space"); process.exit(1)',
    ),
  ).rejects.toMatchObject({
    code: 'WAGGLE_STORE_START_FAILED',
    message: 'waggle store ended before it was ready: WAGGLE_STORE_DISK_FULL: the disk is full',
  });
  await expect(failing('process.exit(9)')).rejects.toMatchObject({
    message: 'waggle store ended before it was ready: its log is empty, status 9',
  });
});

test('an owner that cannot be started is reported with its last lines', async () => {
  await expect(
    openLocalStore({
      dataDir,
      logger: silentLogger,
      startOwner: {
        command: process.execPath,
        args: ['-e', 'console.error("no such thing"); process.exit(7)'],
      },
    }),
  ).rejects.toMatchObject({
    code: 'WAGGLE_STORE_START_FAILED',
    details: { exitCode: 7, log: expect.stringContaining('no such thing') },
  });
});
