import { randomUUID } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { access, constants, readdir, readFile, rm, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { type Logger, silentLogger, WaggleError } from '@waggle/core';
import { isAlive } from '../directory-lock.js';
import { storeError } from '../errors.js';
import { makeDirectory } from '../make-directory.js';
import {
  firstWord,
  type InsertStatement,
  parseInsert,
  quoteIdentifier,
  quoteLiteral,
} from './statement.js';

/**
 * chDB as Waggle uses it, once for the in-process connection and for `waggle store`: a fresh native connection
 * per statement (0.3 ms) so that settings and parameters never leak from one to the next, named sessions for
 * temporary tables, rows of INSERT through a spool file with bounded memory, results as a stream where the
 * format allows it, cancellation by KILL QUERY, and nothing ever waits on the event loop.
 */
export interface ChdbEngineOptions {
  /** Directory of the store: chDB's own files go to `chdb/` below it, bodies of running inserts to `spool/`. */
  readonly path: string;
  readonly logger?: Logger;
  /**
   * Statements that run at once; the others wait in order. Each holds one libuv thread.
   * @default two less than UV_THREADPOOL_SIZE (4 when unset), so that files and KILL QUERY stay possible
   */
  readonly concurrency?: number;
}

export interface EngineStatement {
  readonly sql: string;
  /** Format of the result when the SQL names none. @default TabSeparated */
  readonly format?: string;
  readonly settings?: Readonly<Record<string, string | number | boolean>>;
  /** Parameter texts as in ClickHouse's HTTP interface. */
  readonly params?: Readonly<Record<string, string>>;
  readonly database?: string;
  readonly session?: {
    readonly id: string;
    readonly timeoutMs?: number;
    readonly mustExist?: boolean;
  };
  readonly signal?: AbortSignal;
  /** Rows of an INSERT, appended to the data in the SQL text. */
  readonly body?: Readable | Uint8Array;
  /** Materialise the result instead of streaming it: its errors are then known before the first byte. */
  readonly materialise?: boolean;
}

export interface EngineSummary {
  readRows: number;
  readBytes: number;
  writtenRows: number;
  writtenBytes: number;
  resultBytes: number;
  elapsedNs: number;
}

export interface EngineResult {
  /** The format the bytes are in. */
  readonly format: string;
  /** Must be consumed or returned; leaving early cancels the statement. */
  readonly chunks: AsyncGenerator<Uint8Array, void, undefined>;
  /** Complete once the chunks are consumed; complete at once for statements without a stream. */
  readonly summary: EngineSummary;
}

// What Waggle uses of chDB's module; typed here because the module is loaded only when an engine is opened.
type ChdbModule = typeof import('chdb');
type ChdbSession = InstanceType<ChdbModule['Session']>;

/** Formats whose chunks can be put one after another: no header, no footer. */
const CHUNKABLE = new Set([
  'JSONEachRow',
  'JSONLines',
  'NDJSON',
  'JSONStringsEachRow',
  'JSONCompactEachRow',
  'JSONCompactStringsEachRow',
  'CSV',
  'TSV',
  'TabSeparated',
  'TSVRaw',
  'TabSeparatedRaw',
  'RowBinary',
  'Native',
]);

/** Settings of ClickHouse's HTTP layer or of its server, which the embedded engine does not know or need. */
const SERVER_ONLY_SETTINGS = new Set([
  'wait_end_of_query',
  'buffer_size',
  'send_progress_in_http_headers',
  'http_response_buffer_size',
  'http_headers_progress_interval_ms',
  'http_wait_end_of_query',
  'enable_http_compression',
  'http_zlib_compression_level',
  'http_response_compression_method',
  'http_native_compression_disable_checksumming_on_decompress',
  'http_write_exception_in_output_format',
  'cancel_http_readonly_queries_on_client_close',
  'async_insert',
  'wait_for_async_insert',
  'default_format',
]);

interface NamedSession {
  readonly session: ChdbSession;
  busy: boolean;
  timer: NodeJS.Timeout | undefined;
}

const DEFAULT_SESSION_TIMEOUT_MS = 60_000;

export class ChdbEngine {
  static async open(options: ChdbEngineOptions): Promise<ChdbEngine> {
    const directory = resolve(options.path);
    const data = join(directory, 'chdb');
    const spool = join(directory, 'spool');
    let chdb: ChdbModule;
    try {
      chdb = await import('chdb');
    } catch (cause) {
      throw storeError('WAGGLE_STORE_ENGINE_MISSING', 'chDB cannot be loaded on this machine', {
        cause,
      });
    }
    try {
      await makeDirectory(data);
      await makeDirectory(spool);
      await access(data, constants.W_OK);
    } catch (cause) {
      throw fileError(cause, `data directory ${directory}`);
    }
    let root: ChdbSession;
    try {
      root = new chdb.Session(data);
    } catch (cause) {
      throw await openError(data, cause);
    }
    // Only the owner gets here, so whatever lies in the spool belongs to a process that is gone.
    for (const name of await readdir(spool)) await rm(join(spool, name), { force: true });
    return new ChdbEngine(chdb, root, data, spool, options);
  }

  readonly #chdb: ChdbModule;
  readonly #root: ChdbSession;
  readonly #data: string;
  readonly #spool: string;
  readonly #logger: Logger;
  readonly #named = new Map<string, NamedSession>();
  readonly #waiting: (() => void)[] = [];
  readonly #running = new Set<Promise<unknown>>();
  #free: number;
  #closed = false;

  private constructor(
    chdb: ChdbModule,
    root: ChdbSession,
    data: string,
    spool: string,
    options: ChdbEngineOptions,
  ) {
    this.#chdb = chdb;
    this.#root = root;
    this.#data = data;
    this.#spool = spool;
    this.#logger = options.logger ?? silentLogger;
    this.#free = options.concurrency ?? 2;
  }

  /** Statements that run or wait. */
  get load(): { running: number; waiting: number } {
    return { running: this.#running.size, waiting: this.#waiting.length };
  }

  /**
   * Runs one statement. Resolves when it is finished, or for streamed results when the first chunk is there.
   * Rejects with chDB's error (its message holds `Code: N. DB::Exception: …`) or a WaggleError.
   */
  async run(statement: EngineStatement): Promise<EngineResult> {
    this.#assertOpen();
    if (statement.signal?.aborted) throw abortedError(statement.signal);
    const insert = parseInsert(statement.sql);
    if (insert !== undefined && (statement.body !== undefined || hasData(statement.sql, insert))) {
      return this.#insert(statement, insert);
    }
    const sql =
      statement.body === undefined
        ? statement.sql
        : `${statement.sql}\n${await readText(statement.body)}`;
    const word = firstWord(sql);
    const format = trailingFormat(sql) ?? statement.format ?? 'TabSeparated';
    if (!statement.materialise && (word === 'SELECT' || word === 'WITH') && CHUNKABLE.has(format)) {
      const streamed = await this.#stream(statement, sql, format);
      if (streamed !== undefined) return streamed;
    }
    const lease = await this.#lease(statement);
    try {
      const raw = await this.#supervise(lease, statement.signal, () =>
        lease.session.queryAsync(sql, { format: statement.format ?? 'TabSeparated' }),
      );
      const bytes = raw.bytes();
      return {
        format,
        chunks: single(bytes),
        summary: {
          ...emptySummary(),
          readRows: raw.rowsRead,
          readBytes: raw.bytesRead,
          resultBytes: bytes.byteLength,
          elapsedNs: Math.round(raw.elapsed * 1e9),
        },
      };
    } finally {
      await lease.release();
    }
  }

  /** Finishes what runs, closes the engine. Statements that still wait are refused. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    for (const wake of this.#waiting.splice(0)) wake();
    while (this.#running.size > 0) await Promise.allSettled([...this.#running]);
    for (const [id] of this.#named) this.#dropNamed(id);
    this.#root.close();
    await this.#chdb.drainPending();
  }

  async #insert(statement: EngineStatement, insert: InsertStatement): Promise<EngineResult> {
    const path = join(this.#spool, `${randomUUID()}.body`);
    try {
      const inline = statement.sql.slice(insert.dataStart);
      const size = await this.#spoolBody(path, inline, statement);
      if (size === 0) return { format: insert.format, chunks: single(), summary: emptySummary() };
      const lease = await this.#lease(statement);
      try {
        const sql =
          `${insert.head} FROM INFILE ${quoteLiteral(path)} COMPRESSION 'none' ` +
          `${insert.settings} FORMAT ${insert.format}`;
        const raw = await this.#supervise(lease, statement.signal, () =>
          lease.session.queryAsync(sql, { format: 'TabSeparated' }),
        );
        return {
          format: insert.format,
          chunks: single(),
          summary: {
            ...emptySummary(),
            readRows: raw.rowsRead,
            readBytes: size,
            writtenRows: raw.rowsRead,
            writtenBytes: raw.bytesRead,
            elapsedNs: Math.round(raw.elapsed * 1e9),
          },
        };
      } catch (thrown) {
        throw withoutPath(thrown, path);
      } finally {
        await lease.release();
      }
    } finally {
      await rm(path, { force: true });
    }
  }

  /** Writes inline data and body to the spool file. @returns its size in bytes */
  async #spoolBody(path: string, inline: string, statement: EngineStatement): Promise<number> {
    const { body, signal } = statement;
    try {
      await pipeline(
        async function* () {
          if (inline.length > 0) yield Buffer.from(inline, 'utf8');
          if (body === undefined) return;
          if (body instanceof Uint8Array) yield body;
          else yield* body;
        },
        createWriteStream(path, { mode: 0o600, highWaterMark: 1 << 20 }),
        ...(signal === undefined ? [] : [{ signal }]),
      );
      return (await stat(path)).size;
    } catch (cause) {
      if (signal?.aborted) throw abortedError(signal);
      throw cause instanceof WaggleError ? cause : fileError(cause, 'the spool of the store');
    }
  }

  async #stream(
    statement: EngineStatement,
    sql: string,
    format: string,
  ): Promise<EngineResult | undefined> {
    const lease = await this.#lease(statement);
    const started = performance.now();
    let finished = false;
    const finish = async () => {
      if (finished) return;
      finished = true;
      await lease.release();
    };
    try {
      let native: ReturnType<ChdbSession['queryStream']>;
      try {
        native = lease.session.queryStream(sql, { format });
      } catch (thrown) {
        if (/Streaming query is not supported/.test(String((thrown as Error).message))) {
          await finish();
          return undefined;
        }
        throw thrown;
      }
      const iterator = native[Symbol.asyncIterator]();
      const summary = emptySummary();
      const next = () =>
        this.#supervise(lease, statement.signal, async () => {
          const step = await iterator.next();
          if (step.done) return undefined;
          summary.readRows += step.value.numRows;
          summary.resultBytes += step.value.numBytes;
          return step.value.raw();
        });
      const first = await next();
      // A slow reader must not hold a place among the running statements.
      lease.pause();
      const generate = async function* (): AsyncGenerator<Uint8Array, void, undefined> {
        try {
          let chunk = first;
          while (chunk !== undefined) {
            yield chunk;
            await lease.resume();
            try {
              chunk = await next();
            } finally {
              lease.pause();
            }
          }
          summary.elapsedNs = Math.round((performance.now() - started) * 1e6);
        } finally {
          native.cancel();
          await finish();
        }
      };
      return { format, chunks: primed(generate(), finish, () => native.cancel()), summary };
    } catch (thrown) {
      await finish();
      throw thrown;
    }
  }

  /** Starts `work`, which is cancelled in the engine when the signal fires. */
  async #supervise<T>(
    lease: Lease,
    signal: AbortSignal | undefined,
    work: () => Promise<T>,
  ): Promise<T> {
    if (signal?.aborted) throw abortedError(signal);
    const running = work();
    const settled = running.then(
      () => undefined,
      () => undefined,
    );
    lease.pending = settled;
    this.#running.add(settled);
    void settled.then(() => this.#running.delete(settled));
    if (signal === undefined) return running;
    return new Promise<T>((fulfil, reject) => {
      let done = false;
      const onAbort = () => {
        void this.#kill(lease.tag, () => done);
        reject(abortedError(signal));
      };
      signal.addEventListener('abort', onAbort, { once: true });
      const finish = () => {
        done = true;
        signal.removeEventListener('abort', onAbort);
      };
      running.then(
        (value) => {
          finish();
          fulfil(value);
        },
        (reason) => {
          finish();
          reject(reason);
        },
      );
    });
  }

  /** Stops the statement with this tag; tries again while it has not started yet. */
  async #kill(tag: string, isDone: () => boolean): Promise<void> {
    for (let attempt = 0; attempt < 50 && !isDone() && !this.#closed; attempt++) {
      const session = new this.#chdb.Session(this.#data);
      try {
        const found = await session.queryAsync(
          `SELECT query_id FROM system.processes WHERE Settings['log_comment'] = ${quoteLiteral(tag)}`,
          { format: 'TabSeparated' },
        );
        const ids = found.text().split('\n').filter(Boolean);
        if (ids.length > 0) {
          const list = ids.map(quoteLiteral).join(', ');
          await session.queryAsync(`KILL QUERY WHERE query_id IN (${list}) ASYNC`, {
            format: 'TabSeparated',
          });
          return;
        }
      } catch (err) {
        this.#logger.debug({ err }, 'KILL QUERY failed');
        return;
      } finally {
        session.close();
      }
      await new Promise((wake) => setTimeout(wake, 20));
    }
  }

  async #lease(statement: EngineStatement): Promise<Lease> {
    const named = statement.session;
    let entry: NamedSession | undefined;
    let session: ChdbSession;
    if (named === undefined) {
      await this.#acquire(statement.signal);
      try {
        session = new this.#chdb.Session(this.#data);
      } catch (cause) {
        this.#freePermit();
        throw cause;
      }
    } else {
      entry = this.#openNamed(named.id, named.mustExist ?? false);
      try {
        await this.#acquire(statement.signal);
      } catch (thrown) {
        entry.busy = false;
        throw thrown;
      }
      session = entry.session;
    }
    let holding = true;
    let restore: string[] = [];
    const lease: Lease = {
      session,
      tag: `waggle:${randomUUID()}`,
      pending: undefined,
      pause: () => {
        if (holding) {
          holding = false;
          this.#freePermit();
        }
      },
      resume: async () => {
        if (holding) return;
        await this.#acquire(undefined);
        holding = true;
      },
      release: async () => {
        const pending = lease.pending;
        const settle = async () => {
          await pending;
          if (entry === undefined) {
            session.close();
          } else {
            try {
              for (const sql of restore) await session.queryAsync(sql, { format: 'TabSeparated' });
            } catch (err) {
              this.#logger.warn({ err }, 'a session keeps the settings of one of its statements');
            }
            entry.busy = false;
            this.#touchNamed(named!.id, named!.timeoutMs ?? DEFAULT_SESSION_TIMEOUT_MS);
          }
          if (holding) {
            holding = false;
            this.#freePermit();
          }
        };
        // An aborted statement may still run in the engine: its place is given back when it has ended.
        if (statement.signal?.aborted) void settle();
        else await settle();
      },
    };
    try {
      const prepared = await this.#prepare(session, statement, lease.tag, entry !== undefined);
      restore = prepared;
    } catch (thrown) {
      await lease.release();
      throw thrown;
    }
    return lease;
  }

  /** Applies database, settings and parameters. @returns statements that undo them in a named session */
  async #prepare(
    session: ChdbSession,
    statement: EngineStatement,
    tag: string,
    isNamed: boolean,
  ): Promise<string[]> {
    const restore: string[] = [];
    if (statement.database !== undefined && statement.database !== '') {
      if (isNamed) {
        const before = await session.queryAsync('SELECT currentDatabase()', {
          format: 'TabSeparated',
        });
        restore.push(`USE ${quoteIdentifier(before.text().trim())}`);
      }
      await session.queryAsync(`USE ${quoteIdentifier(statement.database)}`, {
        format: 'TabSeparated',
      });
    }
    const assignments: string[] = [];
    const names: string[] = [];
    for (const [name, value] of Object.entries(statement.settings ?? {})) {
      if (SERVER_ONLY_SETTINGS.has(name)) continue;
      if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name) || name.startsWith('param_')) {
        throw new Error(`Code: 115. DB::Exception: Unknown setting '${name}'. (UNKNOWN_SETTING)`);
      }
      if (name === 'log_comment') continue;
      names.push(name);
      assignments.push(
        `${name} = ${quoteLiteral(String(typeof value === 'boolean' ? Number(value) : value))}`,
      );
    }
    if (isNamed && names.length > 0) {
      const before = await session.queryAsync(
        `SELECT name, changed, value FROM system.settings WHERE name IN (${names.map(quoteLiteral).join(', ')})`,
        { format: 'JSONCompactEachRow' },
      );
      const undo = before
        .text()
        .split('\n')
        .filter(Boolean)
        .map((line) => JSON.parse(line) as [string, number, string])
        .map(([name, changed, value]) => `${name} = ${changed ? quoteLiteral(value) : 'DEFAULT'}`);
      if (undo.length > 0) restore.push(`SET ${undo.join(', ')}`);
    }
    for (const [name, text] of Object.entries(statement.params ?? {})) {
      if (!/^[A-Za-z0-9_]+$/.test(name)) {
        throw new Error(
          `Code: 457. DB::Exception: Invalid name of a query parameter: '${name}'. (BAD_QUERY_PARAMETER)`,
        );
      }
      assignments.push(`param_${name} = ${quoteLiteral(text)}`);
    }
    assignments.push(`log_comment = ${quoteLiteral(tag)}`);
    await session.queryAsync(`SET ${assignments.join(', ')}`, { format: 'TabSeparated' });
    return restore;
  }

  #openNamed(id: string, mustExist: boolean): NamedSession {
    let entry = this.#named.get(id);
    if (entry === undefined) {
      if (mustExist) {
        throw new Error(`Code: 372. DB::Exception: Session ${id} not found. (SESSION_NOT_FOUND)`);
      }
      entry = { session: new this.#chdb.Session(this.#data), busy: false, timer: undefined };
      this.#named.set(id, entry);
    }
    if (entry.busy) {
      throw new Error(
        `Code: 373. DB::Exception: Session ${id} is locked by a concurrent client. (SESSION_IS_LOCKED)`,
      );
    }
    entry.busy = true;
    clearTimeout(entry.timer);
    return entry;
  }

  #touchNamed(id: string, timeoutMs: number): void {
    const entry = this.#named.get(id);
    if (entry === undefined) return;
    clearTimeout(entry.timer);
    entry.timer = setTimeout(() => {
      if (!entry.busy) this.#dropNamed(id);
    }, timeoutMs).unref();
  }

  #dropNamed(id: string): void {
    const entry = this.#named.get(id);
    if (entry === undefined) return;
    clearTimeout(entry.timer);
    this.#named.delete(id);
    entry.session.close();
  }

  async #acquire(signal: AbortSignal | undefined): Promise<void> {
    this.#assertOpen();
    if (this.#free > 0) {
      this.#free--;
      return;
    }
    await new Promise<void>((fulfil, reject) => {
      const wake = () => {
        signal?.removeEventListener('abort', onAbort);
        fulfil();
      };
      const onAbort = () => {
        const at = this.#waiting.indexOf(wake);
        if (at >= 0) this.#waiting.splice(at, 1);
        reject(abortedError(signal!));
      };
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#waiting.push(wake);
    });
    // A permit was handed over by freePermit, or close() woke everybody up.
    this.#assertOpen();
  }

  #freePermit(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free++;
    else next();
  }

  #assertOpen(): void {
    if (this.#closed) throw storeError('WAGGLE_STORE_CLOSED', 'the embedded engine is closed');
  }
}

