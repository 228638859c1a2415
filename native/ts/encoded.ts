import { optionNames } from '@waggle/core';
import {
  checkArray,
  checkBoolean,
  checkInteger,
  checkObject,
  MAX_ROWS,
  positionOf,
} from './arrays.js';
import { nativeError } from './errors.js';
import { runJob } from './jobs.js';
import { checkFilter, type Metric, metricCode, TOPK_MAX_K, type TopkResult } from './topk.js';

export type EncodedDtype = 'f16' | 'bf16' | 'int8';

/** A matrix in low precision: x̂[r][i] = scale[r] · code[r][i]. Plain arrays: keep, transfer or store them freely. */
export interface EncodedMatrix {
  readonly dtype: EncodedDtype;
  readonly nRows: number;
  readonly dim: number;
  /** Codes [nRows × dim], row-major: −127 … 127 (`int8`), or the bits of binary16 (`f16`) or of a float's upper half. */
  readonly data: Int8Array | Uint16Array;
  /** float32 [nRows]; undefined for `bf16`. Powers of two for `f16`. */
  readonly scale: Float32Array | undefined;
  /** float32 [nRows], ≥ ‖x − x̂‖₂: a bound, summed in double and rounded up. */
  readonly error: Float32Array;
  /** float32 [nRows], ‖x‖₂ rounded up. */
  readonly norm: Float32Array;
  /** uint16 [nRows × dim], `lossless` alone: the lower halves of the floats whose upper halves `data` holds. */
  readonly lower?: Uint16Array | undefined;
}

export interface EncodeInput {
  /** float32 [nRows × dim], row-major; borrowed until settled. */
  readonly matrix: Float32Array;
  readonly nRows: number;
  readonly dim: number;
  readonly dtype: EncodedDtype;
  /**
   * `bf16` alone: cuts each float in two halves instead of rounding it, so that the encoded matrix is all of the floats
   * in their own memory, and `matrix` need not be kept to search exactly. Default false.
   */
  readonly lossless?: boolean | undefined;
}

export interface TopkEncodedInput {
  /** float32 [nQueries × dim], row-major; borrowed until settled. */
  readonly queries: Float32Array;
  readonly nQueries: number;
  /** Borrowed until settled: do not write or transfer its arrays meanwhile. */
  readonly encoded: EncodedMatrix;
  /**
   * float32 [nRows × dim]: what `encoded` was made from. Absent = dropped to save memory; see {@link topkEncoded}. Not
   * needed where `encoded` is lossless.
   */
  readonly matrix?: Float32Array | undefined;
  /** 1 … 2,048. */
  readonly k: number;
  readonly metric: Metric;
  /** Filters as in `topk`: at most one of the three. */
  readonly filter?: Uint8Array | undefined;
  readonly filters?: Uint8Array | undefined;
  readonly allowRows?: Int32Array | undefined;
}

export interface TopkEncodedResult extends TopkResult {
  /** Every query's rows, and their order, are those of `topk` for certain. */
  readonly certified: boolean;
  /** uint8 [nQueries]: the same of each query. */
  readonly isCertified: Uint8Array;
  /** int32 [nQueries]: rows that are neither sure to be among `topk`'s k best nor sure not to be. */
  readonly nInDoubt: Int32Array;
  /**
   * Pairs whose score was computed from the floats (without them: from decoded rows). All of them where the floats are
   * sooner multiplied outright: where queries share few rows, or are many and the floats lie in halves.
   */
  readonly nRescored: number;
}

const DTYPES: readonly EncodedDtype[] = ['f16', 'bf16', 'int8'];
const ENCODE_OPTIONS = optionNames<EncodeInput & { readonly signal?: AbortSignal | undefined }>({
  matrix: true,
  nRows: true,
  dim: true,
  dtype: true,
  lossless: true,
  signal: true,
});

/**
 * A matrix in two bytes per value (`f16`, `bf16`) or one (`int8`), with what {@link topkEncoded} needs to answer as the
 * floats would: a scale, an error bound and a norm per row, 12 bytes (8 for `bf16`). Rounded to nearest (`lossless`: cut
 * in halves); the same bits on every machine. `int8` takes 0.26 of the floats' memory at dim 384. Values beyond
 * binary16 are no trouble: `f16` rows are scaled by a power of two.
 *
 * @param o shapes as in {@link EncodeInput}; `signal` is polled between blocks of rows
 * @returns fresh arrays; O(nRows · dim)
 * @throws WAGGLE_NATIVE_INVALID_ARGUMENT, _SHAPE, _DTYPE, _DETACHED before it starts; _NAN naming the first row that
 *   holds NaN or infinity; _LEASED, _BUSY; WAGGLE_ABORTED
 */
export async function encodeMatrix(
  o: EncodeInput & { readonly signal?: AbortSignal | undefined },
): Promise<EncodedMatrix> {
  checkObject('options', o, ENCODE_OPTIONS);
  checkInteger('nRows', o.nRows, 0, MAX_ROWS);
  checkInteger('dim', o.dim, 1, MAX_ROWS);
  const dtype = positionOf('dtype', DTYPES, o.dtype);
  const lossless = o.lossless ?? false;
  checkBoolean('lossless', lossless);
  if (lossless) checkHalves('lossless', o.dtype);
  const nValues = o.nRows * o.dim;
  checkArray('matrix', o.matrix, 'Float32Array', nValues);
  const encoded: EncodedMatrix = {
    dtype: o.dtype,
    nRows: o.nRows,
    dim: o.dim,
    data: o.dtype === 'int8' ? new Int8Array(nValues) : new Uint16Array(nValues),
    scale: o.dtype === 'bf16' ? undefined : new Float32Array(o.nRows),
    error: new Float32Array(o.nRows),
    norm: new Float32Array(o.nRows),
    ...(lossless ? { lower: new Uint16Array(nValues) } : {}),
  };
  await runJob(
    (engine) =>
      engine.encodeMatrix(
        o.matrix,
        o.nRows,
        o.dim,
        dtype,
        encoded.data,
        encoded.scale,
        encoded.error,
        encoded.norm,
        encoded.lower,
      ),
    o.signal,
  );
  return encoded;
}

