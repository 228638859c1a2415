import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { silentLogger } from '@waggle/core';
import { gatewayConfig, startGateway } from '@waggle/gateway';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { examplePublication, requestRank } from '../src/commands/rank.js';
import { commandContext } from '../src/context.js';

const waggle = fileURLToPath(new URL('../bin/waggle.mjs', import.meta.url));
const home = mkdtempSync(join(tmpdir(), 'waggle-policy-'));
const dir = join(home, '.waggle');
const file = join(home, 'policy.json');
const env = { ...process.env, WAGGLE_DIR: dir, WAGGLE_OFFLINE: 'true' };

function json<T>(...args: string[]): T {
  const text = execFileSync(process.execPath, [waggle, ...args, '--json'], {
    env,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  return JSON.parse(text) as T;
}

/** What a release of the prior alone keeps as its policy, and the payouts of its offers by campaign. */
async function release(...args: string[]) {
  const { id } = json<{ id: string }>('release', '--prior-only', ...args);
  const policy = readFileSync(join(dir, 'releases', id, 'engine', 'policy.json'), 'utf8');
  const gateway = await startGateway({
    config: gatewayConfig({ dir, port: 0 }),
    logger: silentLogger,
  });
  try {
    const signal = new AbortController().signal;
    const publication_id = await examplePublication(commandContext({ json: true, signal, env }));
    const { items } = await requestRank(gateway.url, { mode: 'offers', publication_id, k: 100 });
    return {
      policy: JSON.parse(policy) as Record<string, unknown>,
      payouts: new Map(items.map((i) => [i.campaign_id, i.est_payout.p50_micros])),
    };
  } finally {
    await gateway.close();
  }
}

beforeAll(() => {
  json('simulate', '--scale', 'tiny', '--seed', '2');
  json('ingest', join(dir, 'worlds/tiny-2'));
}, 120_000);
afterAll(() => rmSync(home, { recursive: true, force: true }));

describe('waggle release --policy', () => {
  it('releases the network’s own share, lifetimes and limits; payouts follow the share', async () => {
    const usual = await release();
    expect(usual.policy).toMatchObject({ take_rate: 0.3, offer_ttl_ms: 3_600_000 });
    const given = { take_rate: 0.1, epsilon: 0, offer_ttl_ms: 60_000, max_scored: 500 };
    writeFileSync(file, JSON.stringify({ ...given, weights: { payout: 0.5 } }));
    const own = await release('--policy', file);
    expect(own.policy).toEqual({
      ...usual.policy,
      ...given,
      weights: { ...(usual.policy['weights'] as object), payout: 0.5 },
    });
    const shared = [...own.payouts].filter(([id]) => usual.payouts.has(id));
    expect(shared.length).toBeGreaterThan(0);
    for (const [id, micros] of shared) {
      expect(micros / usual.payouts.get(id)!).toBeCloseTo(0.9 / 0.7, 3);
    }
  });

  it.each([
    ['{"take_rte":0.1}', '/take_rte: is not known'],
    ['{"weights":{"click":1}}', '/weights/click: is not known'],
    ['{"take_rate":1.5}', '/take_rate: must be <= 1'],
    ['{"take_rate":"0.1"}', '/take_rate: must be number'],
    ['{"max_scored":100.5}', '/max_scored: must be integer'],
    ['[]', '/: must be object'],
    ['{"take_rate":', 'is not valid JSON'],
    [undefined, 'cannot be read'],
  ])('refuses %s before any work, release and run alike', (text, why) => {
    rmSync(file, { force: true });
    if (text !== undefined) writeFileSync(file, text);
    for (const command of [['release', '--prior-only'], ['run']]) {
      const args = [waggle, ...command, '--policy', file, '--json'];
      const run = spawnSync(process.execPath, args, { env, encoding: 'utf8' });
      expect(run.status).toBe(1);
      const { error } = JSON.parse(run.stdout) as { error: Record<string, string> };
      expect(error).toMatchObject({
        code: 'WAGGLE_POLICY_INVALID',
        message: expect.stringContaining(why),
        remedy: expect.any(String),
      });
      expect(error['message']).toContain(file);
      expect(run.stderr).not.toContain('…');
    }
  });
});
