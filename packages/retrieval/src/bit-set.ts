import { retrievalError } from './errors.js';

/**
 * A fixed-size set of row numbers as a bitmap: bit `r & 31` of word `r >>> 5`. On the little-endian machines
 * that Waggle runs on, `bytes` is the same bitmap in the layout native filters use (bit `r & 7` of byte
 * `r >>> 3`). Bits past `size` are always 0. Whole-set operations cost O(size / 32).
 */
export class BitSet {
  readonly size: number;
  readonly words: Uint32Array;
  /** View of `words` for native filters; shared memory, not a copy. */
  readonly bytes: Uint8Array;

  constructor(size: number) {
    if (!Number.isSafeInteger(size) || size < 0) {
      throw retrievalError('WAGGLE_RETRIEVAL_SHAPE', `a bitmap cannot hold ${size} rows`);
    }
    this.size = size;
    this.words = new Uint32Array((size + 31) >>> 5);
    this.bytes = new Uint8Array(this.words.buffer);
  }

  static full(size: number): BitSet {
    return new BitSet(size).fill();
  }

  static of(size: number, rows: Iterable<number>): BitSet {
    const set = new BitSet(size);
    for (const row of rows) set.add(row);
    return set;
  }

  has(row: number): boolean {
    return row >= 0 && row < this.size && ((this.words[row >>> 5]! >>> (row & 31)) & 1) === 1;
  }

  add(row: number): void {
    if (row >= 0 && row < this.size) this.words[row >>> 5]! |= 1 << (row & 31);
  }

  delete(row: number): void {
    if (row >= 0 && row < this.size) this.words[row >>> 5]! &= ~(1 << (row & 31));
  }

  fill(): this {
    this.words.fill(0xffffffff);
    const spare = this.size & 31;
    if (spare !== 0) this.words[this.words.length - 1] = (1 << spare) - 1;
    return this;
  }

  clear(): this {
    this.words.fill(0);
    return this;
  }

  copyFrom(other: BitSet): this {
    this.#same(other);
    this.words.set(other.words);
    return this;
  }

  clone(): BitSet {
    return new BitSet(this.size).copyFrom(this);
  }

  /** Keeps the rows that are in both. */
  and(other: BitSet): this {
    this.#same(other);
    const { words } = this;
    const theirs = other.words;
    for (let i = 0; i < words.length; i++) words[i]! &= theirs[i]!;
    return this;
  }

  or(other: BitSet): this {
    this.#same(other);
    const { words } = this;
    const theirs = other.words;
    for (let i = 0; i < words.length; i++) words[i]! |= theirs[i]!;
    return this;
  }

  /** Removes the other's rows. */
  andNot(other: BitSet): this {
    this.#same(other);
    const { words } = this;
    const theirs = other.words;
    for (let i = 0; i < words.length; i++) words[i]! &= ~theirs[i]!;
    return this;
  }

  /** How many rows are in the set. */
  count(): number {
    let total = 0;
    const { words } = this;
    for (let i = 0; i < words.length; i++) total += popcount32(words[i]!);
    return total;
  }

  /** The rows in the set, ascending. */
  toRows(): Int32Array {
    const rows = new Int32Array(this.count());
    let n = 0;
    const { words } = this;
    for (let i = 0; i < words.length; i++) {
      let word = words[i]!;
      while (word !== 0) {
        const lowest = word & -word;
        rows[n++] = (i << 5) + 31 - Math.clz32(lowest);
        word ^= lowest;
      }
    }
    return rows;
  }

  #same(other: BitSet): void {
    if (other.size !== this.size) {
      throw retrievalError(
        'WAGGLE_RETRIEVAL_SHAPE',
        `bitmaps over ${this.size} and ${other.size} rows do not combine`,
      );
    }
  }
}

/** Set bits of a 32-bit word (Hacker's Delight §5-1). */
export function popcount32(word: number): number {
  let x = word - ((word >>> 1) & 0x55555555);
  x = (x & 0x33333333) + ((x >>> 2) & 0x33333333);
  return Math.imul((x + (x >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}