function checkHalves(name: string, dtype: EncodedDtype): void {
  if (dtype === 'bf16') return;
  throw nativeError(
    'WAGGLE_NATIVE_INVALID_ARGUMENT',
    `${name} is of bf16 alone, whose codes are the upper halves of floats; dtype is ${dtype}`,
    { details: { argument: name } },
  );
}

function checkEncoded(e: EncodedMatrix): number {
  const dtype = positionOf('dtype', DTYPES, e.dtype);
  checkInteger('encoded.nRows', e.nRows, 0, MAX_ROWS);
  checkInteger('encoded.dim', e.dim, 1, MAX_ROWS);
  const nValues = e.nRows * e.dim;
  checkArray('encoded.data', e.data, e.dtype === 'int8' ? 'Int8Array' : 'Uint16Array', nValues);
  if (e.dtype !== 'bf16') checkArray('encoded.scale', e.scale, 'Float32Array', e.nRows);
  checkArray('encoded.error', e.error, 'Float32Array', e.nRows);
  checkArray('encoded.norm', e.norm, 'Float32Array', e.nRows);
  if (e.lower !== undefined) {
    checkHalves('encoded.lower', e.dtype);
    checkArray('encoded.lower', e.lower, 'Uint16Array', nValues);
  }
  return dtype;
}

const SEARCH_OPTIONS = optionNames<
  TopkEncodedInput & { readonly signal?: AbortSignal | undefined }
>({
  queries: true,
  nQueries: true,
  encoded: true,
  matrix: true,
  k: true,
  metric: true,
  filter: true,
  filters: true,
  allowRows: true,
  signal: true,
});

/**
 * The k rows most similar to each query, found by a scan in low precision.
 *
 * With `matrix`, or a lossless `encoded`: what `topk` on the CPU returns, bit for bit, scores and ties included. Every
 * row whose score could be among the k best within its error bound (|⟨q, x⟩ − ⟨q̂, x̂⟩| ≤ ‖q‖·‖x − x̂‖ + ‖q − q̂‖·‖x̂‖, plus
 * rounding; derived in `cpu/score_bounds.hpp`) is re-scored from the floats. `certified` is true.
 *
 * Without either: the k best by the score of the decoded row, which is approximate. `certified` then says whether the
 * rows and their order are nevertheless surely those of `topk` (scores may still differ in the last digits), `nInDoubt`
 * how many rows of each query could be either in or out.
 *
 * @param o shapes as in {@link TopkEncodedInput}; `signal` is polled between tiles. `encoded` must be what
 *   `encodeMatrix` made from `matrix`: bounds that do not hold make wrong answers
 * @returns float32 scores and int32 rows [nQueries × k], best first, padded as in `topk`; O(nQueries · nRows · dim) in
 *   low precision
 * @throws as topk: WAGGLE_NATIVE_INVALID_ARGUMENT, _SHAPE, _DTYPE, _DETACHED before it starts; _NAN when a query is not
 *   finite or a score overflows; _LEASED, _BUSY, _OUT_OF_MEMORY; WAGGLE_ABORTED
 */
export async function topkEncoded(
  o: TopkEncodedInput & { readonly signal?: AbortSignal | undefined },
): Promise<TopkEncodedResult> {
  checkObject('options', o, SEARCH_OPTIONS);
  const { encoded } = o;
  checkObject('encoded', encoded);
  checkInteger('nQueries', o.nQueries, 0, MAX_ROWS);
  checkInteger('k', o.k, 1, TOPK_MAX_K);
  const metric = metricCode(o.metric);
  const dtype = checkEncoded(encoded);
  const { nRows, dim } = encoded;
  checkArray('queries', o.queries, 'Float32Array', o.nQueries * dim);
  if (o.matrix !== undefined) checkArray('matrix', o.matrix, 'Float32Array', nRows * dim);
  checkFilter({
    nQueries: o.nQueries,
    nRows,
    filter: o.filter,
    filters: o.filters,
    allowRows: o.allowRows,
  });
  const nAnswers = o.nQueries * o.k;
  checkInteger('nQueries × k', nAnswers, 0, MAX_ROWS);
  const scores = new Float32Array(nAnswers);
  const rows = new Int32Array(nAnswers);
  const nInDoubt = new Int32Array(o.nQueries);
  const isCertified = new Uint8Array(o.nQueries);
  const report = await runJob(
    (engine) =>
      engine.topkEncoded(
        o.queries,
        o.nQueries,
        nRows,
        dim,
        dtype,
        encoded.data,
        encoded.scale,
        encoded.error,
        encoded.norm,
        encoded.lower,
        o.matrix,
        o.k,
        metric,
        o.filter,
        o.filters,
        o.allowRows,
        scores,
        rows,
        nInDoubt,
        isCertified,
      ),
    o.signal,
  );
  return { scores, rows, isCertified, nInDoubt, ...report };
}
