import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const waggle = fileURLToPath(new URL('../bin/waggle.mjs', import.meta.url));
let home: string;
beforeAll(() => {
  home = mkdtempSync(join(tmpdir(), 'waggle-status-'));
});
afterAll(() => rmSync(home, { recursive: true, force: true }));

/** Serves without a release, stops it by SIGTERM once it listens. */
async function statusOfStopping(env: Record<string, string>): Promise<number | null> {
  const child = spawn(process.execPath, [waggle, 'serve', '--port', '0'], {
    env: { ...process.env, WAGGLE_DIR: join(home, '.waggle'), ...env },
  });
  const closed = once(child, 'close');
  child.stderr.resume();
  for await (const text of child.stdout.setEncoding('utf8')) {
    if (String(text).includes('Ctrl-C')) child.kill('SIGTERM');
  }
  const [code] = (await closed) as [number | null];
  return code;
}

describe('waggle serve, told to stop', () => {
  it('ends with 0 when everything was handed over, with 1 when something was left behind', async () => {
    expect(await statusOfStopping({})).toBe(0);
    expect(await statusOfStopping({ WAGGLE_GATEWAY_SHUTDOWN_TIMEOUT_MS: '0' })).toBe(1);
  }, 120_000);
});
