import { randomUUID } from 'node:crypto';
import { appendFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { type Clock, isWaggleError, type Logger } from '@waggle/core';
import { ledgerError } from '../errors.js';
import type { Store } from '../store.js';
import type { WriteAheadLog } from '../wal/index.js';
import { readIfPresent, writeDurably } from './durable-file.js';

/** A row on its way to a table. */
export interface ForwardedRow {
  readonly table: string;
  /** Columns by name, or their JSON as UTF-8 without a line break, which is then sent as it is. */
  readonly row: object | Uint8Array;
}

export interface ForwarderOptions {
  readonly wal: WriteAheadLog;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Rows of one record; empty for records that concern only the log's owner. */
  readonly rowsOf: (payload: Uint8Array) => readonly ForwardedRow[];
  /** Records up to here may be removed once forwarded; the ledger keeps those after its snapshot. */
  readonly mayRemoveBefore?: () => number;
  /** How long rows gather before a batch is sent. @default 200 */
  readonly intervalMs?: number;
  /** @default 20_000 */
  readonly batchRows?: number;
  /** Longest pause between attempts while the store is down. @default 30_000 */
  readonly maxBackoffMs?: number;
}

export interface ForwarderStatus {
  /** False while the store refuses what is sent, or the log cannot be written. */
  readonly ok: boolean;
  /** Records that are durable here and not yet in the store. */
  readonly backlog: number;
  /** Age of the oldest of them, as far as this process knows. */
  readonly lagMs: number;
  readonly detail?: string;
}

const MAX_BATCH_BYTES = 8 << 20;
/** Failures that another attempt with the same rows cannot cure. */
const HOPELESS = new Set([
  'WAGGLE_STORE_BAD_ROWS',
  'WAGGLE_STORE_UNKNOWN_COLUMN',
  'WAGGLE_STORE_SYNTAX',
]);

/**
 * Carries a log's records into the store: in order, in batches, with a cursor that is written after the store has
 * them and before they may leave the log. A batch sent twice after a crash has the same token and the same ids, so
 * it counts once. A row the store will never take is set aside in `rejected.ndjson`, with the reason.
 */
export class Forwarder {
  readonly #options: ForwarderOptions;
  readonly #cursorPath: string;
  /** Names this log among all that send to the same store. */
  #logId: string = randomUUID();
  #cursor = 0;
  #abort = new AbortController();
  #store: Store | undefined;
  #loop: Promise<void> | undefined;
  #stopping = false;
  #wake: (() => void) | undefined;
  #failure: string | undefined;
  #behindSinceMs: number | undefined;
  #seenSequence = -1;
  #idleWaiters: (() => void)[] = [];

  private constructor(options: ForwarderOptions) {
    this.#options = options;
    this.#cursorPath = join(options.wal.dir, 'forwarded.json');
  }

  static async open(options: ForwarderOptions): Promise<Forwarder> {
    const forwarder = new Forwarder(options);
    const text = await readIfPresent(forwarder.#cursorPath);
    if (text !== undefined) {
      try {
        const { sequence, log } = JSON.parse(text) as { sequence: unknown; log: unknown };
        if (!Number.isSafeInteger(sequence) || typeof log !== 'string')
          throw new Error('no sequence');
        forwarder.#cursor = sequence as number;
        forwarder.#logId = log;
      } catch (cause) {
        throw ledgerError('WAGGLE_LEDGER_CORRUPT', `${forwarder.#cursorPath} cannot be read`, {
          cause,
          remedy:
            'Remove the file: everything in the log is sent again and, having ids, counted once.',
        });
      }
    }
    if (text === undefined) await forwarder.#writeCursor(0);
    if (forwarder.#cursor < options.wal.durableSequence) {
      forwarder.#behindSinceMs = options.clock.monotonicMs();
    }
    return forwarder;
  }

  /** Everything up to here is in the store. */
  get cursor(): number {
    return this.#cursor;
  }

  start(store: Store): void {
    if (this.#loop !== undefined) return;
    this.#store = store;
    this.#stopping = false;
    this.#abort = new AbortController();
    this.#loop = this.#run().finally(() => {
      this.#loop = undefined;
    });
  }

  /** Tells the loop that there is something new. */
  notify(): void {
    this.#behindSinceMs ??= this.#options.clock.monotonicMs();
    this.#wake?.();
  }

  status(): ForwarderStatus {
    const { wal, clock } = this.#options;
    const backlog = Math.max(0, wal.durableSequence - this.#cursor);
    const failure = this.#failure ?? wal.status().failure?.message;
    return {
      ok: failure === undefined,
      backlog,
      lagMs:
        backlog === 0 || this.#behindSinceMs === undefined
          ? 0
          : clock.monotonicMs() - this.#behindSinceMs,
      ...(failure === undefined ? {} : { detail: failure }),
    };
  }

  /** Resolves when everything that is durable now has been forwarded. */
  async idle(): Promise<void> {
    const target = this.#options.wal.durableSequence;
    while (this.#cursor < target && this.#loop !== undefined) {
      this.#wake?.();
      await new Promise<void>((fulfil) => this.#idleWaiters.push(fulfil));
    }
  }

  /** Sends what is left, for at most `drainMs`, and stops. */
  async stop(drainMs = 5_000): Promise<void> {
    if (this.#loop === undefined) return;
    const deadline = new Promise<void>((fulfil) => {
      setTimeout(fulfil, drainMs).unref();
    });
    if (this.#failure === undefined) await Promise.race([this.idle(), deadline]);
    this.#stopping = true;
    this.#wake?.();
    const loop = this.#loop;
    await Promise.race([loop, deadline]);
    // A batch that hangs is given up; it is sent again, under the same token, after the next start.
    this.#abort.abort();
    await loop;
  }

  async #run(): Promise<void> {
    const { wal, logger, maxBackoffMs = 30_000, intervalMs = 200 } = this.#options;
    let attempt = 0;
    while (!this.#stopping) {
      if (this.#cursor >= wal.durableSequence) {
        if (wal.lastSequence === wal.durableSequence) this.#behindSinceMs = undefined;
        this.#settleIdle();
        // Records may be on their way to the disk; otherwise wait to be told.
        if (wal.lastSequence === this.#seenSequence) await this.#pause(undefined);
        this.#seenSequence = wal.lastSequence;
        await this.#pause(intervalMs, true);
        continue;
      }
      try {
        await this.#forwardBatch();
        if (this.#failure !== undefined) logger.info({}, 'the store takes events again');
        this.#failure = undefined;
        attempt = 0;
        this.#settleIdle();
      } catch (err) {
        if (this.#failure === undefined) {
          logger.warn({ err }, 'events stay in the write-ahead log until the store takes them');
        }
        this.#failure = err instanceof Error ? err.message : String(err);
        this.#settleIdle();
        // Doubling pauses with up to half of random length, so that many gateways do not return in step.
        const pause = Math.min(maxBackoffMs, 100 * 2 ** Math.min(attempt, 20));
        attempt++;
        await this.#pause(pause * (0.5 + Math.random() / 2), true);
      }
    }
    this.#settleIdle();
  }

  async #forwardBatch(): Promise<void> {
    const { wal, batchRows = 20_000 } = this.#options;
    const byTable = new Map<string, ForwardedRow['row'][]>();
    const first = this.#cursor + 1;
    let last = this.#cursor;
    let rows = 0;
    let bytes = 0;
    for await (const { sequence, payload } of wal.read(first)) {
      for (const { table, row } of this.#options.rowsOf(payload)) {
        let list = byTable.get(table);
        if (list === undefined) {
          list = [];
          byTable.set(table, list);
        }
        list.push(row);
        rows++;
      }
      last = sequence;
      bytes += payload.byteLength;
      if (rows >= batchRows || bytes >= MAX_BATCH_BYTES) break;
    }
    // Refused records leave gaps at the end, and there is nothing in them.
    if (last === this.#cursor) last = wal.durableSequence;
    for (const [table, list] of byTable) await this.#send(table, list, `${first}-${last}`);
    await this.#writeCursor(last);
    const keep = this.#options.mayRemoveBefore?.() ?? Number.MAX_SAFE_INTEGER;
    await wal.truncateBefore(Math.min(last + 1, keep));
  }

  async #writeCursor(sequence: number): Promise<void> {
    await writeDurably(this.#cursorPath, JSON.stringify({ sequence, log: this.#logId }));
    this.#cursor = sequence;
  }

  /** Sends rows; halves the batch around rows that the store will never take. */
  async #send(table: string, rows: ForwardedRow['row'][], token: string): Promise<void> {
    try {
      const options = {
        deduplicationToken: `${this.#logId}:${token}`,
        signal: this.#abort.signal,
      };
      if (areLines(rows)) {
        await this.#store!.insertRaw(table, 'JSONEachRow', linesOf(rows), options);
      } else {
        await this.#store!.insert(table, rows, options);
      }
    } catch (err) {
      if (!isWaggleError(err) || !HOPELESS.has(err.code)) throw err;
      if (rows.length === 1) {
        await this.#reject(table, rows[0]!, err.message);
        return;
      }
      const half = rows.length >> 1;
      await this.#send(table, rows.slice(0, half), `${token}a`);
      await this.#send(table, rows.slice(half), `${token}b`);
    }
  }

  async #reject(table: string, row: ForwardedRow['row'], reason: string): Promise<void> {
    const path = join(this.#options.wal.dir, 'rejected.ndjson');
    const columns = row instanceof Uint8Array ? parseLine(row) : row;
    await appendFile(path, `${JSON.stringify({ table, reason, row: columns })}\n`, { mode: 0o600 });
    this.#options.logger.error(
      { table, reason, path },
      'the store refuses a row; it was set aside',
    );
  }

  #settleIdle(): void {
    for (const fulfil of this.#idleWaiters.splice(0)) fulfil();
  }

  /** Waits until notified, or for `ms`; a deaf pause is ended by stop() only. */
  #pause(ms: number | undefined, deaf = false): Promise<void> {
    if (this.#stopping) return Promise.resolve();
    return new Promise<void>((fulfil) => {
      const timer = ms === undefined ? undefined : setTimeout(finish, ms);
      const self = this;
      function finish() {
        clearTimeout(timer);
        self.#wake = undefined;
        fulfil();
      }
      this.#wake = () => {
        if (!deaf || this.#stopping) finish();
      };
    });
  }
}

/** Rows of one table come from one log, which writes all of them in the same way. */
function areLines(rows: ForwardedRow['row'][]): rows is Uint8Array[] {
  return rows[0] instanceof Uint8Array;
}

const NEWLINE = Buffer.from('\n');
const CHUNK_BYTES = 1 << 18;

/** Lines in pieces of some 256 kB: one per line would cost more than the lines do. */
function linesOf(rows: readonly Uint8Array[]): Readable {
  function* pieces(): Generator<Buffer> {
    let parts: Uint8Array[] = [];
    let bytes = 0;
    for (const row of rows) {
      parts.push(row, NEWLINE);
      bytes += row.byteLength + 1;
      if (bytes < CHUNK_BYTES) continue;
      yield Buffer.concat(parts, bytes);
      parts = [];
      bytes = 0;
    }
    if (bytes > 0) yield Buffer.concat(parts, bytes);
  }
  return Readable.from(pieces(), { objectMode: false });
}

/** What a refused line holds, or its text where that is not even JSON. */
function parseLine(line: Uint8Array): unknown {
  const text = Buffer.from(line.buffer, line.byteOffset, line.byteLength).toString('utf8');
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
