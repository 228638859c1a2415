import { ID_PREFIXES, type IdKind, mix32 } from '@waggle/core';

const CODES = Uint8Array.from('0123456789ABCDEFGHJKMNPQRSTVWXYZ', (c) => c.charCodeAt(0));
/** A prefix of three letters, an underscore and 26 characters. */
export const ID_BYTES = 30;

export function prefixBytes(kind: IdKind): Uint8Array {
  return Uint8Array.from(`${ID_PREFIXES[kind]}_`, (c) => c.charCodeAt(0));
}

const PREFIXES = Object.fromEntries(
  (Object.keys(ID_PREFIXES) as IdKind[]).map((kind) => [kind, prefixBytes(kind)]),
) as Record<IdKind, Uint8Array>;

/**
 * Ids of a world are ULIDs whose "random" 80 bits are a number of their own: 16 bits of `part`, a
 * bijection of `owner` (publication or campaign number) and 32 bits of `sequence`. Equal triples of one
 * kind never occur twice, so ids are unique by construction and the same in every run.
 */
export class WorldIds {
  readonly #salt: number;
  readonly #scratch = Buffer.alloc(ID_BYTES);

  constructor(seed: number) {
    this.#salt = mix32(seed ^ 0x5bd1e995);
  }

  /** @param part below 2^16 @param owner,sequence below 2^32 */
  id(kind: IdKind, timeMs: number, part: number, owner: number, sequence: number): string {
    // Through bytes: a string built by appending characters would be hashed slowly ever after.
    writeId(this.#scratch, 0, PREFIXES[kind], timeMs, part, this.owner(owner), sequence);
    return this.#scratch.toString('latin1');
  }

  owner(owner: number): number {
    return mix32(owner ^ this.#salt);
  }
}

/** Writes what `makeId` returns as 30 ASCII bytes at `offset`; no string is made. */
export function writeId(
  out: Uint8Array,
  offset: number,
  prefix: Uint8Array,
  timeMs: number,
  hi: number,
  mid: number,
  lo: number,
): void {
  out[offset] = prefix[0]!;
  out[offset + 1] = prefix[1]!;
  out[offset + 2] = prefix[2]!;
  out[offset + 3] = prefix[3]!;
  const timeHigh = Math.floor(timeMs / 33_554_432);
  const timeLow = timeMs % 33_554_432;
  out[offset + 4] = CODES[(timeHigh >>> 20) & 31]!;
  out[offset + 5] = CODES[(timeHigh >>> 15) & 31]!;
  out[offset + 6] = CODES[(timeHigh >>> 10) & 31]!;
  out[offset + 7] = CODES[(timeHigh >>> 5) & 31]!;
  out[offset + 8] = CODES[timeHigh & 31]!;
  out[offset + 9] = CODES[(timeLow >>> 20) & 31]!;
  out[offset + 10] = CODES[(timeLow >>> 15) & 31]!;
  out[offset + 11] = CODES[(timeLow >>> 10) & 31]!;
  out[offset + 12] = CODES[(timeLow >>> 5) & 31]!;
  out[offset + 13] = CODES[timeLow & 31]!;
  out[offset + 14] = CODES[(hi >>> 11) & 31]!;
  out[offset + 15] = CODES[(hi >>> 6) & 31]!;
  out[offset + 16] = CODES[(hi >>> 1) & 31]!;
  out[offset + 17] = CODES[((hi & 1) << 4) | (mid >>> 28)]!;
  out[offset + 18] = CODES[(mid >>> 23) & 31]!;
  out[offset + 19] = CODES[(mid >>> 18) & 31]!;
  out[offset + 20] = CODES[(mid >>> 13) & 31]!;
  out[offset + 21] = CODES[(mid >>> 8) & 31]!;
  out[offset + 22] = CODES[(mid >>> 3) & 31]!;
  out[offset + 23] = CODES[((mid & 7) << 2) | (lo >>> 30)]!;
  out[offset + 24] = CODES[(lo >>> 25) & 31]!;
  out[offset + 25] = CODES[(lo >>> 20) & 31]!;
  out[offset + 26] = CODES[(lo >>> 15) & 31]!;
  out[offset + 27] = CODES[(lo >>> 10) & 31]!;
  out[offset + 28] = CODES[(lo >>> 5) & 31]!;
  out[offset + 29] = CODES[lo & 31]!;
}

/** `sub_` and 13 characters: 64 bits of a pseudonym. */
export const SUBSCRIBER_BYTES = 17;

export function writeSubscriberKey(out: Uint8Array, offset: number, hi: number, lo: number): void {
  out[offset] = 115;
  out[offset + 1] = 117;
  out[offset + 2] = 98;
  out[offset + 3] = 95;
  out[offset + 4] = CODES[(hi >>> 28) & 15]!;
  out[offset + 5] = CODES[(hi >>> 23) & 31]!;
  out[offset + 6] = CODES[(hi >>> 18) & 31]!;
  out[offset + 7] = CODES[(hi >>> 13) & 31]!;
  out[offset + 8] = CODES[(hi >>> 8) & 31]!;
  out[offset + 9] = CODES[(hi >>> 3) & 31]!;
  out[offset + 10] = CODES[((hi & 7) << 2) | (lo >>> 30)]!;
  out[offset + 11] = CODES[(lo >>> 25) & 31]!;
  out[offset + 12] = CODES[(lo >>> 20) & 31]!;
  out[offset + 13] = CODES[(lo >>> 15) & 31]!;
  out[offset + 14] = CODES[(lo >>> 10) & 31]!;
  out[offset + 15] = CODES[(lo >>> 5) & 31]!;
  out[offset + 16] = CODES[lo & 31]!;
}
