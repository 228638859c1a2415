import { type Column, type ColumnTable, numericColumn } from '@waggle/core';
import { storeError } from './errors.js';

/**
 * Reads ClickHouse's Native format (client revision 0) into columns.
 * Layout of a block: varuint columns, varuint rows, then per column its name, its type and its values.
 * Source: src/Formats/NativeWriter.cpp and the serializations of src/DataTypes/Serializations.
 */

type Dt = 'u8' | 'i32' | 'u32' | 'f32' | 'f64';

/** One column while its blocks arrive. */
interface Sink {
  read(reader: Reader, nRows: number): void;
  finish(nRows: number): Column;
}

/**
 * @param bytes one or more Native blocks, as they came from the server
 * @returns columns as `Store.queryColumns` describes them; O(bytes)
 * @throws WAGGLE_STORE_RESULT for a type without a column form, or bytes that end early
 */
export function decodeNative(bytes: Uint8Array): ColumnTable {
  const reader = new Reader(bytes);
  const names: string[] = [];
  const types: string[] = [];
  const sinks: Sink[] = [];
  let nRows = 0;
  while (!reader.atEnd()) {
    const nColumns = reader.varuint();
    const blockRows = reader.varuint();
    for (let c = 0; c < nColumns; c++) {
      const name = reader.text();
      const type = reader.text();
      if (sinks.length <= c) {
        names.push(name);
        types.push(type);
        sinks.push(makeSink(type, name));
      } else if (names[c] !== name || types[c] !== type) {
        throw storeError(
          'WAGGLE_STORE_RESULT',
          `column ${name} changes between blocks of one result`,
        );
      }
      if (blockRows > 0) sinks[c]!.read(reader, blockRows);
    }
    nRows += blockRows;
  }
  const columns: Record<string, Column> = {};
  for (let c = 0; c < sinks.length; c++) columns[names[c]!] = sinks[c]!.finish(nRows);
  return { nRows, columns, meta: {} };
}

class Reader {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  at = 0;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  atEnd(): boolean {
    return this.at >= this.bytes.byteLength;
  }

  varuint(): number {
    let value = 0;
    let scale = 1;
    for (;;) {
      const byte = this.bytes[this.at++];
      if (byte === undefined) throw endedEarly();
      value += (byte & 127) * scale;
      if (byte < 128) return value;
      scale *= 128;
    }
  }

  text(): string {
    const length = this.varuint();
    const from = this.take(length);
    return Buffer.from(this.bytes.buffer, this.bytes.byteOffset + from, length).toString('utf8');
  }

  uint64(): number {
    return wideUnsigned(this.view, this.take(8));
  }

  /** Moves past `n` bytes. @returns where they begin */
  take(n: number): number {
    const from = this.at;
    this.at += n;
    if (this.at > this.bytes.byteLength) throw endedEarly();
    return from;
  }
}

function endedEarly() {
  return storeError('WAGGLE_STORE_RESULT', 'the result ends in the middle of a block', {
    remedy: 'Repeat the query: the connection broke or the server failed while it was sending.',
  });
}

/** Growing typed array; the final copy is exact. */
class Growing<A extends Uint8Array | Int32Array | Uint32Array | Float32Array | Float64Array> {
  data: A;
  length = 0;
  readonly make: (n: number) => A;

  constructor(make: (n: number) => A) {
    this.make = make;
    this.data = make(0);
  }

  /** Room for `n` more values. @returns index of the first */
  grow(n: number): number {
    const from = this.length;
    this.length += n;
    if (this.length > this.data.length) {
      const wider = this.make(from === 0 ? this.length : Math.max(this.length, from * 2));
      wider.set(this.data.subarray(0, from) as never);
      this.data = wider;
    }
    return from;
  }

  exact(): A {
    return this.data.length === this.length ? this.data : (this.data.slice(0, this.length) as A);
  }
}

const MAKE = {
  u8: (n: number) => new Uint8Array(n),
  i32: (n: number) => new Int32Array(n),
  u32: (n: number) => new Uint32Array(n),
  f32: (n: number) => new Float32Array(n),
  f64: (n: number) => new Float64Array(n),
};

interface Scalar {
  readonly dtype: Dt;
  readonly bytes: number;
  /** Values are in the machine's own layout: one memcpy. */
  readonly direct: boolean;
  get(view: DataView, at: number): number;
}

const LITTLE_ENDIAN = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;
const DAY_MS = 86_400_000;