interface Lease {
  readonly session: ChdbSession;
  readonly tag: string;
  pending: Promise<void> | undefined;
  /** Lets another statement run while this one waits for its reader. */
  pause(): void;
  resume(): Promise<void>;
  release(): Promise<void>;
}

function emptySummary(): EngineSummary {
  return {
    readRows: 0,
    readBytes: 0,
    writtenRows: 0,
    writtenBytes: 0,
    resultBytes: 0,
    elapsedNs: 0,
  };
}

async function* single(bytes?: Uint8Array): AsyncGenerator<Uint8Array, void, undefined> {
  if (bytes !== undefined && bytes.byteLength > 0) yield bytes;
}

/** A generator that was never started runs no `finally`; this one always cleans up. */
function primed(
  inner: AsyncGenerator<Uint8Array, void, undefined>,
  finish: () => Promise<void>,
  cancel: () => void,
): AsyncGenerator<Uint8Array, void, undefined> {
  const stop = async () => {
    cancel();
    await finish();
  };
  const outer = {
    next: () => inner.next(),
    return: async () => {
      const step = await inner.return();
      await stop();
      return step;
    },
    throw: async (reason: unknown) => {
      await stop();
      return inner.throw(reason);
    },
    [Symbol.asyncIterator]: () => outer,
  } as AsyncGenerator<Uint8Array, void, undefined>;
  return outer;
}

