import { setTimeout } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { WaggleError } from '@waggle/core';

export { addonPath as addonFile } from '../../ts/loader.js';

/** splitmix32: the same numbers for a seed on every machine. */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return ((z ^ (z >>> 15)) >>> 0) / 4_294_967_296;
  };
}

export function randomFloats(n: number, seed: number, scale = 1): Float32Array {
  const next = randomNumbers(seed);
  return Float32Array.from({ length: n }, () => (next() - 0.5) * scale);
}

export function detached<A extends Float32Array | Float64Array | Int32Array>(array: A): A {
  structuredClone(array.buffer, { transfer: [array.buffer as ArrayBuffer] });
  return array;
}

/** The code of the error `run` throws or rejects with; 'nothing' when it does not. */
export async function codeOf(run: () => unknown): Promise<string> {
  try {
    await run();
    return 'nothing';
  } catch (error) {
    return (error as WaggleError).code ?? String(error);
  }
}

/** Bytes of JavaScript's heap that something still refers to. */
export async function heapUsed(): Promise<number> {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  for (let i = 0; i < 3; i++) {
    collect();
    await setTimeout(10);
  }
  return process.memoryUsage().heapUsed;
}

/** How many listeners a signal has, now and at most, from here on. */
export function countListeners(signal: AbortSignal): { now: number; most: number } {
  const counts = { now: 0, most: 0 };
  const add = signal.addEventListener.bind(signal);
  const remove = signal.removeEventListener.bind(signal);
  signal.addEventListener = ((...args: Parameters<typeof add>) => {
    counts.now += 1;
    counts.most = Math.max(counts.most, counts.now);
    add(...args);
  }) as typeof signal.addEventListener;
  signal.removeEventListener = ((...args: Parameters<typeof remove>) => {
    counts.now -= 1;
    remove(...args);
  }) as typeof signal.removeEventListener;
  return counts;
}
