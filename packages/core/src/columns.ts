import { coreError, WaggleError } from './errors.js';

/**
 * Columns are the currency between rooms: typed arrays with a name, a dtype and a row width, plus
 * dictionary-encoded strings and ragged lists. One file format serves snapshots, catalogs and embeddings.
 */
export type Dtype = 'f32' | 'f64' | 'i32' | 'u32' | 'u8' | 'i64';

export interface DtypeArrays {
  f32: Float32Array;
  f64: Float64Array;
  i32: Int32Array;
  u32: Uint32Array;
  u8: Uint8Array;
  i64: BigInt64Array;
}

/** `data` is row-major [nRows × width]. */
export interface NumericColumn<D extends Dtype = Dtype> {
  readonly kind: 'numeric';
  readonly dtype: D;
  readonly width: number;
  readonly data: DtypeArrays[D];
}

/** A string per row: `codes[row]` indexes `dictionary`. */
export interface StringColumn {
  readonly kind: 'string';
  readonly dictionary: readonly string[];
  readonly codes: Uint32Array;
}

/** A list of strings per row: codes[offsets[row] … offsets[row + 1]) index `dictionary`. */
export interface StringListColumn {
  readonly kind: 'strings';
  readonly dictionary: readonly string[];
  readonly codes: Uint32Array;
  readonly offsets: Uint32Array;
}

export type Column = NumericColumn | StringColumn | StringListColumn;

export interface ColumnTable {
  readonly nRows: number;
  readonly columns: Readonly<Record<string, Column>>;
  /** Small facts that belong to the table: as-of time, fingerprint, units. */
  readonly meta: Readonly<Record<string, unknown>>;
}

const CONSTRUCTORS = {
  f32: Float32Array,
  f64: Float64Array,
  i32: Int32Array,
  u32: Uint32Array,
  u8: Uint8Array,
  i64: BigInt64Array,
} as const;

export function numericColumn<D extends Dtype>(
  dtype: D,
  data: DtypeArrays[D],
  width = 1,
): NumericColumn<D> {
  // The tag, not instanceof: vm contexts and test runners have their own constructors.
  const tag = Object.prototype.toString.call(data).slice(8, -1);
  if (!Object.hasOwn(CONSTRUCTORS, dtype) || tag !== CONSTRUCTORS[dtype].name) {
    throw coreError(
      'WAGGLE_INVALID_ARGUMENT',
      `a column of ${dtype} cannot be a ${tag}; there are ${Object.entries(CONSTRUCTORS)
        .map(([name, { name: array }]) => `${name} (${array})`)
        .join(', ')}`,
    );
  }
  if (width < 1 || data.length % width !== 0) {
    throw coreError(
      'WAGGLE_INVALID_ARGUMENT',
      `${data.length} values do not fill rows of width ${width}`,
    );
  }
  return { kind: 'numeric', dtype, width, data };
}

export function stringColumn(values: readonly string[]): StringColumn {
  const { dictionary, encode } = dictionaryBuilder();
  const codes = new Uint32Array(values.length);
  for (let i = 0; i < values.length; i++) codes[i] = encode(values[i]!);
  return { kind: 'string', dictionary, codes };
}

export function stringListColumn(rows: readonly (readonly string[])[]): StringListColumn {
  const { dictionary, encode } = dictionaryBuilder();
  const offsets = new Uint32Array(rows.length + 1);
  const codes: number[] = [];
  for (let i = 0; i < rows.length; i++) {
    for (const value of rows[i]!) codes.push(encode(value));
    offsets[i + 1] = codes.length;
  }
  return { kind: 'strings', dictionary, codes: Uint32Array.from(codes), offsets };
}

function dictionaryBuilder() {
  const dictionary: string[] = [];
  const index = new Map<string, number>();
  const encode = (value: string): number => {
    let code = index.get(value);
    if (code === undefined) {
      code = dictionary.length;
      dictionary.push(value);
      index.set(value, code);
    }
    return code;
  };
  return { dictionary, encode };
}

export function stringAt(column: StringColumn, row: number): string {
  return column.dictionary[column.codes[row]!]!;
}

