import { ID_BYTES, SUBSCRIBER_BYTES } from './ids.js';
import type { ColumnKind, TableSpec } from './tables.js';

/** Strings that many rows share; columns hold their numbers. */
export class Dictionary {
  readonly values: string[] = [];
  readonly #codes = new Map<string, number>();

  code(value: string): number {
    let code = this.#codes.get(value);
    if (code === undefined) {
      code = this.values.length;
      this.values.push(value);
      this.#codes.set(value, code);
    }
    return code;
  }
}

export interface DictColumn {
  readonly kind: 'dict';
  readonly codes: Uint32Array;
  readonly dictionary: readonly string[];
}
/**
 * ASCII strings of one width, laid out as Parquet wants them: every row is its length (u32, little
 * endian) and then its bytes.
 */
export interface BytesColumn {
  readonly kind: 'id' | 'key';
  readonly width: number;
  /** Bytes from one row to the next: width + 4. */
  readonly stride: number;
  readonly data: Uint8Array;
}
export interface TextColumn {
  readonly kind: 'text';
  readonly data: string[];
}
export interface ListColumn {
  readonly kind: 'list';
  readonly data: (readonly string[])[];
}
export interface NumberColumn {
  readonly kind: 'time' | 'i64' | 'f64';
  readonly data: Float64Array;
}
export interface CountColumn {
  readonly kind: 'u32';
  readonly data: Uint32Array;
}
export interface BoolColumn {
  readonly kind: 'bool';
  readonly data: Uint8Array;
}
export type BatchColumn =
  | DictColumn
  | BytesColumn
  | TextColumn
  | ListColumn
  | NumberColumn
  | CountColumn
  | BoolColumn;

/** Rows of one table as columns, in the specification's order. Arrays may be longer than nRows. */
export interface Batch {
  readonly nRows: number;
  readonly columns: readonly BatchColumn[];
}

export interface BatchSink {
  /** The arrays are used again for the next batch: copy what you keep. */
  accept(batch: Batch): void;
}

/** Collects rows of one table and hands full batches to a sink. */
export class TableBuilder {
  readonly spec: TableSpec;
  readonly #sink: BatchSink;
  readonly #capacity: number;
  readonly #dictionaries: (Dictionary | undefined)[];
  readonly columns: readonly BatchColumn[];
  row = 0;
  total = 0;

  /** @param shared dictionaries by column name, for columns whose codes the caller knows */
  constructor(
    spec: TableSpec,
    sink: BatchSink,
    shared: Readonly<Record<string, Dictionary>> = {},
    capacity = 65_536,
  ) {
    this.spec = spec;
    this.#sink = sink;
    this.#capacity = capacity;
    this.#dictionaries = spec.columns.map(([name, kind]) =>
      kind === 'dict' ? (shared[name] ?? new Dictionary()) : undefined,
    );
    const n = capacity;
    this.columns = spec.columns.map(([, kind], i): BatchColumn => {
      switch (kind) {
        case 'dict':
          return { kind, codes: new Uint32Array(n), dictionary: this.#dictionaries[i]!.values };
        case 'id':
          return bytesColumn(kind, ID_BYTES, n);
        case 'key':
          return bytesColumn(kind, SUBSCRIBER_BYTES, n);
        case 'text':
        case 'list':
          return { kind, data: [] };
        case 'u32':
          return { kind, data: new Uint32Array(n) };
        case 'bool':
          return { kind, data: new Uint8Array(n) };
        default:
          return { kind, data: new Float64Array(n) };
      }
    });
  }

  /** Appends one row given in column order. */
  push(values: readonly (string | number | boolean | readonly string[])[]): void {
    const row = this.row;
    for (let i = 0; i < values.length; i++) {
      const column = this.columns[i]!;
      const value = values[i]!;
      switch (column.kind) {
        case 'dict':
          column.codes[row] = this.#dictionaries[i]!.code(value as string);
          break;
        case 'id':
        case 'key': {
          const text = value as string;
          const at = row * column.stride + 4;
          for (let j = 0; j < column.width; j++) column.data[at + j] = text.charCodeAt(j);
          break;
        }
        case 'text':
          column.data.push(value as string);
          break;
        case 'list':
          column.data.push(value as readonly string[]);
          break;
        case 'bool':
          column.data[row] = value ? 1 : 0;
          break;
        default:
          column.data[row] = value as number;
      }
    }
    this.advance();
  }

