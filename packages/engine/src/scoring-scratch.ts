/** Working memory of scoring, reused from call to call: what one call leaves, the next overwrites. */
export class ScoringScratch {
  #p = new Float64Array(0);
  #column = new Float64Array(0);

  p(length: number): Float64Array {
    if (this.#p.length < length) this.#p = new Float64Array(length);
    return this.#p;
  }

  column(length: number): Float64Array {
    if (this.#column.length < length) this.#column = new Float64Array(length);
    return this.#column;
  }
}
