import { spawn } from 'node:child_process';
import { cp, mkdtemp, open, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { silentLogger } from '@waggle/core';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { nodeFiles, type WalFiles, WriteAheadLog } from '../src/wal/index.js';

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'waggle-wal-'));
});
afterEach(async () => {
  await rm(root, { recursive: true, force: true });
});

const text = (value: string) => Buffer.from(value);
async function all(log: WriteAheadLog, from = 0): Promise<{ sequence: number; value: string }[]> {
  const out: { sequence: number; value: string }[] = [];
  for await (const { sequence, payload } of log.read(from)) {
    out.push({ sequence, value: Buffer.from(payload).toString() });
  }
  return out;
}
const segmentsOf = async (dir: string) =>
  (await readdir(dir)).filter((f) => f.endsWith('.wal')).sort();

describe('a healthy log', () => {
  test('returns acknowledged records in order, once, after reopening', async () => {
    const log = await WriteAheadLog.open({ dir: root });
    const sequences = await Promise.all(
      Array.from({ length: 100 }, (_, i) => log.append(text(`r${i}`))),
    );
    expect(sequences).toEqual(Array.from({ length: 100 }, (_, i) => i + 1));
    expect(log.durableSequence).toBe(100);
    await log.close();
    const again = await WriteAheadLog.open({ dir: root });
    expect((await all(again)).map((r) => r.value)).toEqual(
      Array.from({ length: 100 }, (_, i) => `r${i}`),
    );
    expect(await again.append(text('next'))).toBe(101);
    expect(await all(again, 100)).toEqual([
      { sequence: 100, value: 'r99' },
      { sequence: 101, value: 'next' },
    ]);
    await again.close();
  });

  test('shares a sync among everything that arrives while one runs', async () => {
    const log = await WriteAheadLog.open({ dir: root });
    await Promise.all(Array.from({ length: 1000 }, (_, i) => log.append(text(`r${i}`))));
    expect(log.status().syncs).toBeLessThanOrEqual(3);
    await log.close();
  });

  test('never makes one writer after another wait for a timer', async () => {
    const log = await WriteAheadLog.open({ dir: root });
    vi.useFakeTimers({ toFake: ['setTimeout'] });
    try {
      for (let i = 0; i < 20; i++) await log.append(text('one after the other'));
      expect(vi.getTimerCount()).toBe(0);
    } finally {
      vi.useRealTimers();
    }
    expect(log.durableSequence).toBe(20);
    await log.close();
  });

  test('makes records of appendLater durable without being asked', async () => {
    const log = await WriteAheadLog.open({ dir: root, lossWindowMs: 4 });
    const sequence = log.appendLater(text('later'));
    expect(log.durableSequence).toBe(0);
    await log.flush();
    expect(log.durableSequence).toBe(sequence);
    log.appendLater(text('at close'));
    await log.close();
    const again = await WriteAheadLog.open({ dir: root });
    expect((await all(again)).map((r) => r.value)).toEqual(['later', 'at close']);
    await again.close();
  });

  test('starts new segments, reads across them and removes those that are done with', async () => {
    const log = await WriteAheadLog.open({ dir: root, segmentBytes: 200 });
    for (let i = 0; i < 30; i++) await log.append(text(`record ${i}`));
    expect((await segmentsOf(root)).length).toBeGreaterThan(4);
    expect((await all(log, 11)).map((r) => r.sequence)).toEqual(
      Array.from({ length: 20 }, (_, i) => i + 11),
    );
    await log.truncateBefore(20);
    const left = await all(log);
    expect(left[0]!.sequence).toBeLessThanOrEqual(20);
    expect(left[0]!.sequence).toBeGreaterThan(12);
    expect(left.at(-1)!.sequence).toBe(30);
    await log.close();
    const again = await WriteAheadLog.open({ dir: root, segmentBytes: 200 });
    expect(await all(again)).toEqual(left);
    await again.close();
  });

  test('keeps counting after everything was removed', async () => {
    const log = await WriteAheadLog.open({ dir: root, segmentBytes: 1 });
    for (let i = 0; i < 5; i++) await log.append(text('x'));
    await log.truncateBefore(6);
    await log.close();
    const again = await WriteAheadLog.open({ dir: root, segmentBytes: 1 });
    expect(await again.append(text('y'))).toBe(6);
    await again.close();
  });

  test('reads records of several megabytes', async () => {
    const log = await WriteAheadLog.open({ dir: root });
    const big = Buffer.alloc(5 << 20, 7);
    await Promise.all([log.append(text('a')), log.append(big), log.append(text('b'))]);
    const sizes: number[] = [];
    for await (const { payload } of log.read(0)) sizes.push(payload.byteLength);
    expect(sizes).toEqual([1, 5 << 20, 1]);
    await log.close();
  });

  test('refuses a record above the limit, and use after close', async () => {
    const log = await WriteAheadLog.open({ dir: root });
    await expect(log.append(Buffer.alloc((16 << 20) + 1))).rejects.toMatchObject({
      code: 'WAGGLE_WAL_RECORD_TOO_LARGE',
    });
    await log.close();
    await log.close();
    await expect(log.append(text('x'))).rejects.toMatchObject({ code: 'WAGGLE_WAL_CLOSED' });
  });
});

