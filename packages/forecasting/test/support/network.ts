import { DAY_MS, HOUR_MS, Rng, type SendHistory } from '@waggle/core';

export const START_MS = Date.UTC(2026, 0, 5);
export const OUTCOME_MS = 72 * HOUR_MS;
const N_HOURS = OUTCOME_MS / HOUR_MS;
/** Of what is still to come, each hour brings so much: two thirds within a day. */
const HOURLY_SHARE = 1 / 22;

/** Truth of a small network: lists that grow on a line, rates per publication, a good Tuesday. */
export interface NetworkTruth {
  readonly history: SendHistory;
  readonly expected: {
    readonly delivered: Float64Array;
    readonly opens: Float64Array;
  };
}

/**
 * Publications that write daily to every other week for so many days. Everything that happened by the end is in the history;
 * sends of the last week are planned and not sent.
 */
export function simulateNetwork(
  seed: number,
  o: { publications?: number; days?: number } = {},
): NetworkTruth {
  const nPublications = o.publications ?? 150;
  const days = o.days ?? 35;
  const endMs = START_MS + (days - 7) * DAY_MS;
  const weekdayFactor = [0.95, 1, 1.06, 1.02, 1, 0.98, 0.97];
  interface Row {
    publication: number;
    planned: number;
    weekday: number;
    slots: number;
    cadence: number;
    recipients: number;
    delivered: number;
    opens: number;
    clicks: number;
    expectedDelivered: number;
    expectedOpens: number;
    hourlyOpens: Float64Array;
    hourlyClicks: Float64Array;
  }
  const rows: Row[] = [];
  const lists: { publication: number; at: number; size: number }[] = [];
  for (let p = 0; p < nPublications; p++) {
    const rng = new Rng(seed, p);
    const hours = new Rng(seed, p, 1);
    const size0 = Math.round(3000 * Math.exp(1.3 * rng.normal()) + 50);
    const growth = 0.0012 + 0.0004 * rng.normal();
    const openRate = 0.2 * Math.exp(0.3 * rng.normal());
    const clickRate = 0.003 * Math.exp(0.5 * rng.normal());
    const every = [1, 2, 7, 14][rng.integer(4)]!;
    const first = rng.integer(every);
    const sizeAt = (ms: number) =>
      Math.round(size0 * Math.exp((growth * (ms - START_MS)) / DAY_MS));
    lists.push({ publication: p, at: START_MS, size: sizeAt(START_MS) });
    for (let day = first; day < days; day += every) {
      const planned = START_MS + day * DAY_MS + 9 * HOUR_MS;
      const weekday = new Date(planned).getUTCDay();
      const recipients = sizeAt(planned);
      const slots = rng.integer(4);
      const delivered = rng.binomial(recipients, 0.985);
      const pOpen = Math.min(0.9, openRate * weekdayFactor[weekday]!);
      const noise = Math.exp(0.25 * rng.normal() - 0.03);
      const sent = planned < endMs;
      const opens = rng.binomial(delivered, pOpen);
      const clicks = rng.binomial(delivered, Math.min(0.5, clickRate * slots * noise));
      const isFinal = planned + OUTCOME_MS <= endMs;
      const over = sent ? Math.min(N_HOURS, (endMs - planned) / HOUR_MS) : 0;
      rows.push({
        publication: p,
        planned,
        weekday,
        slots,
        cadence: 7 / every,
        recipients: sent ? recipients : Number.NaN,
        delivered: sent ? delivered : Number.NaN,
        opens: isFinal ? opens : Number.NaN,
        clicks: isFinal ? clicks : Number.NaN,
        hourlyOpens: byHour(hours, opens, over),
        hourlyClicks: byHour(hours, clicks, over),
        expectedDelivered: recipients * 0.985,
        expectedOpens: recipients * 0.985 * pOpen,
      });
    }
  }
  rows.sort((a, b) => a.planned - b.planned || a.publication - b.publication);
  const column = (of: (row: Row) => number) => Float64Array.from(rows, of);
  const hourly = (of: (row: Row) => Float64Array) =>
    Float64Array.from(rows.flatMap((row) => Array.from(of(row))));
  return {
    history: {
      nSends: rows.length,
      nPublications,
      publication: Uint32Array.from(rows, (r) => r.publication),
      plannedMs: column((r) => r.planned),
      sentMs: column((r) => (Number.isFinite(r.recipients) ? r.planned : Number.NaN)),
      localWeekday: Uint8Array.from(rows, (r) => r.weekday),
      localHour: new Uint8Array(rows.length).fill(9),
      nSlots: column((r) => r.slots),
      cadencePerWeek: column((r) => r.cadence),
      recipients: column((r) => r.recipients),
      delivered: column((r) => r.delivered),
      opens: column((r) => r.opens),
      clicks: column((r) => r.clicks),
      outcomeMs: OUTCOME_MS,
      hourly: { opens: hourly((r) => r.hourlyOpens), clicks: hourly((r) => r.hourlyClicks) },
      lists: {
        publication: Uint32Array.from(lists, (l) => l.publication),
        atMs: Float64Array.from(lists, (l) => l.at),
        subscribers: Float64Array.from(lists, (l) => l.size),
      },
    },
    expected: {
      delivered: column((r) => r.expectedDelivered),
      opens: column((r) => r.expectedOpens),
    },
  };
}

/** Events of a send spread over the hours, all of them within the outcome window; NaN from the hour that is not over. */
export function byHour(rng: Rng, total: number, over: number): Float64Array {
  const out = new Float64Array(N_HOURS).fill(Number.NaN);
  let left = total;
  for (let h = 0; h < over; h++) {
    out[h] = h === N_HOURS - 1 ? left : rng.binomial(left, HOURLY_SHARE);
    left -= out[h]!;
  }
  return out;
}
