import { describe, expect, it } from 'vitest';
import { interleave } from '../src/interleave.js';

const options = { warmups: 1, minRounds: 2, maxRounds: 4, budgetMs: 1_000, pauseMs: 0 };

function recorder() {
  const order: string[] = [];
  let clock = 0;
  const run = (name: string, ms: number) => async () => {
    order.push(name);
    clock += ms;
    return ms;
  };
  return { order, run, now: () => clock };
}

describe('interleaved runs', () => {
  it('take turns, backwards every other round, and leave the warm-up out', async () => {
    const { order, run, now } = recorder();
    const times = await interleave({ a: run('a', 1), b: run('b', 2) }, options, now);
    expect(times).toEqual({ a: [1, 1, 1, 1], b: [2, 2, 2, 2] });
    expect(order.join('')).toBe('ba' + 'ab' + 'ba' + 'ab' + 'ba');
  });

  it('stop at the budget, but not before enough rounds', async () => {
    const slow = recorder();
    const two = await interleave({ a: slow.run('a', 5_000) }, options, slow.now);
    expect(two.a).toHaveLength(2);
    const medium = recorder();
    const three = await interleave({ a: medium.run('a', 300) }, options, medium.now);
    expect(three.a).toHaveLength(3);
  });

  it('end with the first run that fails', async () => {
    const { run, now } = recorder();
    const broken = async () => Promise.reject(new Error('died'));
    await expect(interleave({ a: run('a', 1), b: broken }, options, now)).rejects.toThrow('died');
  });
});
