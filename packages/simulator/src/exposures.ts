import { DAY_MS } from '@waggle/core';

const HALF_LIFE_MS = 30 * DAY_MS;

/** How often a publication's list has seen a campaign, each time counting half after thirty days. */
export class Exposures {
  readonly #seen = new Map<number, { level: number; timeMs: number }>();

  at(publication: number, campaign: number, timeMs: number): number {
    const seen = this.#seen.get(publication * 16_384 + campaign);
    return seen === undefined ? 0 : faded(seen, timeMs);
  }

  add(publication: number, campaign: number, timeMs: number): void {
    const level = this.at(publication, campaign, timeMs) + 1;
    this.#seen.set(publication * 16_384 + campaign, { level, timeMs });
  }
}

/** What earlier exposures at `times`, ascending, amount to just before `timeMs`. O(exposures) */
export function exposuresBefore(times: readonly number[], timeMs: number): number {
  let last: { level: number; timeMs: number } | undefined;
  for (const time of times) {
    if (time >= timeMs) break;
    last = { level: (last === undefined ? 0 : faded(last, time)) + 1, timeMs: time };
  }
  return last === undefined ? 0 : faded(last, timeMs);
}

function faded(seen: { level: number; timeMs: number }, timeMs: number): number {
  return seen.level * 2 ** (-(timeMs - seen.timeMs) / HALF_LIFE_MS);
}
