import { randomUUID } from 'node:crypto';
import { type FileHandle, link, open, readFile, readlink, rename, rm } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '@waggle/core';
import { makeDirectory } from './make-directory.js';

/** A holder touches its lock this often, as a sign of life for those who cannot see its process. */
export const LOCK_HEARTBEAT_MS = 2_000;
/** A holder in another container or on another machine that gave no sign of life for this long is taken for dead. */
export const LOCK_STALE_MS = 30_000;

/** After a takeover: longer than another contender takes between its last look and setting a lock aside. */
const SETTLE_MS = 50;

/** Where a process id means something: one PID namespace of one boot of one machine. */
interface Place {
  readonly host: string;
  /** Linux: `/proc/sys/kernel/random/boot_id`. */
  readonly boot?: string;
  /** Linux: `/proc/self/ns/pid`. */
  readonly pidNamespace?: string;
}

interface Holder extends Partial<Place> {
  readonly pid: number;
  readonly token: string;
  /** Start time of the process in clock ticks (Linux), so that a reused pid is not mistaken for the holder. */
  readonly started?: string;
}

/** A lock file as it was found. */
interface Found {
  /** Undefined for a file that is not ours to understand. */
  readonly holder: Holder | undefined;
  readonly beatMs: number;
}

export interface HeldBy {
  readonly heldBy: number;
  /** Where `heldBy` is a process id, when that is not here: another container, or another machine. */
  readonly host?: string;
}

export interface DirectoryLockOptions {
  /** @default LOCK_HEARTBEAT_MS */
  readonly heartbeatMs?: number;
  /** The same for everybody who may want the directory. @default LOCK_STALE_MS */
  readonly staleMs?: number;
  /** Called once when `acquire` has to watch a holder whose process it cannot see. */
  readonly onWait?: (holder: HeldBy, staleMs: number) => void;
  /** Called once when a heartbeat finds the lock in other hands. */
  readonly onLost?: () => void;
}

/** Directories locked by this process: a second lock within it must fail too. */
const held = new Map<string, string>();

/**
 * One process per directory, for directories that no database locks by itself. Node has no flock, so the lock is
 * a file made by link(2), which succeeds for one contender only. A file whose process is gone is taken over at
 * once. Containers and machines that share a directory do not see each other's processes: there a holder counts as
 * alive until its heartbeat has been missing for `LOCK_STALE_MS`, and whoever was held up for half of that looks
 * whether the lock is still its own before it writes again.
 */
export class DirectoryLock {
  readonly #path: string;
  readonly #holder: Holder;
  readonly #staleMs: number;
  readonly #onLost: (() => void) | undefined;
  readonly #timer: NodeJS.Timeout;
  /** Our file, whatever the path leads to meanwhile. */
  #file: FileHandle;
  #beating: Promise<void> | undefined;
  /** Just before the last heartbeat that found the lock ours. */
  #confirmedMs: number;
  #lost = false;
  #released = false;

