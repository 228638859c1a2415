import { randomUUID } from 'node:crypto';
import { appendFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { type Clock, isWaggleError, type Logger } from '@waggle/core';
import { ledgerError } from '../errors.js';
import type { InsertOptions, Store } from '../store.js';
import type { WriteAheadLog } from '../wal/index.js';
import { readIfPresent, writeDurably } from './durable-file.js';

/** A row on its way to a table. */
export interface ForwardedRow {
  readonly table: string;
  /** Columns by name. */
  readonly row: object;
}

/** What the records of a log are. */
export type RecordForm =
  /** Rows of one record; empty for records that concern only the log's owner. */
  | { readonly rowsOf: (payload: Uint8Array, sequence: number) => readonly ForwardedRow[] }
  /** Each record is one row of this table, as JSON in UTF-8 without a line break: it is sent as it is. */
  | { readonly linesFor: string };

export interface ForwarderOptions {
  readonly wal: WriteAheadLog;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly records: RecordForm;
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
/** Lines pass through without being kept, so a batch of them may be large; the store makes one part of each. */
const MAX_LINES_BYTES = 64 << 20;
/** Forwarding is nobody's answer: it takes one thread of the store and leaves the others to who waits. */
const IN_THE_BACKGROUND = {
  max_threads: 1,
  max_insert_threads: 1,
  input_format_parallel_parsing: 0,
};
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
      const settled = new Promise<void>((fulfil) => this.#idleWaiters.push(fulfil));
      this.#wake?.();
      await settled;
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
        if (wal.lastSequence === this.#seenSequence) await this.#pause(undefined, 'news');
        this.#seenSequence = wal.lastSequence;
        await this.#pause(intervalMs, 'asked');
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
        await this.#pause(pause * (0.5 + Math.random() / 2), 'stop');
      }
    }
    this.#settleIdle();
  }

  async #forwardBatch(): Promise<void> {
    const { wal, records } = this.#options;
    const first = this.#cursor + 1;
    const last =
      'linesFor' in records
        ? await this.#forwardLines(first, records.linesFor)
        : await this.#forwardRows(first, records.rowsOf);
    await this.#writeCursor(last);
    const keep = this.#options.mayRemoveBefore?.() ?? Number.MAX_SAFE_INTEGER;
    await wal.truncateBefore(Math.min(last + 1, keep));
  }

  /** @returns the last sequence that is in the store now */
  async #forwardRows(
    first: number,
    rowsOf: (payload: Uint8Array, sequence: number) => readonly ForwardedRow[],
  ): Promise<number> {
    const { wal, batchRows = 20_000 } = this.#options;
    const byTable = new Map<string, object[]>();
    let last = first - 1;
    let rows = 0;
    let bytes = 0;
    for await (const { sequence, payload } of wal.read(first)) {
      for (const { table, row } of rowsOf(payload, sequence)) {
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
    if (last < first) last = wal.durableSequence;
    for (const [table, list] of byTable) await this.#send(table, list, `${first}-${last}`);
    return last;
  }

  /** Sends records while they are read: what a batch holds is fixed before, by its last sequence. */
  async #forwardLines(first: number, table: string): Promise<number> {
    const { wal, batchRows = 20_000 } = this.#options;
    const last = Math.min(
      wal.durableSequence,
      first + batchRows - 1,
      wal.boundary(first, MAX_LINES_BYTES),
    );
    const token = `${first}-${last}`;
    const hurried = () => this.#stopping || this.#idleWaiters.length > 0;
    const pieces = linesOf(wal, first, last, hurried);
    try {
      // Without a record there is nothing to insert: refused ones leave gaps.
      const head = await pieces.next();
      if (head.done === true) return last;
      const body = Readable.from(startingWith(head.value, pieces), { objectMode: false });
      await this.#store!.insertRaw(table, 'JSONEachRow', body, this.#insertOptions(token));
    } catch (err) {
      if (!isWaggleError(err) || !HOPELESS.has(err.code)) throw err;
      // Some row of them will never be taken. This is rare enough to take them all in hand and look for it.
      const lines: Line[] = [];
      for await (const { sequence, payload } of wal.read(first)) {
        if (sequence > last) break;
        lines.push(new Line(payload));
      }
      await this.#send(table, lines, token);
    } finally {
      // The file is still open when the store gave up before the end.
      await pieces.return();
    }
    return last;
  }

  #insertOptions(token: string): InsertOptions {
    return {
      deduplicationToken: `${this.#logId}:${token}`,
      signal: this.#abort.signal,
      settings: IN_THE_BACKGROUND,
    };
  }

  async #writeCursor(sequence: number): Promise<void> {
    await this.#options.wal.assertHeld();
    await writeDurably(this.#cursorPath, JSON.stringify({ sequence, log: this.#logId }));
    this.#cursor = sequence;
  }

  /** Sends rows; halves the batch around rows that the store will never take. */
  async #send(table: string, rows: readonly object[], token: string): Promise<void> {
    try {
      const options = this.#insertOptions(token);
      if (areLines(rows)) {
        await this.#store!.insertRaw(table, 'JSONEachRow', Readable.from(textOf(rows)), options);
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

  async #reject(table: string, row: object, reason: string): Promise<void> {
    const path = join(this.#options.wal.dir, 'rejected.ndjson');
    const columns = row instanceof Line ? row.parse() : row;
    await appendFile(path, `${JSON.stringify({ table, reason, row: columns })}\n`, { mode: 0o600 });
    this.#options.logger.error(
      { table, reason, path },
      'the store refuses a row; it was set aside',
    );
  }

  #settleIdle(): void {
    for (const fulfil of this.#idleWaiters.splice(0)) fulfil();
  }

  /** Waits for `ms`, or until there is news, or somebody asks for the rest to be sent, or `stop` is called. */
  #pause(ms: number | undefined, until: 'news' | 'asked' | 'stop'): Promise<void> {
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
        const asked = until === 'asked' && this.#idleWaiters.length > 0;
        if (this.#stopping || until === 'news' || asked) finish();
      };
    });
  }
}

