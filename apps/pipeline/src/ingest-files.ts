import { createReadStream } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { basename, extname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { DAY_MS, parseTimestampMs } from '@waggle/core';
import {
  ENTITY_TABLES,
  EVENT_TABLES,
  type TableContract,
  TimestampPattern,
} from '@waggle/core/contract';
import {
  asyncBufferFromFile,
  type FileMetaData,
  parquetMetadataAsync,
  parquetSchema,
} from 'hyparquet';
import type { TSchema } from 'typebox';
import { Compile } from 'typebox/compile';
import { Default } from 'typebox/value';
import { pipelineError } from './errors.js';

const CONTRACTS: Readonly<Record<string, TableContract>> = Object.fromEntries(
  [...Object.values(ENTITY_TABLES), ...Object.values(EVENT_TABLES)].map((c) => [c.table, c]),
);

export interface IngestFile {
  readonly path: string;
  readonly table: string;
  readonly format: 'ndjson' | 'parquet';
}

/** Entities come before the events that name them. */
const TABLE_ORDER = Object.keys(CONTRACTS);

/**
 * The files to load under `path`: one file, or a folder of `<table>.parquet`, `<table>.ndjson` and
 * `<table>.<anything>.parquet` files.
 * @throws WAGGLE_INGEST_UNREADABLE
 */
export async function ingestFiles(path: string): Promise<IngestFile[]> {
  const info = await stat(path).catch((cause: unknown) => {
    throw pipelineError('WAGGLE_INGEST_UNREADABLE', `${path} cannot be read`, { cause });
  });
  const names = info.isDirectory()
    ? (await readdir(path)).sort().map((name) => join(path, name))
    : [path];
  const files: IngestFile[] = [];
  for (const file of names) {
    const format = { '.ndjson': 'ndjson', '.jsonl': 'ndjson', '.parquet': 'parquet' }[
      extname(file)
    ];
    const table = basename(file).split('.')[0]!;
    if (format === undefined) continue;
    if (!(table in CONTRACTS)) {
      throw pipelineError('WAGGLE_INGEST_UNREADABLE', `${file}: there is no table "${table}"`, {
        details: { tables: TABLE_ORDER },
      });
    }
    files.push({ path: file, table, format: format as IngestFile['format'] });
  }
  if (files.length === 0) {
    throw pipelineError(
      'WAGGLE_INGEST_UNREADABLE',
      `${path} holds no .ndjson or .parquet file of a known table`,
    );
  }
  return files.sort((a, b) => TABLE_ORDER.indexOf(a.table) - TABLE_ORDER.indexOf(b.table));
}

/** An error as the compiled schema reports it. */
interface SchemaError {
  readonly keyword: string;
  readonly instancePath: string;
  readonly params: object;
  readonly message?: string;
}

/** Events are taken as the gateway takes them: from here to a day ahead of now. */
const EARLIEST_EVENT_MS = Date.UTC(2000, 0, 1);
const MAX_NAMED_FIELDS = 5;
const MAX_SHOWN_CHARS = 80;

/** What is wrong with a row in words: the field, what it says and what it may say. */
function problemOf(errors: readonly SchemaError[], row: unknown): string {
  const [first] = errors;
  if (first === undefined) return 'does not match the contract';
  const params = first.params as Readonly<Record<string, unknown>>;
  const path = first.instancePath.slice(1);
  const quoted = (names: readonly unknown[]) => names.map((name) => JSON.stringify(name));
  if (first.keyword === 'required' && Array.isArray(params['requiredProperties'])) {
    const names = quoted(params['requiredProperties']);
    const more = names.length - MAX_NAMED_FIELDS;
    return `lacks ${names.slice(0, MAX_NAMED_FIELDS).join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
  }
  // What may not be there at all.
  if (first.keyword === 'boolean')
    return `has an unknown field "${path.slice(0, MAX_SHOWN_CHARS)}"`;
  if (path === '') return first.message ?? 'does not match the contract';
  let value = row;
  for (const key of path.split('/')) value = (value as Record<string, unknown> | undefined)?.[key];
  const found = `${path} is ${JSON.stringify(value)?.slice(0, MAX_SHOWN_CHARS)}`;
  const allowed = errors
    .filter((e) => e.keyword === 'const' && e.instancePath === first.instancePath)
    .map((e) => (e.params as { allowedValue?: unknown }).allowedValue);
  if (allowed.length > 0) return `${found}: must be ${quoted(allowed).join(' or ')}`;
  if (params['pattern'] === TimestampPattern) {
    return `${found}: must be a time in UTC like "2026-03-01T09:30:00.000Z"`;
  }
  return `${found}: ${first.message ?? 'does not match the contract'}`;
}

/** What is wrong with the times of a row that matches its schema. */
function timeProblemOf(
  row: Readonly<Record<string, unknown>>,
  times: readonly string[],
  latestEventMs: number,
): string | undefined {
  for (const name of times) {
    const text = row[name] as string;
    const ms = parseTimestampMs(text);
    if (ms === undefined) return `${name} is "${text}", which is not a date on the calendar`;
    if (name !== 'ts') continue;
    if (ms < EARLIEST_EVENT_MS) return `ts is "${text}", before the year 2000`;
    if (ms > latestEventMs) return `ts is "${text}", more than a day ahead of now`;
  }
  return undefined;
}

/**
 * Checks every line of an NDJSON file against its table's contract before anything is loaded.
 * O(file), streaming.
 * @throws WAGGLE_INGEST_INVALID with the line number
 */
export async function checkNdjson(file: IngestFile, nowMs: number): Promise<number> {
  const { schema } = CONTRACTS[file.table]!;
  const times = Object.entries(schema.properties)
    .filter(([, field]) => (field as { pattern?: string }).pattern === TimestampPattern)
    .map(([name]) => name);
  const validator = Compile(schema);
  const decoder = new TextDecoder('utf-8', { fatal: true });
  const invalid = (line: number, why: string, cause?: unknown) =>
    pipelineError('WAGGLE_INGEST_INVALID', `${file.path}:${line}: ${why}`, {
      ...(cause === undefined ? {} : { cause }),
      details: { line, table: file.table },
    });
  // latin1 keeps the bytes, so that invalid UTF-8 is seen instead of silently replaced.
  const lines = createInterface({
    input: createReadStream(file.path, 'latin1'),
    crlfDelay: Number.POSITIVE_INFINITY,
  });
  let n = 0;
  let rows = 0;
  for await (const raw of lines) {
    n++;
    if (raw.trim() === '') continue;
    let text: string;
    try {
      text = decoder.decode(Buffer.from(raw, 'latin1'));
    } catch (cause) {
      throw invalid(n, 'not valid UTF-8', cause);
    }
    let row: unknown;
    try {
      row = JSON.parse(text);
    } catch (cause) {
      throw invalid(n, 'not valid JSON', cause);
    }
    const complete = Default(schema, row);
    if (!validator.Check(complete)) {
      throw invalid(n, problemOf(validator.Errors(complete), complete));
    }
    const late = timeProblemOf(complete as Record<string, unknown>, times, nowMs + DAY_MS);
    if (late !== undefined) throw invalid(n, late);
    rows++;
  }
  return rows;
}

/**
 * Holds the columns of a Parquet file against its table's contract before anything is loaded: ClickHouse leaves out what it does
 * not know, fills what is missing, wraps numbers below 0 and cuts decimals off, all without a word. Limits are those that the file
 * states of its own row groups; where it states none they are not looked at. A file that cannot be read is for the store to refuse.
 * Reads the footer alone.
 * @throws WAGGLE_INGEST_INVALID naming the column
 */
export async function checkParquet(file: IngestFile): Promise<void> {
  const { properties, required } = CONTRACTS[file.table]!.schema as unknown as {
    readonly properties: Readonly<Record<string, ColumnSchema>>;
    readonly required?: readonly string[];
  };
  let metadata: FileMetaData;
  let columns: string[];
  try {
    metadata = await parquetMetadataAsync(await asyncBufferFromFile(file.path));
    columns = parquetSchema(metadata).children.map(({ element }) => element.name);
  } catch {
    return;
  }
  const invalid = (column: string, why: string) =>
    pipelineError('WAGGLE_INGEST_INVALID', `${file.path}: column ${column} ${why}`, {
      details: { column, table: file.table },
      remedy: `Correct the named column; nothing of that file was loaded. Columns of ${file.table}: ${Object.keys(properties).join(', ')}.`,
    });
  const unknown = columns.find((name) => !Object.hasOwn(properties, name));
  if (unknown !== undefined) throw invalid(unknown, `is none of table ${file.table}`);
  const missing = (required ?? []).find(
    (name) => !columns.includes(name) && properties[name]!.default === undefined,
  );
  if (missing !== undefined) throw invalid(missing, 'is missing');
  for (const { columns: chunks } of metadata.row_groups) {
    for (const { meta_data: chunk } of chunks) {
      const name = chunk?.path_in_schema[0] ?? '';
      const wanted = properties[name];
      if (chunk === undefined || chunk.path_in_schema.length > 1 || wanted === undefined) continue;
      if (wanted.type !== 'integer' && wanted.type !== 'number') continue;
      if (wanted.type === 'integer' && /^(FLOAT|DOUBLE)$/.test(chunk.type)) {
        throw invalid(name, `holds decimals (${chunk.type}) where whole numbers belong`);
      }
      const { min_value: least, max_value: most } = chunk.statistics ?? {};
      const { minimum = Number.NEGATIVE_INFINITY, maximum = Number.POSITIVE_INFINITY } = wanted;
      for (const value of [least, most]) {
        if (typeof value !== 'number' && typeof value !== 'bigint') continue;
        if (value < minimum || value > maximum) {
          throw invalid(name, `holds ${value}, allowed is ${minimum} … ${maximum}`);
        }
      }
    }
  }
}

type ColumnSchema = TSchema & {
  readonly type?: string;
  readonly default?: unknown;
  readonly minimum?: number;
  readonly maximum?: number;
};
