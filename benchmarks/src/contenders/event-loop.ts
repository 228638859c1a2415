import { setTimeout as sleep } from 'node:timers/promises';
import { quantile } from '../statistics.js';

const TIMER_MS = 1;

/** By how much timers of a millisecond came late while `until` was pending: the 99th percentile, milliseconds. */
export async function timerOvershootP99(until: Promise<unknown>): Promise<number> {
  const late: number[] = [];
  let done = false;
  const finished = until.finally(() => {
    done = true;
  });
  while (!done) {
    const start = performance.now();
    await sleep(TIMER_MS);
    late.push(Math.max(0, performance.now() - start - TIMER_MS));
  }
  await finished;
  return quantile(late, 0.99);
}
