import { DAY_MS, HOUR_MS } from '@waggle/core';

/**
 * When people open and click. Delays are log-normal in hours, clicks LN(1.03, 2.45) and opens
 * LN(1.78, 2.27), multiplied by the habit of the local hour at which they would fall. Everything is
 * tabulated once per local hour of sending, so that a draw costs one uniform number.
 */
const CLICK_MU = 1.03;
const CLICK_SIGMA = 2.45;
const OPEN_MU = 1.78;
const OPEN_SIGMA = 2.27;
/** Privacy proxies fetch images within a few hours of delivery. */
const PREFETCH_MU = -0.2;
const PREFETCH_SIGMA = 1.0;

/** Relative activity by local hour of day; mean 1. */
export const DIURNAL: readonly number[] = normalise([
  0.62, 0.55, 0.5, 0.48, 0.52, 0.68, 0.9, 1.15, 1.3, 1.35, 1.32, 1.25, 1.2, 1.16, 1.14, 1.12, 1.12,
  1.15, 1.18, 1.22, 1.24, 1.15, 1.0, 0.8,
]);

function normalise(weights: number[]): number[] {
  const mean = weights.reduce((a, b) => a + b, 0) / weights.length;
  return weights.map((w) => w / mean);
}

export const OPEN_HOURS = 168;
export const MATURITY_HOURS = 72;
export const MATURITY_MS = MATURITY_HOURS * HOUR_MS;
const PREFETCH_HOURS = 36;

const QUANTILES = 4096;
const LOG_MIN = Math.log(2 / 3600);
const LOG_MAX = Math.log(60 * 24);
const STEPS = 4000;

export interface TimingTables {
  /** [24 × (QUANTILES + 1)] ln hours at evenly spaced probabilities. */
  readonly clickQuantiles: Float32Array;
  /** [24] share of clicks within 72 h of delivery. */
  readonly clickShare72h: Float64Array;
  /** [24 × 168] share of opens in each hour after sending. */
  readonly openShares: Float64Array;
  /** [24] share of opens within 72 h. */
  readonly openShare72h: Float64Array;
  /** [36] share of prefetches in each hour after sending. */
  readonly prefetchShares: Float64Array;
}

let tables: TimingTables | undefined;

/** Built on first use: about 24 × 4,000 density evaluations. */
export function timingTables(): TimingTables {
  tables ??= buildTables();
  return tables;
}

function buildTables(): TimingTables {
  const clickQuantiles = new Float32Array(24 * (QUANTILES + 1));
  const clickShare72h = new Float64Array(24);
  const openShares = new Float64Array(24 * OPEN_HOURS);
  const openShare72h = new Float64Array(24);
  const cumulative = new Float64Array(STEPS + 1);
  const step = (LOG_MAX - LOG_MIN) / STEPS;
  for (let hour = 0; hour < 24; hour++) {
    cumulateDensity(cumulative, CLICK_MU, CLICK_SIGMA, hour, step);
    const total = cumulative[STEPS]!;
    let at = 0;
    for (let q = 0; q <= QUANTILES; q++) {
      const target = (q / QUANTILES) * total;
      while (at < STEPS - 1 && cumulative[at + 1]! < target) at++;
      const below = cumulative[at]!;
      const width = cumulative[at + 1]! - below;
      const fraction = width > 0 ? Math.min(Math.max((target - below) / width, 0), 1) : 0;
      clickQuantiles[hour * (QUANTILES + 1) + q] = LOG_MIN + (at + fraction) * step;
    }
    clickShare72h[hour] = cumulativeAt(cumulative, MATURITY_HOURS, step) / total;

    cumulateDensity(cumulative, OPEN_MU, OPEN_SIGMA, hour, step);
    const openTotal = cumulative[STEPS]!;
    let previous = 0;
    for (let h = 0; h < OPEN_HOURS; h++) {
      const upTo = cumulativeAt(cumulative, h + 1, step);
      openShares[hour * OPEN_HOURS + h] = (upTo - previous) / openTotal;
      previous = upTo;
    }
    openShare72h[hour] = cumulativeAt(cumulative, MATURITY_HOURS, step) / openTotal;
  }
  const prefetchShares = new Float64Array(PREFETCH_HOURS);
  cumulateDensity(cumulative, PREFETCH_MU, PREFETCH_SIGMA, undefined, step);
  let previous = 0;
  const total = cumulativeAt(cumulative, PREFETCH_HOURS, step);
  for (let h = 0; h < PREFETCH_HOURS; h++) {
    const upTo = cumulativeAt(cumulative, h + 1, step);
    prefetchShares[h] = (upTo - previous) / total;
    previous = upTo;
  }
  return { clickQuantiles, clickShare72h, openShares, openShare72h, prefetchShares };
}

