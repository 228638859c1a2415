import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { DirectoryLock, type DirectoryLockOptions } from '../src/directory-lock.js';
import { WriteAheadLog } from '../src/wal/index.js';

/** Short times, for tests; far enough apart that a busy machine does not confuse them. */
const TIMES = { heartbeatMs: 100, staleMs: 1_500 };
const PATIENCE = { timeout: 60_000, interval: 20 };

let dir: string;
const children: ChildProcess[] = [];
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'waggle-lock-'));
});
afterEach(async () => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  await rm(dir, { recursive: true, force: true });
});

const lockFile = () => join(dir, 'lock');
const acquire = async (options: DirectoryLockOptions = TIMES): Promise<DirectoryLock> => {
  const lock = await DirectoryLock.acquire(dir, options);
  if (!(lock instanceof DirectoryLock)) throw new Error(`held by ${JSON.stringify(lock)}`);
  return lock;
};
const change = async (fields: object): Promise<void> => {
  const holder = JSON.parse(await readFile(lockFile(), 'utf8')) as object;
  await writeFile(lockFile(), JSON.stringify({ ...holder, ...fields }));
};
/** The lock as another container or machine would have left it. */
const leaveElsewhere = async (fields: object, token = 'theirs'): Promise<void> => {
  await (await acquire()).release();
  await writeFile(
    lockFile(),
    JSON.stringify({ pid: process.pid, token, host: 'elsewhere', ...fields }),
  );
};
const PLACES = [
  ['another machine', { boot: 'another boot', pidNamespace: 'pid:[4026531836]' }],
  ['a system without /proc', {}],
] as const;

describe('a holder that cannot be seen', () => {
  test.each(PLACES)('on %s is alive while its heart beats', async (_where, place) => {
    await leaveElsewhere(place);
    const heart = setInterval(() => void utimes(lockFile(), new Date(), new Date()), 50);
    try {
      const waited: unknown[] = [];
      expect(
        await DirectoryLock.acquire(dir, { ...TIMES, onWait: (holder) => waited.push(holder) }),
      ).toEqual({ heldBy: process.pid, host: 'elsewhere' });
      expect(waited).toHaveLength(1);
    } finally {
      clearInterval(heart);
    }
  });

  test.each(PLACES)('on %s is dead once it has been silent for long', async (_where, place) => {
    await leaveElsewhere(place);
    const startedMs = performance.now();
    const lock = await acquire();
    expect(performance.now() - startedMs).toBeGreaterThanOrEqual(TIMES.staleMs * 0.9);
    await lock.release();
    expect(await readdir(dir)).toEqual([]);
  });

  test('in this boot of this machine needs no long watch when its last heartbeat is old', async () => {
    const lock = await acquire();
    const { boot } = JSON.parse(await readFile(lockFile(), 'utf8')) as { boot?: string };
    await lock.release();
    if (boot === undefined) return;
    await leaveElsewhere({ boot, pidNamespace: 'pid:[1]' });
    await utimes(lockFile(), new Date(), new Date(Date.now() - 3_600_000));
    const patient = { heartbeatMs: 100, staleMs: 600_000 };
    await (await acquire(patient)).release();
  });

  test('is not taken for itself by a process with the same id', async () => {
    const first = await acquire();
    // As the process with this id of another container would find it.
    await change({ pidNamespace: 'pid:[1]', boot: 'another boot', token: 'theirs' });
    await first.release();
    const heart = setInterval(() => void utimes(lockFile(), new Date(), new Date()), 50);
    const found = await DirectoryLock.acquire(dir, TIMES);
    clearInterval(heart);
    expect(found).toEqual({ heldBy: process.pid, host: hostname() });
  });
});

