import { createHash, type Hash } from 'node:crypto';
import { closeSync, fsyncSync, openSync, writeSync } from 'node:fs';
import type { ColumnChunk, SchemaElement } from 'hyparquet';
import { ByteWriter, ParquetWriter } from 'hyparquet-writer';
import { writePageHeader } from 'hyparquet-writer/src/datapage.js';
import { writeRleBitPackedHybrid } from 'hyparquet-writer/src/encoding.js';
import type { Batch, BatchColumn, BatchSink } from './batches.js';
import type { TableSpec } from './tables.js';

const FLUSH_BYTES = 4 * 1024 * 1024;

/** A hyparquet writer over a file descriptor that hashes what passes through. */
class FileWriter extends ByteWriter {
  readonly #fd: number;
  readonly #hash: Hash = createHash('sha256');
  digest = '';

  constructor(path: string) {
    super(2 * FLUSH_BYTES);
    this.#fd = openSync(path, 'wx');
  }

  override ensure(size: number): void {
    if (this.index > FLUSH_BYTES) this.flush();
    super.ensure(size);
  }

  flush(): void {
    const bytes = new Uint8Array(this.buffer, 0, this.index);
    let written = 0;
    while (written < bytes.length) written += writeSync(this.#fd, bytes, written);
    this.#hash.update(bytes);
    this.index = 0;
  }

  override finish(): void {
    this.flush();
    fsyncSync(this.#fd);
    closeSync(this.#fd);
    this.digest = this.#hash.digest('hex');
  }

  abandon(): void {
    closeSync(this.#fd);
  }
}

/**
 * Streams batches of one table into a Parquet file, one row group per batch. hyparquet-writer frames the
 * file (schema, page headers, footer); column chunks are encoded here straight from typed arrays, since
 * its own encoders take one boxed value at a time. Chunks are uncompressed: shared strings as
 * dictionaries, ids and numbers plain.
 */
export class ParquetTable implements BatchSink {
  readonly #spec: TableSpec;
  readonly #file: FileWriter;
  readonly #parquet: ParquetWriter;
  readonly #schema: SchemaElement[];
  /** Per dictionary column: global code → code in this row group, −1 = absent. */
  readonly #local = new Map<number, Int32Array>();
  nRows = 0;

  constructor(spec: TableSpec, path: string) {
    this.#spec = spec;
    this.#file = new FileWriter(path);
    this.#schema = schemaOf(spec);
    this.#parquet = new ParquetWriter({
      writer: this.#file,
      schema: this.#schema,
      codec: 'UNCOMPRESSED',
      createdBy: 'waggle simulator',
    });
  }

  accept(batch: Batch): void {
    const writer = this.#file;
    const start = writer.offset;
    const columns: ColumnChunk[] = [];
    for (let i = 0; i < batch.columns.length; i++) {
      columns.push(this.#chunk(i, batch.columns[i]!, batch.nRows));
    }
    const bytes = BigInt(writer.offset - start);
    this.#parquet.row_groups.push({
      columns,
      total_byte_size: bytes,
      num_rows: BigInt(batch.nRows),
      total_compressed_size: bytes,
    });
    this.#parquet.num_rows += BigInt(batch.nRows);
    this.nRows += batch.nRows;
  }

  /** Completes the file. Returns its SHA-256 and size. */
  finish(): { sha256: string; bytes: number } {
    // The file below is written synchronously, so there is nothing to wait for.
    void this.#parquet.finish();
    return { sha256: this.#file.digest, bytes: this.#file.offset };
  }

  abandon(): void {
    this.#file.abandon();
  }

  #chunk(index: number, column: BatchColumn, n: number): ColumnChunk {
    const [name, kind] = this.#spec.columns[index]!;
    const writer = this.#file;
    const start = writer.offset;
    let dictionaryOffset: bigint | undefined;
    let nValues = n;
    let dataOffset = start;
    let type: ColumnChunk['meta_data'] extends infer M
      ? M extends { type: infer T }
        ? T
        : never
      : never;
    switch (column.kind) {
      case 'dict': {
        type = 'BYTE_ARRAY';
        const { codes, dictionary } = this.#localise(index, column.codes, column.dictionary, n);
        dictionaryOffset = BigInt(start);
        writeDictionary(writer, dictionary);
        dataOffset = writer.offset;
        const page = new ByteWriter(n + 64);
        const bitWidth = dictionary.length <= 1 ? 0 : 32 - Math.clz32(dictionary.length - 1);
        page.appendUint8(bitWidth);
        writeRleBitPackedHybrid(page, codes as unknown as number[], bitWidth);
        writePage(writer, page.getBytes(), n, 'RLE_DICTIONARY');
        break;
      }
      case 'id':
      case 'key':
        type = 'BYTE_ARRAY';
        writePage(writer, column.data.subarray(0, n * column.stride), n, 'PLAIN');
        break;
      case 'text':
        type = 'BYTE_ARRAY';
        writePage(writer, prefixedText(column.data), n, 'PLAIN');
        break;
      case 'list': {
        type = 'BYTE_ARRAY';
        const page = listPage(column.data);
        nValues = page.nValues;
        writePage(writer, page.bytes, nValues, 'PLAIN');
        break;
      }
      case 'time':
      case 'i64':
        type = 'INT64';
        writePage(writer, int64s(column.data, n), n, 'PLAIN');
        break;
      case 'f64':
        type = 'DOUBLE';
        writePage(writer, bytesOf(column.data, n * 8), n, 'PLAIN');
        break;
      case 'u32':
        type = 'INT32';
        writePage(writer, bytesOf(column.data, n * 4), n, 'PLAIN');
        break;
      case 'bool':
        type = 'BOOLEAN';
        writePage(writer, bits(column.data, n), n, 'PLAIN');
        break;
    }
    const bytes = BigInt(writer.offset - start);
    return {
      file_offset: BigInt(start),
      meta_data: {
        type,
        encodings:
          dictionaryOffset === undefined ? ['PLAIN', 'RLE'] : ['PLAIN', 'RLE', 'RLE_DICTIONARY'],
        path_in_schema: kind === 'list' ? [name, 'list', 'element'] : [name],
        codec: 'UNCOMPRESSED',
        num_values: BigInt(nValues),
        total_compressed_size: bytes,
        total_uncompressed_size: bytes,
        data_page_offset: BigInt(dataOffset),
        ...(dictionaryOffset === undefined ? {} : { dictionary_page_offset: dictionaryOffset }),
      },
    };
  }

  /** Renumbers codes so that the row group's dictionary holds only the strings it uses. */
  #localise(
    index: number,
    codes: Uint32Array,
    dictionary: readonly string[],
    n: number,
  ): { codes: Uint32Array; dictionary: string[] } {
    let local = this.#local.get(index);
    if (local === undefined || local.length < dictionary.length) {
      local = new Int32Array(Math.max(64, 2 * dictionary.length)).fill(-1);
      this.#local.set(index, local);
    }
    const used: number[] = [];
    const out = new Uint32Array(n);
    for (let i = 0; i < n; i++) {
      const code = codes[i]!;
      let mapped = local[code]!;
      if (mapped < 0) {
        mapped = used.length;
        used.push(code);
        local[code] = mapped;
      }
      out[i] = mapped;
    }
    for (const code of used) local[code] = -1;
    return { codes: out, dictionary: used.map((code) => dictionary[code]!) };
  }
}