function cumulateDensity(
  out: Float64Array,
  mu: number,
  sigma: number,
  localHour: number | undefined,
  step: number,
): void {
  out[0] = 0;
  for (let i = 0; i < STEPS; i++) {
    const logHours = LOG_MIN + (i + 0.5) * step;
    const z = (logHours - mu) / sigma;
    const habit =
      localHour === undefined ? 1 : DIURNAL[Math.floor(localHour + Math.exp(logHours)) % 24]!;
    out[i + 1] = out[i]! + Math.exp(-0.5 * z * z) * habit;
  }
}

function cumulativeAt(cumulative: Float64Array, hours: number, step: number): number {
  const position = (Math.log(hours) - LOG_MIN) / step;
  if (position >= STEPS) return cumulative[STEPS]!;
  const i = Math.floor(position);
  return cumulative[i]! + (cumulative[i + 1]! - cumulative[i]!) * (position - i);
}

/** Milliseconds from delivery to a person's click, from one uniform draw. */
export function clickDelayMs(timing: TimingTables, localHour: number, uniform: number): number {
  const position = uniform * QUANTILES;
  const i = Math.floor(position);
  const base = localHour * (QUANTILES + 1) + i;
  const low = timing.clickQuantiles[base]!;
  const high = timing.clickQuantiles[base + 1]!;
  return Math.round(Math.exp(low + (high - low) * (position - i)) * HOUR_MS);
}

/** Effect of the local day of week (0 = Sunday) on the log-odds of a click; Tuesday is best. */
export const DAY_EFFECT: readonly number[] = [-0.06, 0.03, 0.09, 0.05, 0.03, -0.04, -0.1];

/** Effect of the local hour of sending on the log-odds of a click: mornings are best. */
export const HOUR_EFFECT: readonly number[] = Array.from(
  { length: 24 },
  (_, hour) => 0.09 * Math.cos(((hour - 9) / 24) * 2 * Math.PI),
);

/** Log of the yearly season: ±15 %, highest in late November. */
export function seasonEffect(timeMs: number): number {
  const dayOfYear = (timeMs - Date.UTC(new Date(timeMs).getUTCFullYear(), 0)) / (24 * HOUR_MS);
  return Math.log(1 + 0.15 * Math.cos((2 * Math.PI * (dayOfYear - 330)) / 365.25));
}

/** Gregorian Easter Sunday, UTC milliseconds (the anonymous computus of Meeus, Jones and Butcher). */
export function easterMs(year: number): number {
  const a = year % 19;
  const b = Math.floor(year / 100);
  const c = year % 100;
  const d = Math.floor(b / 4);
  const e = b % 4;
  const g = Math.floor((8 * b + 13) / 25);
  const h = (19 * a + b - d - g + 15) % 30;
  const i = Math.floor(c / 4);
  const k = c % 4;
  const l = (32 + 2 * e + 2 * i - h - k) % 7;
  const m = Math.floor((a + 11 * h + 19 * l) / 433);
  const month = Math.floor((h + l - 7 * m + 90) / 25);
  const day = (h + l - 7 * m + 33 * month + 19) % 32;
  return Date.UTC(year, month - 1, day);
}

/**
 * How deep in a holiday week a moment lies, 0 … 1: the week up to Easter Monday, Thanksgiving week, and
 * the days from 23 December to New Year. People read and click less and more issues are left out. O(1).
 */
export function holidayDepth(timeMs: number): number {
  const date = new Date(timeMs);
  const year = date.getUTCFullYear();
  const month = date.getUTCMonth();
  const day = date.getUTCDate();
  if ((month === 11 && day >= 23) || (month === 0 && day === 1)) return 1;
  const since = (fromMs: number) => Math.floor((timeMs - fromMs) / DAY_MS);
  const easter = since(easterMs(year) - 6 * DAY_MS);
  if (easter >= 0 && easter < 8) return 0.6;
  const thanksgiving = since(fourthThursdayOfNovember(year) - 3 * DAY_MS);
  return thanksgiving >= 0 && thanksgiving < 7 ? 0.7 : 0;
}

function fourthThursdayOfNovember(year: number): number {
  const first = new Date(Date.UTC(year, 10, 1)).getUTCDay();
  return Date.UTC(year, 10, 22 + ((11 - first) % 7));
}

/** Log-odds effect of a whole holiday week on clicks, and the share of opens that it takes away. */
const HOLIDAY_CLICK_EFFECT = -0.2;
const HOLIDAY_OPEN_LOSS = 0.12;

/** Effect of a holiday on the log-odds of a click. */
export function holidayEffect(timeMs: number): number {
  return HOLIDAY_CLICK_EFFECT * holidayDepth(timeMs);
}

/** Opens relative to an average weekday, by local day of week (0 = Sunday); Tuesday is best. */
const OPEN_DAY_FACTOR: readonly number[] = [0.975, 1.0, 1.025, 1.01, 1.005, 0.985, 0.97];

/** Human opens of a send relative to the publication's average. */
export function openFactor(timeMs: number, localWeekday: number): number {
  return OPEN_DAY_FACTOR[localWeekday]! * (1 - HOLIDAY_OPEN_LOSS * holidayDepth(timeMs));
}