export function stringsAt(column: StringListColumn, row: number): string[] {
  const out: string[] = [];
  for (let i = column.offsets[row]!; i < column.offsets[row + 1]!; i++) {
    out.push(column.dictionary[column.codes[i]!]!);
  }
  return out;
}

/** The named numeric column's data, checked for dtype. @throws WAGGLE_COLUMNS_CORRUPT */
export function numericData<D extends Dtype>(
  table: ColumnTable,
  name: string,
  dtype: D,
): DtypeArrays[D] {
  const column = table.columns[name];
  if (column === undefined || column.kind !== 'numeric' || column.dtype !== dtype) {
    throw coreError('WAGGLE_COLUMNS_CORRUPT', `column ${name} of type ${dtype} is missing`, {
      details: { column: name, found: column?.kind },
    });
  }
  return column.data as DtypeArrays[D];
}

export function stringData(table: ColumnTable, name: string): StringColumn {
  const column = table.columns[name];
  if (column?.kind !== 'string') {
    throw coreError('WAGGLE_COLUMNS_CORRUPT', `string column ${name} is missing`);
  }
  return column;
}

export function stringListData(table: ColumnTable, name: string): StringListColumn {
  const column = table.columns[name];
  if (column?.kind !== 'strings') {
    throw coreError('WAGGLE_COLUMNS_CORRUPT', `string list column ${name} is missing`);
  }
  return column;
}

const MAGIC = 'WAGGLCOL';
const VERSION = 1;
const ALIGN = 64;
const HEADER_BYTES = 24; // magic 8, version u32, header length u32, total length f64

interface PartSpec {
  offset: number;
  bytes: number;
}
type ColumnSpec =
  | { name: string; kind: 'numeric'; dtype: Dtype; width: number; data: PartSpec }
  | { name: string; kind: 'string'; dictionary: readonly string[]; codes: PartSpec }
  | {
      name: string;
      kind: 'strings';
      dictionary: readonly string[];
      codes: PartSpec;
      offsets: PartSpec;
    };

/**
 * Serialises a table: 24-byte head, JSON header, 64-byte-aligned little-endian arrays. Byte-stable for
 * equal content, so its hash can name it. O(bytes).
 */
export function encodeColumns(table: ColumnTable): Uint8Array {
  const parts: { bytes: Uint8Array; offset: number }[] = [];
  let cursor = 0;
  const place = (array: ArrayBufferView): PartSpec => {
    const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    const spec = { offset: cursor, bytes: bytes.byteLength };
    parts.push({ bytes, offset: cursor });
    cursor = Math.ceil((cursor + bytes.byteLength) / ALIGN) * ALIGN;
    return spec;
  };
  const describe = (name: string, column: Column): ColumnSpec => {
    switch (column.kind) {
      case 'numeric':
        return {
          name,
          kind: 'numeric',
          dtype: column.dtype,
          width: column.width,
          data: place(column.data),
        };
      case 'string':
        return { name, kind: 'string', dictionary: column.dictionary, codes: place(column.codes) };
      case 'strings':
        return {
          name,
          kind: 'strings',
          dictionary: column.dictionary,
          codes: place(column.codes),
          offsets: place(column.offsets),
        };
    }
  };
  const columns = Object.keys(table.columns)
    .sort()
    .map((name) => describe(name, table.columns[name]!));
  const header = new TextEncoder().encode(
    JSON.stringify({ nRows: table.nRows, meta: table.meta, columns }),
  );
  const dataStart = Math.ceil((HEADER_BYTES + header.byteLength) / ALIGN) * ALIGN;
  const out = new Uint8Array(dataStart + cursor);
  const view = new DataView(out.buffer);
  for (let i = 0; i < 8; i++) out[i] = MAGIC.charCodeAt(i);
  view.setUint32(8, VERSION, true);
  view.setUint32(12, header.byteLength, true);
  view.setFloat64(16, out.byteLength, true);
  out.set(header, HEADER_BYTES);
  for (const part of parts) out.set(part.bytes, dataStart + part.offset);
  return out;
}

/**
 * Reads what `encodeColumns` wrote; arrays are copied out so that they are aligned and owned.
 * @throws WAGGLE_COLUMNS_CORRUPT for a foreign, truncated or inconsistent file
 */
