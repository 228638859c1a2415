import { randomUUID } from 'node:crypto';
import { link, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { makeDirectory } from './make-directory.js';

interface Holder {
  readonly pid: number;
  readonly token: string;
  /** Start time of the process in clock ticks (Linux), so that a reused pid is not mistaken for the holder. */
  readonly started?: string;
}

/** Directories locked by this process: a second lock within it must fail too. */
const held = new Map<string, string>();

/**
 * One process per directory, for directories that no database locks by itself. Node has no flock, so the lock is
 * a file made by link(2), which succeeds for one contender only; a file whose process is gone is taken over.
 */
export class DirectoryLock {
  readonly #path: string;
  readonly #token: string;

  private constructor(path: string, token: string) {
    this.#path = path;
    this.#token = token;
  }

  /** @returns the lock, or the pid of the process that holds it */
  static async acquire(directory: string): Promise<DirectoryLock | { heldBy: number }> {
    await makeDirectory(directory);
    const path = join(resolve(directory), 'lock');
    if (held.has(path)) return { heldBy: process.pid };
    const token = randomUUID();
    held.set(path, token);
    try {
      const mine = join(resolve(directory), `lock.${process.pid}.${token}`);
      const started = await startTime(process.pid);
      const holder: Holder = {
        pid: process.pid,
        token,
        ...(started === undefined ? {} : { started }),
      };
      await writeFile(mine, JSON.stringify(holder), { mode: 0o600 });
      try {
        for (let attempt = 0; attempt < 10; attempt++) {
          try {
            await link(mine, path);
            return new DirectoryLock(path, token);
          } catch (err) {
            if ((err as NodeJS.ErrnoException).code !== 'EEXIST') throw err;
          }
          const other = await readHolder(path);
          if (other !== undefined && (await isHolding(other))) {
            held.delete(path);
            return { heldBy: other.pid };
          }
          await takeAway(path, other);
        }
        throw new Error(`the lock ${path} changes hands all the time`);
      } finally {
        await rm(mine, { force: true });
      }
    } catch (err) {
      held.delete(path);
      throw err;
    }
  }

  async release(): Promise<void> {
    if (held.get(this.#path) !== this.#token) return;
    const holder = await readHolder(this.#path);
    if (holder?.token === this.#token) await rm(this.#path, { force: true });
    held.delete(this.#path);
  }
}

async function readHolder(path: string): Promise<Holder | undefined> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as Holder;
  } catch {
    return undefined;
  }
}

async function isHolding(holder: Holder): Promise<boolean> {
  // A lock of this process that is not in `held` belongs to an earlier process with the same pid.
  if (holder.pid === process.pid) return false;
  if (!isAlive(holder.pid)) return false;
  if (holder.started === undefined) return true;
  const started = await startTime(holder.pid);
  return started === undefined || started === holder.started;
}

/** Removes a dead holder's lock; if somebody else took it in between, puts that one back. */
async function takeAway(path: string, dead: Holder | undefined): Promise<void> {
  const aside = `${path}.stale.${randomUUID()}`;
  try {
    await rename(path, aside);
  } catch (err) {
    if ((err as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw err;
  }
  const taken = await readHolder(aside);
  if (taken?.token !== dead?.token) await link(aside, path).catch(() => {});
  await rm(aside, { force: true });
}

/** Field 22 of /proc/<pid>/stat; undefined where there is no /proc. */
async function startTime(pid: number): Promise<string | undefined> {
  try {
    const text = await readFile(`/proc/${pid}/stat`, 'utf8');
    return text.slice(text.lastIndexOf(')') + 2).split(' ')[19];
  } catch {
    return undefined;
  }
}

/** True when a process with this id exists, ours or not. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (err) {
    return (err as NodeJS.ErrnoException).code === 'EPERM';
  }
}
