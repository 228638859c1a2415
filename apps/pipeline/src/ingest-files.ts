import { createReadStream } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { basename, extname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { ENTITY_TABLES, EVENT_TABLES, type TableContract } from '@waggle/core/contract';
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

/**
 * Checks every line of an NDJSON file against its table's contract before anything is loaded.
 * O(file), streaming.
 * @throws WAGGLE_INGEST_INVALID with the line number
 */
export async function checkNdjson(file: IngestFile): Promise<number> {
  const { schema } = CONTRACTS[file.table]!;
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
      const first = [...validator.Errors(complete)][0];
      throw invalid(
        n,
        `${first?.instancePath || '/'}: ${first?.message ?? 'does not match the contract'}`,
      );
    }
    rows++;
  }
  return rows;
}