describe('a log after a crash', () => {
  test('keeps a prefix of whole records wherever the file is cut', async () => {
    const source = join(root, 'source');
    const log = await WriteAheadLog.open({ dir: source });
    const values: string[] = [];
    for (let i = 0; i < 6; i++) {
      values.push('v'.repeat(i * 3) + i);
      await log.append(text(values[i]!));
    }
    await log.close();
    const [name] = await segmentsOf(source);
    const bytes = await readFile(join(source, name!));
    for (let cut = 0; cut <= bytes.length; cut++) {
      const dir = join(root, 'cut');
      await rm(dir, { recursive: true, force: true });
      await cp(source, dir, { recursive: true });
      await truncate(join(dir, name!), cut);
      const again = await WriteAheadLog.open({ dir });
      const found = (await all(again)).map((r) => r.value);
      expect(found).toEqual(values.slice(0, found.length));
      const whole = wholeRecords(bytes, cut);
      expect(found.length).toBe(whole);
      // The log goes on from there.
      const sequence = await again.append(text('after'));
      expect((await all(again)).at(-1)).toEqual({ sequence, value: 'after' });
      await again.close();
    }
  });

  test('loses nothing acknowledged and repeats nothing when the process is killed', async () => {
    const writer = fileURLToPath(new URL('./fixtures/wal-writer.ts', import.meta.url));
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 120 }), async (killAfter) => {
        const dir = await mkdtemp(join(root, 'kill-'));
        const acknowledged = await runUntilKilled(writer, dir, killAfter);
        const log = await WriteAheadLog.open({ dir });
        const found = await all(log);
        await log.close();
        const values = found.map((r) => Number(r.value));
        expect(new Set(values).size).toBe(values.length);
        expect(values).toEqual([...values].sort((a, b) => a - b));
        const present = new Set(values);
        for (const value of acknowledged) expect(present.has(value)).toBe(true);
      }),
      { numRuns: 3 },
    );
  });

  test('says where acknowledged data is damaged instead of dropping it', async () => {
    const log = await WriteAheadLog.open({ dir: root });
    for (let i = 0; i < 10; i++) await log.append(text(`value ${i}`));
    await log.close();
    const path = join(root, (await segmentsOf(root))[0]!);
    const bytes = await readFile(path);
    await fc.assert(
      fc.asyncProperty(
        // Anywhere in the first eight records, which later ones declare durable.
        fc.integer({ min: 16, max: 16 + 8 * 31 - 1 }),
        fc.integer({ min: 1, max: 255 }),
        async (at, flip) => {
          const damaged = Buffer.from(bytes);
          damaged[at] = damaged[at]! ^ flip;
          await writeFile(path, damaged);
          await expect(WriteAheadLog.open({ dir: root })).rejects.toMatchObject({
            code: 'WAGGLE_WAL_CORRUPT',
          });
        },
      ),
      { numRuns: 40 },
    );
    await writeFile(path, bytes);
    const again = await WriteAheadLog.open({ dir: root });
    expect(await all(again)).toHaveLength(10);
    await again.close();
  });

  test('refuses damage in a closed segment', async () => {
    const log = await WriteAheadLog.open({ dir: root, segmentBytes: 100 });
    for (let i = 0; i < 10; i++) await log.append(text(`value ${i}`));
    await log.close();
    const first = join(root, (await segmentsOf(root))[0]!);
    await truncate(first, (await readFile(first)).length - 1);
    await expect(WriteAheadLog.open({ dir: root })).rejects.toMatchObject({
      code: 'WAGGLE_WAL_CORRUPT',
    });
  });

  test('reports the cut tail in the log', async () => {
    const log = await WriteAheadLog.open({ dir: root });
    await log.append(text('kept'));
    await log.append(text('torn'));
    await log.close();
    const path = join(root, (await segmentsOf(root))[0]!);
    await truncate(path, (await readFile(path)).length - 2);
    const lines: string[] = [];
    const logger = {
      ...silentLogger,
      warn: (_: object, message?: string) => void lines.push(message ?? ''),
    };
    const again = await WriteAheadLog.open({ dir: root, logger });
    expect(lines.join()).toContain('unacknowledged tail');
    expect((await all(again)).map((r) => r.value)).toEqual(['kept']);
    await again.close();
  });
});

