import { randomBytes } from 'node:crypto';
import { type FSWatcher, watch as watchPath } from 'node:fs';
import { mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import {
  type Clock,
  isWaggleError,
  type Logger,
  toWaggleError,
  type WaggleError,
} from '@waggle/core';
import {
  appendDurably,
  ioError,
  isMissing,
  makeDirectories,
  stageReplacement,
  syncDirectory,
  writeDurably,
} from './durable-files.js';
import { releaseError } from './errors.js';
import {
  decodeManifest,
  encodeManifest,
  isReleaseId,
  type ReleaseManifest,
  sha256,
} from './manifest.js';
import { type Promotion, parseHistory, rollbackTargets } from './promotion-history.js';
import { LoadedRelease, type Release } from './release.js';
import { manifestOf, type ReleaseInput } from './release-input.js';

const MANIFEST = 'manifest.json';
const ACTIVE = 'active';
const HISTORY = 'promotions.ndjson';
const TEMPORARY = '.tmp-';
/** A temporary folder this much older than a new one belongs to nobody any more. */
const ABANDONED_MS = 3_600_000;

export interface ReleaseStoreOptions {
  /** `.waggle/releases`; made when the first release is created. */
  readonly dir: string;
  readonly clock: Clock;
  readonly logger: Logger;
  /** How often `watch` looks for itself where the file system sends no events. Default 2,000 ms. */
  readonly pollMs?: number;
}

/**
 * Releases as folders: `<id>/manifest.json`, `<id>/<section>/<file>`, the pointer `active` and the history
 * `promotions.ndjson`. A folder appears whole or not at all, and never changes afterwards. Several processes
 * may read and create at once.
 */
export class ReleaseStore {
  readonly dir: string;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #pollMs: number;
  /** Promotions of this process happen one after the other. */
  #promoting: Promise<unknown> = Promise.resolve();

  constructor(options: ReleaseStoreOptions) {
    this.dir = options.dir;
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#pollMs = options.pollMs ?? 2_000;
  }

  /**
   * Stores a release: temporary folder, fsync of every file and folder, rename. Creating the same content
   * again returns what is there. O(bytes).
   * @throws WAGGLE_RELEASE_NAME, _NO_SPACE, _READ_ONLY, _IO; nothing is left behind
   */
  async create(input: ReleaseInput): Promise<ReleaseManifest> {
    const manifest = manifestOf(input, this.#nowText());
    const present = await this.#intact(manifest.id);
    if (present !== undefined) return present;

    const temporary = this.#temporaryPath();
    try {
      await makeDirectories(this.dir);
      await mkdir(temporary);
      await this.#removeAbandoned(temporary);
      for (const [section, content] of Object.entries(input.sections)) {
        await mkdir(join(temporary, section));
        for (const [file, bytes] of Object.entries(content)) {
          await writeDurably(join(temporary, section, file), bytes);
        }
        await syncDirectory(join(temporary, section));
      }
      await writeDurably(join(temporary, MANIFEST), encodeManifest(manifest));
      await syncDirectory(temporary);
      return await this.#moveIntoPlace(temporary, manifest);
    } catch (cause) {
      throw ioError(cause, `creating release ${manifest.id}`);
    } finally {
      await rm(temporary, { recursive: true, force: true }).catch(() => {});
    }
  }

  /**
   * Opens a release after checking every file's size and SHA-256. O(bytes).
   * @throws WAGGLE_RELEASE_NOT_FOUND, _INCOMPLETE, _CORRUPT, _FORMAT, _IO
   */
  async open(id: string): Promise<Release> {
    const manifest = await this.#manifest(id);
    const files = new Map<string, Uint8Array>();
    for (const entry of manifest.files) {
      const name = `${entry.section}/${entry.file}`;
      const details = { release: id, section: entry.section, file: entry.file };
      let bytes: Uint8Array;
      try {
        bytes = await readFile(join(this.dir, id, entry.section, entry.file));
      } catch (cause) {
        if (!isMissing(cause)) throw ioError(cause, `reading ${id}/${name}`);
        throw releaseError('WAGGLE_RELEASE_INCOMPLETE', `release ${id}: ${name} is missing`, {
          cause,
          details,
        });
      }
      if (bytes.byteLength !== entry.bytes || sha256(bytes) !== entry.sha256) {
        throw releaseError(
          'WAGGLE_RELEASE_CORRUPT',
          `release ${id}: ${name} (${bytes.byteLength} bytes) is not what was written (${entry.bytes} bytes)`,
          { details },
        );
      }
      files.set(name, bytes);
    }
    return new LoadedRelease(manifest, files);
  }

  /** Manifests of the stored releases, oldest first; folders that cannot be read are logged and left out. */
  async list(): Promise<ReleaseManifest[]> {
    let names: string[];
    try {
      names = await readdir(this.dir);
    } catch (cause) {
      if (isMissing(cause)) return [];
      throw ioError(cause, `listing ${this.dir}`);
    }
    const out: ReleaseManifest[] = [];
    for (const name of names.filter(isReleaseId)) {
      try {
        out.push(await this.#manifest(name));
      } catch (cause) {
        this.#logger.warn(
          { release: name, err: cause },
          'a stored release cannot be read; build it again',
        );
      }
    }
    return out.sort((a, b) =>
      a.createdAt === b.createdAt ? (a.id < b.id ? -1 : 1) : a.createdAt < b.createdAt ? -1 : 1,
    );
  }

  /** Id of the active release; undefined before the first. @throws WAGGLE_RELEASE_CORRUPT, _IO */
  async active(): Promise<string | undefined> {
    return (await this.#pointer())?.id;
  }

  /**
   * Makes a release the active one, after opening it in full. The swap is one rename. Activating the active one again
   * tells those who watch to look at it again.
   * @throws what `open` throws, WAGGLE_RELEASE_NO_SPACE, _READ_ONLY; the pointer is then unchanged
   */
  activate(id: string): Promise<void> {
    return this.#exclusively(async () => {
      await this.open(id);
      const from = await this.#activeOrNone();
      if (from === id) await this.#pointAt(id, async () => {});
      else await this.#promote({ at: this.#nowText(), action: 'activate', id, from: from ?? null });
    });
  }

  /**
   * Points back at the release that was active before the present one, or at the nearest earlier one that
   * still opens. Rolling back twice goes back twice.
   * @throws WAGGLE_RELEASE_NO_PREVIOUS
   */
  rollback(): Promise<{ from: string; to: string }> {
    return this.#exclusively(async () => {
      const history = await this.history();
      const from = (await this.#activeOrNone()) ?? history.at(-1)?.id;
      if (from === undefined) {
        throw releaseError('WAGGLE_RELEASE_NO_PREVIOUS', 'no release was ever active');
      }
      const skipped: string[] = [];
      for (const to of rollbackTargets(history, from)) {
        try {
          await this.open(to);
        } catch (cause) {
          this.#logger.warn(
            { release: to, err: cause },
            'an earlier release does not open; trying the one before',
          );
          skipped.push(to);
          continue;
        }
        await this.#promote({ at: this.#nowText(), action: 'rollback', id: to, from });
        return { from, to };
      }
      throw releaseError('WAGGLE_RELEASE_NO_PREVIOUS', `nothing before ${from} opens`, {
        details: { active: from, doNotOpen: skipped },
      });
    });
  }

  /** Every promotion so far, oldest first. */
  async history(): Promise<Promotion[]> {
    let text: string;
    try {
      text = await readFile(join(this.dir, HISTORY), 'utf8');
    } catch (cause) {
      if (isMissing(cause)) return [];
      throw ioError(cause, 'reading the promotion history');
    }
    return parseHistory(text, (line) =>
      this.#logger.warn({ line: line.slice(0, 200) }, 'skipped a torn line of promotions.ndjson'),
    );
  }

  /**
   * Calls back with the id whenever the active release changes, is activated again, or its folder is replaced because it was
   * built again, by file system events and, where those are missing, by a slow poll. The first call comes at once when a release is active, before
   * `looked` resolves. Never throws; a pointer that cannot be read is told to `onUnreadable`, once, and the last one kept.
   */
  watch(
    onChange: (id: string) => void,
    onUnreadable?: (error: WaggleError) => void,
  ): { readonly looked: Promise<void>; close(): void } {
    let last: string | undefined;
    let unreadable: string | undefined;
    let closed = false;
    let checking = false;
    let again = false;
    let events: FSWatcher | undefined;
    const check = async (): Promise<void> => {
      if (checking) {
        again = true;
        return;
      }
      checking = true;
      do {
        again = false;
        try {
          const pointer = await this.#pointer();
          unreadable = undefined;
          if (pointer === undefined) continue;
          const { id, identity } = pointer;
          const state = `${id} ${identity} ${await this.#folderIdentity(id)}`;
          if (!closed && state !== last) {
            last = state;
            onChange(id);
          }
        } catch (cause) {
          const error = toWaggleError(cause);
          if (closed || error.code === unreadable) continue;
          unreadable = error.code;
          // Whoever heard of the failure has to hear that it is over, be the release the same as before.
          last = undefined;
          this.#logger.warn({ err: cause }, 'cannot read the active release; keeping the last one');
          onUnreadable?.(error);
        }
      } while (again && !closed);
      checking = false;
    };
    const listen = (): void => {
      if (events !== undefined || closed) return;
      try {
        events = watchPath(this.dir, { persistent: false }, () => void check());
        events.on('error', () => {
          events?.close();
          events = undefined;
        });
      } catch {
        // The folder is not there yet, or watches are used up: the poll does it.
      }
    };
    const timer = setInterval(() => {
      listen();
      void check();
    }, this.#pollMs);
    timer.unref();
    listen();
    const looked = check();
    return {
      looked,
      close() {
        closed = true;
        clearInterval(timer);
        events?.close();
      },
    };
  }

  /** What the active pointer says, and which of all pointers so far it is. */
  async #pointer(): Promise<{ id: string; identity: string } | undefined> {
    let text: string;
    let identity: string;
    try {
      const file = await open(join(this.dir, ACTIVE), 'r');
      try {
        const { ino, mtimeMs } = await file.stat();
        identity = `${ino} ${mtimeMs}`;
        text = await file.readFile('utf8');
      } finally {
        await file.close();
      }
    } catch (cause) {
      if (isMissing(cause)) return undefined;
      throw ioError(cause, 'reading the active pointer');
    }
    const id = text.slice(0, -1);
    if (!text.endsWith('\n') || !isReleaseId(id)) {
      throw releaseError(
        'WAGGLE_RELEASE_CORRUPT',
        `the active pointer holds ${JSON.stringify(text.slice(0, 40))}`,
        { remedy: 'Activate a release by id: `waggle release activate <id>`.' },
      );
    }
    return { id, identity };
  }

  /** Changes when a folder of that name takes the place of another one. */
  async #folderIdentity(id: string): Promise<string> {
    try {
      const { ino, mtimeMs } = await stat(join(this.dir, id));
      return `${ino} ${mtimeMs}`;
    } catch (cause) {
      if (!isMissing(cause)) throw ioError(cause, `reading release ${id}`);
      return 'missing';
    }
  }

  async #manifest(id: string): Promise<ReleaseManifest> {
    if (!isReleaseId(id)) {
      throw releaseError('WAGGLE_RELEASE_NOT_FOUND', `${JSON.stringify(id)} is not a release id`);
    }
    const folder = join(this.dir, id);
    try {
      await stat(folder);
    } catch (cause) {
      if (!isMissing(cause)) throw ioError(cause, `reading release ${id}`);
      throw releaseError('WAGGLE_RELEASE_NOT_FOUND', `there is no release ${id} in ${this.dir}`, {
        details: { release: id },
      });
    }
    let bytes: Uint8Array;
    try {
      bytes = await readFile(join(folder, MANIFEST));
    } catch (cause) {
      if (!isMissing(cause)) throw ioError(cause, `reading release ${id}`);
      throw releaseError('WAGGLE_RELEASE_INCOMPLETE', `release ${id} has no manifest`, {
        cause,
        details: { release: id, file: MANIFEST },
      });
    }
    return decodeManifest(bytes, id);
  }

  /** The manifest when the whole release opens; undefined when it is absent or damaged. */
  async #intact(id: string): Promise<ReleaseManifest | undefined> {
    try {
      return (await this.open(id)).manifest;
    } catch {
      return undefined;
    }
  }

  async #moveIntoPlace(temporary: string, manifest: ReleaseManifest): Promise<ReleaseManifest> {
    const target = join(this.dir, manifest.id);
    for (let attempt = 0; ; attempt++) {
      try {
        await rename(temporary, target);
        await syncDirectory(this.dir);
        return manifest;
      } catch (cause) {
        const { code } = cause as NodeJS.ErrnoException;
        const occupied = code === 'ENOTEMPTY' || code === 'EEXIST' || code === 'ENOTDIR';
        if (!occupied || attempt === 3) throw cause;
        const present = await this.#intact(manifest.id);
        if (present !== undefined) return present;
        // What lies there under our name is damaged: set it aside and put the whole one in its place.
        const aside = this.#temporaryPath();
        await rename(target, aside).catch((e: unknown) => {
          if (!isMissing(e)) throw e;
        });
        await rm(aside, { recursive: true, force: true });
        this.#logger.warn(
          { release: manifest.id },
          'replaced a damaged release by its rebuilt content',
        );
      }
    }
  }

  async #removeAbandoned(ours: string): Promise<void> {
    const now = (await stat(ours)).mtimeMs;
    for (const name of await readdir(this.dir)) {
      if (!name.startsWith(TEMPORARY)) continue;
      const path = join(this.dir, name);
      const info = await stat(path).catch(() => undefined);
      if (info !== undefined && now - info.mtimeMs > ABANDONED_MS) {
        await rm(path, { recursive: true, force: true });
      }
    }
  }

  #promote(promotion: Promotion): Promise<void> {
    return this.#pointAt(promotion.id, () =>
      appendDurably(join(this.dir, HISTORY), `${JSON.stringify(promotion)}\n`),
    );
  }

  /** The new pointer is on the disk before `record` runs, and swapped in after. */
  async #pointAt(id: string, record: () => Promise<void>): Promise<void> {
    try {
      const pointer = await stageReplacement(
        join(this.dir, ACTIVE),
        this.#temporaryPath(),
        Buffer.from(`${id}\n`),
      );
      try {
        await record();
        await pointer.commit();
      } catch (cause) {
        await pointer.discard();
        throw cause;
      }
    } catch (cause) {
      throw ioError(cause, `making release ${id} active`);
    }
  }

  /** A damaged pointer must not keep anybody from replacing it. */
  async #activeOrNone(): Promise<string | undefined> {
    try {
      return await this.active();
    } catch (cause) {
      if (isWaggleError(cause) && cause.code === 'WAGGLE_RELEASE_CORRUPT') return undefined;
      throw cause;
    }
  }

  #exclusively<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#promoting.then(work);
    this.#promoting = result.catch(() => {});
    return result;
  }

  #temporaryPath(): string {
    return join(this.dir, `${TEMPORARY}${randomBytes(8).toString('hex')}`);
  }

  #nowText(): string {
    return new Date(this.#clock.nowMs()).toISOString();
  }
}
