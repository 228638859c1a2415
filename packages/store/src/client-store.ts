import { createReadStream } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import { Readable } from 'node:stream';
import type { ClickHouseClient, ClickHouseSettings } from '@clickhouse/client';
import type { ColumnTable, Logger, WaggleError } from '@waggle/core';
import { type ErrorContext, toStoreError } from './clickhouse-errors.js';
import { quoteIdentifier } from './engine/statement.js';
import { storeError } from './errors.js';
import { decodeNative } from './native-format.js';
import type { InsertOptions, QueryOptions, Store } from './store.js';

/** Rows per insert statement; below ClickHouse's block size, so that each is stored whole or not at all. */
const BATCH_ROWS = 250_000;
/** Files above this size are loaded through a staging table, because ClickHouse would store them in parts. */
const STAGED_FILE_BYTES = { ndjson: 64 << 20, parquet: 4 << 20 } as const;

const READ_SETTINGS: ClickHouseSettings = {
  output_format_json_quote_64bit_integers: 0,
  date_time_output_format: 'iso',
};

const INSERT_SETTINGS: ClickHouseSettings = {
  date_time_input_format: 'best_effort',
  input_format_skip_unknown_fields: 0,
  input_format_null_as_default: 0,
  input_format_defaults_for_omitted_fields: 1,
  input_format_parquet_case_insensitive_column_matching: 0,
  // One statement makes one block, hence one atomic part.
  min_insert_block_size_rows: '4000000',
  min_insert_block_size_bytes: '2147483648',
  insert_deduplicate: 1,
};

export interface ClientStoreOptions {
  readonly client: ClickHouseClient;
  readonly kind: Store['kind'];
  readonly logger: Logger;
  /** Runs after the client is closed: stopping an owner that this store started. */
  readonly onClose?: () => Promise<void>;
}

/** The one implementation of `Store`: @clickhouse/client over HTTP or over the in-process engine. */
export class ClientStore implements Store {
  readonly kind: Store['kind'];
  readonly #client: ClickHouseClient;
  readonly #onClose: (() => Promise<void>) | undefined;
  #closing: Promise<void> | undefined;

  constructor(options: ClientStoreOptions) {
    this.kind = options.kind;
    this.#client = options.client;
    this.#onClose = options.onClose;
  }

