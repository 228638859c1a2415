import { type ChildProcess, spawn } from 'node:child_process';
import { open, readFile, truncate } from 'node:fs/promises';
import { type ClientRequest, get } from 'node:http';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { type ColumnTable, isWaggleError, type Logger } from '@waggle/core';
import { toStoreError } from './clickhouse-errors.js';
import { openServerStore } from './connections.js';
import { storeError } from './errors.js';
import { makeDirectory } from './make-directory.js';
import {
  type LiveOwner,
  readLiveOwner,
  STOP_WHEN_UNUSED,
  storeDirectory,
} from './server/owner-file.js';
import type { InsertOptions, QueryOptions, Store } from './store.js';

export interface LocalStoreOptions {
  /** Waggle's folder (`.waggle`); the store lies in `store/` below it. */
  readonly dataDir: string;
  readonly logger: Logger;
  /** Starts `waggle store` for that folder, when no owner runs: a command line, or a function that spawns. */
  readonly startOwner:
    | { readonly command: string; readonly args: readonly string[] }
    | (() => ChildProcess);
  /** How long to wait for an owner to answer. @default 60_000 */
  readonly startTimeoutMs?: number;
}

/**
 * The local store: connects to the process that owns the folder, or starts one. Several commands share an owner;
 * one that was started this way stops when the last of them has closed. Should the owner be killed, the next
 * statement finds or starts another.
 * @throws WAGGLE_STORE_START_FAILED with the owner's last lines
 */
export async function openLocalStore(options: LocalStoreOptions): Promise<Store> {
  const store = new LocalStore(options);
  await store.connect();
  return store;
}

interface Connected {
  readonly owner: LiveOwner;
  readonly store: Store;
  readonly lease: Lease;
}

interface Lease {
  readonly request: ClientRequest;
  alive: boolean;
}

/** An owner that is only busy answers who it is within this. */
const LIVENESS_TIMEOUT_MS = 10_000;
const POLL_MS = 40;
/** After our own owner has ended without success, another process may still be opening the folder. */
const OTHER_OWNER_MS = 5_000;
const LOG_LIMIT_BYTES = 1 << 20;

class LocalStore implements Store {
  readonly kind = 'owner';
  readonly #options: LocalStoreOptions;
  readonly #directory: string;
  #connected: Connected | undefined;
  #connecting: Promise<Connected> | undefined;
  /** The owner that this store started. */
  #child: ChildProcess | undefined;
  /** Where the log of the owner that was started last begins. */
  #logStart = 0;
  #closing: Promise<void> | undefined;

  constructor(options: LocalStoreOptions) {
    this.#options = options;
    this.#directory = storeDirectory(options.dataDir);
  }

  async connect(): Promise<Connected> {
    if (this.#closing !== undefined) throw storeError('WAGGLE_STORE_CLOSED', 'the store is closed');
    if (this.#connected?.lease.alive) return this.#connected;
    this.#connecting ??= this.#find().finally(() => {
      this.#connecting = undefined;
    });
    return this.#connecting;
  }

  query<T extends object>(sql: string, options?: QueryOptions): Promise<T[]> {
    return this.#again((store) => store.query<T>(sql, options));
  }
  queryColumns(sql: string, options?: QueryOptions): Promise<ColumnTable> {
    return this.#again((store) => store.queryColumns(sql, options));
  }
  async *stream<T extends object>(sql: string, options?: QueryOptions): AsyncGenerator<T[]> {
    const connected = await this.connect();
    try {
      yield* connected.store.stream<T>(sql, options);
    } catch (err) {
      await this.#dropIfDying(connected, err);
      throw err;
    }
  }
  command(sql: string, options?: QueryOptions): Promise<void> {
    return this.#again((store) => store.command(sql, options));
  }
  async insert(
    table: string,
    rows: readonly object[] | AsyncIterable<object>,
    options?: InsertOptions,
  ): Promise<{ rows: number }> {
    if (Array.isArray(rows)) return this.#again((store) => store.insert(table, rows, options));
    return this.#on(await this.connect(), (store) => store.insert(table, rows, options));
  }
  async insertRaw(
    table: string,
    format: string,
    body: Readable,
    options?: InsertOptions,
  ): Promise<void> {
    return this.#on(await this.connect(), (store) => store.insertRaw(table, format, body, options));
  }
  load(
    table: string,
    file: { path: string; format: 'ndjson' | 'parquet' },
    options?: InsertOptions,
  ): Promise<{ rows: number }> {
    return this.#again((store) => store.load(table, file, options));
  }
  ping(): Promise<void> {
    return this.#again((store) => store.ping());
  }

