import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { manualClock, silentLogger } from '@waggle/core';
import { afterEach, describe, expect, test } from 'vitest';
import { ReleaseStore } from '../src/index.js';

const open = (dir: string) =>
  new ReleaseStore({ dir, clock: manualClock(0), logger: silentLogger });
const release = (bytes: number) => ({
  sections: { data: { 'block.bin': new Uint8Array(bytes) } },
  lineage: { bytes },
});
const code = (expected: string) => expect.objectContaining({ code: expected });

/** A private mount namespace gives a real small disk without touching the machine's own. */
const canMount =
  process.platform === 'linux' &&
  spawnSync('unshare', ['-rm', 'sh', '-c', 'mount -t tmpfs -o size=64k tmpfs /mnt']).status === 0;
if (!canMount)
  console.warn('skipped: no user namespaces here, so no small or read-only disk to test on');

let holder: ChildProcess | undefined;
afterEach(() => {
  holder?.kill('SIGKILL');
  holder = undefined;
});

/** Mounts a tmpfs in a child's namespace; its files are reached through /proc/<pid>/root. */
async function smallDisk(
  sizeKib: number,
): Promise<{ path: string; run(command: string): Promise<void> }> {
  const child = spawn('unshare', ['-rm', 'sh'], { stdio: ['pipe', 'pipe', 'inherit'] });
  holder = child;
  const run = (command: string) =>
    new Promise<void>((resolve) => {
      child.stdout.once('data', () => resolve());
      child.stdin.write(`${command} && echo done\n`);
    });
  await run(`mount -t tmpfs -o size=${sizeKib}k tmpfs /mnt`);
  return { path: `/proc/${child.pid}/root/mnt`, run };
}

describe.skipIf(!canMount)('on a small disk', () => {
  test('a full disk is a typed error, leaves nothing behind and does not disturb what is active', async () => {
    const disk = await smallDisk(256);
    const store = open(disk.path);
    const small = await store.create(release(10_000));
    const other = await store.create(release(10_001));
    await store.activate(small.id);
    await expect(store.create(release(1_000_000))).rejects.toThrow(code('WAGGLE_RELEASE_NO_SPACE'));
    expect(readdirSync(disk.path).filter((n) => n.startsWith('.tmp'))).toEqual([]);
    expect((await store.list()).map((m) => m.id).sort()).toEqual([small.id, other.id].sort());

    // Not one byte left: promotion fails as a whole as well.
    expect(() => writeFileSync(join(disk.path, 'filler'), new Uint8Array(1_000_000))).toThrow(
      /ENOSPC/,
    );
    await expect(store.activate(other.id)).rejects.toThrow(code('WAGGLE_RELEASE_NO_SPACE'));
    expect(await store.active()).toBe(small.id);
    expect(await store.history()).toHaveLength(1);
    rmSync(join(disk.path, 'filler'));
    await store.activate(other.id);
    expect(await store.rollback()).toEqual({ from: other.id, to: small.id });
  });

  test('a read-only directory serves what it has and refuses changes with a typed error', async () => {
    const disk = await smallDisk(256);
    const store = open(disk.path);
    const a = await store.create(release(10));
    const b = await store.create(release(11));
    await store.activate(a.id);
    await disk.run('mount -o remount,ro /mnt');
    await expect(store.create(release(12))).rejects.toThrow(code('WAGGLE_RELEASE_READ_ONLY'));
    await expect(store.activate(b.id)).rejects.toThrow(code('WAGGLE_RELEASE_READ_ONLY'));
    await expect(store.rollback()).rejects.toThrow(code('WAGGLE_RELEASE_NO_PREVIOUS'));
    expect(await store.active()).toBe(a.id);
    expect((await store.open(a.id)).has('data', 'block.bin')).toBe(true);
    expect(await store.create(release(10))).toEqual(a);
  });
});

test('a file where the directory should be is a typed error', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'waggle-releases-'));
  try {
    const path = join(dir, 'file');
    writeFileSync(path, '');
    await expect(open(path).create(release(1))).rejects.toThrow(code('WAGGLE_RELEASE_IO'));
    await expect(open(path).list()).rejects.toThrow(code('WAGGLE_RELEASE_IO'));
  } finally {
    rmSync(dir, { recursive: true });
  }
});