export function decodeColumns(bytes: Uint8Array): ColumnTable {
  try {
    return readColumns(bytes);
  } catch (error) {
    if (error instanceof WaggleError) throw error;
    // A header of valid JSON but foreign shape trips over a missing field.
    throw coreError('WAGGLE_COLUMNS_CORRUPT', 'column file: header has the wrong shape', {
      cause: error,
    });
  }
}

function readColumns(bytes: Uint8Array): ColumnTable {
  const corrupt = (why: string, cause?: unknown) =>
    coreError(
      'WAGGLE_COLUMNS_CORRUPT',
      `column file: ${why}`,
      cause === undefined ? {} : { cause },
    );
  if (bytes.byteLength < HEADER_BYTES) throw corrupt('shorter than its head');
  for (let i = 0; i < 8; i++)
    if (bytes[i] !== MAGIC.charCodeAt(i)) throw corrupt('not a Waggle column file');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const version = view.getUint32(8, true);
  if (version !== VERSION) throw corrupt(`version ${version}, this build reads ${VERSION}`);
  if (view.getFloat64(16, true) !== bytes.byteLength) throw corrupt('truncated or extended');
  const headerBytes = view.getUint32(12, true);
  if (HEADER_BYTES + headerBytes > bytes.byteLength) throw corrupt('header runs past the end');
  let header: { nRows: number; meta: Record<string, unknown>; columns: ColumnSpec[] };
  try {
    header = JSON.parse(
      new TextDecoder('utf-8', { fatal: true }).decode(
        bytes.subarray(HEADER_BYTES, HEADER_BYTES + headerBytes),
      ),
    );
  } catch (cause) {
    throw corrupt('header is not JSON', cause);
  }
  const dataStart = Math.ceil((HEADER_BYTES + headerBytes) / ALIGN) * ALIGN;
  const take = <D extends Dtype>(spec: PartSpec, dtype: D, expected: number): DtypeArrays[D] => {
    const Constructor = CONSTRUCTORS[dtype];
    const begin = dataStart + spec.offset;
    if (
      spec.bytes !== expected * Constructor.BYTES_PER_ELEMENT ||
      begin + spec.bytes > bytes.byteLength
    ) {
      throw corrupt('an array does not have the length that its header says');
    }
    // Not `bytes.slice`: a Buffer's shares memory with whatever pool it came from.
    const copy = new Uint8Array(bytes.subarray(begin, begin + spec.bytes));
    return new Constructor(copy.buffer, 0, expected) as DtypeArrays[D];
  };
  const columns: Record<string, Column> = {};
  const { nRows } = header;
  if (!Number.isSafeInteger(nRows) || nRows < 0) throw corrupt('row count is not a whole number');
  for (const spec of header.columns) {
    switch (spec.kind) {
      case 'numeric':
        if (!(spec.dtype in CONSTRUCTORS)) throw corrupt(`unknown dtype ${String(spec.dtype)}`);
        columns[spec.name] = {
          kind: 'numeric',
          dtype: spec.dtype,
          width: spec.width,
          data: take(spec.data, spec.dtype, nRows * spec.width),
        };
        break;
      case 'string': {
        const codes = take(spec.codes, 'u32', nRows);
        checkCodes(codes, spec.dictionary.length, corrupt);
        columns[spec.name] = { kind: 'string', dictionary: spec.dictionary, codes };
        break;
      }
      case 'strings': {
        const offsets = take(spec.offsets, 'u32', nRows + 1);
        for (let i = 0; i < nRows; i++) {
          if (offsets[i]! > offsets[i + 1]!) throw corrupt('list offsets decrease');
        }
        const codes = take(spec.codes, 'u32', offsets[nRows] ?? 0);
        checkCodes(codes, spec.dictionary.length, corrupt);
        columns[spec.name] = { kind: 'strings', dictionary: spec.dictionary, codes, offsets };
        break;
      }
      default:
        throw corrupt('unknown column kind');
    }
  }
  return { nRows, columns, meta: header.meta };
}

function checkCodes(codes: Uint32Array, size: number, corrupt: (why: string) => Error): void {
  for (let i = 0; i < codes.length; i++) {
    if (codes[i]! >= size) throw corrupt('a string code is outside its dictionary');
  }
}
