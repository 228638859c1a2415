/**
 * Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
 * SC'11). A stream is (seed, stream id); its n-th draw depends on nothing else, so adding an entity to a
 * simulation never shifts another entity's draws, and work can be split without changing results.
 */
const M0 = 0xd2511f53;
const M1 = 0xcd9e8d57;
const W0 = 0x9e3779b9;
const W1 = 0xbb67ae85;

/** High 32 bits of the 64-bit product of two unsigned 32-bit integers. */
function mulHi(a: number, b: number): number {
  const aHi = a >>> 16;
  const aLo = a & 0xffff;
  const bHi = b >>> 16;
  const bLo = b & 0xffff;
  const low = aLo * bLo;
  const mid1 = aHi * bLo + (low >>> 16);
  const mid2 = aLo * bHi + (mid1 % 0x10000);
  return aHi * bHi + Math.floor(mid1 / 0x10000) + Math.floor(mid2 / 0x10000);
}

/** One Philox4x32-10 block, in place: four counter words become four uniform 32-bit words. */
export function philox4x32(counter: Uint32Array, key0: number, key1: number): void {
  let c0 = counter[0]!;
  let c1 = counter[1]!;
  let c2 = counter[2]!;
  let c3 = counter[3]!;
  let k0 = key0 >>> 0;
  let k1 = key1 >>> 0;
  for (let round = 0; round < 10; round++) {
    const hi0 = mulHi(M0, c0);
    const lo0 = Math.imul(M0, c0) >>> 0;
    const hi1 = mulHi(M1, c2);
    const lo1 = Math.imul(M1, c2) >>> 0;
    c0 = (hi1 ^ c1 ^ k0) >>> 0;
    c1 = lo1;
    c2 = (hi0 ^ c3 ^ k1) >>> 0;
    c3 = lo0;
    k0 = (k0 + W0) >>> 0;
    k1 = (k1 + W1) >>> 0;
  }
  counter[0] = c0;
  counter[1] = c1;
  counter[2] = c2;
  counter[3] = c3;
}

/** A sequence of draws from one Philox stream. Cheap to create (one small object, no tables). */
export class Rng {
  readonly #key0: number;
  readonly #key1: number;
  readonly #stream0: number;
  readonly #stream1: number;
  readonly #block = new Uint32Array(4);
  #blockIndex = 0;
  #used = 4;
  #spareNormal: number | undefined;

  /**
   * @param seed unsigned integer below 2^53
   * @param streamLow,streamHigh 32-bit words naming the stream (entity number and kind, say)
   */
  constructor(seed: number, streamLow = 0, streamHigh = 0) {
    this.#key0 = seed >>> 0;
    this.#key1 = Math.floor(seed / 2 ** 32) >>> 0;
    this.#stream0 = streamLow >>> 0;
    this.#stream1 = streamHigh >>> 0;
  }

