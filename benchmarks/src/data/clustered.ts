/**
 * Vectors that cluster as embeddings do: centres of Zipf-distributed weight on a subspace of low intrinsic dimension,
 * spread around each centre within it, a little noise in every coordinate, unit length. Row r depends on the seed and
 * on r alone. `native/bench/clustered.hpp` draws the same bits: only additions, multiplications, divisions and square
 * roots, which IEEE 754 rounds alike everywhere, in the same order.
 */
export interface ClusteredShape {
  readonly dim: number;
  /** Centre c has weight 1 / (c + 1); default 20,000. */
  readonly nCentres?: number | undefined;
  /** Default 24. */
  readonly intrinsicDim?: number | undefined;
  /** Standard deviation within a cluster, where that of the centres is 1; default 0.4. */
  readonly spread?: number | undefined;
  /** Standard deviation of a coordinate's noise, where that of the centres' coordinates is 1; default 0.1. */
  readonly noise?: number | undefined;
}

const PROJECTION = 1;
const CENTRE = 2;
const ROW = 3;
const QUERY = 4;

/** One stream of sfc32 (Doty-Humphrey, PractRand), named by seed, kind and index. */
class Stream {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  constructor(seed: number, kind: number, index: number) {
    this.#a = seed | 0;
    this.#b = kind | 0;
    this.#c = index | 0;
    for (let i = 0; i < 12; i++) this.next();
  }

  /** A signed 32-bit integer. */
  next(): number {
    const out = (((this.#a + this.#b) | 0) + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + out) | 0;
    return out;
  }

  /** Nearly standard normal: twelve 16-bit uniforms less their mean (variance 1 up to 2⁻³²). */
  normal(): number {
    let sum = 0;
    for (let i = 0; i < 6; i++) {
      const word = this.next();
      sum += (word & 0xffff) + (word >>> 16);
    }
    return (sum - 393_210) / 65_536;
  }
}

// The sum of four uniform bytes has mean 510 and variance 21,845.
const BYTES_MEAN = 510;
const BYTES_DEVIATION = Math.sqrt(21_845);

export class Clustered {
  readonly dim: number;
  readonly #seed: number;
  readonly #intrinsicDim: number;
  readonly #spread: number;
  readonly #noise: number;
  readonly #projection: Float64Array;
  readonly #centres: Float64Array;
  readonly #cumulative: Float64Array;
  readonly #latent: Float64Array;
  readonly #signal: Float64Array;

  /** @param seed 32-bit integer */
  constructor(shape: ClusteredShape, seed: number) {
    const nCentres = shape.nCentres ?? 20_000;
    const intrinsicDim = shape.intrinsicDim ?? 24;
    this.dim = shape.dim;
    this.#seed = seed;
    this.#intrinsicDim = intrinsicDim;
    this.#spread = shape.spread ?? 0.4;
    this.#noise = (shape.noise ?? 0.1) / BYTES_DEVIATION;
    const scale = Math.sqrt(intrinsicDim);
    this.#projection = new Float64Array(intrinsicDim * shape.dim);
    for (let j = 0; j < intrinsicDim; j++) {
      const stream = new Stream(seed, PROJECTION, j);
      for (let i = 0; i < shape.dim; i++) {
        this.#projection[j * shape.dim + i] = stream.normal() / scale;
      }
    }
    this.#centres = new Float64Array(nCentres * intrinsicDim);
    this.#cumulative = new Float64Array(nCentres);
    let total = 0;
    for (let c = 0; c < nCentres; c++) {
      const stream = new Stream(seed, CENTRE, c);
      for (let j = 0; j < intrinsicDim; j++) {
        this.#centres[c * intrinsicDim + j] = stream.normal();
      }
      total += 1 / (c + 1);
      this.#cumulative[c] = total;
    }
    this.#latent = new Float64Array(intrinsicDim);
    this.#signal = new Float64Array(shape.dim);
  }

  /** Rows first … first + n − 1, float32 [n × dim]; a few microseconds each. */
  rows(n: number, first = 0): Float32Array {
    return this.#draw(ROW, n, first);
  }

  /** Held-out queries from the same distribution: no row is a query. */
  queries(n: number, first = 0): Float32Array {
    return this.#draw(QUERY, n, first);
  }

  #draw(kind: number, n: number, first: number): Float32Array {
    const out = new Float32Array(n * this.dim);
    for (let r = 0; r < n; r++) {
      this.#one(kind, first + r, out.subarray(r * this.dim, (r + 1) * this.dim));
    }
    return out;
  }

  #one(kind: number, index: number, out: Float32Array): void {
    const dim = this.dim;
    const intrinsicDim = this.#intrinsicDim;
    const stream = new Stream(this.#seed, kind, index);
    const last = this.#cumulative.length - 1;
    const pick = ((stream.next() >>> 0) / 4_294_967_296) * this.#cumulative[last]!;
    let low = 0;
    let high = last;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#cumulative[middle]! > pick) high = middle;
      else low = middle + 1;
    }
    const latent = this.#latent;
    for (let j = 0; j < intrinsicDim; j++) {
      latent[j] = this.#centres[low * intrinsicDim + j]! + this.#spread * stream.normal();
    }
    const signal = this.#signal.fill(0);
    const projection = this.#projection;
    for (let j = 0; j < intrinsicDim; j++) {
      const z = latent[j]!;
      const at = j * dim;
      for (let i = 0; i < dim; i++) signal[i]! += z * projection[at + i]!;
    }
    const noise = this.#noise;
    let square = 0;
    for (let i = 0; i < dim; i++) {
      const word = stream.next();
      const bytes =
        (word & 255) + ((word >>> 8) & 255) + ((word >>> 16) & 255) + (word >>> 24) - BYTES_MEAN;
      const value = signal[i]! + noise * bytes;
      signal[i] = value;
      square += value * value;
    }
    const norm = Math.sqrt(square);
    for (let i = 0; i < dim; i++) out[i] = signal[i]! / norm;
  }
}

/** FNV-1a over the bits of the values: the test of this file and the one in C++ state the same number. */
export function fingerprint(values: Float32Array): number {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  let hash = 0x811c9dc5;
  for (const word of words) hash = Math.imul(hash ^ word, 0x01000193);
  return hash >>> 0;
}
