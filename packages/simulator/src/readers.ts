import { mix32 } from '@waggle/core';
import type { PublicationState } from './publications.js';
import { SHARED_MEMBERSHIP, type WorldConfig } from './scales.js';
import { pairUniform } from './streams.js';
import { TOPICS } from './topics.js';

const DEVICES = ['mobile', 'desktop', 'tablet', 'unknown'] as const;
export const DEVICE_NAMES: readonly string[] = DEVICES;
export const DEVICE_UNKNOWN = 3;
const PREFIX_COUNT = 16_384;

/** Documentation-like /24 networks; their numbers are all that matters. */
export function prefixName(index: number): string {
  return `${11 + (index >>> 13) * 97}.${(index >>> 5) & 255}.${(index & 31) * 8}.0/24`;
}

/**
 * People without a table of people: who holds list position j of publication p is a function of both.
 * A third of the positions belong to a shared pool whose members read several publications, laid out so
 * that no one holds two positions of one list and publications of one subject share readers.
 */
export class Readers {
  readonly #seed: number;
  readonly #pool: number;
  hi = 0;
  lo = 0;
  device = 0;
  prefix = 0;

  constructor(config: WorldConfig) {
    this.#seed = mix32(config.seed ^ 0x51ed270b);
    this.#pool = config.sharedReaders;
  }

  /** Start of a publication's arc in the shared pool. */
  arcOf(publication: PublicationState): number {
    const cluster = TOPICS[publication.mixture.top]!.cluster;
    const u = pairUniform(this.#seed, publication.index, 77);
    return Math.floor(((cluster + 2 * u) / 8) * this.#pool) % this.#pool;
  }

  /** Sets the fields to the person at list position `position`. */
  at(publication: number, arc: number, position: number): void {
    const h = mix32(mix32(position ^ this.#seed) + Math.imul(publication + 1, 0x9e3779b1));
    let hi: number;
    let lo: number;
    if (h < SHARED_MEMBERSHIP * 2 ** 32) {
      const person = (arc + position) % this.#pool;
      hi = mix32(person ^ 0x2545f491 ^ this.#seed);
      lo = mix32(Math.imul(person, 0x2c1b3c6d) ^ this.#seed);
    } else {
      hi = mix32(Math.imul(publication, 0x165667b1) ^ this.#seed ^ 0x7f4a7c15);
      hi = mix32(hi + position);
      lo = mix32(Math.imul(position, 0x297a2d39) ^ Math.imul(publication, 0x1b873593));
    }
    this.hi = hi;
    this.lo = lo;
    const bits = mix32(hi ^ lo);
    const deviceDraw = bits & 1023;
    this.device =
      deviceDraw < 560 ? 0 : deviceDraw < 930 ? 1 : deviceDraw < 1000 ? 2 : DEVICE_UNKNOWN;
    this.prefix = (bits >>> 10) % PREFIX_COUNT;
  }
}

/** A set of small integers that empties in O(1): marks carry the number of the round. */
export class RoundSet {
  #slots = new Int32Array(1024);
  #rounds = new Int32Array(1024);
  #round = 0;
  #mask = 1023;

  /** Empties the set and makes room for `n` members. */
  begin(n: number): void {
    if (n * 2 > this.#slots.length) {
      const size = 2 ** Math.ceil(Math.log2(n * 2 + 1));
      this.#slots = new Int32Array(size);
      this.#rounds = new Int32Array(size);
      this.#mask = size - 1;
      this.#round = 0;
    }
    this.#round++;
  }

  /** False when `value` was there already. */
  add(value: number): boolean {
    let at = mix32(value) & this.#mask;
    while (this.#rounds[at] === this.#round) {
      if (this.#slots[at] === value) return false;
      at = (at + 1) & this.#mask;
    }
    this.#rounds[at] = this.#round;
    this.#slots[at] = value;
    return true;
  }
}
