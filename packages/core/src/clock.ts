/** Time is an argument: libraries receive a `Clock`, only apps create the real one. */
export interface Clock {
  /** Wall-clock time, UTC milliseconds since the epoch. */
  nowMs(): number;
  /** Monotonic milliseconds for durations; its origin means nothing. */
  monotonicMs(): number;
}

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
};

/**
 * A clock that starts at `startMs` and advances with real time. Sample networks live at a fixed date;
 * serving them with this clock keeps their campaigns in flight whatever today's date is.
 */
export function clockStartingAt(startMs: number, base: Clock = systemClock): Clock {
  const originMs = base.monotonicMs();
  return {
    nowMs: () => Math.floor(startMs + (base.monotonicMs() - originMs)),
    monotonicMs: () => base.monotonicMs(),
  };
}

const RFC_3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)$/;

/**
 * Milliseconds of an RFC 3339 time, or undefined for any other text: one without offset, which Date would read in the zone of the
 * machine, or a day like February 30, which Date would shift.
 */
export function parseTimestampMs(text: string): number | undefined {
  if (!RFC_3339.test(text)) return undefined;
  const ms = Date.parse(text);
  if (Number.isNaN(ms)) return undefined;
  // The fields are of the calendar where, read as UTC, they stand as they were written.
  const asUtcMs = Date.parse(`${text.slice(0, 19)}Z`);
  return new Date(asUtcMs).toISOString().slice(0, 19) === text.slice(0, 19) ? ms : undefined;
}

/** A clock for tests: stands still until told otherwise. */
export function manualClock(
  startMs: number,
): Clock & { advance(ms: number): void; set(ms: number): void } {
  let nowMs = startMs;
  let monoMs = 0;
  return {
    nowMs: () => nowMs,
    monotonicMs: () => monoMs,
    advance(ms) {
      nowMs += ms;
      monoMs += ms;
    },
    set(ms) {
      nowMs = ms;
    },
  };
}

export const SECOND_MS = 1_000;
export const MINUTE_MS = 60_000;
export const HOUR_MS = 3_600_000;
export const DAY_MS = 86_400_000;
