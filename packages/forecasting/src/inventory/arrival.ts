/** Hours of the day that sends are told apart by. */
const HOURS = 24;
/** Events of one send that count at most: the largest sends do not speak for the others. */
const MOST = 500;
/** Events of all sends together that an hour of the day starts from. */
const COMMON = 2_000;

/**
 * How outcomes come in: the share of a send's final count that its first hours bring, by the local hour of sending, and how much
 * that share varies from send to send. Learnt from finished sends, one after the other.
 */
export class Arrival {
  readonly #nHours: number;
  /** [25 × (nHours + 1)] events so far, by local hour of sending; all together in the last row. */
  readonly #counts: Float64Array;
  /** [nHours + 1] squared relative errors of the share beyond counting, and their weights. */
  readonly #excess: Float64Array;
  readonly #weights: Float64Array;

  constructor(nHours: number) {
    this.#nHours = nHours;
    this.#counts = new Float64Array((HOURS + 1) * (nHours + 1));
    this.#excess = new Float64Array(nHours + 1);
    this.#weights = new Float64Array(nHours + 1);
  }

  /** @param hours [nHours] events of a finished send. O(nHours) */
  learn(hours: Float64Array, localHour: number): void {
    const n = this.#nHours;
    let total = 0;
    for (let h = 0; h < n; h++) total += hours[h]!;
    if (!(total > 0)) return;
    const weight = Math.min(1, MOST / total);
    let soFar = 0;
    for (let h = 1; h <= n; h++) {
      soFar += hours[h - 1]!;
      const share = this.share(localHour, h);
      if (share > 0 && share < 1) {
        const error = soFar / (total * share) - 1;
        this.#excess[h]! += weight * total * (error * error - (1 - share) / (total * share));
        this.#weights[h]! += weight * total;
      }
      this.#counts[localHour * (n + 1) + h]! += weight * soFar;
      this.#counts[HOURS * (n + 1) + h]! += weight * soFar;
    }
  }

  /** Share of the final count that has come after so many hours; 0 before anything was learnt. */
  share(localHour: number, hours: number): number {
    const n = this.#nHours;
    const all = this.#counts[HOURS * (n + 1) + n]!;
    if (!(all > 0)) return 0;
    const common = this.#counts[HOURS * (n + 1) + hours]! / all;
    const own = localHour * (n + 1);
    return (this.#counts[own + hours]! + COMMON * common) / (this.#counts[own + n]! + COMMON);
  }

  /** Variance of the share after so many hours, relative to its square. */
  dispersion(hours: number): number {
    const weight = this.#weights[hours]!;
    return weight > 0 ? Math.max(0, this.#excess[hours]! / weight) : 0;
  }
}