  /** After the caller has filled row `row` of `columns` itself. */
  advance(): void {
    this.row++;
    this.total++;
    if (this.row === this.#capacity) this.flush();
  }

  flush(): void {
    if (this.row === 0) return;
    this.#sink.accept({ nRows: this.row, columns: this.columns });
    this.row = 0;
    for (const column of this.columns) {
      if (column.kind === 'text' || column.kind === 'list') column.data.length = 0;
    }
  }
}

export type CellValue = string | number | boolean | readonly string[];

/** The value of a cell as the contract writes it, times as RFC 3339. */
export function cellAt(column: BatchColumn, row: number): CellValue {
  switch (column.kind) {
    case 'dict':
      return column.dictionary[column.codes[row]!]!;
    case 'id':
    case 'key':
      return asciiAt(column, row);
    case 'text':
    case 'list':
      return column.data[row]!;
    case 'time':
      return new Date(column.data[row]!).toISOString();
    case 'bool':
      return column.data[row] === 1;
    default:
      return column.data[row]!;
  }
}

function bytesColumn(kind: 'id' | 'key', width: number, rows: number): BytesColumn {
  const stride = width + 4;
  const data = new Uint8Array(rows * stride);
  for (let at = 0; at < data.length; at += stride) data[at] = width;
  return { kind, width, stride, data };
}

/** A copy of the column without its unused capacity. */
function trimmed(column: BatchColumn, nRows: number): BatchColumn {
  switch (column.kind) {
    case 'dict':
      return { ...column, codes: column.codes.slice(0, nRows) };
    case 'id':
    case 'key':
      return { ...column, data: column.data.slice(0, nRows * column.stride) };
    case 'text':
      return { kind: 'text', data: column.data.slice() };
    case 'list':
      return { kind: 'list', data: column.data.slice() };
    case 'u32':
      return { kind: 'u32', data: column.data.slice(0, nRows) };
    case 'bool':
      return { kind: 'bool', data: column.data.slice(0, nRows) };
    default:
      return { kind: column.kind, data: column.data.slice(0, nRows) };
  }
}

function asciiAt(column: BytesColumn, row: number): string {
  const at = row * column.stride + 4;
  let text = '';
  for (let i = at; i < at + column.width; i++) text += String.fromCharCode(column.data[i]!);
  return text;
}

/** A table held in memory. */
export class MemoryTable implements BatchSink {
  readonly spec: TableSpec;
  readonly batches: Batch[] = [];
  nRows = 0;

  constructor(spec: TableSpec) {
    this.spec = spec;
  }

  accept(batch: Batch): void {
    this.batches.push({
      nRows: batch.nRows,
      columns: batch.columns.map((c) => trimmed(c, batch.nRows)),
    });
    this.nRows += batch.nRows;
  }

  /** Rows exactly as the contract describes them. */
  *rows<T extends object = Record<string, CellValue>>(): Generator<T> {
    for (const batch of this.batches) {
      for (let row = 0; row < batch.nRows; row++) {
        const out: Record<string, CellValue> = {};
        for (let i = 0; i < this.spec.columns.length; i++) {
          out[this.spec.columns[i]![0]] = cellAt(batch.columns[i]!, row);
        }
        yield out as T;
      }
    }
  }

  /** All values of a numeric column (times in UTC milliseconds, booleans as 0 or 1). */
  numbers(name: string): Float64Array {
    const index = this.#index(name);
    const out = new Float64Array(this.nRows);
    let at = 0;
    for (const batch of this.batches) {
      const column = batch.columns[index]!;
      if (!('data' in column) || Array.isArray(column.data))
        throw new TypeError(`${name} is not numeric`);
      for (let row = 0; row < batch.nRows; row++) out[at++] = column.data[row]!;
    }
    return out;
  }

  /** All values of a string column. */
  strings(name: string): string[] {
    const index = this.#index(name);
    const out: string[] = [];
    for (const batch of this.batches) {
      for (let row = 0; row < batch.nRows; row++)
        out.push(cellAt(batch.columns[index]!, row) as string);
    }
    return out;
  }

  #index(name: string): number {
    const index = this.spec.columns.findIndex(([column]) => column === name);
    if (index < 0) throw new RangeError(`table ${this.spec.name} has no column ${name}`);
    return index;
  }
}

export type { ColumnKind };
