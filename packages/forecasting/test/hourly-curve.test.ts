import { Rng } from '@waggle/core';
import { describe, expect, test } from 'vitest';
import { type HourlyCounts, HourlyCurve } from '../src/index.js';

const N_HOURS = 96;
const MU = 1.2;
const SIGMA = 2;
const RHYTHM = Array.from(
  { length: 24 },
  (_, h) => 1 + 0.4 * Math.sin(((h - 8) / 24) * 2 * Math.PI),
);

/** Events of sends at several local hours, each delay log-normal, kept in proportion to the habit of its hour. */
function simulate(o: { seed: number; nGroups: number; spread: number }): HourlyCounts & {
  readonly groupShift: Float64Array;
} {
  const sendsPerGroup = 6;
  const nSends = o.nGroups * sendsPerGroup;
  const counts = new Float64Array(nSends * N_HOURS);
  const localHour = new Uint8Array(nSends);
  const group = new Uint32Array(nSends);
  const groupShift = new Float64Array(o.nGroups);
  for (let g = 0; g < o.nGroups; g++) {
    const rng = new Rng(o.seed, g);
    groupShift[g] = o.spread * rng.normal();
    for (let k = 0; k < sendsPerGroup; k++) {
      const s = g * sendsPerGroup + k;
      group[s] = g;
      localHour[s] = [6, 9, 12, 17][rng.integer(4)]!;
      for (let e = 0; e < 400; ) {
        const hours = Math.exp(MU + groupShift[g]! + SIGMA * rng.normal());
        const at = (localHour[s]! + Math.floor(hours)) % 24;
        if (hours >= N_HOURS || !rng.bernoulli(RHYTHM[at]! / 1.4)) continue;
        counts[s * N_HOURS + Math.floor(hours)]!++;
        e++;
      }
    }
  }
  return { nSends, nHours: N_HOURS, counts, localHour, group, nGroups: o.nGroups, groupShift };
}

describe('the hourly curve', () => {
  test('finds delay and rhythm of the events again', () => {
    const curve = HourlyCurve.fit(simulate({ seed: 3, nGroups: 40, spread: 0 }));
    // 96,000 events: standard errors of some thousandths, and as much from the alternation.
    expect(Math.abs(curve.mu - MU)).toBeLessThan(0.08);
    expect(Math.abs(curve.sigma - SIGMA)).toBeLessThan(0.08);
    for (let h = 0; h < 24; h++) {
      expect(Math.abs(curve.rhythm[h]! - RHYTHM[h]!)).toBeLessThan(0.12);
    }
  });

  test('shrinks groups that differ by chance alone to the global curve, and lets others be', () => {
    const same = HourlyCurve.fit(simulate({ seed: 4, nGroups: 40, spread: 0 }));
    expect(Math.max(...same.shifts.map(Math.abs))).toBeLessThan(0.06);
    const data = simulate({ seed: 5, nGroups: 40, spread: 0.5 });
    const different = HourlyCurve.fit(data);
    let cross = 0;
    let own = 0;
    let truth = 0;
    for (let g = 0; g < 40; g++) {
      cross += different.shifts[g]! * data.groupShift[g]!;
      own += different.shifts[g]! ** 2;
      truth += data.groupShift[g]! ** 2;
    }
    expect(cross / Math.sqrt(own * truth)).toBeGreaterThan(0.95);
  });

  test('has shares of sum 1, none negative, for groups without events too', () => {
    const data = simulate({ seed: 6, nGroups: 3, spread: 0.2 });
    const curve = HourlyCurve.fit({ ...data, nGroups: 4 });
    for (const group of [-1, 0, 3]) {
      const shares = curve.shares(9, group);
      expect(shares.reduce((sum, s) => sum + s, 0)).toBeCloseTo(1, 12);
      expect(Math.min(...shares)).toBeGreaterThanOrEqual(0);
    }
    expect(curve.shares(9, 3)).toEqual(curve.shares(9));
  });

  test('leaves sends out that are not over, which would say that all come early', () => {
    const data = simulate({ seed: 7, nGroups: 20, spread: 0 });
    const full = HourlyCurve.fit(data);
    const counts = Float64Array.of(...data.counts, ...data.counts.slice(0, 30 * N_HOURS));
    for (let s = data.nSends; s < data.nSends + 30; s++) {
      counts.fill(Number.NaN, s * N_HOURS + 3, (s + 1) * N_HOURS);
    }
    const partly = HourlyCurve.fit({
      ...data,
      nSends: data.nSends + 30,
      counts,
      localHour: Uint8Array.of(...data.localHour, ...data.localHour.slice(0, 30)),
      group: Uint32Array.of(...data.group, ...data.group.slice(0, 30)),
    });
    expect(partly.mu).toBe(full.mu);
  });

  test('refuses columns of different lengths, and a network without events', () => {
    const data = simulate({ seed: 8, nGroups: 1, spread: 0 });
    expect(() => HourlyCurve.fit({ ...data, nHours: 95 })).toThrow(
      expect.objectContaining({ code: 'WAGGLE_FORECASTING_SHAPE' }),
    );
    expect(() => HourlyCurve.fit({ ...data, counts: data.counts.map(() => 0) })).toThrow(
      expect.objectContaining({ code: 'WAGGLE_FORECASTING_TOO_FEW_SENDS' }),
    );
  });
});
