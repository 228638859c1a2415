import { Rng } from '@waggle/core';
import type { EntityVectors } from '@waggle/features';

const POWER_STEPS = 12;

/** Directions along which the texts of a network differ most. */
export interface Basis {
  readonly dim: number;
  readonly mean: Float64Array;
  /** [k × dim] orthonormal, row-major. */
  readonly components: Float64Array;
}

/** Leading principal components of all vectors by orthogonal iteration (Golub & Van Loan, §8.2.4). O(steps · n · dim · k). */
export function principalComponents(
  sources: readonly EntityVectors[],
  o: { readonly seed: number; readonly n: number },
): Basis {
  const dim = sources[0]!.dim;
  const usable = dim > 0 && sources.every((s) => s.dim === dim);
  if (!usable) return { dim: 0, mean: new Float64Array(0), components: new Float64Array(0) };
  const rows = sources.flatMap(({ vectors }) =>
    Array.from({ length: vectors.length / dim }, (_, i) =>
      vectors.subarray(i * dim, (i + 1) * dim),
    ),
  );
  const mean = new Float64Array(dim);
  for (const row of rows) for (let d = 0; d < dim; d++) mean[d]! += row[d]! / rows.length;
  const k = Math.min(o.n, dim, Math.max(rows.length - 1, 0));
  const rng = new Rng(o.seed, 0x706361);
  let q = Array.from({ length: k }, () => Float64Array.from({ length: dim }, () => rng.normal()));
  orthonormalise(q);
  for (let step = 0; step < POWER_STEPS; step++) {
    const next = q.map(() => new Float64Array(dim));
    for (const row of rows) {
      for (let c = 0; c < k; c++) {
        let along = 0;
        for (let d = 0; d < dim; d++) along += (row[d]! - mean[d]!) * q[c]![d]!;
        for (let d = 0; d < dim; d++) next[c]![d]! += along * (row[d]! - mean[d]!);
      }
    }
    orthonormalise(next);
    q = next;
  }
  return { dim, mean, components: Float64Array.from(q.flatMap((row) => [...row])) };
}

/** Gram–Schmidt in place; a row that depends on those before it becomes 0. */
function orthonormalise(q: readonly Float64Array[]): void {
  q.forEach((row, c) => {
    for (let b = 0; b < c; b++) {
      const along = row.reduce((sum, v, d) => sum + v * q[b]![d]!, 0);
      for (let d = 0; d < row.length; d++) row[d]! -= along * q[b]![d]!;
    }
    const norm = Math.sqrt(row.reduce((sum, v) => sum + v * v, 0));
    for (let d = 0; d < row.length; d++) row[d] = norm > 1e-9 ? row[d]! / norm : 0;
  });
}

export const nComponents = ({ dim, components }: Basis): number =>
  dim === 0 ? 0 : components.length / dim;

/** [nComponents] of each entity that has a vector. O(n · dim · k) */
export function project(
  { vectors, rowOf }: EntityVectors,
  basis: Basis,
): ReadonlyMap<string, Float64Array> {
  const { dim, mean, components } = basis;
  const k = nComponents(basis);
  const out = new Map<string, Float64Array>();
  for (const [id, row] of rowOf) {
    const values = new Float64Array(k);
    for (let c = 0; c < k; c++) {
      for (let d = 0; d < dim; d++) {
        values[c]! += (vectors[row * dim + d]! - mean[d]!) * components[c * dim + d]!;
      }
    }
    out.set(id, values);
  }
  return out;
}

/** [nRows] Σ coefficient · x of a row-major matrix. */
export function dot(x: Float32Array, coefficients: Float64Array): Float64Array {
  const width = coefficients.length;
  return Float64Array.from({ length: width === 0 ? 0 : x.length / width }, (_, i) => {
    let sum = 0;
    for (let f = 0; f < width; f++) sum += coefficients[f]! * x[i * width + f]!;
    return sum;
  });
}