describe('a failing disk', () => {
  test('a full disk refuses records, keeps the process alive and recovers', async () => {
    const disk = failingFiles();
    const log = await WriteAheadLog.open({ dir: root, files: disk.files });
    await log.append(text('before'));
    disk.fail('write', 'ENOSPC');
    await expect(log.append(text('refused'))).rejects.toMatchObject({
      code: 'WAGGLE_WAL_DISK_FULL',
      remedy: expect.any(String),
    });
    expect(log.status().failure?.code).toBe('WAGGLE_WAL_DISK_FULL');
    disk.heal();
    await log.append(text('after'));
    expect(log.status().failure).toBeUndefined();
    expect((await all(log)).map((r) => r.value)).toEqual(['before', 'after']);
    await log.close();
    const again = await WriteAheadLog.open({ dir: root });
    expect((await all(again)).map((r) => r.value)).toEqual(['before', 'after']);
    await again.close();
  });

  test('a disk that takes writes again is noticed though nobody writes', async () => {
    const disk = failingFiles();
    const log = await WriteAheadLog.open({ dir: root, files: disk.files });
    disk.fail('write', 'ENOSPC');
    await expect(log.append(text('refused'))).rejects.toMatchObject({
      code: 'WAGGLE_WAL_DISK_FULL',
    });
    const failed = log.status().failure;
    // Looked at again, and still full.
    await vi.waitUntil(() => log.status().failure !== failed, { timeout: 10_000 });
    expect(log.status().failure?.code).toBe('WAGGLE_WAL_DISK_FULL');
    disk.heal();
    await vi.waitUntil(() => log.status().failure === undefined, { timeout: 10_000 });
    expect((await readdir(root)).filter((name) => !name.startsWith('lock'))).toHaveLength(1);
    await log.append(text('after'));
    expect((await all(log)).map((r) => r.value)).toEqual(['after']);
    await log.close();
  });

  test('a partly written batch leaves no trace', async () => {
    const disk = failingFiles();
    const log = await WriteAheadLog.open({ dir: root, files: disk.files });
    await log.append(text('before'));
    disk.fail('short write', 'ENOSPC');
    await expect(log.append(text('x'.repeat(500)))).rejects.toMatchObject({
      code: 'WAGGLE_WAL_DISK_FULL',
    });
    disk.heal();
    await log.append(text('y'));
    await log.close();
    const again = await WriteAheadLog.open({ dir: root });
    expect((await all(again)).map((r) => r.value)).toEqual(['before', 'y']);
    await again.close();
  });

  test('a failed sync is never taken for durable, and the file is not trusted again', async () => {
    const disk = failingFiles();
    const log = await WriteAheadLog.open({ dir: root, files: disk.files });
    await log.append(text('before'));
    disk.fail('sync', 'EIO');
    await expect(log.append(text('refused'))).rejects.toMatchObject({ code: 'WAGGLE_WAL_IO' });
    disk.heal();
    await log.append(text('after'));
    expect(await segmentsOf(root)).toHaveLength(2);
    expect((await all(log)).map((r) => r.value)).toEqual(['before', 'after']);
    await log.close();
  });

  test('a read-only disk has its own code, and appendLater waits for better times', async () => {
    const disk = failingFiles();
    const log = await WriteAheadLog.open({ dir: root, files: disk.files, lossWindowMs: 2 });
    disk.fail('write', 'EROFS');
    log.appendLater(text('patient'));
    await expect(log.flush()).rejects.toMatchObject({ code: 'WAGGLE_WAL_READ_ONLY' });
    await expect(log.append(text('refused'))).rejects.toMatchObject({
      code: 'WAGGLE_WAL_READ_ONLY',
    });
    disk.heal();
    await log.append(text('next'));
    expect((await all(log)).map((r) => r.value)).toEqual(['patient', 'next']);
    await log.close();
  });
});

