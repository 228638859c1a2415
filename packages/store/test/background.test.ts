import { execFileSync, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { text } from 'node:stream/consumers';
import { expect, test } from 'vitest';
import { fixtureCommand } from './fixtures/owner-command.js';

const { command, args } = fixtureCommand('step-back.ts');
const onLinux = process.platform === 'linux';

interface Outcome {
  readonly niceness: number;
  /** Undefined where the kernel has no autogroups, or gave this session none. */
  readonly session?: number;
}

test.runIf(onLinux)('a process with a session of its own steps back with all of it', async () => {
  const child = spawn(command, args, { detached: true, stdio: ['ignore', 'pipe', 'inherit'] });
  const outcome = JSON.parse(await text(child.stdout)) as Outcome;
  expect(outcome.niceness).toBeGreaterThanOrEqual(10);
  if (outcome.session !== undefined) expect(outcome.session).toBe(10);
});

test.runIf(onLinux)('a process in a shared session leaves the session alone', () => {
  const outcome = JSON.parse(execFileSync(command, args, { encoding: 'utf8' })) as Outcome;
  expect(outcome.niceness).toBeGreaterThanOrEqual(10);
  if (outcome.session === undefined) return;
  const ours = Number(/nice (-?\d+)/.exec(readFileSync('/proc/self/autogroup', 'utf8'))![1]);
  expect(outcome.session).toBe(ours);
});