  /** Uniform unsigned 32-bit integer. */
  uint32(): number {
    if (this.#used === 4) {
      const block = this.#block;
      block[0] = this.#blockIndex >>> 0;
      block[1] = Math.floor(this.#blockIndex / 2 ** 32) >>> 0;
      block[2] = this.#stream0;
      block[3] = this.#stream1;
      philox4x32(block, this.#key0, this.#key1);
      this.#blockIndex++;
      this.#used = 0;
    }
    return this.#block[this.#used++]!;
  }

  /** Uniform in [0, 1) with 53 bits. */
  uniform(): number {
    const high = this.uint32() >>> 5;
    const low = this.uint32() >>> 6;
    return (high * 2 ** 26 + low) / 2 ** 53;
  }

  /** Uniform integer in [0, n), unbiased by rejection. */
  integer(n: number): number {
    const limit = 2 ** 32 - (2 ** 32 % n);
    for (;;) {
      const draw = this.uint32();
      if (draw < limit) return draw % n;
    }
  }

  /** Standard normal by the polar method (Marsaglia & Bray 1964). */
  normal(): number {
    if (this.#spareNormal !== undefined) {
      const spare = this.#spareNormal;
      this.#spareNormal = undefined;
      return spare;
    }
    for (;;) {
      const u = 2 * this.uniform() - 1;
      const v = 2 * this.uniform() - 1;
      const s = u * u + v * v;
      if (s > 0 && s < 1) {
        const factor = Math.sqrt((-2 * Math.log(s)) / s);
        this.#spareNormal = v * factor;
        return u * factor;
      }
    }
  }

  exponential(): number {
    return -Math.log1p(-this.uniform());
  }

  bernoulli(p: number): boolean {
    return this.uniform() < p;
  }

  /** Gamma(shape, 1), shape > 0: Marsaglia & Tsang 2000, boosted below shape 1. */
  gamma(shape: number): number {
    if (shape < 1) {
      const u = 1 - this.uniform();
      return this.gamma(shape + 1) * u ** (1 / shape);
    }
    const d = shape - 1 / 3;
    const c = 1 / Math.sqrt(9 * d);
    for (;;) {
      let x: number;
      let v: number;
      do {
        x = this.normal();
        v = 1 + c * x;
      } while (v <= 0);
      v = v * v * v;
      const u = 1 - this.uniform();
      if (Math.log(u) < 0.5 * x * x + d - d * v + d * Math.log(v)) return d * v;
    }
  }

  beta(a: number, b: number): number {
    const x = this.gamma(a);
    return x / (x + this.gamma(b));
  }

  /** Poisson(mean): multiplication below 30, PTRS transformed rejection above (Hörmann 1993). */
  poisson(mean: number): number {
    if (mean <= 0) return 0;
    if (mean < 30) {
      const limit = Math.exp(-mean);
      let product = this.uniform();
      let n = 0;
      while (product > limit) {
        product *= this.uniform();
        n++;
      }
      return n;
    }
    const b = 0.931 + 2.53 * Math.sqrt(mean);
    const a = -0.059 + 0.02483 * b;
    const invAlpha = 1.1239 + 1.1328 / (b - 3.4);
    const vr = 0.9277 - 3.6224 / (b - 2);
    for (;;) {
      const u = this.uniform() - 0.5;
      const v = 1 - this.uniform();
      const us = 0.5 - Math.abs(u);
      const k = Math.floor(((2 * a) / us + b) * u + mean + 0.43);
      if (us >= 0.07 && v <= vr) return k;
      if (k < 0 || (us < 0.013 && v > us)) continue;
      if (
        Math.log(v) + Math.log(invAlpha) - Math.log(a / (us * us) + b) <=
        -mean + k * Math.log(mean) - logGamma(k + 1)
      ) {
        return k;
      }
    }
  }

  /**
   * Binomial(n, p): inversion of the geometric gaps while n·min(p,1-p) is small, otherwise the
   * BTRS transformed rejection (Hörmann 1993). O(1 + n·p) for small means, O(1) for large.
   */
  binomial(n: number, p: number): number {
    if (n <= 0 || p <= 0) return 0;
    if (p >= 1) return n;
    if (p > 0.5) return n - this.binomial(n, 1 - p);
    if (n * p < 10) {
      const logQ = Math.log1p(-p);
      let count = -1;
      let position = 0;
      do {
        count++;
        position += Math.floor(Math.log(1 - this.uniform()) / logQ) + 1;
      } while (position <= n);
      return count;
    }
    const spq = Math.sqrt(n * p * (1 - p));
    const b = 1.15 + 2.53 * spq;
    const a = -0.0873 + 0.0248 * b + 0.01 * p;
    const c = n * p + 0.5;
    const vr = 0.92 - 4.2 / b;
    const alpha = (2.83 + 5.1 / b) * spq;
    const logOdds = Math.log(p / (1 - p));
    const mode = Math.floor((n + 1) * p);
    const h = logGamma(mode + 1) + logGamma(n - mode + 1);
    for (;;) {
      const u = this.uniform() - 0.5;
      const us = 0.5 - Math.abs(u);
      const k = Math.floor(((2 * a) / us + b) * u + c);
      if (k < 0 || k > n) continue;
      const v = 1 - this.uniform();
      if (us >= 0.07 && v <= vr) return k;
      const logV = Math.log((v * alpha) / (a / (us * us) + b));
      if (logV <= h - logGamma(k + 1) - logGamma(n - k + 1) + (k - mode) * logOdds) return k;
    }
  }

  /** Index drawn in proportion to non-negative weights (not all zero). O(n). */
  weighted(weights: ArrayLike<number>): number {
    let total = 0;
    for (let i = 0; i < weights.length; i++) total += weights[i]!;
    let draw = this.uniform() * total;
    for (let i = 0; i < weights.length; i++) {
      draw -= weights[i]!;
      if (draw < 0) return i;
    }
    return weights.length - 1;
  }

  /** Fisher–Yates, in place. */
  shuffle<T>(items: T[]): T[] {
    for (let i = items.length - 1; i > 0; i--) {
      const j = this.integer(i + 1);
      const item = items[i]!;
      items[i] = items[j]!;
      items[j] = item;
    }
    return items;
  }
}

/** ln Γ(x) for x > 0, Lanczos g = 7, n = 9; relative error below 1e-14. */
export function logGamma(x: number): number {
  const c = [
    0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313,
    -176.61502916214059, 12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6,
    1.5056327351493116e-7,
  ];
  if (x < 0.5) return Math.log(Math.PI / Math.sin(Math.PI * x)) - logGamma(1 - x);
  const z = x - 1;
  let sum = c[0]!;
  for (let i = 1; i < 9; i++) sum += c[i]! / (z + i);
  const t = z + 7.5;
  return 0.5 * Math.log(2 * Math.PI) + (z + 0.5) * Math.log(t) - t + Math.log(sum);
}