  async query<T extends object>(sql: string, options: QueryOptions = {}): Promise<T[]> {
    return this.#attempt('query', options, async (request) => {
      const result = await this.#client.query({
        query: sql,
        format: 'JSONEachRow',
        ...request,
        clickhouse_settings: {
          ...READ_SETTINGS,
          wait_end_of_query: 1,
          ...request.clickhouse_settings,
        },
      });
      const text = await result.text();
      return parseLines<T>(text);
    });
  }

  async queryColumns(sql: string, options: QueryOptions = {}): Promise<ColumnTable> {
    return this.#attempt('query', options, async (request) => {
      const result = await this.#client.exec({
        query: `${sql}\nFORMAT Native`,
        ...request,
        clickhouse_settings: {
          wait_end_of_query: 1,
          ...request.clickhouse_settings,
        },
      });
      const parts: Buffer[] = [];
      for await (const part of result.stream) parts.push(part as Buffer);
      return decodeNative(parts.length === 1 ? parts[0]! : Buffer.concat(parts));
    });
  }

  async *stream<T extends object>(sql: string, options: QueryOptions = {}): AsyncGenerator<T[]> {
    const limit = limits(options);
    const context = { doing: 'stream', signal: limit.signal, timeoutMs: options.timeoutMs };
    try {
      this.#assertOpen();
      const { clickhouse_settings, ...request } = requestOf(options, limit);
      const result = await this.#client.exec({
        query: `${sql}\nFORMAT JSONEachRow`,
        ...request,
        clickhouse_settings: { ...READ_SETTINGS, ...clickhouse_settings },
      });
      const { stream } = result;
      // The request is over once the headers are there; from here on the signal ends the reading.
      const onAbort = () => stream.destroy(toStoreError(limit.signal!.reason, context));
      limit.signal?.addEventListener('abort', onAbort, { once: true });
      try {
        if (limit.signal?.aborted) onAbort();
        yield* rowBatches<T>(stream);
      } finally {
        limit.signal?.removeEventListener('abort', onAbort);
        stream.on('error', () => {});
        stream.destroy();
      }
    } catch (thrown) {
      throw toStoreError(thrown, context);
    } finally {
      limit.done();
    }
  }

  async command(sql: string, options: QueryOptions = {}): Promise<void> {
    await this.#attempt('command', options, (request) =>
      this.#client.command({
        query: sql,
        ...request,
        clickhouse_settings: { wait_end_of_query: 1, ...request.clickhouse_settings },
      }),
    );
  }

  async insert(
    table: string,
    rows: readonly object[] | AsyncIterable<object>,
    options: InsertOptions = {},
  ): Promise<{ rows: number }> {
    if (Array.isArray(rows)) {
      const all = rows as readonly object[];
      if (all.length <= BATCH_ROWS) {
        await this.#insertBatch(table, all, options);
        return { rows: all.length };
      }
    }
    let total = 0;
    let number = 0;
    for await (const batch of batches(rows)) {
      const token = options.deduplicationToken;
      await this.#insertBatch(table, batch, {
        ...options,
        ...(token === undefined ? {} : { deduplicationToken: `${token}#${number}` }),
      });
      number++;
      total += batch.length;
    }
    return { rows: total };
  }

  async insertRaw(
    table: string,
    format: string,
    body: Readable,
    options: InsertOptions = {},
  ): Promise<void> {
    await this.#insertBody(table, format, body, options, `insert into ${table}`);
  }

  async load(
    table: string,
    file: { path: string; format: 'ndjson' | 'parquet' },
    options: InsertOptions = {},
  ): Promise<{ rows: number }> {
    const doing = `load ${file.path} into ${table}`;
    try {
      const { size } = await stat(file.path);
      if (file.format === 'parquet') await checkParquet(file.path, size);
      if (size === 0) return { rows: 0 };
      return size <= STAGED_FILE_BYTES[file.format]
        ? await this.#loadInto(table, file, options, doing)
        : await this.#loadStaged(table, file, options, doing);
    } catch (thrown) {
      throw fileProblem(toStoreError(thrown, { doing, signal: options.signal }), file.path);
    }
  }

  async ping(): Promise<void> {
    this.#assertOpen();
    const result = await this.#client.ping({ select: true });
    if (!result.success) throw toStoreError(result.error, { doing: 'ping' });
  }

  close(): Promise<void> {
    this.#closing ??= (async () => {
      await this.#client.close();
      await this.#onClose?.();
    })();
    return this.#closing;
  }

  async #insertBatch(
    table: string,
    rows: readonly object[],
    options: InsertOptions,
  ): Promise<void> {
    if (rows.length === 0) return;
    await this.#insertBody(
      table,
      'JSONEachRow',
      Readable.from(ndjson(rows), { objectMode: false }),
      options,
      `insert into ${table}`,
    );
  }

  /** @returns rows written, as the engine counts them */
  async #insertBody(
    table: string,
    format: string,
    body: Readable,
    options: InsertOptions,
    doing: string,
  ): Promise<number> {
    if (!/^[A-Za-z0-9_]+$/.test(format)) {
      throw storeError('WAGGLE_STORE_SYNTAX', `${format} is not the name of a format`);
    }
    const context: ErrorContext = { doing, signal: options.signal };
    try {
      this.#assertOpen();
      options.signal?.throwIfAborted();
      const result = await this.#client.exec({
        query: `INSERT INTO ${quoteIdentifier(table)} FORMAT ${format}`,
        values: body,
        ...(options.signal === undefined ? {} : { abort_signal: options.signal }),
        clickhouse_settings: {
          ...INSERT_SETTINGS,
          wait_end_of_query: 1,
          ...(options.deduplicationToken === undefined
            ? {}
            : { insert_deduplication_token: options.deduplicationToken }),
          ...options.settings,
        },
      });
      for await (const _ of result.stream);
      return Number(result.summary?.written_rows ?? 0);
    } catch (thrown) {
      body.destroy();
      throw toStoreError(thrown, context);
    }
  }

  async #loadInto(
    table: string,
    file: { path: string; format: 'ndjson' | 'parquet' },
    options: InsertOptions,
    doing: string,
  ): Promise<{ rows: number }> {
    const format = file.format === 'ndjson' ? 'JSONEachRow' : 'Parquet';
    const body = createReadStream(file.path, { highWaterMark: 1 << 20 });
    const rows = await this.#insertBody(table, format, body, options, doing);
    return { rows };
  }

  /** Large files: into an empty twin of the table first, whose parts then move over in one atomic step. */
  async #loadStaged(
    table: string,
    file: { path: string; format: 'ndjson' | 'parquet' },
    options: InsertOptions,
    doing: string,
  ): Promise<{ rows: number }> {
    const token = `${process.pid}_${Date.now().toString(36)}_${Math.floor(performance.now() * 1000).toString(36)}`;
    const staging = `${STAGING_PREFIX}${token}`;
    const dot = table.indexOf('.');
    const twin = dot < 0 ? staging : `${table.slice(0, dot)}.${staging}`;
    await this.command(`CREATE TABLE ${quoteIdentifier(twin)} AS ${quoteIdentifier(table)}`);
    try {
      const { deduplicationToken: _unused, ...rest } = options;
      const { rows } = await this.#loadInto(
        twin,
        file,
        // Staged rows may come in many blocks; they are invisible until the last step.
        {
          ...rest,
          settings: {
            ...rest.settings,
            min_insert_block_size_rows: 1_048_576,
            min_insert_block_size_bytes: 268_435_456,
          },
        },
        doing,
      );
      await this.command(
        `ALTER TABLE ${quoteIdentifier(table)} ATTACH PARTITION ID 'all' FROM ${quoteIdentifier(twin)}`,
      );
      return { rows };
    } finally {
      await this.command(`DROP TABLE IF EXISTS ${quoteIdentifier(twin)} SYNC`).catch(() => {});
    }
  }

  async #attempt<T>(
    doing: string,
    options: QueryOptions,
    work: (request: Request) => Promise<T>,
  ): Promise<T> {
    const limit = limits(options);
    try {
      this.#assertOpen();
      limit.signal?.throwIfAborted();
      return await work(requestOf(options, limit));
    } catch (thrown) {
      throw toStoreError(thrown, { doing, signal: limit.signal, timeoutMs: options.timeoutMs });
    } finally {
      limit.done();
    }
  }

  #assertOpen(): void {
    if (this.#closing !== undefined) throw storeError('WAGGLE_STORE_CLOSED', 'the store is closed');
  }
}