function hasData(sql: string, insert: InsertStatement): boolean {
  return sql.slice(insert.dataStart).trim().length > 0;
}

function trailingFormat(sql: string): string | undefined {
  return /\bFORMAT\s+([A-Za-z0-9_]+)\s*;?\s*(?:SETTINGS\s[^'"`]*)?$/i.exec(sql.slice(-2_000))?.[1];
}

async function readText(body: Readable | Uint8Array): Promise<string> {
  if (body instanceof Uint8Array) return Buffer.from(body).toString('utf8');
  const parts: Buffer[] = [];
  for await (const part of body) parts.push(Buffer.from(part));
  return Buffer.concat(parts).toString('utf8');
}

function abortedError(signal: AbortSignal): WaggleError {
  const reason: unknown = signal.reason;
  if (reason instanceof WaggleError) return reason;
  if (reason instanceof Error && reason.name === 'TimeoutError') {
    return storeError('WAGGLE_STORE_TIMEOUT', 'the statement did not finish in time', {
      cause: reason,
    });
  }
  return storeError('WAGGLE_STORE_ABORTED', 'the statement was cancelled', { cause: reason });
}

/** chDB's messages name the spool file, which means nothing to the caller. */
function withoutPath(thrown: unknown, path: string): unknown {
  if (thrown instanceof Error && thrown.message.includes(path)) {
    thrown.message = thrown.message
      .replaceAll(`(in file/uri ${path}): `, '')
      .replaceAll(path, 'the body');
  }
  return thrown;
}

export function fileError(cause: unknown, what: string): WaggleError {
  const code = (cause as NodeJS.ErrnoException | undefined)?.code;
  const message = cause instanceof Error ? cause.message : String(cause);
  const details = { errno: code };
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return storeError('WAGGLE_STORE_DISK_FULL', `${what}: the disk is full`, { cause, details });
  }
  if (code === 'EROFS' || code === 'EACCES' || code === 'EPERM') {
    return storeError('WAGGLE_STORE_READ_ONLY', `${what} cannot be written`, { cause, details });
  }
  return storeError('WAGGLE_STORE_OPEN_FAILED', `${what}: ${message}`, { cause, details });
}

/** chDB says only that it failed; find out why. */
async function openError(data: string, cause: unknown): Promise<WaggleError> {
  const message = cause instanceof Error ? cause.message : String(cause);
  const pid = await ownerPid(data);
  if (pid !== undefined && pid !== process.pid && isAlive(pid)) {
    return storeError('WAGGLE_STORE_LOCKED', `process ${pid} owns the data directory ${data}`, {
      cause,
      details: { pid, path: data },
    });
  }
  if (/one active data directory|different data directory|already/i.test(message)) {
    return storeError(
      'WAGGLE_STORE_LOCKED',
      'this process already has another data directory open',
      {
        cause,
        details: { path: data },
        remedy: 'Close the other embedded store first: chDB binds one directory per process.',
      },
    );
  }
  return storeError('WAGGLE_STORE_OPEN_FAILED', `chDB could not open ${data}: ${message}`, {
    cause,
    details: { path: data },
  });
}

async function ownerPid(data: string): Promise<number | undefined> {
  try {
    const match = /PID:\s*(\d+)/.exec(await readFile(join(data, 'status'), 'utf8'));
    return match === null ? undefined : Number(match[1]);
  } catch {
    return undefined;
  }
}
