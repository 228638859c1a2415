import type { Readable } from 'node:stream';
import type { ColumnTable } from '@waggle/core';

/** What the rest of Waggle knows about its database. Ours, so that the client underneath may change. */
export interface Store {
  /** `embedded`: chDB in this process; `owner`: through `waggle store`; `server`: a ClickHouse by URL. */
  readonly kind: 'embedded' | 'owner' | 'server';
  /**
   * Rows as objects. 64-bit integers are numbers (exact below 2^53), times are RFC 3339 strings in UTC.
   * Materialises the result: for millions of rows use `queryColumns` or `stream`.
   */
  query<T extends object>(sql: string, options?: QueryOptions): Promise<T[]>;
  /**
   * The result as columns. Integers up to 32 bits, floats and booleans keep their dtype (`i32`, `u32`, `f32`,
   * `f64`, `u8`), 64-bit integers and decimals become `f64`, dates and times `f64` of UTC milliseconds,
   * strings a `StringColumn`, Array(String) a `StringListColumn`, numeric arrays of one length a
   * column of that width. Nullable numbers become `f64` with NaN (strings: ''). O(bytes of the result).
   * @throws WAGGLE_STORE_RESULT for maps, ragged numeric arrays and other types without a column form
   */
  queryColumns(sql: string, options?: QueryOptions): Promise<ColumnTable>;
  /** Batches of rows as they arrive; leaving the loop early cancels the query. */
  stream<T extends object>(sql: string, options?: QueryOptions): AsyncIterable<T[]>;
  /** A statement without a result: DDL, SET, ALTER, INSERT … SELECT. */
  command(sql: string, options?: QueryOptions): Promise<void>;
  /**
   * Inserts rows as JSONEachRow: RFC 3339 times are accepted, unknown columns refused. An array of up to
   * 250,000 rows is one batch; longer ones and iterables go in several. A batch is stored whole or not at all.
   * @throws WAGGLE_STORE_UNKNOWN_COLUMN, WAGGLE_STORE_BAD_ROWS naming the row
   */
  insert(
    table: string,
    rows: readonly object[] | AsyncIterable<object>,
    options?: InsertOptions,
  ): Promise<{ rows: number }>;
  /** Sends bytes in any ClickHouse input format (Parquet, TSV, RowBinary …) straight through. */
  insertRaw(table: string, format: string, body: Readable, options?: InsertOptions): Promise<void>;
  /**
   * Loads a file, whole or not at all; loading it twice changes nothing that deduplicated reads see.
   * @throws WAGGLE_STORE_BAD_FILE with the line (NDJSON) or the reason (Parquet)
   */
  load(
    table: string,
    file: { path: string; format: 'ndjson' | 'parquet' },
    options?: InsertOptions,
  ): Promise<{ rows: number }>;
  ping(): Promise<void>;
  close(): Promise<void>;
}

export interface QueryOptions {
  /** Values of `{name:Type}` placeholders. */
  params?: Record<string, unknown>;
  settings?: Record<string, string | number>;
  signal?: AbortSignal;
  /** Ends the statement, in the engine too. @default none */
  timeoutMs?: number;
  /** Statements of one session share temporary tables; one at a time. */
  sessionId?: string;
}

export interface InsertOptions {
  /** A retry of the same batch with the same token is not stored twice (within the table's window). */
  deduplicationToken?: string;
  signal?: AbortSignal;
  settings?: Record<string, string | number>;
}