/** Tables that hold a running load; those older than a day are removed by `migrate`. */
export const STAGING_PREFIX = 'waggle_loading_';

interface Request {
  query_params?: Record<string, unknown>;
  abort_signal?: AbortSignal;
  session_id?: string;
  clickhouse_settings: ClickHouseSettings;
}

interface Limits {
  readonly signal: AbortSignal | undefined;
  done(): void;
}

function limits(options: QueryOptions): Limits {
  if (options.timeoutMs === undefined) return { signal: options.signal, done: () => {} };
  const controller = new AbortController();
  const timer = setTimeout(
    () => controller.abort(new DOMException('the time limit has passed', 'TimeoutError')),
    options.timeoutMs,
  );
  return {
    signal:
      options.signal === undefined
        ? controller.signal
        : AbortSignal.any([options.signal, controller.signal]),
    done: () => clearTimeout(timer),
  };
}

function requestOf(options: QueryOptions, limit: Limits): Request {
  const settings: Record<string, string | number> = {};
  if (options.timeoutMs !== undefined) {
    // The engine stops by itself too, a little later than the caller.
    settings['max_execution_time'] = Math.max(1, Math.ceil(options.timeoutMs / 1000) + 1);
  }
  Object.assign(settings, options.settings);
  return {
    ...(options.params === undefined ? {} : { query_params: options.params }),
    ...(limit.signal === undefined ? {} : { abort_signal: limit.signal }),
    ...(options.sessionId === undefined ? {} : { session_id: options.sessionId }),
    clickhouse_settings: settings as ClickHouseSettings,
  };
}