describe('texts', () => {
  const anyText = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 40 }),
    // Larger than the blocks that texts are put together in, and just smaller.
    fc.integer({ min: 0, max: 3 }).map((i) => 'é'.repeat([200_000, 524_288, 349_525, 1][i]!)),
  );

  test('become UTF-8 when they are queued, beside bytes, across failures and reuse of memory', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(anyText, fc.constantFrom('text', 'bytes', 'flush', 'fail')), {
          maxLength: 30,
        }),
        async (steps) => {
          const dir = await mkdtemp(join(root, 'texts-'));
          const disk = failingFiles();
          const log = await WriteAheadLog.open({ dir, files: disk.files, lossWindowMs: 10_000 });
          const expected: string[] = [];
          for (const [value, how] of steps) {
            log.appendLater(how === 'bytes' ? text(value) : value);
            expected.push(Buffer.from(value).toString());
            if (how === 'flush') await log.flush();
            if (how !== 'fail') continue;
            disk.fail('write', 'ENOSPC');
            await expect(log.flush()).rejects.toMatchObject({ code: 'WAGGLE_WAL_DISK_FULL' });
            disk.heal();
          }
          await log.flush();
          expect((await all(log)).map((r) => r.value)).toEqual(expected);
          await log.close();
          await rm(dir, { recursive: true });
        },
      ),
      { numRuns: 25 },
    );
  });

  test('too large a text is refused, and a closed log takes none', async () => {
    const log = await WriteAheadLog.open({ dir: root });
    expect(() => log.appendLater('x'.repeat((16 << 20) + 1))).toThrow(
      expect.objectContaining({ code: 'WAGGLE_WAL_RECORD_TOO_LARGE' }),
    );
    log.appendLater('kept');
    await log.close();
    expect(() => log.appendLater('late')).toThrow(
      expect.objectContaining({ code: 'WAGGLE_WAL_CLOSED' }),
    );
    const again = await WriteAheadLog.open({ dir: root });
    expect((await all(again)).map((r) => r.value)).toEqual(['kept']);
    await again.close();
  });
});

describe('reading for a short time', () => {
  test('borrowed payloads and boundaries agree with what was written', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 0, max: 150_000 }), { minLength: 1, maxLength: 40 }),
        fc.integer({ min: 1, max: 40 }),
        fc.integer({ min: 1, max: 2_000_000 }),
        async (sizes, fromIndex, bytes) => {
          const dir = await mkdtemp(join(root, 'borrowed-'));
          const log = await WriteAheadLog.open({ dir, segmentBytes: 500_000 });
          for (const [i, size] of sizes.entries()) await log.append(Buffer.alloc(size, i));
          const from = Math.min(fromIndex, sizes.length);
          const seen: number[] = [];
          for await (const { sequence, payload } of log.read(from, { borrowed: true })) {
            expect(Buffer.from(payload)).toEqual(Buffer.alloc(sizes[sequence - 1]!, sequence - 1));
            seen.push(sequence);
          }
          expect(seen).toEqual(sizes.map((_, i) => i + 1).slice(from - 1));

          const last = log.boundary(from, bytes);
          expect(last).toBeGreaterThanOrEqual(from);
          expect(last).toBeLessThanOrEqual(sizes.length);
          const within = (to: number) =>
            sizes.slice(from - 1, to).reduce((sum, size) => sum + size + 24, 0);
          const slack = 65_536 + 2 * 150_024 + 16;
          expect(within(last)).toBeLessThanOrEqual(bytes + slack);
          if (last < sizes.length) expect(within(last)).toBeGreaterThanOrEqual(bytes - slack);
          await log.close();
          await rm(dir, { recursive: true });
        },
      ),
      { numRuns: 25 },
    );
  });
});

