import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createServer as createTcpServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { silentLogger, systemClock } from '@waggle/core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openEmbeddedStore, openServerStore, storeErrors, toStoreError } from '../src/index.js';
import { startStoreServer } from '../src/server/index.js';
import { writeOwner } from '../src/server/owner-file.js';

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'waggle-failures-'));
});
afterAll(async () => {
  await chmod(join(root, 'read-only'), 0o700).catch(() => {});
  await rm(root, { recursive: true, force: true });
});

describe('opening', () => {
  test('a second directory in one process is refused with the reason', async () => {
    const first = await openEmbeddedStore({ path: join(root, 'a') });
    await expect(openEmbeddedStore({ path: join(root, 'b') })).rejects.toMatchObject({
      code: 'WAGGLE_STORE_LOCKED',
      remedy: expect.stringContaining('one directory per process'),
    });
    await first.ping();
    await first.close();
    await first.close();
    await expect(first.query('SELECT 1')).rejects.toMatchObject({ code: 'WAGGLE_STORE_CLOSED' });
    const second = await openEmbeddedStore({ path: join(root, 'b') });
    await second.close();
  });

  const isRoot = process.getuid?.() === 0;
  if (isRoot)
    console.warn('running as root: permissions do not bind it, so a read-only place is not tried');
  test.skipIf(isRoot)('a read-only place is refused', async () => {
    await mkdir(join(root, 'read-only'), { mode: 0o500 });
    await expect(
      openEmbeddedStore({ path: join(root, 'read-only', 'store') }),
    ).rejects.toMatchObject({
      code: 'WAGGLE_STORE_READ_ONLY',
    });
  });

  test('a place that is no directory is refused', async () => {
    await writeFile(join(root, 'file'), '');
    await expect(openEmbeddedStore({ path: join(root, 'file') })).rejects.toMatchObject({
      code: 'WAGGLE_STORE_OPEN_FAILED',
      details: { errno: 'ENOTDIR' },
    });
  });

  test('a taken port is refused and the directory given back', async () => {
    const other = createTcpServer();
    await new Promise<void>((fulfil) => other.listen(0, '127.0.0.1', fulfil));
    const { port } = other.address() as { port: number };
    const dir = join(root, 'port');
    const options = { dir, logger: silentLogger, clock: systemClock };
    await expect(startStoreServer({ ...options, port })).rejects.toMatchObject({
      code: 'WAGGLE_STORE_PORT_IN_USE',
      details: { port },
    });
    other.close();
    await expect(stat(join(dir, 'owner.json'))).rejects.toMatchObject({ code: 'ENOENT' });
    const server = await startStoreServer(options);
    await server.close();
  });

  test.skipIf(!existsSync('/sys'))('an owner.json that cannot be written has a code', async () => {
    const owner = { url: 'x', user: 'u', password: 'p', pid: process.pid, startedAt: '' };
    await expect(writeOwner('/sys', owner)).rejects.toMatchObject({
      code: 'WAGGLE_STORE_READ_ONLY',
      message: expect.stringContaining('owner.json'),
    });
  });

  test('a full disk is told apart from other failures', () => {
    const full = spawnSync('sh', ['-c', 'echo x > /dev/full']);
    expect(full.status).not.toBe(0);
    for (const thrown of [
      Object.assign(new Error('write'), { code: 'ENOSPC' }),
      new Error(
        'Code: 243. DB::Exception: Cannot reserve 1.00 MiB, not enough space. (NOT_ENOUGH_SPACE)',
      ),
      new Error(
        'Code: 75. DB::Exception: Cannot write to file: errno: 28, strerror: No space left on device. (CANNOT_WRITE_TO_FILE_DESCRIPTOR)',
      ),
    ]) {
      expect(toStoreError(thrown, { doing: 'insert' })).toMatchObject({
        code: 'WAGGLE_STORE_DISK_FULL',
        remedy: storeErrors.WAGGLE_STORE_DISK_FULL.remedy,
      });
    }
    expect(
      toStoreError(new Error('Code: 75. DB::Exception: strerror: Read-only file system. (X)'), {
        doing: 'x',
      }).code,
    ).toBe('WAGGLE_STORE_READ_ONLY');
  });
});

