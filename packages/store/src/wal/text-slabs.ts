const SLAB_BYTES = 1 << 20;
/** Emptied slabs that are kept for the next texts. */
const SPARE_SLABS = 4;

export interface Slab {
  readonly buffer: Buffer;
  used: number;
  /** Texts of it that are still waited for. */
  live: number;
}

/**
 * Turns short-lived texts into bytes within large blocks that are used again once all their texts are done with.
 * A buffer per text would do the same, but thousands of them a second make the collector run every half second,
 * for milliseconds, for the sake of memory that it does not even manage.
 */
export class TextSlabs {
  #current: Slab | undefined;
  readonly #spare: Slab[] = [];

  /** @returns the text as UTF-8; valid until it is given back */
  encode(text: string): { bytes: Buffer; slab: Slab } {
    // Three bytes are the most that one UTF-16 unit can become.
    const slab = this.#room(text.length * 3);
    const { buffer, used } = slab;
    const length = buffer.write(text, used, 'utf8');
    slab.used += length;
    slab.live++;
    return { bytes: buffer.subarray(used, used + length), slab };
  }

  giveBack(slab: Slab): void {
    if (--slab.live > 0) return;
    slab.used = 0;
    if (slab === this.#current) return;
    if (slab.buffer.length === SLAB_BYTES && this.#spare.length < SPARE_SLABS) {
      this.#spare.push(slab);
    }
  }

  #room(bytes: number): Slab {
    const current = this.#current;
    if (current !== undefined && current.used + bytes <= current.buffer.length) return current;
    const fresh: Slab =
      bytes > SLAB_BYTES
        ? { buffer: Buffer.allocUnsafeSlow(bytes), used: 0, live: 0 }
        : (this.#spare.pop() ?? {
            buffer: Buffer.allocUnsafeSlow(SLAB_BYTES),
            used: 0,
            live: 0,
          });
    // A text larger than a slab has one of its own, which is not filled any further.
    if (fresh.buffer.length === SLAB_BYTES) this.#current = fresh;
    return fresh;
  }
}
