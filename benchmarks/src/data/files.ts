import { closeSync, fstatSync, openSync, readSync, writeSync } from 'node:fs';

/** Reads and writes stay below what one system call takes. */
const PIECE_BYTES = 1 << 28;

type Numbers = Float32Array | Float64Array | Int32Array | Uint8Array | BigInt64Array;

/** Fills `into` from the start of a raw little-endian file. @throws Error when the file is shorter or longer */
export function readInto<T extends Numbers>(path: string, into: T): T {
  const bytes = new Uint8Array(into.buffer, into.byteOffset, into.byteLength);
  const file = openSync(path, 'r');
  try {
    const { size } = fstatSync(file);
    if (size !== bytes.length) {
      throw new Error(`${path} has ${size} bytes; ${bytes.length} were expected`);
    }
    for (let at = 0; at < bytes.length; ) {
      const read = readSync(file, bytes, at, Math.min(PIECE_BYTES, bytes.length - at), at);
      if (read === 0) throw new Error(`${path} ended early`);
      at += read;
    }
  } finally {
    closeSync(file);
  }
  return into;
}

/** A raw file written piece by piece. */
export class RawFile {
  readonly #file: number;
  readonly path: string;

  constructor(path: string) {
    this.path = path;
    this.#file = openSync(path, 'w');
  }

  append(values: Numbers): void {
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    for (let at = 0; at < bytes.length; ) {
      at += writeSync(this.#file, bytes, at, Math.min(PIECE_BYTES, bytes.length - at));
    }
  }

  close(): void {
    closeSync(this.#file);
  }
}

export function writeRaw(path: string, values: Numbers): string {
  const file = new RawFile(path);
  file.append(values);
  file.close();
  return path;
}