describe('a server that misbehaves', () => {
  test('nobody listening, wrong names and dropped connections have their codes', async () => {
    const nobody = await openServerStore({ url: 'http://127.0.0.1:9' });
    await expect(nobody.query('SELECT 1')).rejects.toMatchObject({
      code: 'WAGGLE_STORE_UNAVAILABLE',
    });
    await expect(nobody.ping()).rejects.toMatchObject({ code: 'WAGGLE_STORE_UNAVAILABLE' });
    await nobody.close();

    const rude = createServer((request) => request.socket.destroy());
    await new Promise<void>((fulfil) => rude.listen(0, '127.0.0.1', fulfil));
    const { port } = rude.address() as { port: number };
    const store = await openServerStore({ url: `http://127.0.0.1:${port}` });
    await expect(store.query('SELECT 1')).rejects.toMatchObject({
      code: 'WAGGLE_STORE_CONNECTION_LOST',
    });
    await expect(store.insert('t', [{ a: 1 }])).rejects.toMatchObject({
      code: 'WAGGLE_STORE_CONNECTION_LOST',
    });
    await store.close();
    rude.close();
  });

  test('an answer that breaks off is never taken for a whole one', async () => {
    const half = createServer((_, response) => {
      response.writeHead(200, { 'Content-Length': '1000' });
      response.write('{"a":1}\n', () => response.destroy());
    });
    await new Promise<void>((fulfil) => half.listen(0, '127.0.0.1', fulfil));
    const { port } = half.address() as { port: number };
    const store = await openServerStore({ url: `http://127.0.0.1:${port}` });
    await expect(store.query('SELECT 1')).rejects.toMatchObject({
      code: 'WAGGLE_STORE_CONNECTION_LOST',
    });
    await expect(store.queryColumns('SELECT 1')).rejects.toMatchObject({
      code: expect.stringMatching(/WAGGLE_STORE_(CONNECTION_LOST|RESULT)/),
    });
    const read = async () => {
      for await (const _ of store.stream('SELECT 1'));
    };
    await expect(read()).rejects.toMatchObject({ code: 'WAGGLE_STORE_CONNECTION_LOST' });
    await store.close();
    half.close();
  });
});

describe('the server', () => {
  test('finishes what runs before it closes, and leaves no spool behind', async () => {
    const dir = join(root, 'drain');
    const server = await startStoreServer({ dir, logger: silentLogger, clock: systemClock });
    const store = await openServerStore({
      url: server.url,
      username: server.user,
      password: server.password,
    });
    await store.command('CREATE TABLE t (x UInt32) ENGINE = MergeTree ORDER BY x');
    const slow = store.query('SELECT sleep(2) AS s');
    const insert = store.insert(
      't',
      Array.from({ length: 20_000 }, (_, x) => ({ x })),
    );
    // Time for both to arrive, on a machine that does other things besides.
    await new Promise((wake) => setTimeout(wake, 1_000));
    const closing = server.close();
    expect(await slow).toEqual([{ s: 0 }]);
    expect(await insert).toEqual({ rows: 20_000 });
    await closing;
    await expect(store.query('SELECT 1')).rejects.toMatchObject({
      code: expect.stringMatching(/UNAVAILABLE|CONNECTION_LOST/),
    });
    await store.close();
  });

  test('cancels what runs too long when it must close', async () => {
    const dir = join(root, 'cancel');
    const server = await startStoreServer({
      dir,
      logger: silentLogger,
      clock: systemClock,
      drainMs: 100,
    });
    const store = await openServerStore({
      url: server.url,
      username: server.user,
      password: server.password,
    });
    const endless = store.query('SELECT max(sipHash64(number)) FROM numbers(1000000000000)');
    const outcome = expect(endless).rejects.toMatchObject({
      code: expect.stringMatching(/^WAGGLE_STORE_/),
    });
    await new Promise((wake) => setTimeout(wake, 200));
    await server.close();
    await outcome;
    await store.close();
  });

  test('removes spool files of a process that was killed', async () => {
    const dir = join(root, 'spool');
    await mkdir(join(dir, 'spool'), { recursive: true });
    await writeFile(join(dir, 'spool', 'left.body'), 'x');
    const server = await startStoreServer({ dir, logger: silentLogger, clock: systemClock });
    await expect(stat(join(dir, 'spool', 'left.body'))).rejects.toMatchObject({ code: 'ENOENT' });
    await server.close();
  });

  test('stays responsive while long queries run', async () => {
    const dir = join(root, 'responsive');
    const server = await startStoreServer({ dir, logger: silentLogger, clock: systemClock });
    const store = await openServerStore({
      url: server.url,
      username: server.user,
      password: server.password,
    });
    const controller = new AbortController();
    const long = Array.from({ length: 6 }, () =>
      store.query('SELECT max(sipHash64(number)) FROM numbers(1000000000000)', {
        signal: controller.signal,
      }),
    );
    const settled = Promise.allSettled(long);
    // Two run, four wait, and the process still answers.
    const ping = await fetch(`${server.url}/ping`);
    expect(await ping.text()).toBe('Ok.\n');
    controller.abort();
    for (const result of await settled) expect(result).toMatchObject({ status: 'rejected' });
    await store.ping();
    await store.close();
    await server.close();
  });
});
