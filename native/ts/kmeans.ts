import { checkArray, checkFinite, checkInteger, checkObject, MAX_ROWS } from './arrays.js';
import { nativeError } from './errors.js';
import { runJob } from './jobs.js';
import { withProgress } from './progress.js';

export const KMEANS_MAX_CLUSTERS = 65_536;

export interface KmeansInput {
  /** float32 [nRows × dim], row-major; borrowed until settled. */
  readonly x: Float32Array;
  readonly nRows: number;
  readonly dim: number;
  /** 1 … min(nRows, 65,536). */
  readonly k: number;
  /** Default 1. */
  readonly seed?: number | undefined;
  /** Default 25; 0 only assigns. */
  readonly maxIterations?: number | undefined;
  /** Ends when an iteration lowers the objective by less than this part of it; default 1e-4. */
  readonly tolerance?: number | undefined;
  /** Rows trained on, at most, per cluster; default 256, 0 = all. Every row is assigned at the end. */
  readonly samplesPerCluster?: number | undefined;
  /** float32 [k × dim] centroids to start from; default k-means++ (beyond 256 clusters k-means||). */
  readonly start?: Float32Array | undefined;
  /** Called now and then with the part done, 0 … 1; throwing ends the job with that error. */
  readonly onProgress?: ((done: number) => void) | undefined;
}

export interface KmeansResult {
  /** float32 [k × dim]. */
  readonly centroids: Float32Array;
  /** int32 [nRows]. */
  readonly assignments: Int32Array;
  readonly iterations: number;
  readonly converged: boolean;
  /** Σ ‖x − its centroid‖² over all rows. */
  readonly objective: number;
  /** Rows trained on. */
  readonly nSampled: number;
}

/**
 * Clusters around means: Lloyd's algorithm from a greedy k-means++ start (Arthur & Vassilvitskii 2007; k-means||,
 * Bahmani et al. 2012, beyond 256 clusters). The same answer for a seed at any thread count; ties to the lower cluster;
 * an empty cluster takes over the row farthest from its centroid.
 *
 * @param o shapes as in {@link KmeansInput}; `signal` is polled between tiles
 * @returns centroids and assignments; O(iterations · sampled rows · k · dim + nRows · k · dim)
 * @throws WAGGLE_NATIVE_NAN naming a row that holds NaN or infinity or whose squared length exceeds 1e36;
 *   WAGGLE_NATIVE_INVALID_ARGUMENT, _SHAPE, _DTYPE, _DETACHED, _LEASED, _BUSY, _OUT_OF_MEMORY; WAGGLE_ABORTED
 */
export async function kmeans(
  o: KmeansInput & { readonly signal?: AbortSignal | undefined },
): Promise<KmeansResult> {
  checkObject('options', o);
  checkInteger('nRows', o.nRows, 1, MAX_ROWS);
  checkInteger('dim', o.dim, 1, MAX_ROWS);
  checkInteger('k', o.k, 1, Math.min(o.nRows, KMEANS_MAX_CLUSTERS));
  const seed = o.seed ?? 1;
  checkInteger('seed', seed, 0, Number.MAX_SAFE_INTEGER);
  const maxIterations = o.maxIterations ?? 25;
  checkInteger('maxIterations', maxIterations, 0, 10_000);
  const tolerance = o.tolerance ?? 1e-4;
  checkFinite('tolerance', tolerance);
  if (tolerance < 0) {
    throw nativeError('WAGGLE_NATIVE_INVALID_ARGUMENT', 'tolerance must not be negative');
  }
  const samplesPerCluster = o.samplesPerCluster ?? 256;
  checkInteger('samplesPerCluster', samplesPerCluster, 0, MAX_ROWS);
  checkArray('x', o.x, 'Float32Array', o.nRows * o.dim);
  if (o.start !== undefined) checkArray('start', o.start, 'Float32Array', o.k * o.dim);
  const centroids = new Float32Array(o.k * o.dim);
  const assignments = new Int32Array(o.nRows);
  const summary = new Float64Array(5);
  const { onProgress } = o;
  const look = onProgress === undefined ? undefined : () => onProgress(summary[4]!);
  await withProgress(look, o.signal, (signal) =>
    runJob(
      (engine) =>
        engine.kmeans(
          o.x,
          o.nRows,
          o.dim,
          o.k,
          seed,
          maxIterations,
          tolerance,
          samplesPerCluster,
          o.start,
          centroids,
          assignments,
          summary,
        ),
      signal,
    ),
  );
  onProgress?.(1);
  return {
    centroids,
    assignments,
    iterations: summary[0]!,
    converged: summary[1] === 1,
    objective: summary[2]!,
    nSampled: summary[3]!,
  };
}
