import type { ClickRow } from '@waggle/core/contract';
import { expect, test } from 'vitest';
import { simulateWorld } from '../src/index.js';

/** The plain rule of the README: no hidden link, no burst of links, no instant click on several links. */
function looksHuman(click: ClickRow): boolean {
  return (
    !click.honeypot &&
    click.links_within_10s < 3 &&
    (click.ms_since_delivery >= 60_000 || click.links_within_10s === 1)
  );
}

test.each([21, 22])('a plain rule separates people from machines (seed %d)', (seed) => {
  const world = simulateWorld({
    scale: 'ci',
    seed,
    overrides: { publications: 200, campaigns: 40 },
  });
  const human = world.truth.clicks.numbers('human');
  let passedHuman = 0;
  let passed = 0;
  let people = 0;
  let i = 0;
  for (const click of world.tables['clicks']!.rows<ClickRow>()) {
    const isHuman = human[i++] === 1;
    if (isHuman) people++;
    if (looksHuman(click)) {
      passed++;
      if (isHuman) passedHuman++;
    }
  }
  expect(people).toBeGreaterThan(5_000);
  expect(people / i).toBeLessThan(0.85);
  expect(passedHuman / passed).toBeGreaterThanOrEqual(0.95);
  expect(passedHuman / people).toBeGreaterThanOrEqual(0.9);
});
