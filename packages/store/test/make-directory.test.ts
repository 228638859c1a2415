import { mkdir, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { silentLogger } from '@waggle/core';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { openLocalStore } from '../src/index.js';
import { makeDirectory } from '../src/make-directory.js';

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'waggle-mkdir-'));
});
afterEach(() => rm(root, { recursive: true, force: true }));

test('makes what is missing, and is content with what is there', async () => {
  await makeDirectory(join(root, 'a', 'b', 'c'));
  await makeDirectory(join(root, 'a', 'b', 'c'));
  expect((await stat(join(root, 'a', 'b', 'c'))).isDirectory()).toBe(true);
});

test('says that a file is in the way', async () => {
  await writeFile(join(root, 'file'), '');
  await expect(makeDirectory(join(root, 'file', 'a'))).rejects.toMatchObject({ code: 'ENOTDIR' });
});

test('a store whose log file cannot be written is refused with a code', async () => {
  await mkdir(join(root, 'store', 'owner.log'), { recursive: true });
  const startOwner = { command: process.execPath, args: ['--version'] };
  await expect(
    openLocalStore({ dataDir: root, logger: silentLogger, startOwner }),
  ).rejects.toMatchObject({ code: expect.stringMatching(/^WAGGLE_STORE_/) });
});
