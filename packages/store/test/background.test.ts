import { execFileSync, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { text } from 'node:stream/consumers';
import { expect, test } from 'vitest';
import { fixtureCommand } from './fixtures/owner-command.js';

const { command, args } = fixtureCommand('step-back.ts');
const onLinux = process.platform === 'linux';

interface Outcome {
  readonly niceness: number;
  /** Null where the kernel has no autogroups, or gave this session none. */
  readonly sessions: readonly (number | null)[];
}

test.runIf(onLinux)('a session of its own steps back, less while somebody waits', async () => {
  const child = spawn(command, args, { detached: true, stdio: ['ignore', 'pipe', 'inherit'] });
  const outcome = JSON.parse(await text(child.stdout)) as Outcome;
  expect(outcome.niceness).toBeGreaterThanOrEqual(5);
  if (outcome.sessions[0] !== null) expect(outcome.sessions).toEqual([10, 5, 5, 10]);
});

test.runIf(onLinux)('a process in a shared session leaves the session alone', () => {
  const outcome = JSON.parse(
    execFileSync(command, [...args, 'shared'], { encoding: 'utf8' }),
  ) as Outcome;
  expect(outcome.niceness).toBeGreaterThanOrEqual(5);
  if (outcome.sessions[0] === null) return;
  const ours = Number(/nice (-?\d+)/.exec(readFileSync('/proc/self/autogroup', 'utf8'))![1]);
  expect(outcome.sessions).toEqual([ours, ours, ours, ours]);
});
