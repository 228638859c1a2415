import type { IncomingMessage } from 'node:http';
import { Readable } from 'node:stream';
import zlib from 'node:zlib';
import type { EngineStatement } from '../engine/chdb-engine.js';
import { firstWord, parseInsert } from '../engine/statement.js';
import { exception } from './http-errors.js';

/** A statement as ClickHouse's HTTP interface describes it, minus who asked. */
export interface HttpStatement extends Omit<EngineStatement, 'signal'> {
  readonly queryId: string | undefined;
  readonly compressResponse: boolean;
}

/** Text of a statement that is not an INSERT. */
const MAX_QUERY_BYTES = 16 << 20;
/** How much of a body is looked at to find out whether it begins with an INSERT. */
const PEEK_BYTES = 256 << 10;

const RESERVED = new Set([
  'query',
  'query_id',
  'database',
  'default_format',
  'session_id',
  'session_timeout',
  'session_check',
  'close_session',
  'user',
  'password',
  'quota_key',
  'client_protocol_version',
  'stacktrace',
]);
const READING = new Set([
  'SELECT',
  'WITH',
  'SHOW',
  'DESCRIBE',
  'DESC',
  'EXISTS',
  'EXPLAIN',
  'CHECK',
  '',
]);

/** @throws errors in ClickHouse's shape */
export async function readStatement(request: IncomingMessage, url: URL): Promise<HttpStatement> {
  const settings: Record<string, string> = {};
  const params: Record<string, string> = {};
  for (const [name, value] of url.searchParams) {
    if (name.startsWith('param_')) params[name.slice(6)] = value;
    else if (name === 'compress' || name === 'decompress') {
      if (value !== '0') {
        throw exception(
          48,
          'NOT_IMPLEMENTED',
          `ClickHouse's own block compression (${name}=1) is not spoken here; use HTTP compression`,
        );
      }
    } else if (name === 'role') {
      throw exception(511, 'UNKNOWN_ROLE', 'The embedded engine has no roles');
    } else if (!RESERVED.has(name)) settings[name] = value;
  }
  let sql = url.searchParams.get('query') ?? '';
  let body: Readable | undefined;
  if (request.method === 'POST') {
    const stream = decoded(request);
    const multipart = /^multipart\/form-data;.*boundary="?([^";]+)"?/i.exec(
      request.headers['content-type'] ?? '',
    );
    if (multipart !== null) {
      const fields = parseMultipart(await readAll(stream), multipart[1]!);
      for (const [name, value] of fields) {
        if (name === 'query') sql = value;
        else if (name.startsWith('param_')) params[name.slice(6)] = value;
        else
          throw exception(
            48,
            'NOT_IMPLEMENTED',
            `External tables in a form (${name}) are not supported`,
          );
      }
    } else if (sql !== '' && parseInsert(sql) !== undefined) {
      body = stream;
    } else {
      ({ sql, body } = await splitBody(sql, stream));
    }
  }
  if (request.method !== 'POST' && !READING.has(firstWord(sql))) {
    throw exception(
      164,
      'READONLY',
      'Cannot execute query in readonly mode. For queries over HTTP, method GET implies readonly. You should use method POST for modifying queries',
    );
  }
  const timeout = url.searchParams.get('session_timeout');
  const sessionId = url.searchParams.get('session_id');
  const format = header(request, 'x-clickhouse-format') ?? url.searchParams.get('default_format');
  const database = header(request, 'x-clickhouse-database') ?? url.searchParams.get('database');
  return {
    sql,
    queryId: url.searchParams.get('query_id') ?? undefined,
    ...(format === null ? {} : { format }),
    settings,
    params,
    ...(database === null ? {} : { database }),
    ...(sessionId === null || sessionId === ''
      ? {}
      : {
          session: {
            id: sessionId,
            ...(timeout === null
              ? {}
              : { timeoutMs: Math.min(3_600, Math.max(0, Number(timeout) || 0)) * 1000 }),
            mustExist: url.searchParams.get('session_check') === '1',
          },
        }),
    ...(body === undefined ? {} : { body }),
    materialise: truthy(url.searchParams.get('wait_end_of_query')),
    compressResponse: truthy(url.searchParams.get('enable_http_compression')),
  };
}

function truthy(value: string | null): boolean {
  return value === '1' || value === 'true';
}

function header(request: IncomingMessage, name: string): string | null {
  const value = request.headers[name];
  return typeof value === 'string' && value !== '' ? value : null;
}