  private constructor(
    path: string,
    holder: Holder,
    placed: { file: FileHandle; atMs: number },
    options: DirectoryLockOptions,
  ) {
    this.#path = path;
    this.#holder = holder;
    this.#file = placed.file;
    this.#confirmedMs = placed.atMs;
    this.#staleMs = options.staleMs ?? LOCK_STALE_MS;
    this.#onLost = options.onLost;
    this.#timer = setInterval(() => {
      // A disk that refuses now may accept the next one; until then `isSure` runs out.
      this.#beat().catch(() => {});
    }, options.heartbeatMs ?? LOCK_HEARTBEAT_MS);
    this.#timer.unref();
  }

  /**
   * Takes at most `staleMs` and a few heartbeats, and that only where a holder elsewhere died without letting go.
   * @returns the lock, or who holds it
   */
  static async acquire(
    directory: string,
    options: DirectoryLockOptions = {},
  ): Promise<DirectoryLock | HeldBy> {
    await makeDirectory(directory);
    const path = join(resolve(directory), 'lock');
    if (held.has(path)) return { heldBy: process.pid };
    // Before anything is awaited: who comes next within this process must find it.
    const token = randomUUID();
    held.set(path, token);
    try {
      const started = await startTime(process.pid);
      const holder: Holder = {
        pid: process.pid,
        token,
        ...(started === undefined ? {} : { started }),
        ...(await ownPlace()),
      };
      for (let attempt = 0; attempt < 10; attempt++) {
        const placed = await place(path, holder);
        if (placed !== undefined) {
          if (attempt === 0 || (await isSettled(path, holder))) {
            return new DirectoryLock(path, holder, placed, options);
          }
          await placed.file.close();
          continue;
        }
        const other = await look(path);
        if (other === undefined) continue;
        const by = await whoHolds(path, other, holder, options);
        if (by !== undefined) {
          held.delete(path);
          return by;
        }
        await takeAway(path, other);
      }
      throw new Error(`the lock ${path} changes hands all the time`);
    } catch (err) {
      held.delete(path);
      throw err;
    }
  }

  /** True as long as nobody can have taken the lock over. Otherwise `confirm` before the next write. */
  isSure(): boolean {
    return !this.#lost && systemClock.monotonicMs() - this.#confirmedMs < this.#staleMs / 2;
  }

  /**
   * Looks whether the lock is still ours, and says that we live.
   * @returns false, from then on for ever, when somebody else took it
   * @throws the system's error
   */
  async confirm(): Promise<boolean> {
    // A heartbeat that is on its way may have begun before we were held up.
    for (let beats = 0; beats < 2 && !this.isSure() && !this.#lost; beats++) await this.#beat();
    return !this.#lost;
  }

  async release(): Promise<void> {
    if (this.#released) return;
    this.#released = true;
    clearInterval(this.#timer);
    await this.#beating?.catch(() => {});
    await this.#file.close().catch(() => {});
    const found = await look(this.#path).catch(() => undefined);
    if (found?.holder?.token === this.#holder.token) await rm(this.#path, { force: true });
    if (held.get(this.#path) === this.#holder.token) held.delete(this.#path);
  }

  #beat(): Promise<void> {
    this.#beating ??= this.#touch().finally(() => {
      this.#beating = undefined;
    });
    return this.#beating;
  }

  async #touch(): Promise<void> {
    for (let attempt = 0; attempt < 3; attempt++) {
      if (this.#released || this.#lost) return;
      const atMs = systemClock.monotonicMs();
      const now = new Date(systemClock.nowMs());
      await this.#file.utimes(now, now);
      const found = await look(this.#path);
      if (found !== undefined) {
        if (found.holder?.token === this.#holder.token) this.#confirmedMs = atMs;
        else this.#lose();
        return;
      }
      // Deleted by hand, or set aside for a moment by a contender that mistook it for an older one.
      const placed = await place(this.#path, this.#holder);
      if (placed === undefined) continue;
      await this.#file.close().catch(() => {});
      this.#file = placed.file;
      this.#confirmedMs = placed.atMs;
      return;
    }
    throw new Error(`the lock ${this.#path} changes hands all the time`);
  }

  #lose(): void {
    this.#lost = true;
    clearInterval(this.#timer);
    this.#onLost?.();
  }
}

/** Puts a lock file in place if there is none. @returns the file, open; undefined when there was one */
async function place(
  path: string,
  holder: Holder,
): Promise<{ file: FileHandle; atMs: number } | undefined> {
  const mine = `${path}.${holder.pid}.${randomUUID()}`;
  const atMs = systemClock.monotonicMs();
  const file = await open(mine, 'wx', 0o600);
  let linked = false;
  try {
    await file.writeFile(JSON.stringify(holder));
    await link(mine, path);
    linked = true;
    return { file, atMs };
  } catch (err) {
    if ((err as NodeJS.ErrnoException).code !== 'EEXIST') throw err;
    return undefined;
  } finally {
    await rm(mine, { force: true });
    if (!linked) await file.close();
  }
}

/** Whether a lock that was just taken over stays ours: others who saw the dead one may set ours aside for a moment. */
async function isSettled(path: string, { token }: Holder): Promise<boolean> {
  await sleep(SETTLE_MS);
  return (await look(path))?.holder?.token === token;
}

/** The lock file, read through a handle of its own so that network file systems do not answer from a cache. */
async function look(path: string): Promise<Found | undefined> {
  let file: FileHandle;
  try {
    file = await open(path, 'r');
  } catch (err) {
    if ((err as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw err;
  }
  try {
    const { mtimeMs } = await file.stat();
    return { holder: parseHolder(await file.readFile('utf8')), beatMs: mtimeMs };
  } finally {
    await file.close();
  }
}

function parseHolder(text: string): Holder | undefined {
  try {
    const value = JSON.parse(text) as Partial<Holder> | null;
    return typeof value?.pid === 'number' && typeof value.token === 'string'
      ? (value as Holder)
      : undefined;
  } catch {
    return undefined;
  }
}

/** Who holds the lock that was found; undefined when nobody does any more. */
async function whoHolds(
  path: string,
  found: Found,
  self: Holder,
  options: DirectoryLockOptions,
): Promise<HeldBy | undefined> {
  const { holder } = found;
  if (holder === undefined) return undefined;
  // Without a place it was written by a version that knew of one place only.
  if (holder.host === undefined || isSamePlace(holder, self)) {
    return (await isRunning(holder)) ? { heldBy: holder.pid } : undefined;
  }
  const by = { heldBy: holder.pid, host: holder.host };
  const staleMs = options.staleMs ?? LOCK_STALE_MS;
  options.onWait?.(by, staleMs);
  const silent = await isSilent(path, found, {
    heartbeatMs: options.heartbeatMs ?? LOCK_HEARTBEAT_MS,
    staleMs,
    // The two clocks are one only within one boot of one machine; elsewhere only what is seen counts.
    ageMs:
      holder.boot !== undefined && holder.boot === self.boot
        ? Math.max(0, systemClock.nowMs() - found.beatMs)
        : 0,
  });
  return silent ? undefined : by;
}

/**
 * Watches a holder until it gives a sign of life, or has given none for `staleMs`. Time is counted in looks: what
 * stops this process may have stopped the holder too. The least watched is longer than a heartbeat, because clocks
 * jump.
 */
async function isSilent(
  path: string,
  found: Found,
  o: { heartbeatMs: number; staleMs: number; ageMs: number },
): Promise<boolean> {
  const stepMs = o.heartbeatMs / 4;
  let watchedMs = 0;
  while (watchedMs < 1.5 * o.heartbeatMs || o.ageMs + watchedMs < o.staleMs) {
    await sleep(stepMs);
    watchedMs += stepMs;
    const now = await look(path);
    if (now?.holder?.token !== found.holder?.token) return true;
    if (now?.beatMs !== found.beatMs) return false;
  }
  return true;
}

/** Of a holder in our place. */
async function isRunning(holder: Holder): Promise<boolean> {
  // A lock of this process that is not in `held` belongs to an earlier process with the same pid.
  if (holder.pid === process.pid) return false;
  if (!isAlive(holder.pid)) return false;
  if (holder.started === undefined) return true;
  const started = await startTime(holder.pid);
  return started === undefined || started === holder.started;
}

/** Removes a dead holder's lock; if somebody else took it in between, or it lives after all, puts that one back. */
async function takeAway(path: string, dead: Found): Promise<void> {
  const aside = `${path}.stale.${randomUUID()}`;
  try {
    await rename(path, aside);
  } catch (err) {
    if ((err as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw err;
  }
  const taken = await look(aside);
  if (taken?.holder?.token !== dead.holder?.token || taken?.beatMs !== dead.beatMs) {
    await link(aside, path).catch(() => {});
  }
  await rm(aside, { force: true });
}

async function ownPlace(): Promise<Place> {
  const [boot, pidNamespace] = await Promise.all([
    readFile('/proc/sys/kernel/random/boot_id', 'utf8').catch(() => undefined),
    readlink('/proc/self/ns/pid').catch(() => undefined),
  ]);
  return {
    host: hostname(),
    ...(boot === undefined ? {} : { boot: boot.trim() }),
    ...(pidNamespace === undefined ? {} : { pidNamespace }),
  };
}

function isSamePlace(a: Partial<Place>, b: Partial<Place>): boolean {
  if (a.boot !== b.boot || a.pidNamespace !== b.pidNamespace) return false;
  // The kernel's word is better than a name, which may be shared, or change while we run.
  return (a.boot !== undefined && a.pidNamespace !== undefined) || a.host === b.host;
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