describe('a holder', () => {
  test('is one of many who try at once within a process', async () => {
    const found = await Promise.all(
      Array.from({ length: 5 }, () => DirectoryLock.acquire(dir, TIMES)),
    );
    const locks = found.filter((lock) => lock instanceof DirectoryLock);
    expect(locks).toHaveLength(1);
    expect(await locks[0]!.confirm()).toBe(true);
    await locks[0]!.release();
  });

  test('touches its lock without being asked', async () => {
    const lock = await acquire();
    const mark = new Date(1_000);
    await utimes(lockFile(), mark, mark);
    await vi.waitUntil(async () => (await stat(lockFile())).mtimeMs > mark.getTime(), PATIENCE);
    await lock.release();
    expect(await readdir(dir)).toEqual([]);
  });

  test('that was held up looks before it goes on, and gives up a lock that was taken over', async () => {
    const lost: string[] = [];
    const heldUp = { heartbeatMs: 60_000, staleMs: 4_000, onLost: () => lost.push('lost') };
    const lock = await acquire(heldUp);
    expect(lock.isSure()).toBe(true);
    await vi.waitUntil(() => !lock.isSure(), PATIENCE);
    expect(await lock.confirm()).toBe(true);
    expect(lock.isSure()).toBe(true);
    await change({ token: 'somebody else' });
    await vi.waitUntil(() => !lock.isSure(), PATIENCE);
    expect([await lock.confirm(), await lock.confirm(), lock.isSure()]).toEqual([
      false,
      false,
      false,
    ]);
    expect(lost).toEqual(['lost']);
    await lock.release();
    expect(JSON.parse(await readFile(lockFile(), 'utf8')).token).toBe('somebody else');
  });

  test('puts a deleted lock back', async () => {
    const lock = await acquire({ heartbeatMs: 60_000, staleMs: 200 });
    await rm(lockFile());
    await vi.waitUntil(() => !lock.isSure(), PATIENCE);
    expect(await lock.confirm()).toBe(true);
    expect(await readdir(dir)).toEqual(['lock']);
    await lock.release();
  });

  test('writes nothing more into a log that was taken over', async () => {
    const log = await WriteAheadLog.open({ dir, lock: { heartbeatMs: 20, staleMs: 60_000 } });
    await log.append(Buffer.from('before'));
    await change({ token: 'somebody else' });
    await vi.waitUntil(
      () =>
        log.assertHeld().then(
          () => false,
          () => true,
        ),
      PATIENCE,
    );
    await expect(log.append(Buffer.from('after'))).rejects.toMatchObject({
      code: 'WAGGLE_WAL_LOCKED',
      remedy: expect.stringContaining('Restart'),
    });
    await expect(log.truncateBefore(1)).rejects.toMatchObject({ code: 'WAGGLE_WAL_LOCKED' });
    await log.close();
    await rm(lockFile());
    const again = await WriteAheadLog.open({ dir });
    const found: string[] = [];
    for await (const { payload } of again.read(0)) found.push(Buffer.from(payload).toString());
    expect(found).toEqual(['before']);
    await again.close();
  });
});

const unshared = ['-Urpf', '--mount-proc'];
const canUnshare = spawnSync('unshare', [...unshared, 'true']).status === 0;
if (!canUnshare) console.warn('skipped: two containers; this system has no unshare -Urpf');

describe.skipIf(!canUnshare)('two containers on one volume', () => {
  const opener = fileURLToPath(new URL('./fixtures/wal-opener.ts', import.meta.url));
  const inContainer = async (): Promise<{ child: ChildProcess; said: string }> => {
    const child = spawn(
      'unshare',
      [
        ...unshared,
        // The container dies with the one who started it.
        '--kill-child',
        process.execPath,
        '--conditions=waggle-source',
        '--import',
        new URL('./fixtures/typescript.mjs', import.meta.url).href,
        opener,
        dir,
      ],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    children.push(child);
    const [said] = (await once(child.stdout!, 'data')) as [Buffer];
    return { child, said: said.toString().trim() };
  };

  test('do not open a log together, though both are process 1', async () => {
    const first = await inContainer();
    expect(first.said).toBe('opened 1');
    const second = await inContainer();
    expect(second.said).toContain('WAGGLE_WAL_LOCKED Stop it there');
    await expect(WriteAheadLog.open({ dir })).rejects.toMatchObject({
      code: 'WAGGLE_WAL_LOCKED',
      details: { pid: 1, host: hostname() },
    });
    first.child.kill('SIGKILL');
    await once(first.child, 'exit');
    const warned: unknown[] = [];
    const logger = { warn: (fields: unknown) => warned.push(fields) };
    const log = await WriteAheadLog.open({ dir, lock: TIMES, logger: logger as never });
    expect(warned).toMatchObject([{ pid: 1, stale_ms: TIMES.staleMs }]);
    await log.close();
  });
});
