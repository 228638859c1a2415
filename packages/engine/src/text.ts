/** RFC 3339 text of a time. Under load many decisions share a millisecond, and formatting costs more than comparing. */
export function isoTime(ms: number): string {
  if (ms === latestMs) return latest;
  if (ms === earlierMs) return earlier;
  earlierMs = latestMs;
  earlier = latest;
  latestMs = ms;
  latest = new Date(ms).toISOString();
  return latest;
}

// Two slots: a decision formats its own time and its expiry.
let latestMs = Number.NaN;
let latest = '';
let earlierMs = Number.NaN;
let earlier = '';

const PLAIN = /^[\w.:-]*$/;

/** A JSON string; ids hold nothing that needs escaping. */
export function quoted(text: string): string {
  return PLAIN.test(text) ? `"${text}"` : JSON.stringify(text);
}
