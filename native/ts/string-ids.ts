import { setImmediate } from 'node:timers/promises';
import { nativeError } from './errors.js';

/** UTF-8 bytes a string id may have. */
const MAX_ID_BYTES = 65_535;

/** Ids encoded between two turns of the event loop: a few hundred microseconds. */
const IDS_PER_TURN = 1_024;

/** Ids as native code takes them: UTF-8, one after the other, with the end of each. */
export interface PackedIds {
  readonly bytes: Uint8Array;
  readonly ends: Uint32Array;
}

const encoder = new TextEncoder();

/**
 * Encodes ids, giving the event loop its turn every {@link IDS_PER_TURN} of them.
 * @throws WAGGLE_NATIVE_DTYPE for what is not a string; _INVALID_ARGUMENT for a lone surrogate (two such ids would
 *   become one) or more than 65,535 bytes; _SHAPE beyond 4 GiB in all
 */
export async function packIds(name: string, ids: readonly string[]): Promise<PackedIds> {
  const n = ids.length;
  const ends = new Uint32Array(n);
  let bytes = new Uint8Array(Math.max(64, n * 16));
  let end = 0;
  for (let i = 0; i < n; i++) {
    if (i > 0 && i % IDS_PER_TURN === 0) await setImmediate();
    const id = ids[i];
    if (typeof id !== 'string') {
      throw nativeError('WAGGLE_NATIVE_DTYPE', `${name}[${i}] is ${typeof id}, not a string`, {
        details: { argument: name, at: i },
      });
    }
    if (id.length > MAX_ID_BYTES) refuse(name, i, `is longer than ${MAX_ID_BYTES} bytes`);
    if (!(id as unknown as { isWellFormed(): boolean }).isWellFormed()) {
      refuse(name, i, 'holds half of a surrogate pair');
    }
    const most = end + id.length * 3;
    if (most > bytes.length) bytes = enlarged(bytes, name, end, most);
    const { written } = encoder.encodeInto(id, bytes.subarray(end));
    if (written > MAX_ID_BYTES) refuse(name, i, `is longer than ${MAX_ID_BYTES} bytes`);
    end += written;
    ends[i] = end;
  }
  return { bytes, ends };
}

function refuse(name: string, at: number, what: string): never {
  throw nativeError('WAGGLE_NATIVE_INVALID_ARGUMENT', `${name}[${at}] ${what}`, {
    details: { argument: name, at },
  });
}

function enlarged(
  bytes: Uint8Array<ArrayBuffer>,
  name: string,
  used: number,
  atLeast: number,
): Uint8Array<ArrayBuffer> {
  const size = Math.max(atLeast, bytes.length * 2);
  if (size > 2 ** 32 - 1) {
    throw nativeError('WAGGLE_NATIVE_SHAPE', `${name} exceed 4 GiB; pass fewer at a time`, {
      details: { argument: name },
    });
  }
  const larger = new Uint8Array(size);
  larger.set(bytes.subarray(0, used));
  return larger;
}

/** String ids of an answer, decoded when asked for: thousands of strings made at once would hold the event loop. */
export class StringIds {
  /** nQueries × k. */
  readonly length: number;
  readonly #bytes: Buffer;
  readonly #ends: Uint32Array;
  readonly #rows: Int32Array;

  constructor(bytes: Uint8Array, ends: Uint32Array, rows: Int32Array) {
    this.length = ends.length;
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#ends = ends;
    // A copy: the caller may transfer or overwrite his.
    this.#rows = rows.slice();
  }

  /** The id at a position of `rows`; undefined where that is −1 (and beyond the end). */
  at(position: number): string | undefined {
    const row = this.#rows[position];
    if (row === undefined || row < 0) return undefined;
    const begin = position === 0 ? 0 : this.#ends[position - 1];
    return this.#bytes.toString('utf8', begin, this.#ends[position]);
  }

  /** Each id in turn, undefined for pads: `for (const id of ids)`. */
  *[Symbol.iterator](): IterableIterator<string | undefined> {
    for (let position = 0; position < this.length; position++) yield this.at(position);
  }

  /** What JSON says of them: the ids, null for pads. */
  toJSON(): (string | null)[] {
    return this.toArray().map((id) => id ?? null);
  }

  /** All of them: for tests and small answers. */
  toArray(): (string | undefined)[] {
    return Array.from({ length: this.length }, (_, position) => this.at(position));
  }
}
