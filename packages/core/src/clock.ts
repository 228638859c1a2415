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

/** Milliseconds of an RFC 3339 UTC time, or undefined for one like February 30 (which Date would shift or refuse). */
export function parseTimestampMs(text: string): number | undefined {
  const ms = Date.parse(text);
  if (Number.isNaN(ms)) return undefined;
  return new Date(ms).toISOString().slice(0, 19) === text.slice(0, 19) ? ms : undefined;
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