/** The body without its Content-Encoding. */
function decoded(request: IncomingMessage): Readable {
  const encoding = (request.headers['content-encoding'] ?? 'identity').toLowerCase().trim();
  const decoder = decoderOf(encoding);
  if (decoder === undefined) {
    throw exception(
      48,
      'NOT_IMPLEMENTED',
      `Unknown Content-Encoding '${encoding}'; gzip, deflate and br are understood`,
    );
  }
  if (decoder === 'identity') return request;
  const decode = async function* () {
    request.on('error', (err) => decoder.destroy(err));
    request.on('close', () => {
      if (!request.complete) decoder.destroy(new Error('the client went away'));
    });
    request.pipe(decoder);
    try {
      yield* decoder;
    } catch (err) {
      const code = (err as NodeJS.ErrnoException).code ?? '';
      if (!/^(Z_|ERR_)/.test(code)) throw err;
      throw exception(
        354,
        'ZLIB_INFLATE_FAILED',
        `The body is not valid ${encoding}: ${(err as Error).message}`,
      );
    }
  };
  return Readable.from(decode(), { objectMode: false });
}

function decoderOf(encoding: string): zlib.Gunzip | zlib.BrotliDecompress | 'identity' | undefined {
  switch (encoding) {
    case '':
    case 'identity':
      return 'identity';
    case 'gzip':
    case 'x-gzip':
      return zlib.createGunzip();
    case 'deflate':
      return zlib.createInflate() as unknown as zlib.Gunzip;
    case 'br':
      return zlib.createBrotliDecompress();
    default:
      return undefined;
  }
}

/** Joins the URL's query with the body's text, or separates an INSERT at the head of the body from its rows. */
async function splitBody(
  query: string,
  stream: Readable,
): Promise<{ sql: string; body: Readable | undefined }> {
  const iterator = stream[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  const parts: Buffer[] = [];
  let size = 0;
  let peeked = false;
  for (;;) {
    const step = await iterator.next();
    if (step.done) break;
    parts.push(step.value);
    size += step.value.length;
    if (!peeked && size >= PEEK_BYTES) {
      peeked = true;
      const head = Buffer.concat(parts);
      const text = query === '' ? head.toString('utf8') : `${query}\n${head.toString('utf8')}`;
      const insert = parseInsert(text);
      if (insert !== undefined) {
        const skip =
          Buffer.byteLength(text.slice(0, insert.dataStart)) -
          (query === '' ? 0 : Buffer.byteLength(query) + 1);
        const rest = head.subarray(Math.max(0, skip));
        return {
          sql: text.slice(0, insert.dataStart),
          body: Readable.from(
            (async function* () {
              yield rest;
              for (;;) {
                const next = await iterator.next();
                if (next.done) return;
                yield next.value;
              }
            })(),
            { objectMode: false },
          ),
        };
      }
    }
    if (size > MAX_QUERY_BYTES) {
      throw exception(
        307,
        'TOO_MANY_BYTES',
        `A query may have ${MAX_QUERY_BYTES} bytes; send rows of an INSERT as the body and the query in the URL`,
      );
    }
  }
  const bytes = Buffer.concat(parts);
  const whole = bytes.toString('utf8');
  const sql = query === '' ? whole : whole === '' ? query : `${query}\n${whole}`;
  const insert = query === '' ? parseInsert(sql) : undefined;
  if (insert !== undefined && insert.dataStart < sql.length) {
    // Rows go on as bytes: they need not be text.
    const rest = bytes.subarray(Buffer.byteLength(sql.slice(0, insert.dataStart)));
    return {
      sql: sql.slice(0, insert.dataStart),
      body: Readable.from([rest], { objectMode: false }),
    };
  }
  return { sql, body: undefined };
}

async function readAll(stream: Readable): Promise<Buffer> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of stream) {
    size += (part as Buffer).length;
    if (size > MAX_QUERY_BYTES)
      throw exception(307, 'TOO_MANY_BYTES', `A form may have ${MAX_QUERY_BYTES} bytes`);
    parts.push(part as Buffer);
  }
  return Buffer.concat(parts);
}

/** Text fields of a form; what @clickhouse/client sends for long parameters. */
function parseMultipart(body: Buffer, boundary: string): [string, string][] {
  const fields: [string, string][] = [];
  const mark = `--${boundary}`;
  let at = body.indexOf(mark);
  while (at >= 0) {
    const start = at + mark.length;
    if (body.toString('latin1', start, start + 2) === '--') break;
    const end = body.indexOf(`\r\n${mark}`, start);
    if (end < 0) break;
    const split = body.indexOf('\r\n\r\n', start);
    if (split < 0 || split > end) break;
    const name = /name="([^"]*)"/i.exec(body.toString('utf8', start, split))?.[1];
    if (name !== undefined) fields.push([name, body.toString('utf8', split + 4, end)]);
    at = end + 2;
  }
  return fields;
}
