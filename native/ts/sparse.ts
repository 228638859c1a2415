import { throwIfAborted } from '@waggle/core';
import { checkArray, checkInteger, MAX_ROWS } from './arrays.js';
import { nativeError } from './errors.js';
import { checkSignal, waitForTurn } from './signals.js';

/** Features, or hash buckets, that a sparse model may have. */
export const SPARSE_MAX_FEATURES = 2 ** 28;
export const SPARSE_MAX_FIELDS = 1_024;

/**
 * Compressed sparse rows (CSR): row i is the entries `indptr[i]` … `indptr[i + 1]`. A row may name a feature more than
 * once. All arrays are borrowed until settled.
 */
export interface SparseRows {
  readonly nRows: number;
  /** int32 [nRows + 1], ascending from 0. */
  readonly indptr: Int32Array;
  /** int32 [nEntries], 0 ≤ index < nFeatures. */
  readonly indices: Int32Array;
  /** float32 [nEntries]; default all 1. */
  readonly values?: Float32Array | undefined;
  /** int32 [nEntries], 0 ≤ field < nFields; default the place in the row. Only field-aware models look. */
  readonly fields?: Int32Array | undefined;
}

/** Binomial counts beside sparse rows. */
export interface SparseTargets {
  /** float64 [nRows], 0 ≤ successes ≤ trials; fractions are allowed. */
  readonly successes: Float64Array;
  /** float64 [nRows], 0 … 1e50; default 1. */
  readonly trials?: Float64Array | undefined;
  /** float64 [nRows], 0 … 1e50; default 1. */
  readonly weights?: Float64Array | undefined;
  /** float64 [nRows], up to ±1e100, added to the linear predictor. */
  readonly offset?: Float64Array | undefined;
}

export type SparseRowsArguments = [
  nRows: number,
  indptr: Int32Array,
  indices: Int32Array,
  values: Float32Array | undefined,
  fields: Int32Array | undefined,
];

export type SparseTargetsArguments = [
  successes: Float64Array,
  trials: Float64Array | undefined,
  weights: Float64Array | undefined,
  offset: Float64Array | undefined,
];

/** What a native call is about to borrow; contents are checked there. */
export function rowsArguments(rows: SparseRows, name = ''): SparseRowsArguments {
  checkInteger(`${name}nRows`, rows.nRows, 0, MAX_ROWS);
  checkArray(`${name}indptr`, rows.indptr, 'Int32Array', rows.nRows + 1);
  const nEntries = Math.max(0, rows.indptr[rows.nRows]!);
  checkArray(`${name}indices`, rows.indices, 'Int32Array', nEntries);
  if (rows.values !== undefined) checkArray(`${name}values`, rows.values, 'Float32Array', nEntries);
  if (rows.fields !== undefined) checkArray(`${name}fields`, rows.fields, 'Int32Array', nEntries);
  return [rows.nRows, rows.indptr, rows.indices, rows.values, rows.fields];
}

export function targetsArguments(
  targets: SparseTargets,
  nRows: number,
  name = '',
): SparseTargetsArguments {
  const { successes, trials, weights, offset } = targets;
  checkArray(`${name}successes`, successes, 'Float64Array', nRows);
  for (const [key, column] of Object.entries({ trials, weights, offset })) {
    if (column !== undefined) checkArray(`${name}${key}`, column, 'Float64Array', nRows);
  }
  return [successes, trials, weights, offset];
}

export function checkAbove(name: string, value: unknown, least: number, most: number): void {
  if (typeof value === 'number' && value >= least && value <= most) return;
  throw nativeError(
    typeof value === 'number' && !Number.isFinite(value)
      ? 'WAGGLE_NATIVE_NAN'
      : 'WAGGLE_NATIVE_INVALID_ARGUMENT',
    `${name} is ${String(value)}; it must be ${least} to ${most}`,
    { details: { argument: name } },
  );
}

export function checkPath(path: unknown): asserts path is string {
  if (typeof path === 'string' && path !== '' && !path.includes('\0')) return;
  throw nativeError(
    'WAGGLE_NATIVE_INVALID_ARGUMENT',
    'path must be a string that is not empty and holds no zero byte',
    { details: { argument: 'path' } },
  );
}

/** Calls on one model, one after the other in the order they were made. */
export class Turns {
  readonly #what: string;
  #last: Promise<unknown> = Promise.resolve();
  #closing: Promise<void> | undefined;

  constructor(what: string) {
    this.#what = what;
  }

  /** @throws WAGGLE_NATIVE_CLOSED */
  checkOpen(): void {
    if (this.#closing === undefined) return;
    throw nativeError('WAGGLE_NATIVE_CLOSED', `the ${this.#what} is closed`);
  }

  async take<Result>(
    run: () => Promise<Result>,
    signal?: AbortSignal | undefined,
  ): Promise<Result> {
    this.checkOpen();
    const followed = checkSignal(signal);
    throwIfAborted(followed);
    const before = this.#last;
    const turn = waitForTurn(before, followed).then(run);
    // Both: an aborted turn does not wait for the one before. Results are dropped.
    this.#last = Promise.allSettled([before, turn]).then(() => undefined);
    return await turn;
  }

  /** Refuses new calls at once, waits for those before it. Idempotent. */
  close(release: () => void): Promise<void> {
    this.#closing ??= this.#last.then(release);
    return this.#closing;
  }
}