  close(): Promise<void> {
    this.#closing ??= (async () => {
      await this.#connecting?.catch(() => {});
      const connected = this.#connected;
      this.#connected = undefined;
      await connected?.store.close();
      connected?.lease.request.destroy();
      if (connected !== undefined && this.#child?.pid === connected.owner.pid)
        await this.#awaitStop(connected);
      this.#child?.unref();
    })();
    return this.#closing;
  }

  /** Runs once more on a fresh connection when the owner was gone before it could begin. */
  async #again<T>(work: (store: Store) => Promise<T>): Promise<T> {
    const connected = await this.connect();
    try {
      return await this.#on(connected, work);
    } catch (err) {
      if (!isWaggleError(err)) throw err;
      const gone = err.code === 'WAGGLE_STORE_UNAVAILABLE' || err.code === 'WAGGLE_STORE_AUTH';
      if (!gone || this.#closing !== undefined) throw err;
      this.#drop();
      return this.#on(await this.connect(), work);
    }
  }

  async #on<T>(connected: Connected, work: (store: Store) => Promise<T>): Promise<T> {
    try {
      return await work(connected.store);
    } catch (err) {
      await this.#dropIfDying(connected, err);
      throw err;
    }
  }

  /**
   * A process that was killed is not gone at once: while the system takes back its memory its port still accepts, only to
   * reset what it accepted. A statement may have begun, so it is not repeated; the next one must not go there again.
   */
  async #dropIfDying(connected: Connected, err: unknown): Promise<void> {
    if (!isWaggleError(err) || err.code !== 'WAGGLE_STORE_CONNECTION_LOST') return;
    const live = await readLiveOwner(this.#directory, LIVENESS_TIMEOUT_MS);
    if (this.#connected === connected && live?.pid !== connected.owner.pid) this.#drop();
  }

  #drop(): void {
    const connected = this.#connected;
    this.#connected = undefined;
    if (connected === undefined) return;
    connected.lease.alive = false;
    connected.lease.request.destroy();
    void connected.store.close().catch(() => {});
  }

  async #find(): Promise<Connected> {
    this.#drop();
    const { logger, startTimeoutMs = 60_000 } = this.#options;
    await makeDirectory(this.#directory).catch((err) => {
      throw toStoreError(err, { doing: `open ${this.#directory}` });
    });
    const deadline = performance.now() + startTimeoutMs;
    let started: { child: ChildProcess; endedAt: number | undefined } | undefined;
    for (;;) {
      const owner = await readLiveOwner(this.#directory);
      if (owner !== undefined) {
        const lease = await takeLease(owner);
        if (lease !== undefined) {
          const store = await openServerStore({
            url: owner.url,
            username: owner.user,
            password: owner.password,
            kind: 'owner',
            logger,
          });
          this.#child = started?.child;
          this.#connected = { owner, store, lease };
          return this.#connected;
        }
      } else if (started === undefined) {
        started = await this.#start();
      } else if (
        started.endedAt !== undefined &&
        performance.now() - started.endedAt > OTHER_OWNER_MS
      ) {
        const { exitCode, signalCode: signal } = started.child;
        const log = await this.#logTail();
        const why =
          /^WAGGLE_\w+: .*$/m.exec(log)?.[0] ?? `its log is empty, status ${exitCode ?? signal}`;
        throw storeError(
          'WAGGLE_STORE_START_FAILED',
          `waggle store ended before it was ready: ${why}`,
          { details: { exitCode, signal, log } },
        );
      }
      if (performance.now() > deadline) {
        throw storeError(
          'WAGGLE_STORE_START_FAILED',
          `no store answered within ${startTimeoutMs} ms`,
          {
            details: { log: await this.#logTail() },
          },
        );
      }
      await new Promise((wake) => setTimeout(wake, POLL_MS));
    }
  }

  async #start(): Promise<{ child: ChildProcess; endedAt: number | undefined }> {
    const { startOwner, logger } = this.#options;
    let child: ChildProcess;
    if (typeof startOwner === 'function') child = startOwner();
    else {
      // Its own log file and process group: the owner may outlive the command that started it, and Ctrl-C in the
      // terminal must not take it away from a command that is still finishing.
      const path = this.#logPath();
      const log = await open(path, 'a', 0o600).catch((err) => {
        throw toStoreError(err, { doing: `open ${path}` });
      });
      try {
        if ((await log.stat()).size > LOG_LIMIT_BYTES) await truncate(path, 0);
        this.#logStart = (await log.stat()).size;
        child = spawn(startOwner.command, [...startOwner.args], {
          stdio: ['ignore', log.fd, log.fd, 'ipc'],
          detached: true,
        });
      } finally {
        await log.close();
      }
    }
    child.once('error', () => {});
    if (child.connected) child.send(STOP_WHEN_UNUSED, () => {});
    child.channel?.unref();
    child.unref();
    logger.debug({ pid: child.pid }, 'started waggle store');
    const started: { child: ChildProcess; endedAt: number | undefined } = {
      child,
      endedAt: undefined,
    };
    const ended = () => {
      started.endedAt ??= performance.now();
    };
    child.once('exit', ended);
    child.once('error', ended);
    return started;
  }

  /** Waits for our owner to stop, unless somebody else uses it. */
  async #awaitStop(connected: Connected): Promise<void> {
    const child = this.#child!;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exit = new Promise<void>((fulfil) => child.once('exit', () => fulfil()));
    child.ref();
    for (let i = 0; i < 300; i++) {
      const ended = await Promise.race([
        exit.then(() => true),
        new Promise<boolean>((wake) => setTimeout(() => wake(false), 50)),
      ]);
      if (ended) return;
      const used = await othersUse(connected.owner);
      if (used) return;
    }
  }

  #logPath(): string {
    return join(this.#directory, 'owner.log');
  }

  /** The last lines of the owner that was started last, not of one before it. */
  async #logTail(): Promise<string> {
    try {
      return (await readFile(this.#logPath())).subarray(this.#logStart).toString().slice(-2_000);
    } catch {
      return '';
    }
  }
}