function schemaOf(spec: TableSpec): SchemaElement[] {
  const schema: SchemaElement[] = [{ name: 'schema', num_children: spec.columns.length }];
  for (const [name, kind] of spec.columns) {
    const required = { name, repetition_type: 'REQUIRED' } as const;
    switch (kind) {
      case 'dict':
      case 'id':
      case 'key':
      case 'text':
        schema.push({ ...required, type: 'BYTE_ARRAY', converted_type: 'UTF8' });
        break;
      case 'list':
        schema.push(
          { ...required, converted_type: 'LIST', num_children: 1 },
          { name: 'list', repetition_type: 'REPEATED', num_children: 1 },
          {
            name: 'element',
            type: 'BYTE_ARRAY',
            converted_type: 'UTF8',
            repetition_type: 'REQUIRED',
          },
        );
        break;
      case 'time':
        schema.push({ ...required, type: 'INT64', converted_type: 'TIMESTAMP_MILLIS' });
        break;
      case 'i64':
        schema.push({ ...required, type: 'INT64' });
        break;
      case 'f64':
        schema.push({ ...required, type: 'DOUBLE' });
        break;
      case 'u32':
        schema.push({ ...required, type: 'INT32', converted_type: 'UINT_32' });
        break;
      case 'bool':
        schema.push({ ...required, type: 'BOOLEAN' });
        break;
    }
  }
  return schema;
}

