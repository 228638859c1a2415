import { randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import type { ClickHouseClientConfigOptions } from '@clickhouse/client';
import type { ChdbEngine, EngineSummary } from './chdb-engine.js';
import { parameterText } from './parameter-text.js';

/** The shape that `createClient({ connection })` takes. */
type ClientConnection = NonNullable<ClickHouseClientConfigOptions['connection']>;

/**
 * A connection of @clickhouse/client that runs in this process, on the same engine as `waggle store`. chDB's own
 * connection would do for queries, but it reads inserts as UTF-8 text and lets settings leak between statements.
 */
export function engineConnection(engine: ChdbEngine, database?: string): ClientConnection {
  const run = (
    params: Parameters<ClientConnection['query']>[0],
    extra: { body?: Readable | Uint8Array; materialise?: boolean } = {},
  ) => {
    const { default_format, ...settings } = (params.clickhouse_settings ?? {}) as Record<
      string,
      string | number | boolean
    >;
    return engine.run({
      sql: params.query,
      settings,
      ...(default_format === undefined ? {} : { format: String(default_format) }),
      ...(params.query_params === undefined ? {} : { params: texts(params.query_params) }),
      ...(params.session_id === undefined ? {} : { session: { id: params.session_id } }),
      ...(params.abort_signal === undefined ? {} : { signal: params.abort_signal }),
      ...(database === undefined ? {} : { database }),
      materialise: settings['wait_end_of_query'] === 1,
      ...extra,
    });
  };
  const base = (queryId: string | undefined) => ({
    query_id: queryId ?? randomUUID(),
    response_headers: {},
    http_status_code: 200,
  });
  return {
    async query(params) {
      const result = await run(params);
      return { stream: toReadable(result.chunks), ...base(params.query_id) };
    },
    async exec(params) {
      const result = await run(params, params.values === undefined ? {} : { body: params.values });
      return {
        stream: toReadable(result.chunks),
        ...base(params.query_id),
        summary: summaryText(result.summary),
      };
    },
    async command(params) {
      const result = await run(params, { materialise: true });
      await result.chunks.return();
      return { ...base(params.query_id), summary: summaryText(result.summary) };
    },
    async insert(params) {
      const body = typeof params.values === 'string' ? Buffer.from(params.values) : params.values;
      const result = await run(params, { body });
      await result.chunks.return();
      return { ...base(params.query_id), summary: summaryText(result.summary) };
    },
    async ping() {
      try {
        const result = await engine.run({ sql: 'SELECT 1', materialise: true });
        await result.chunks.return();
        return { success: true };
      } catch (thrown) {
        return {
          success: false,
          error: thrown instanceof Error ? thrown : new Error(String(thrown)),
        };
      }
    },
    close: () => engine.close(),
  };
}

function texts(params: Record<string, unknown>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(params).map(([name, value]) => [name, parameterText(value)]),
  );
}

function toReadable(chunks: AsyncGenerator<Uint8Array, void, undefined>): Readable {
  return Readable.from(chunks, { objectMode: false, highWaterMark: 1 << 20 });
}

/** ClickHouse's X-ClickHouse-Summary. */
export function summaryText(summary: EngineSummary) {
  return {
    read_rows: String(summary.readRows),
    read_bytes: String(summary.readBytes),
    written_rows: String(summary.writtenRows),
    written_bytes: String(summary.writtenBytes),
    total_rows_to_read: '0',
    result_rows: String(summary.writtenRows > 0 ? summary.writtenRows : summary.readRows),
    result_bytes: String(summary.resultBytes),
    elapsed_ns: String(summary.elapsedNs),
  };
}
