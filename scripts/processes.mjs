// Commands that run side by side, each with what it prints kept together.
import { spawn } from 'node:child_process';
import { availableParallelism } from 'node:os';

const running = new Set();
const SIGNALS = ['SIGINT', 'SIGTERM'];
const endAll = () => {
  for (const child of running) child.kill('SIGTERM');
  process.exit(130);
};

/** Runs a command to its end; resolves with { ok, output }. It does not outlive us. */
export function gather(command, args, { cwd, env = process.env } = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] });
    // Only while there is something to end: a step that waits for its child would not hear the signal.
    if (running.size === 0) for (const signal of SIGNALS) process.on(signal, endAll);
    running.add(child);
    const chunks = [];
    child.stdout.on('data', (chunk) => chunks.push(chunk));
    child.stderr.on('data', (chunk) => chunks.push(chunk));
    child.on('error', (error) => chunks.push(Buffer.from(`${error.message}\n`)));
    child.on('close', (code) => {
      running.delete(child);
      if (running.size === 0) for (const signal of SIGNALS) process.off(signal, endAll);
      resolve({ ok: code === 0, output: Buffer.concat(chunks).toString() });
    });
  });
}

/** Works off `jobs` (functions) from the first to the last, so many at a time. */
export async function inLanes(jobs, nLanes = availableParallelism()) {
  const waiting = [...jobs];
  const lane = async () => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) await next();
  };
  await Promise.all(Array.from({ length: nLanes }, lane));
}