/** A row that is JSON already. */
class Line {
  readonly #text: string;

  constructor(json: Uint8Array) {
    this.#text = Buffer.from(json.buffer, json.byteOffset, json.byteLength).toString('utf8');
  }

  get text(): string {
    return this.#text;
  }

  /** What the line holds, or its text where that is not even JSON. */
  parse(): unknown {
    try {
      return JSON.parse(this.#text);
    } catch {
      return this.#text;
    }
  }
}

/** Rows of one table come from one log, all of them in the same form. */
function areLines(rows: readonly object[]): rows is readonly Line[] {
  return rows[0] instanceof Line;
}

function* textOf(lines: readonly Line[]): Generator<string> {
  for (const { text } of lines) yield `${text}\n`;
}

const NEWLINE = 10;
const PIECE_BYTES = 1 << 17;
/**
 * Between two pieces: 32 MiB a second at most, some 12,000 decisions. A batch that is sent as fast as it can be keeps
 * the event loop, the collector and the store busy at once, and every request that falls due meanwhile waits.
 */
const PIECE_PAUSE_MS = 4;

/** Records as lines, in pieces of some 128 kB: one per line would cost more than the lines do. */
async function* linesOf(
  wal: WriteAheadLog,
  first: number,
  last: number,
  hurried: () => boolean,
): AsyncGenerator<Buffer, void, undefined> {
  let piece = Buffer.allocUnsafeSlow(PIECE_BYTES);
  let used = 0;
  for await (const { sequence, payload } of wal.read(first, { borrowed: true })) {
    if (sequence > last) break;
    const bytes = payload.byteLength + 1;
    if (used + bytes > piece.length) {
      if (used > 0) {
        yield piece.subarray(0, used);
        if (!hurried()) await new Promise((wake) => setTimeout(wake, PIECE_PAUSE_MS));
      }
      piece = Buffer.allocUnsafeSlow(Math.max(PIECE_BYTES, bytes));
      used = 0;
    }
    piece.set(payload, used);
    piece[used + bytes - 1] = NEWLINE;
    used += bytes;
  }
  if (used > 0) yield piece.subarray(0, used);
}

async function* startingWith<T>(
  first: T,
  rest: AsyncGenerator<T, void, undefined>,
): AsyncGenerator<T, void, undefined> {
  yield first;
  yield* rest;
}
