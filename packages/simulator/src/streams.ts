import { mix32, Rng } from '@waggle/core';

/**
 * Every entity draws from its own stream, so that adding one never shifts another's draws. A stream is
 * named by a kind, the entity's number and, for things that belong to it, a second number.
 */
export const STREAM = {
  publisher: 1,
  publication: 2,
  audienceText: 3,
  posts: 4,
  send: 5,
  opens: 6,
  clicks: 7,
  menu: 8,
  menuTimes: 9,
  offer: 10,
  advertiser: 11,
  campaign: 12,
  creative: 13,
  conversions: 14,
  topicWalk: 15,
  publicationWalk: 16,
  scanners: 17,
  layout: 18,
  publicationLife: 19,
  subject: 20,
} as const;

export type StreamKind = (typeof STREAM)[keyof typeof STREAM];

/** @param part below 2^26 */
export function streamOf(seed: number, kind: StreamKind, entity: number, part = 0): Rng {
  return new Rng(seed, entity, kind * 0x400_0000 + part);
}

/** Uniform in [0, 1) from two numbers, without a stream: for facts about pairs. */
export function pairUniform(seed: number, a: number, b: number): number {
  const h = mix32(mix32(a ^ Math.imul(seed, 0x9e3779b1)) + Math.imul(b, 0x85ebca6b));
  return h / 2 ** 32;
}

const GOLDEN = 0.6180339887498949;
const SILVER = 0.41421356237309515;
const BRONZE = 0.30277563773199456;

/**
 * The i-th point of an additive low-discrepancy sequence in (0, 1): every prefix covers the interval
 * evenly, so totals of heavy-tailed sizes vary little between seeds, and a new entity moves nobody.
 */
export function evenly(axis: 0 | 1 | 2, offset: number, i: number): number {
  const step = axis === 0 ? GOLDEN : axis === 1 ? SILVER : BRONZE;
  const x = offset + (i + 1) * step;
  const u = x - Math.floor(x);
  return Math.min(Math.max(u, 1e-6), 1 - 1e-6);
}

/** Inverse normal distribution function; Acklam's rational approximation, relative error below 1.2e-9. */
export function normalQuantile(p: number): number {
  const a = [
    -3.969683028665376e1, 2.209460984245205e2, -2.759285104469687e2, 1.38357751867269e2,
    -3.066479806614716e1, 2.506628277459239,
  ] as const;
  const b = [
    -5.447609879822406e1, 1.615858368580409e2, -1.556989798598866e2, 6.680131188771972e1,
    -1.328068155288572e1,
  ] as const;
  const c = [
    -7.784894002430293e-3, -3.223964580411365e-1, -2.400758277161838, -2.549732539343734,
    4.374664141464968, 2.938163982698783,
  ] as const;
  const d = [
    7.784695709041462e-3, 3.224671290700398e-1, 2.445134137142996, 3.754408661907416,
  ] as const;
  if (p < 0.02425 || p > 1 - 0.02425) {
    const q = Math.sqrt(-2 * Math.log(p < 0.5 ? p : 1 - p));
    const x =
      (((((c[0] * q + c[1]) * q + c[2]) * q + c[3]) * q + c[4]) * q + c[5]) /
      ((((d[0] * q + d[1]) * q + d[2]) * q + d[3]) * q + 1);
    return p < 0.5 ? x : -x;
  }
  const q = p - 0.5;
  const r = q * q;
  return (
    ((((((a[0] * r + a[1]) * r + a[2]) * r + a[3]) * r + a[4]) * r + a[5]) * q) /
    (((((b[0] * r + b[1]) * r + b[2]) * r + b[3]) * r + b[4]) * r + 1)
  );
}

const PHI_STEPS = 4096;
const PHI_RANGE = 6;
const PHI = buildNormalTable();

function buildNormalTable(): Float64Array {
  const table = new Float64Array(PHI_STEPS + 1);
  let sum = 0;
  const dx = (2 * PHI_RANGE) / PHI_STEPS;
  for (let i = 0; i <= PHI_STEPS; i++) {
    const x = -PHI_RANGE + i * dx;
    if (i > 0) {
      const mid = x - dx / 2;
      sum += (Math.exp((-mid * mid) / 2) / Math.sqrt(2 * Math.PI)) * dx;
    }
    table[i] = sum;
  }
  for (let i = 0; i <= PHI_STEPS; i++) table[i]! /= sum;
  return table;
}

/** Normal distribution function by table, absolute error below 1e-6; O(1). */
export function normalCdf(x: number): number {
  const position = ((x + PHI_RANGE) / (2 * PHI_RANGE)) * PHI_STEPS;
  if (position <= 0) return 0;
  if (position >= PHI_STEPS) return 1;
  const i = Math.floor(position);
  const fraction = position - i;
  return PHI[i]! * (1 - fraction) + PHI[i + 1]! * fraction;
}