function parseLines<T>(text: string): T[] {
  if (text.length === 0) return [];
  // One parse of one array is several times faster than a parse per line.
  const body = text.endsWith('\n') ? text.slice(0, -1) : text;
  return JSON.parse(`[${body.replaceAll('\n', ',')}]`) as T[];
}

const EXCEPTION_MARK = '\r\n__exception__\r\n';

/** Splits a JSONEachRow body into parsed batches; an exception that follows the rows is thrown. */
async function* rowBatches<T>(stream: AsyncIterable<Uint8Array>): AsyncGenerator<T[]> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const chunk of stream) {
    rest += decoder.decode(chunk, { stream: true });
    // Carriage returns are escaped inside JSON: this one begins ClickHouse's exception block.
    if (rest.includes('\r')) continue;
    const end = rest.lastIndexOf('\n');
    if (end < 0) continue;
    yield parseLines<T>(rest.slice(0, end + 1));
    rest = rest.slice(end + 1);
  }
  if (rest === '') return;
  const mark = rest.indexOf(EXCEPTION_MARK);
  const rows = mark < 0 ? rest : rest.slice(0, mark);
  const bare = /(?:^|\n)Code: \d+\. DB::Exception: [\s\S]*$/.exec(rest);
  if (mark < 0 && bare === null) {
    yield parseLines<T>(rows);
    return;
  }
  const message = /Code: \d+\. DB::Exception: [\s\S]*?(?=\n\d+ \w+\r\n|$)/.exec(rest)?.[0];
  throw new Error(message ?? 'the server ended the result with an exception');
}

/** Rows as NDJSON in chunks of about 256 kB. */
function* ndjson(rows: readonly object[]): Generator<Buffer> {
  let text = '';
  for (const row of rows) {
    text += `${JSON.stringify(row)}\n`;
    if (text.length > 262_144) {
      yield Buffer.from(text);
      text = '';
    }
  }
  if (text.length > 0) yield Buffer.from(text);
}

async function* batches(
  rows: readonly object[] | AsyncIterable<object>,
): AsyncGenerator<readonly object[]> {
  if (Array.isArray(rows)) {
    for (let i = 0; i < rows.length; i += BATCH_ROWS) yield rows.slice(i, i + BATCH_ROWS);
    return;
  }
  let batch: object[] = [];
  for await (const row of rows as AsyncIterable<object>) {
    batch.push(row);
    if (batch.length >= 50_000) {
      yield batch;
      batch = [];
    }
  }
  if (batch.length > 0) yield batch;
}

/** A Parquet file begins and ends with PAR1; a truncated one is told apart before anything is sent. */
async function checkParquet(path: string, size: number): Promise<void> {
  const bad = (why: string) =>
    storeError('WAGGLE_STORE_BAD_FILE', `${path}: ${why}`, { details: { path, bytes: size } });
  if (size < 12) throw bad('too short for a Parquet file');
  const handle = await open(path, 'r');
  try {
    const mark = Buffer.alloc(4);
    await handle.read(mark, 0, 4, 0);
    if (mark.toString('latin1') !== 'PAR1') throw bad('not a Parquet file');
    await handle.read(mark, 0, 4, size - 4);
    if (mark.toString('latin1') !== 'PAR1')
      throw bad('the Parquet file is truncated: its footer is missing');
  } finally {
    await handle.close();
  }
}

/** Row problems of a load are problems of the file: say which line. */
function fileProblem(error: WaggleError, path: string): WaggleError {
  if (error.code !== 'WAGGLE_STORE_BAD_ROWS') return error;
  const line = error.details['row'];
  const at = typeof line === 'number' ? `${path}, line ${line}: ` : '';
  return storeError('WAGGLE_STORE_BAD_FILE', `${at}${error.message}`, {
    cause: error,
    details: { ...error.details, path, ...(typeof line === 'number' ? { line } : {}) },
  });
}
