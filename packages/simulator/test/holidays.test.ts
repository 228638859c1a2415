import { describe, expect, test } from 'vitest';
import { simulateWorld } from '../src/index.js';
import { easterMs, holidayDepth, openFactor } from '../src/timing.js';

const DAY = 86_400_000;

describe('holidays', () => {
  test.each([
    [2000, '2000-04-23'],
    [2024, '2024-03-31'],
    [2025, '2025-04-20'],
    [2026, '2026-04-05'],
    [2038, '2038-04-25'],
  ])('Easter %i falls on %s', (year, date) => {
    expect(new Date(easterMs(year)).toISOString().slice(0, 10)).toBe(date);
  });

  test.each([
    ['2026-03-29', 0],
    ['2026-03-30', 0.6],
    ['2026-04-06', 0.6],
    ['2026-04-07', 0],
    ['2026-11-22', 0],
    ['2026-11-23', 0.7],
    ['2026-11-26', 0.7],
    ['2026-11-30', 0],
    ['2026-12-22', 0],
    ['2026-12-23', 1],
    ['2027-01-01', 1],
    ['2027-01-02', 0],
  ])('%s lies at depth %d', (date, depth) => {
    expect(holidayDepth(Date.parse(`${date}T12:00:00Z`))).toBe(depth);
  });

  test('a holiday week has fewer issues and weaker clicks than the week after', () => {
    const world = simulateWorld({ scale: 'ci', seed: 2, endMs: Date.UTC(2026, 3, 13) });
    const start = world.config.startMs;
    const sent = world.truth.placements.numbers('sent_at');
    const drift = world.truth.placements.numbers('drift');
    const mean = (from: number, to: number) => {
      const values = Array.from(drift).filter((_, i) => sent[i]! >= from && sent[i]! < to);
      return values.reduce((a, b) => a + b, 0) / values.length;
    };
    // Its first week ends on Easter Sunday 2026; the depth is 0.6 of a full holiday.
    const gap = mean(start + 8 * DAY, start + 14 * DAY) - mean(start, start + 7 * DAY);
    expect(gap).toBeGreaterThan(0.05);
    expect(gap).toBeLessThan(0.2);
  });

  test('Tuesday is the best day for opens, a holiday takes some away', () => {
    const ordinary = Date.parse('2026-03-03T09:00:00Z');
    const factors = [0, 1, 2, 3, 4, 5, 6].map((weekday) => openFactor(ordinary, weekday));
    expect(Math.max(...factors)).toBe(factors[2]);
    const holiday = Date.parse('2026-12-24T09:00:00Z');
    expect(openFactor(holiday, 2)).toBeCloseTo(0.88 * factors[2]!, 12);
  });
});
