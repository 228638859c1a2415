import type { SparseRows, SparseTargets } from '../../ts/index.js';
import { randomNumbers } from './arrays.js';

export interface StreamShape {
  readonly n: number;
  readonly nFields: number;
  readonly perField: number;
  readonly seed: number;
}

/** One entry per field, each field with features of its own; two fields decide together. */
export function stream({ n, nFields, perField, seed }: StreamShape) {
  const next = randomNumbers(seed);
  const indptr = Int32Array.from({ length: n + 1 }, (_, i) => i * nFields);
  const indices = Int32Array.from(
    { length: n * nFields },
    (_, e) => (e % nFields) * perField + Math.floor(next() ** 2 * perField),
  );
  const successes = Float64Array.from({ length: n }, (_, i) => {
    const a = indices[i * nFields]!;
    const b = indices[i * nFields + 1]!;
    return next() < ((a * 7 + b * 3) % 5 < 2 ? 0.5 : 0.1) ? 1 : 0;
  });
  return { nRows: n, indptr, indices, successes, nFeatures: nFields * perField };
}

/** Rows [begin, end) of a stream. */
export function part(
  s: SparseRows & SparseTargets,
  begin: number,
  end: number,
): SparseRows & SparseTargets {
  const from = s.indptr[begin]!;
  return {
    nRows: end - begin,
    indptr: s.indptr.slice(begin, end + 1).map((v) => v - from),
    indices: s.indices.slice(from, s.indptr[end]),
    successes: s.successes.slice(begin, end),
  };
}

export function logLoss(probabilities: Float64Array, successes: Float64Array): number {
  let sum = 0;
  probabilities.forEach((p, i) => {
    sum -= successes[i]! * Math.log(p) + (1 - successes[i]!) * Math.log(1 - p);
  });
  return sum / probabilities.length;
}
