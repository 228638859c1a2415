import { type BenchContext, memoryAvailable, say } from '../bench-context.js';
import type { Contender } from '../contenders/protocol.js';
import { writeRaw } from '../data/files.js';
import { gaussianRows, writeGaussianRows } from '../data/vectors.js';
import { sizeName } from './size-name.js';

export const DIM = 384;
export const K = 100;
/** What the figures without a size in their name are measured at. */
export const ROWS = 1_000_000;

export interface Matrix {
  readonly rows: number;
  readonly name: string;
  readonly file: string;
}

/** Random unit vectors and queries on disk, written once per suite, read by every contender. */
export class SearchData {
  readonly #context: BenchContext;
  readonly #seed: number;
  readonly #matrices = new Map<number, Matrix>();
  readonly #queries = new Map<number, string>();

  constructor(context: BenchContext, seed: number) {
    this.#context = context;
    this.#seed = seed;
  }

  matrix(rows: number): Matrix {
    let matrix = this.#matrices.get(rows);
    if (matrix === undefined) {
      const name = sizeName(rows);
      say(`bench: writing ${name} × ${DIM} vectors …`);
      const file = writeGaussianRows(this.#context.file(`m-${name}.f32`), rows, DIM, this.#seed);
      matrix = { rows, name, file };
      this.#matrices.set(rows, matrix);
    }
    return matrix;
  }

  /** Loads rows as `matrix` and queries as `q<count>`. */
  async load(contender: Contender, matrix: Matrix, queryCounts: readonly number[]): Promise<void> {
    await contender.call('load', {
      as: 'matrix',
      path: matrix.file,
      rows: matrix.rows,
      cols: DIM,
    });
    for (const n of queryCounts) {
      let path = this.#queries.get(n);
      if (path === undefined) {
        path = writeRaw(this.#context.file(`q${n}.f32`), gaussianRows(n, DIM, this.#seed, n));
        this.#queries.set(n, path);
      }
      await contender.call('load', { as: `q${n}`, path, rows: n, cols: DIM });
    }
  }
}

/** `most` rows, or as many as fit where ours, one peer and the system's cache hold a copy each. */
export function rowsThatFit(most: number): number {
  const fit = Math.floor(memoryAvailable() / (3.5 * DIM * 4));
  if (fit >= most) return most;
  const rows = 10 ** Math.floor(Math.log10(fit));
  say(`bench: memory for ${fit} rows only: ${rows} instead of ${most}`);
  return rows;
}
