import { randomBytes } from 'node:crypto';
import { link, mkdir, open, readdir, readFile, rename, rm, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { modelsError } from '../errors.js';

/**
 * A folder where a file exists whole or not at all. A file is written under a temporary name, synced, and given
 * its final name by `link`, which never replaces: of two writers one wins and the other learns it. What a killed
 * process leaves behind is a temporary file that nothing reads.
 */
export class DurableFolder {
  readonly root: string;
  readonly #temporary: string;

  constructor(root: string) {
    this.root = root;
    this.#temporary = join(root, 'tmp');
  }

  /** Makes the folder and removes what dead processes left in it. @throws WAGGLE_MODEL_STORAGE */
  async prepare(): Promise<void> {
    await this.#guard(this.root, async () => {
      await mkdir(this.#temporary, { recursive: true });
      for (const name of await readdir(this.#temporary)) {
        if (!isOwnerAlive(name)) await rm(join(this.#temporary, name), { force: true });
      }
    });
  }

  /**
   * Creates `path` (below the root) with `bytes`, durable when settled.
   * @returns false when it exists already, which is left as it is
   * @throws WAGGLE_MODEL_STORAGE
   */
  async create(path: string, bytes: Uint8Array): Promise<boolean> {
    return this.#put(path, bytes, (temporary, target) => this.publish(temporary, target));
  }

  /**
   * Puts `bytes` in the place of what is at `path`, for a file whose name says what belongs into it; durable when settled.
   * @throws WAGGLE_MODEL_STORAGE
   */
  async replace(path: string, bytes: Uint8Array): Promise<void> {
    await this.#put(path, bytes, rename);
  }

  async #put<T>(
    path: string,
    bytes: Uint8Array,
    publish: (temporary: string, target: string) => Promise<T>,
  ): Promise<T> {
    const target = join(this.root, path);
    const temporary = join(this.#temporary, `${process.pid}.${randomBytes(8).toString('hex')}`);
    return this.#guard(target, async () => {
      try {
        await this.writeTemporary(temporary, bytes);
        await this.makeFolder(dirname(target));
        const published = await publish(temporary, target);
        await this.syncFolder(dirname(target));
        return published;
      } finally {
        await unlink(temporary).catch(() => undefined);
      }
    });
  }

  /** The file's bytes; undefined when there is none. @throws WAGGLE_MODEL_STORAGE */
  async read(path: string): Promise<Uint8Array | undefined> {
    const target = join(this.root, path);
    return this.#guard(target, async () => {
      try {
        return await readFile(target);
      } catch (error) {
        if (isAbsence(error)) return undefined;
        throw error;
      }
    });
  }

  /** Names in a folder, sorted; none when it does not exist. @throws WAGGLE_MODEL_STORAGE */
  async list(path: string): Promise<string[]> {
    const target = join(this.root, path);
    return this.#guard(target, async () => {
      try {
        return (await readdir(target)).sort();
      } catch (error) {
        if (isAbsence(error)) return [];
        throw error;
      }
    });
  }

  /** One step each, so that a test can stop between any two. */
  protected async writeTemporary(path: string, bytes: Uint8Array): Promise<void> {
    const handle = await open(path, 'wx', 0o644);
    try {
      await handle.writeFile(bytes);
      await handle.sync();
    } finally {
      await handle.close();
    }
  }

  protected async makeFolder(path: string): Promise<void> {
    const made = await mkdir(path, { recursive: true });
    // New folders must be durable too: sync each up to the root.
    if (made !== undefined) {
      for (let at = dirname(path); at.length >= this.root.length; at = dirname(at))
        await this.syncFolder(at);
    }
  }

  protected async publish(temporary: string, target: string): Promise<boolean> {
    try {
      await link(temporary, target);
      return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
      throw error;
    }
  }

  protected async syncFolder(path: string): Promise<void> {
    // Windows cannot open a folder; there the rename itself is what durability there is.
    if (process.platform === 'win32') return;
    const handle = await open(path, 'r');
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  }

  async #guard<T>(path: string, action: () => Promise<T>): Promise<T> {
    try {
      return await action();
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException;
      if (typeof code !== 'string' || code.startsWith('WAGGLE_')) throw cause;
      throw modelsError('WAGGLE_MODEL_STORAGE', `${path}: ${(cause as Error).message}`, {
        cause,
        details: { path, reason: code },
      });
    }
  }
}

function isAbsence(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === 'ENOENT' || code === 'ENOTDIR';
}

function isOwnerAlive(name: string): boolean {
  const pid = Number.parseInt(name, 10);
  if (!Number.isSafeInteger(pid) || pid <= 0) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
