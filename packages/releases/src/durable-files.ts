import { mkdir, open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { WaggleError } from '@waggle/core';
import { releaseError } from './errors.js';

/** Turns what the file system threw into a typed error; one that is typed already passes through. */
export function ioError(cause: unknown, doing: string): WaggleError {
  if (cause instanceof WaggleError) return cause;
  const code = (cause as NodeJS.ErrnoException | undefined)?.code;
  const message = `${doing}: ${cause instanceof Error ? cause.message : String(cause)}`;
  const options = { cause, details: { systemCode: code } };
  switch (code) {
    case 'ENOSPC':
    case 'EDQUOT':
    case 'EFBIG':
      return releaseError('WAGGLE_RELEASE_NO_SPACE', message, options);
    case 'EROFS':
    case 'EACCES':
    case 'EPERM':
      return releaseError('WAGGLE_RELEASE_READ_ONLY', message, options);
    default:
      return releaseError('WAGGLE_RELEASE_IO', message, options);
  }
}

export function isMissing(cause: unknown): boolean {
  return (cause as NodeJS.ErrnoException | undefined)?.code === 'ENOENT';
}

/** Makes the names inside a directory durable. */
export async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Writes a new file and waits until its bytes are on the disk (its name is not yet: sync the directory). */
export async function writeDurably(path: string, bytes: Uint8Array): Promise<void> {
  const handle = await open(path, 'wx', 0o644);
  try {
    await handle.writeFile(bytes);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Appends to a file and waits until it is on the disk, name included. On failure the old length is kept. */
export async function appendDurably(path: string, text: string): Promise<void> {
  const handle = await open(path, 'a+', 0o644);
  try {
    const { size } = await handle.stat();
    let prefix = '';
    if (size > 0) {
      // A crash may have torn the last line; never glue a new entry to it.
      const last = Buffer.alloc(1);
      await handle.read(last, 0, 1, size - 1);
      if (last[0] !== 0x0a) prefix = '\n';
    }
    try {
      await handle.appendFile(prefix + text);
      await handle.sync();
    } catch (cause) {
      await handle.truncate(size).catch(() => {});
      throw cause;
    }
  } finally {
    await handle.close();
  }
  await syncDirectory(dirname(path));
}

/** Prepares a replacement beside `path`; `commit` swaps it in atomically, `discard` forgets it. */
export async function stageReplacement(path: string, temporaryPath: string, bytes: Uint8Array) {
  const discard = () => rm(temporaryPath, { force: true }).catch(() => {});
  try {
    await writeDurably(temporaryPath, bytes);
  } catch (cause) {
    await discard();
    throw cause;
  }
  return {
    discard,
    async commit(): Promise<void> {
      await rename(temporaryPath, path);
      await syncDirectory(dirname(path));
    },
  };
}

export async function makeDirectories(path: string): Promise<void> {
  await mkdir(path, { recursive: true });
}
