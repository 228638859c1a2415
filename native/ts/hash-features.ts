import { checkArray, checkInteger, checkObject, MAX_ROWS } from './arrays.js';
import { nativeError } from './errors.js';
import { runJob } from './jobs.js';
import type { HashColumnArguments } from './loader.js';
import type { SparseRows } from './sparse.js';
import { packIds } from './string-ids.js';

export const HASH_MAX_BITS = 28;

export interface HashColumn {
  /** Part of the hash: the same value in another field is another feature. */
  readonly field: string;
  /** [nRows]; the integer 7 and the string '7' are different values. Typed arrays are borrowed until settled. */
  readonly values: readonly string[] | Int32Array | BigInt64Array;
}

export interface HashFeaturesInput {
  readonly nRows: number;
  readonly columns: readonly HashColumn[];
  /** 1 … 28: 2^bits buckets. */
  readonly bits: number;
  /** Default 0; 64 bits. */
  readonly seed?: bigint | undefined;
  /**
   * Default false: every value is 1. True: a value is ±1 by another bit of its hash, so that what collides cancels out
   * on average.
   */
  readonly signed?: boolean | undefined;
  /** Default true: distinct values and collisions are counted, which needs a set of the distinct values. */
  readonly count?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface HashedFeatures extends SparseRows {
  /** 2^bits. */
  readonly nFeatures: number;
  /** Columns; the place of an entry in its row is its field. */
  readonly nFields: number;
  /** By column; empty when not counted. */
  readonly distinct: readonly number[];
  /** Hit by any value; 0 when not counted. */
  readonly buckets: number;
  /** Σ distinct − buckets: values that share the bucket of another one. */
  readonly collisions: number;
}

/**
 * The hashing trick: (field, value) pairs to buckets (Weinberger et al. 2009).
 *
 * key = XXH64(UTF-8 of the field, seed); a string hashes as XXH64(its UTF-8, key), an integer as XXH64(its 8 bytes in
 * two's complement, lowest first, key + 1); the bucket is the hash modulo 2^bits, the sign its highest bit. The same
 * on every machine and in every version: models rely on it.
 *
 * @param o as in {@link HashFeaturesInput}; `signal` is polled between chunks of rows
 * @returns rows with one entry per column, for `Ftrl`, `Ffm` and `glmFitSparse`; O(nRows · columns)
 * @throws WAGGLE_NATIVE_INVALID_ARGUMENT (half of a surrogate pair, strings beyond 65,535 bytes, bits), _SHAPE, _DTYPE,
 *   _DETACHED, _LEASED, _BUSY, _OUT_OF_MEMORY; WAGGLE_ABORTED
 */
export async function hashFeatures(o: HashFeaturesInput): Promise<HashedFeatures> {
  checkObject('options', o);
  checkObject('columns', o.columns);
  checkInteger('nRows', o.nRows, 0, MAX_ROWS);
  checkInteger('bits', o.bits, 1, HASH_MAX_BITS);
  const seed = o.seed ?? 0n;
  if (typeof seed !== 'bigint' || seed < 0n || seed >= 2n ** 64n) {
    throw nativeError(
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
      `seed is ${String(seed)}; it must be a bigint of 64 bits`,
    );
  }
  const nFields = o.columns.length;
  checkInteger('nRows × columns', o.nRows * nFields, 0, MAX_ROWS);
  const columns: HashColumnArguments[] = [];
  for (const column of o.columns) {
    checkObject('column', column);
    columns.push(await pack(column, o.nRows));
  }
  const indices = new Int32Array(o.nRows * nFields);
  const values = o.signed === true ? new Float32Array(indices.length) : undefined;
  const report = await runJob(
    (engine) =>
      engine.hashFeatures(o.nRows, columns, o.bits, seed, o.count ?? true, indices, values),
    o.signal,
  );
  const indptr = new Int32Array(o.nRows + 1);
  for (let row = 0; row <= o.nRows; row++) indptr[row] = row * nFields;
  return {
    nRows: o.nRows,
    indptr,
    indices,
    ...(values === undefined ? {} : { values }),
    nFeatures: 2 ** o.bits,
    nFields,
    ...report,
  };
}

async function pack({ field, values }: HashColumn, nRows: number): Promise<HashColumnArguments> {
  const { bytes: name } = await packIds('field', [field]);
  const label = `values of ${field}`;
  if (ArrayBuffer.isView(values)) {
    if ((values as { [Symbol.toStringTag]?: unknown })[Symbol.toStringTag] === 'BigInt64Array') {
      checkArray(label, values, 'BigInt64Array', nRows);
      return [trim(name, field), undefined, values, undefined, undefined];
    }
    checkArray(label, values, 'Int32Array', nRows);
    return [trim(name, field), values, undefined, undefined, undefined];
  }
  if (!Array.isArray(values)) {
    throw nativeError(
      'WAGGLE_NATIVE_DTYPE',
      `${label} must be an Int32Array, a BigInt64Array or an array of strings`,
    );
  }
  if (values.length < nRows) {
    throw nativeError(
      'WAGGLE_NATIVE_SHAPE',
      `${label} has ${values.length} elements; ${nRows} are needed`,
    );
  }
  const { bytes, ends } = await packIds(
    label,
    nRows < values.length ? values.slice(0, nRows) : values,
  );
  return [trim(name, field), undefined, undefined, bytes, ends];
}

/** `packIds` leaves room at the end; a name is hashed whole. */
function trim(name: Uint8Array, field: string): Uint8Array {
  return name.slice(0, Buffer.byteLength(field));
}
