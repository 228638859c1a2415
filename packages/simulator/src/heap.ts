/** Pending events by time; equal times leave in the order they came. Push and pop are O(log n). */
export class EventHeap {
  #times: number[] = [];
  #orders: number[] = [];
  #kinds: number[] = [];
  #as: number[] = [];
  #bs: number[] = [];
  #next = 0;
  timeMs = 0;
  kind = 0;
  a = 0;
  b = 0;

  get size(): number {
    return this.#times.length;
  }

  push(timeMs: number, kind: number, a: number, b = 0): void {
    this.#times.push(timeMs);
    this.#orders.push(this.#next++);
    this.#kinds.push(kind);
    this.#as.push(a);
    this.#bs.push(b);
    let i = this.#times.length - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!this.#before(i, parent)) break;
      this.#swap(i, parent);
      i = parent;
    }
  }

  /** Takes the earliest event into the fields; false when there is none. */
  pop(): boolean {
    const n = this.#times.length;
    if (n === 0) return false;
    this.timeMs = this.#times[0]!;
    this.kind = this.#kinds[0]!;
    this.a = this.#as[0]!;
    this.b = this.#bs[0]!;
    this.#swap(0, n - 1);
    this.#times.pop();
    this.#orders.pop();
    this.#kinds.pop();
    this.#as.pop();
    this.#bs.pop();
    let i = 0;
    for (;;) {
      const left = 2 * i + 1;
      if (left >= n - 1) break;
      const right = left + 1;
      const child = right < n - 1 && this.#before(right, left) ? right : left;
      if (!this.#before(child, i)) break;
      this.#swap(i, child);
      i = child;
    }
    return true;
  }

  #before(i: number, j: number): boolean {
    const difference = this.#times[i]! - this.#times[j]!;
    return difference < 0 || (difference === 0 && this.#orders[i]! < this.#orders[j]!);
  }

  #swap(i: number, j: number): void {
    swap(this.#times, i, j);
    swap(this.#orders, i, j);
    swap(this.#kinds, i, j);
    swap(this.#as, i, j);
    swap(this.#bs, i, j);
  }
}

function swap(array: number[], i: number, j: number): void {
  const held = array[i]!;
  array[i] = array[j]!;
  array[j] = held;
}