/** Opens the request that keeps the owner; undefined when the owner is just leaving. */
function takeLease(owner: LiveOwner): Promise<Lease | undefined> {
  return new Promise((fulfil) => {
    const request = get(
      `${owner.url}/waggle/lease`,
      { auth: `${owner.user}:${owner.password}`, agent: false },
      (response) => {
        if (response.statusCode !== 200) {
          response.resume();
          fulfil(undefined);
          return;
        }
        const lease: Lease = { request, alive: true };
        const over = () => {
          lease.alive = false;
        };
        response.on('close', over);
        response.on('error', over);
        response.resume();
        // A command that is done must be able to end without closing its store.
        response.socket.unref();
        fulfil(lease);
      },
    );
    request.on('error', () => fulfil(undefined));
  });
}

function othersUse(owner: LiveOwner): Promise<boolean> {
  return new Promise((fulfil) => {
    const request = get(
      `${owner.url}/waggle/owner`,
      { auth: `${owner.user}:${owner.password}`, agent: false, timeout: 1_000 },
      (response) => {
        let body = '';
        response.on('data', (chunk) => {
          body += String(chunk);
        });
        response.on('end', () => {
          try {
            fulfil(((JSON.parse(body) as { leases?: number }).leases ?? 0) > 0);
          } catch {
            fulfil(false);
          }
        });
        response.on('error', () => fulfil(false));
      },
    );
    request.on('timeout', () => request.destroy());
    request.on('error', () => fulfil(false));
  });
}
