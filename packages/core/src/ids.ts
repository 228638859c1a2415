import { coreError } from './errors.js';

/**
 * Identifiers are a short type prefix, an underscore and a ULID (26 Crockford base-32 characters:
 * 48 bits of UTC milliseconds, 80 bits of randomness), so they sort by time within a type.
 */
export const ID_PREFIXES = {
  publisher: 'pbr',
  publication: 'pub',
  advertiser: 'adv',
  campaign: 'cmp',
  creative: 'crv',
  post: 'pst',
  slot: 'slt',
  offer: 'ofr',
  placement: 'plc',
  event: 'evt',
  click: 'clk',
  conversion: 'cnv',
  ledgerEntry: 'led',
  decision: 'dec',
  request: 'req',
} as const;

export type IdKind = keyof typeof ID_PREFIXES;

const CROCKFORD = '0123456789ABCDEFGHJKMNPQRSTVWXYZ';
const MAX_TIME_MS = 2 ** 48 - 1;

/**
 * Encodes a ULID from its parts; deterministic, for producers that own their randomness.
 * @param timeMs UTC milliseconds, 0 … 2^48 − 1
 * @param hi,mid,lo randomness: the low 16, 32 and 32 bits of three unsigned integers
 */
export function encodeUlid(timeMs: number, hi: number, mid: number, lo: number): string {
  if (!Number.isInteger(timeMs) || timeMs < 0 || timeMs > MAX_TIME_MS) {
    throw coreError('WAGGLE_INVALID_ARGUMENT', `ULID time must be 0 … 2^48-1 ms, got ${timeMs}`);
  }
  const timeHigh = Math.floor(timeMs / 2 ** 25); // upper 23 bits
  const timeLow = timeMs % 2 ** 25; // lower 25 bits = five characters
  let out = '';
  for (let shift = 20; shift >= 0; shift -= 5) out += CROCKFORD[(timeHigh >>> shift) & 31];
  for (let shift = 20; shift >= 0; shift -= 5) out += CROCKFORD[(timeLow >>> shift) & 31];
  // 80 random bits = 16 characters, taken most significant first from hi(16) mid(32) lo(32).
  const h = hi & 0xffff;
  const m = mid >>> 0;
  const l = lo >>> 0;
  out += CROCKFORD[h >>> 11]! + CROCKFORD[(h >>> 6) & 31]! + CROCKFORD[(h >>> 1) & 31]!;
  out += CROCKFORD[((h & 1) << 4) | (m >>> 28)]!;
  for (let shift = 23; shift >= 3; shift -= 5) out += CROCKFORD[(m >>> shift) & 31];
  out += CROCKFORD[((m & 7) << 2) | (l >>> 30)]!;
  for (let shift = 25; shift >= 0; shift -= 5) out += CROCKFORD[(l >>> shift) & 31];
  return out;
}

/** A fresh id from the given time and three random unsigned 32-bit words. */
export function makeId(
  kind: IdKind,
  timeMs: number,
  random: readonly [number, number, number],
): string {
  return `${ID_PREFIXES[kind]}_${encodeUlid(timeMs, random[0], random[1], random[2])}`;
}

/** A source of ids for apps: platform randomness, the given clock. */
export function idFactory(nowMs: () => number): (kind: IdKind) => string {
  // A pool of random words: getRandomValues costs about 1 µs a call, far more than the encoding.
  const pool = new Uint32Array(768);
  let used = pool.length;
  return (kind) => {
    if (used + 3 > pool.length) {
      globalThis.crypto.getRandomValues(pool);
      used = 0;
    }
    const id = makeId(kind, nowMs(), [pool[used]!, pool[used + 1]!, pool[used + 2]!]);
    used += 3;
    return id;
  };
}

/** Pattern of ids that producers may choose themselves: anything printable, short and without spaces. */
export const ID_PATTERN = '^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$';
const ID_REGEXP = new RegExp(ID_PATTERN);

export function isId(value: unknown): value is string {
  return typeof value === 'string' && ID_REGEXP.test(value);
}
