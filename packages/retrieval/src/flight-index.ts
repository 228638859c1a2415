import { BitSet } from './bit-set.js';

/** Which campaigns are in flight during one stretch of time in which that does not change. */
export interface FlightSegment {
  /** Number of the stretch; equal segments have equal bitmaps. */
  readonly segment: number;
  readonly inFlight: BitSet;
  /** [fromMs, untilMs): when this stretch holds; ±Infinity at the ends. */
  readonly fromMs: number;
  readonly untilMs: number;
}

const KEPT_SEGMENTS = 128;

/** Flights cut the time line into stretches; a look-up is a binary search, a bitmap is built once per stretch. */
export class FlightIndex {
  readonly #starts: Float64Array;
  readonly #ends: Float64Array;
  readonly #boundaries: Float64Array;
  readonly #kept = new Map<number, FlightSegment>();
  #last: FlightSegment | undefined;

  /**
   * @param startsMs,endsMs float64 [nRows], UTC ms: row r is in flight while start ≤ t < end
   */
  constructor(startsMs: Float64Array, endsMs: Float64Array) {
    this.#starts = startsMs;
    this.#ends = endsMs;
    this.#boundaries = Float64Array.from(new Set([...startsMs, ...endsMs])).sort();
  }

  /** The stretch that holds `atMs`. O(log n), and O(n) the first time a stretch is asked for. */
  at(atMs: number): FlightSegment {
    const last = this.#last;
    if (last !== undefined && atMs >= last.fromMs && atMs < last.untilMs) return last;
    const boundaries = this.#boundaries;
    let low = 0;
    let high = boundaries.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (boundaries[middle]! <= atMs) low = middle + 1;
      else high = middle;
    }
    let found = this.#kept.get(low);
    if (found === undefined) {
      found = this.#build(low);
      if (this.#kept.size >= KEPT_SEGMENTS) this.#kept.delete(this.#kept.keys().next().value!);
      this.#kept.set(low, found);
    }
    this.#last = found;
    return found;
  }

  #build(segment: number): FlightSegment {
    const fromMs = segment === 0 ? Number.NEGATIVE_INFINITY : this.#boundaries[segment - 1]!;
    const untilMs = this.#boundaries[segment] ?? Number.POSITIVE_INFINITY;
    const n = this.#starts.length;
    const inFlight = new BitSet(n);
    for (let r = 0; r < n; r++) {
      if (this.#starts[r]! <= fromMs && fromMs < this.#ends[r]!) inFlight.add(r);
    }
    return { segment, inFlight, fromMs, untilMs };
  }
}