function writePage(
  writer: ByteWriter,
  bytes: Uint8Array,
  nValues: number,
  encoding: 'PLAIN' | 'RLE_DICTIONARY',
): void {
  writePageHeader(writer, {
    type: 'DATA_PAGE',
    uncompressed_page_size: bytes.length,
    compressed_page_size: bytes.length,
    data_page_header: {
      num_values: nValues,
      encoding,
      definition_level_encoding: 'RLE',
      repetition_level_encoding: 'RLE',
    },
  });
  writer.appendBytes(bytes);
}

function writeDictionary(writer: ByteWriter, dictionary: readonly string[]): void {
  const bytes = prefixedText(dictionary);
  writePageHeader(writer, {
    type: 'DICTIONARY_PAGE',
    uncompressed_page_size: bytes.length,
    compressed_page_size: bytes.length,
    dictionary_page_header: { num_values: dictionary.length, encoding: 'PLAIN' },
  });
  writer.appendBytes(bytes);
}

/** Strings as length (u32, little endian) and UTF-8 bytes. */
function prefixedText(values: readonly string[]): Uint8Array {
  let size = 0;
  for (const value of values) size += 4 + Buffer.byteLength(value);
  const out = Buffer.allocUnsafe(size);
  let at = 0;
  for (const value of values) {
    const length = out.write(value, at + 4);
    out.writeUInt32LE(length, at);
    at += 4 + length;
  }
  return out;
}

/** A page of three-level lists: repetition levels, definition levels, values. */
function listPage(rows: readonly (readonly string[])[]): { bytes: Uint8Array; nValues: number } {
  const repetition: number[] = [];
  const definition: number[] = [];
  const values: string[] = [];
  for (const row of rows) {
    if (row.length === 0) {
      repetition.push(0);
      definition.push(0);
    }
    row.forEach((value, i) => {
      repetition.push(i === 0 ? 0 : 1);
      definition.push(1);
      values.push(value);
    });
  }
  const page = new ByteWriter(1024);
  for (const levels of [repetition, definition]) {
    const encoded = new ByteWriter(256);
    writeRleBitPackedHybrid(encoded, levels, 1);
    page.appendUint32(encoded.offset);
    page.appendBytes(encoded.getBytes());
  }
  page.appendBytes(prefixedText(values));
  return { bytes: page.getBytes(), nValues: repetition.length };
}

function int64s(data: Float64Array, n: number): Uint8Array {
  const words = new Int32Array(n * 2);
  for (let i = 0; i < n; i++) {
    const value = data[i]!;
    const high = Math.floor(value / 4_294_967_296);
    words[2 * i] = value - high * 4_294_967_296;
    words[2 * i + 1] = high;
  }
  return bytesOf(words, n * 8);
}

function bits(data: Uint8Array, n: number): Uint8Array {
  const out = new Uint8Array((n + 7) >> 3);
  for (let i = 0; i < n; i++) if (data[i] === 1) out[i >> 3]! |= 1 << (i & 7);
  return out;
}

function bytesOf(array: ArrayBufferView, length: number): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, length);
}
