import { expect, it } from 'vitest';
import { backendInfo, probeMachine, queueDepth } from '../../ts/index.js';
import { codeOf } from './arrays.js';

it('measures what memory and arithmetic reach', async () => {
  const limits = await probeMachine();
  expect(limits.threads).toBe(backendInfo().threads);
  // A wide margin: from a busy virtual machine under a sanitizer to a large server.
  expect(limits.readBytesPerSecond).toBeGreaterThan(1e8);
  expect(limits.readBytesPerSecond).toBeLessThan(1e13);
  expect(limits.flopsPerSecond).toBeGreaterThan(1e8);
  expect(limits.flopsPerSecond).toBeLessThan(1e15);
  expect(limits.flopsPerSecondOneThread).toBeGreaterThan(1e8);
});

it('stops when the signal fires', async () => {
  const controller = new AbortController();
  const running = codeOf(() => probeMachine({ signal: controller.signal }));
  controller.abort();
  expect(await running).toBe('WAGGLE_ABORTED');
  expect(queueDepth()).toBe(0);
});
