import { HOUR_MS } from '@waggle/core';
import { expect, test } from 'vitest';
import { simulateWorld } from '../src/index.js';
import { expectedSend } from '../src/truth.js';

test('deliveries and opens scatter around their expectation as counts do', () => {
  const world = simulateWorld({
    scale: 'tiny',
    seed: 3,
    overrides: { publications: 200, days: 14 },
  });
  const { endMs } = world.config;
  const truth = new Map([...world.truth.publications.rows()].map((t) => [t['publication_id'], t]));
  const zones = new Map(
    [...world.tables['publications']!.rows()].map((p) => [
      p['publication_id'],
      String(p['timezone']),
    ]),
  );
  const planned = new Map(
    [...world.tables['posts']!.rows()].map((p) => [
      p['post_id'],
      Date.parse(String(p['planned_at'])),
    ]),
  );
  const opens = new Map<unknown, number>();
  const sends = [...world.tables['sends']!.rows()];
  const sentMs = new Map(sends.map((s) => [s['post_id'], Date.parse(String(s['ts']))]));
  for (const open of world.tables['opens']!.rows()) {
    const until = sentMs.get(open['post_id'])! + 72 * HOUR_MS;
    if (Date.parse(String(open['ts'])) + HOUR_MS > until) continue;
    opens.set(open['post_id'], (opens.get(open['post_id']) ?? 0) + Number(open['human_opens']));
  }
  let n = 0;
  const sums = { delivered: 0, opens: 0, deliveredSquares: 0, openSquares: 0 };
  for (const send of sends) {
    if (sentMs.get(send['post_id'])! + 72 * HOUR_MS > endMs) continue;
    const own = truth.get(send['publication_id'])!;
    const plannedMs = planned.get(send['post_id'])!;
    const local = new Date(
      new Date(plannedMs).toLocaleString('en-US', {
        timeZone: zones.get(send['publication_id'])!,
      }),
    );
    const expected = expectedSend({
      recipients: Number(send['recipients']),
      mppShare: Number(own['mpp_share']),
      humanOpenRate: Number(own['human_open_rate']),
      plannedMs,
      localWeekday: local.getDay(),
      localHour: local.getHours(),
    });
    const d = Number(send['delivered']) - expected.delivered;
    const o = (opens.get(send['post_id']) ?? 0) - expected.opens72h;
    sums.delivered += d / Math.sqrt(expected.delivered * 0.015);
    sums.deliveredSquares += d ** 2 / (expected.delivered * 0.015);
    sums.opens += o / Math.sqrt(expected.opens72h);
    sums.openSquares += o ** 2 / expected.opens72h;
    n++;
  }
  expect(n).toBeGreaterThan(300);
  for (const sum of [sums.delivered, sums.opens]) {
    // Opens vary by more than one standard deviation, see below.
    expect(Math.abs(sum / n)).toBeLessThan(5.5 / Math.sqrt(n));
  }
  expect(Math.abs(sums.deliveredSquares / n - 1)).toBeLessThan(0.25);
  // Opens are drawn twice, who opens at all and how many in each hour: 1 + share · (1 − rate) times Poisson.
  expect(sums.openSquares / n).toBeGreaterThan(1.4);
  expect(sums.openSquares / n).toBeLessThan(2);
});
