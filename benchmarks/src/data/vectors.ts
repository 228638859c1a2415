import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import type { Clustered } from './clustered.js';
import { RawFile } from './files.js';

/** sfc32 (Chris Doty-Humphrey, PractRand): small state, passes BigCrush; a billion draws must not take minutes. */
export class FastRandom {
  #a: number;
  #b: number;
  #c: number;
  #d: number;
  #spare = Number.NaN;

  constructor(seed: number, stream: number) {
    this.#a = seed | 0;
    this.#b = Math.floor(seed / 2 ** 32) | 0;
    this.#c = stream | 0;
    this.#d = 1;
    for (let i = 0; i < 15; i++) this.uint32();
  }

  uint32(): number {
    const t = (((this.#a + this.#b) | 0) + this.#d) | 0;
    this.#d = (this.#d + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) + t;
    this.#c |= 0;
    return t >>> 0;
  }

  /** Standard normal: Marsaglia's polar method. */
  normal(): number {
    if (!Number.isNaN(this.#spare)) {
      const spare = this.#spare;
      this.#spare = Number.NaN;
      return spare;
    }
    for (;;) {
      const u = this.uint32() * 2 ** -31 - 1;
      const v = this.uint32() * 2 ** -31 - 1;
      const s = u * u + v * v;
      if (s >= 1 || s === 0) continue;
      const scale = Math.sqrt((-2 * Math.log(s)) / s);
      this.#spare = v * scale;
      return u * scale;
    }
  }
}

/** Scales rows [n × dim] to length 1 in place. */
export function normalizeRows(x: Float32Array, dim: number): Float32Array {
  for (let at = 0; at < x.length; at += dim) {
    let sum = 0;
    for (let d = at; d < at + dim; d++) sum += x[d]! * x[d]!;
    const scale = sum > 0 ? 1 / Math.sqrt(sum) : 0;
    for (let d = at; d < at + dim; d++) x[d]! *= scale;
  }
  return x;
}

/** Unit vectors in uniformly random directions, float32 [n × dim]. */
export function gaussianRows(n: number, dim: number, seed: number, stream: number): Float32Array {
  const rng = new FastRandom(seed, stream);
  const x = new Float32Array(n * dim);
  for (let i = 0; i < x.length; i++) x[i] = rng.normal();
  return normalizeRows(x, dim);
}

const PIECE_ROWS = 16_384;

/** The rows of {@link gaussianRows}, piece by piece into a file, each piece a stream of its own. */
export function writeGaussianRows(path: string, n: number, dim: number, seed: number): string {
  return writePieces(path, n, (rows, piece) => gaussianRows(rows, dim, seed, 1_000 + piece));
}

function writePieces(
  path: string,
  n: number,
  make: (rows: number, piece: number) => Float32Array,
): string {
  const file = new RawFile(path);
  for (let from = 0, piece = 0; from < n; from += PIECE_ROWS, piece++) {
    file.append(make(Math.min(PIECE_ROWS, n - from), piece));
  }
  file.close();
  return path;
}

/** Embedding-like rows (see clustered.ts), piece by piece into a file. */
export function writeClusteredRows(path: string, n: number, data: Clustered): string {
  return writePieces(path, n, (rows, piece) => data.rows(rows, piece * PIECE_ROWS));
}

export interface RealVectors {
  readonly name: string;
  readonly dim: number;
  readonly rows: Float32Array;
  readonly nRows: number;
  readonly queries: Float32Array;
  readonly nQueries: number;
}

/** Real sets are split the same way every time: every tenth row is a query that no index sees. */
function split(name: string, dim: number, all: Float32Array): RealVectors {
  const n = Math.floor(all.length / dim);
  const nQueries = Math.floor(n / 10);
  const nRows = n - nQueries;
  const rows = new Float32Array(nRows * dim);
  const queries = new Float32Array(nQueries * dim);
  for (let i = 0, row = 0, query = 0; i < n; i++) {
    const one = all.subarray(i * dim, (i + 1) * dim);
    if (i % 10 === 9 && query < nQueries) queries.set(one, query++ * dim);
    else rows.set(one, row++ * dim);
  }
  normalizeRows(rows, dim);
  normalizeRows(queries, dim);
  return { name, dim, rows, nRows, queries, nQueries };
}

/** Where public data is read, if it is there. */
export function dataFolder(): string {
  return (
    process.env['WAGGLE_DATA_DIR'] ||
    fileURLToPath(new URL('../../../../shared/data', import.meta.url))
  );
}

function dataFile(...parts: string[]): string | undefined {
  const path = join(dataFolder(), 'vectors', ...parts);
  return existsSync(path) ? path : undefined;
}

/** Pixels of 10,000 digits, 784 dimensions; nothing when the data folder is not there. */
export function mnist(): RealVectors | undefined {
  const path = dataFile('mnist', 't10k-images-idx3-ubyte.gz');
  if (path === undefined) return undefined;
  const bytes = gunzipSync(readFileSync(path));
  // IDX: magic, count, height, width, then the pixels.
  return split('mnist', 784, Float32Array.from(bytes.subarray(16)));
}

/** 8,000 word vectors, 300 dimensions; nothing when the data folder is not there. */
export function word2vec(): RealVectors | undefined {
  const path = dataFile('word2vec-googlenews-8k-300d', 'vectors.f32.gz');
  if (path === undefined) return undefined;
  const bytes = gunzipSync(readFileSync(path));
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const all = new Float32Array(bytes.length / 4);
  for (let i = 0; i < all.length; i++) all[i] = view.getFloat32(4 * i, true);
  return split('word2vec', 300, all);
}
