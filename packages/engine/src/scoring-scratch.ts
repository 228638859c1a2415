/** Working memory of scoring, reused from call to call: what one call leaves, the next overwrites. */
export class ScoringScratch {
  #features = new Float32Array(0);
  #p = new Float64Array(0);
  #column = new Float64Array(0);

  features(length: number): Float32Array {
    if (this.#features.length < length) this.#features = new Float32Array(length);
    return this.#features;
  }

  p(length: number): Float64Array {
    if (this.#p.length < length) this.#p = new Float64Array(length);
    return this.#p;
  }

  column(length: number): Float64Array {
    if (this.#column.length < length) this.#column = new Float64Array(length);
    return this.#column;
  }
}