describe('the lock', () => {
  test('refuses a second writer in the same process and lets go on close', async () => {
    const log = await WriteAheadLog.open({ dir: root });
    await expect(WriteAheadLog.open({ dir: root })).rejects.toMatchObject({
      code: 'WAGGLE_WAL_LOCKED',
      details: { pid: process.pid },
    });
    await log.close();
    await (await WriteAheadLog.open({ dir: root })).close();
  });

  test('refuses another living process and takes over from a dead one', async () => {
    const writer = fileURLToPath(new URL('./fixtures/wal-writer.ts', import.meta.url));
    const dir = join(root, 'locked');
    const child = spawnWriter(writer, dir);
    await new Promise<void>((fulfil) => child.stdout!.once('data', () => fulfil()));
    await expect(WriteAheadLog.open({ dir })).rejects.toMatchObject({
      code: 'WAGGLE_WAL_LOCKED',
      details: { pid: child.pid },
    });
    child.kill('SIGKILL');
    await new Promise((fulfil) => child.once('exit', fulfil));
    await (await WriteAheadLog.open({ dir })).close();
  });
});

function wholeRecords(bytes: Buffer, cut: number): number {
  let at = 16;
  let count = 0;
  while (at + 24 <= cut) {
    at += 24 + bytes.readUInt32LE(at);
    if (at > cut) break;
    count++;
  }
  return count;
}

function spawnWriter(writer: string, dir: string) {
  return spawn(
    process.execPath,
    [
      '--conditions=waggle-source',
      '--import',
      new URL('./fixtures/typescript.mjs', import.meta.url).href,
      writer,
      dir,
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
}

async function runUntilKilled(writer: string, dir: string, killAfter: number): Promise<number[]> {
  const child = spawnWriter(writer, dir);
  let output = '';
  child.stdout!.on('data', (chunk) => {
    output += chunk;
    if (output.split('\n').length > killAfter) child.kill('SIGKILL');
  });
  await new Promise((fulfil) => child.once('close', fulfil));
  // A last line without its end was not told to anybody.
  return output
    .slice(0, output.lastIndexOf('\n') + 1)
    .split('\n')
    .filter(Boolean)
    .map(Number);
}

/** Real files whose writes or syncs can be made to fail. */
function failingFiles(): {
  files: WalFiles;
  fail(what: 'write' | 'short write' | 'sync', code: string): void;
  heal(): void;
} {
  let mode: { what: string; code: string } | undefined;
  const failure = () => Object.assign(new Error(`simulated ${mode!.code}`), { code: mode!.code });
  return {
    fail: (what, code) => {
      mode = { what, code };
    },
    heal: () => {
      mode = undefined;
    },
    files: {
      syncDirectory: nodeFiles.syncDirectory,
      async open(path, flags) {
        const handle = await open(path, flags);
        return {
          write: (async (buffer: Buffer, from: number, length: number, at: number) => {
            if (mode?.what === 'write') throw failure();
            if (mode?.what === 'short write') {
              if (length <= 100) throw failure();
              return handle.write(buffer, from, 100, at);
            }
            return handle.write(buffer, from, length, at);
          }) as never,
          datasync: async () => {
            if (mode?.what === 'sync') throw failure();
            await handle.datasync();
          },
          sync: () => handle.sync(),
          truncate: (size) => handle.truncate(size),
          close: () => handle.close(),
        };
      },
    },
  };
}