function wide(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getInt32(at + 4, true) * 4_294_967_296;
}
function wideUnsigned(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * 4_294_967_296;
}

function scalarOf(type: string): Scalar | undefined {
  const plain = (dtype: Dt, bytes: number, get: Scalar['get'], direct = true): Scalar => ({
    dtype,
    bytes,
    direct: direct && LITTLE_ENDIAN,
    get,
  });
  switch (type) {
    case 'UInt8':
    case 'Bool':
      return plain('u8', 1, (v, at) => v.getUint8(at));
    case 'Int8':
      return plain('i32', 1, (v, at) => v.getInt8(at), false);
    case 'UInt16':
      return plain('u32', 2, (v, at) => v.getUint16(at, true), false);
    case 'Int16':
      return plain('i32', 2, (v, at) => v.getInt16(at, true), false);
    case 'UInt32':
      return plain('u32', 4, (v, at) => v.getUint32(at, true));
    case 'Int32':
      return plain('i32', 4, (v, at) => v.getInt32(at, true));
    case 'Int64':
      return plain('f64', 8, wide, false);
    case 'UInt64':
      return plain('f64', 8, wideUnsigned, false);
    case 'Float32':
      return plain('f32', 4, (v, at) => v.getFloat32(at, true));
    case 'Float64':
      return plain('f64', 8, (v, at) => v.getFloat64(at, true));
    case 'Date':
      return plain('f64', 2, (v, at) => v.getUint16(at, true) * DAY_MS, false);
    case 'Date32':
      return plain('f64', 4, (v, at) => v.getInt32(at, true) * DAY_MS, false);
  }
  if (/^DateTime(\('[^']*'\))?$/.test(type)) {
    return plain('f64', 4, (v, at) => v.getUint32(at, true) * 1000, false);
  }
  const time = /^DateTime64\((\d+)/.exec(type);
  if (time !== null) {
    const ticksPerMs = 10 ** (Number(time[1]) - 3);
    return plain('f64', 8, (v, at) => wide(v, at) / ticksPerMs, false);
  }
  const decimal = /^Decimal\((\d+), (\d+)\)$/.exec(type);
  if (decimal !== null && Number(decimal[1]) <= 18) {
    const scale = 10 ** Number(decimal[2]);
    return Number(decimal[1]) <= 9
      ? plain('f64', 4, (v, at) => v.getInt32(at, true) / scale, false)
      : plain('f64', 8, (v, at) => wide(v, at) / scale, false);
  }
  return undefined;
}

const VIEWS = {
  u8: Uint8Array,
  i32: Int32Array,
  u32: Uint32Array,
  f32: Float32Array,
  f64: Float64Array,
} as const;

interface NumberArray {
  [i: number]: number;
  set(values: ArrayLike<number>, at: number): void;
}

function readScalars(
  reader: Reader,
  scalar: Scalar,
  n: number,
  out: NumberArray,
  to: number,
): void {
  const from = reader.take(n * scalar.bytes);
  const { bytes, view } = reader;
  if (scalar.direct) {
    const begin = bytes.byteOffset + from;
    const Constructor = VIEWS[scalar.dtype];
    if (begin % Constructor.BYTES_PER_ELEMENT === 0) {
      out.set(new Constructor(bytes.buffer as ArrayBuffer, begin, n), to);
    } else {
      // A Buffer's own slice is a view of its pool; the typed array's copies.
      const copy = Uint8Array.prototype.slice.call(bytes, from, from + n * scalar.bytes);
      out.set(new Constructor(copy.buffer, 0, n), to);
    }
    return;
  }
  const { get, bytes: step } = scalar;
  for (let i = 0; i < n; i++) out[to + i] = get(view, from + i * step);
}

/** `prefix`: bytes before the column's values that say nothing: the key version of a LowCardinality. */
const LOW_CARDINALITY_PREFIX = 8;

function numberSink(dtype: Dt, read: NumberReader, prefix = 0): Sink {
  const values = new Growing(MAKE[dtype] as (n: number) => Float64Array);
  return {
    read(reader, nRows) {
      reader.take(prefix);
      const to = values.grow(nRows);
      read(reader, nRows, values.data, to);
    },
    finish: () => numericColumn(dtype as 'f64', values.exact()),
  };
}

function nullableNumberSink(scalar: Scalar): Sink {
  const values = new Growing(MAKE.f64);
  return {
    read(reader, nRows) {
      const nulls = reader.take(nRows);
      const to = values.grow(nRows);
      if (scalar.dtype === 'f64') readScalars(reader, scalar, nRows, values.data, to);
      else {
        const part = MAKE[scalar.dtype](nRows);
        readScalars(reader, scalar, nRows, part, 0);
        values.data.set(part, to);
      }
      for (let i = 0; i < nRows; i++) {
        if (reader.bytes[nulls + i] !== 0) values.data[to + i] = Number.NaN;
      }
    },
    finish: () => numericColumn('f64', values.exact()),
  };
}

/** Dictionary keyed by bytes, so that a repeated string is decoded once. */
class Interner {
  readonly dictionary: string[] = [];
  readonly #hashes: number[] = [];
  readonly #starts: number[] = [];
  readonly #lengths: number[] = [];
  readonly #sources: Uint8Array[] = [];
  #slots = new Int32Array(1024).fill(-1);

  encode(bytes: Uint8Array, from: number, length: number): number {
    let hash = 0x811c9dc5 ^ length;
    for (let i = from, end = from + length; i < end; i++)
      hash = Math.imul(hash ^ bytes[i]!, 0x01000193);
    hash ^= hash >>> 15;
    const mask = this.#slots.length - 1;
    let slot = hash & mask;
    for (;;) {
      const code = this.#slots[slot]!;
      if (code < 0) break;
      if (this.#hashes[code] === hash && this.#lengths[code] === length) {
        const source = this.#sources[code]!;
        const start = this.#starts[code]!;
        let i = 0;
        while (i < length && source[start + i] === bytes[from + i]) i++;
        if (i === length) return code;
      }
      slot = (slot + 1) & mask;
    }
    const code = this.dictionary.length;
    this.dictionary.push(
      Buffer.from(bytes.buffer, bytes.byteOffset + from, length).toString('utf8'),
    );
    this.#hashes.push(hash);
    this.#starts.push(from);
    this.#lengths.push(length);
    this.#sources.push(bytes);
    this.#slots[slot] = code;
    if (code * 2 > this.#slots.length) this.#widen();
    return code;
  }

  #widen(): void {
    const slots = new Int32Array(this.#slots.length * 4).fill(-1);
    const mask = slots.length - 1;
    for (let code = 0; code < this.#hashes.length; code++) {
      let slot = this.#hashes[code]! & mask;
      while (slots[slot]! >= 0) slot = (slot + 1) & mask;
      slots[slot] = code;
    }
    this.#slots = slots;
  }
}

/** Reads `n` string-like values as dictionary codes. */
type StringReader = (
  reader: Reader,
  n: number,
  interner: Interner,
  codes: Uint32Array,
  to: number,
) => void;

/** Reads `n` numbers. */
type NumberReader = (reader: Reader, n: number, out: NumberArray, to: number) => void;

/**
 * The body of a LowCardinality column: flags, its dictionary, a place in it per value. The key version that
 * comes before it belongs to the column (`skipPrefix`). Nothing at all is written for no values.
 */
function readLowCardinality(
  reader: Reader,
  n: number,
  readKeys: (nKeys: number) => void,
  place: (i: number, key: number) => void,
): void {
  if (n === 0) return;
  const flags = reader.uint64();
  const HAS_ADDITIONAL_KEYS = 512;
  const NEEDS_GLOBAL_DICTIONARY = 256;
  if ((flags & HAS_ADDITIONAL_KEYS) === 0 || (flags & NEEDS_GLOBAL_DICTIONARY) !== 0) {
    throw storeError('WAGGLE_STORE_RESULT', 'a LowCardinality column without its own dictionary');
  }
  readKeys(reader.uint64());
  const rows = reader.uint64();
  if (rows !== n) throw endedEarly();
  const bytes = 1 << (flags & 255);
  const from = reader.take(n * bytes);
  const { view } = reader;
  for (let i = 0; i < n; i++) {
    const at = from + i * bytes;
    place(
      i,
      bytes === 1
        ? view.getUint8(at)
        : bytes === 2
          ? view.getUint16(at, true)
          : bytes === 4
            ? view.getUint32(at, true)
            : wideUnsigned(view, at),
    );
  }
}

function lowCardinalityStrings(type: string): StringReader | undefined {
  const nullable = inner(type, 'Nullable');
  const keys = stringReaderOf(nullable ?? type);
  if (keys === undefined) return undefined;
  return (reader, n, interner, codes, to) => {
    // A dictionary may hold keys that no row uses; only used ones reach the column's own.
    const local = new Interner();
    let localCodes = new Uint32Array(0);
    let known = new Int32Array(0);
    readLowCardinality(
      reader,
      n,
      (nKeys) => {
        localCodes = new Uint32Array(nKeys);
        known = new Int32Array(nKeys).fill(-1);
        keys(reader, nKeys, local, localCodes, 0);
      },
      // Key 0 of a nullable one is NULL, written as an empty value.
      (i, key) => {
        let code = known[key]!;
        if (code < 0) {
          const bytes = Buffer.from(local.dictionary[localCodes[key]!]!);
          code = interner.encode(bytes, 0, bytes.length);
          known[key] = code;
        }
        codes[to + i] = code;
      },
    );
  };
}

function lowCardinalityNumbers(type: string): { dtype: Dt; read: NumberReader } | undefined {
  const nullable = inner(type, 'Nullable');
  const scalar = scalarOf(nullable ?? type);
  if (scalar === undefined) return undefined;
  return {
    dtype: nullable === undefined ? scalar.dtype : 'f64',
    read(reader, n, out, to) {
      let dictionary = new Float64Array(0);
      readLowCardinality(
        reader,
        n,
        (nKeys) => {
          const keys = MAKE[scalar.dtype](nKeys);
          readScalars(reader, scalar, nKeys, keys, 0);
          dictionary = Float64Array.from(keys);
          if (nullable !== undefined) dictionary[0] = Number.NaN;
        },
        (i, key) => {
          out[to + i] = dictionary[key]!;
        },
      );
    },
  };
}

function stringReaderOf(type: string): StringReader | undefined {
  if (type === 'String') {
    return (reader, n, interner, codes, to) => {
      for (let i = 0; i < n; i++) {
        const length = reader.varuint();
        codes[to + i] = interner.encode(reader.bytes, reader.take(length), length);
      }
    };
  }
  const fixed = /^FixedString\((\d+)\)$/.exec(type);
  if (fixed !== null) {
    const width = Number(fixed[1]);
    return (reader, n, interner, codes, to) => {
      for (let i = 0; i < n; i++) {
        const from = reader.take(width);
        let length = width;
        while (length > 0 && reader.bytes[from + length - 1] === 0) length--;
        codes[to + i] = interner.encode(reader.bytes, from, length);
      }
    };
  }
  const enumeration = /^Enum(8|16)\((.*)\)$/s.exec(type);
  if (enumeration !== null) {
    const labels = new Map<number, Buffer>();
    for (const match of enumeration[2]!.matchAll(/'((?:[^'\\]|\\.)*)' = (-?\d+)/g)) {
      labels.set(Number(match[2]), Buffer.from(match[1]!.replace(/\\(.)/g, '$1')));
    }
    const bytes = enumeration[1] === '8' ? 1 : 2;
    return (reader, n, interner, codes, to) => {
      const from = reader.take(n * bytes);
      for (let i = 0; i < n; i++) {
        const value =
          bytes === 1 ? reader.view.getInt8(from + i) : reader.view.getInt16(from + i * 2, true);
        const label = labels.get(value) ?? Buffer.from(String(value));
        codes[to + i] = interner.encode(label, 0, label.length);
      }
    };
  }
  return undefined;
}

const EMPTY = new Uint8Array(0);

function stringSink(read: StringReader, nullable: boolean, prefix = 0): Sink {
  const interner = new Interner();
  const codes = new Growing(MAKE.u32);
  return {
    read(reader, nRows) {
      reader.take(prefix);
      const nulls = nullable ? reader.take(nRows) : -1;
      const to = codes.grow(nRows);
      read(reader, nRows, interner, codes.data, to);
      if (nulls >= 0) {
        for (let i = 0; i < nRows; i++) {
          if (reader.bytes[nulls + i] !== 0) codes.data[to + i] = interner.encode(EMPTY, 0, 0);
        }
      }
    },
    finish: () => ({ kind: 'string', dictionary: interner.dictionary, codes: codes.exact() }),
  };
}

/** Reads the cumulative ends of `n` arrays. */
function readEnds(reader: Reader, n: number): Float64Array {
  const from = reader.take(n * 8);
  const ends = new Float64Array(n);
  for (let i = 0; i < n; i++) ends[i] = wideUnsigned(reader.view, from + i * 8);
  return ends;
}

function stringListSink(read: StringReader, prefix = 0): Sink {
  const interner = new Interner();
  const codes = new Growing(MAKE.u32);
  const ends = new Growing(MAKE.u32);
  return {
    read(reader, nRows) {
      reader.take(prefix);
      const blockEnds = readEnds(reader, nRows);
      const total = blockEnds[nRows - 1]!;
      const base = codes.grow(total);
      const to = ends.grow(nRows);
      for (let i = 0; i < nRows; i++) ends.data[to + i] = base + blockEnds[i]!;
      read(reader, total, interner, codes.data, base);
    },
    finish(nRows) {
      const offsets = new Uint32Array(nRows + 1);
      offsets.set(ends.exact(), 1);
      return { kind: 'strings', dictionary: interner.dictionary, codes: codes.exact(), offsets };
    },
  };
}

function numberArraySink(dtype: Dt, read: NumberReader, name: string, prefix = 0): Sink {
  const values = new Growing(MAKE[dtype] as (n: number) => Float64Array);
  let width = -1;
  return {
    read(reader, nRows) {
      reader.take(prefix);
      const ends = readEnds(reader, nRows);
      let previous = 0;
      for (let i = 0; i < nRows; i++) {
        const length = ends[i]! - previous;
        previous = ends[i]!;
        if (width < 0) width = length;
        if (length !== width) {
          throw storeError(
            'WAGGLE_STORE_RESULT',
            `column ${name} holds arrays of ${width} and of ${length} numbers; a column needs one length`,
            { details: { column: name } },
          );
        }
      }
      const to = values.grow(previous);
      read(reader, previous, values.data, to);
    },
    finish(nRows) {
      if (nRows > 0 && width === 0) {
        throw storeError('WAGGLE_STORE_RESULT', `column ${name} holds only empty arrays`);
      }
      return numericColumn(dtype as 'f64', values.exact(), width > 0 ? width : 1);
    },
  };
}

function inner(type: string, wrapper: string): string | undefined {
  return type.startsWith(`${wrapper}(`) && type.endsWith(')')
    ? type.slice(wrapper.length + 1, -1)
    : undefined;
}

function plainNumbers(scalar: Scalar): NumberReader {
  return (reader, n, out, to) => readScalars(reader, scalar, n, out, to);
}

const NOTHING: Scalar = { dtype: 'u8', bytes: 1, direct: true, get: () => 0 };

function makeSink(declared: string, name: string): Sink {
  const type = simpleAggregate(declared) ?? declared;
  const low = inner(type, 'LowCardinality');
  if (low !== undefined) {
    const strings = lowCardinalityStrings(low);
    if (strings !== undefined) return stringSink(strings, false, LOW_CARDINALITY_PREFIX);
    const numbers = lowCardinalityNumbers(low);
    if (numbers !== undefined)
      return numberSink(numbers.dtype, numbers.read, LOW_CARDINALITY_PREFIX);
  }
  const scalar = scalarOf(type);
  if (scalar !== undefined) return numberSink(scalar.dtype, plainNumbers(scalar));
  const text = stringReaderOf(type);
  if (text !== undefined) return stringSink(text, false);
  const nullable = inner(type, 'Nullable');
  if (nullable !== undefined) {
    const number = nullable === 'Nothing' ? NOTHING : scalarOf(nullable);
    if (number !== undefined) return nullableNumberSink(number);
    const string = stringReaderOf(nullable);
    if (string !== undefined) return stringSink(string, true);
  }
  const element = inner(type, 'Array');
  if (element !== undefined) {
    const lowElement = inner(element, 'LowCardinality');
    if (lowElement !== undefined) {
      const strings = lowCardinalityStrings(lowElement);
      if (strings !== undefined) return stringListSink(strings, LOW_CARDINALITY_PREFIX);
      const numbers = lowCardinalityNumbers(lowElement);
      if (numbers !== undefined) {
        return numberArraySink(numbers.dtype, numbers.read, name, LOW_CARDINALITY_PREFIX);
      }
    }
    const number = element === 'Nothing' ? NOTHING : scalarOf(element);
    if (number !== undefined) return numberArraySink(number.dtype, plainNumbers(number), name);
    const string = stringReaderOf(element);
    if (string !== undefined) return stringListSink(string);
  }
  throw storeError(
    'WAGGLE_STORE_RESULT',
    `column ${name} of type ${declared} has no columnar form`,
    {
      details: { column: name, type: declared },
    },
  );
}

function simpleAggregate(type: string): string | undefined {
  const body = inner(type, 'SimpleAggregateFunction');
  return body === undefined ? undefined : body.slice(body.indexOf(', ') + 2);
}
