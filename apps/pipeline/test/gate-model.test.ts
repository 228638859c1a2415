import { execFile, execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { silentLogger } from '@waggle/core';
import { ctrFeatures } from '@waggle/features';
import { gatewayConfig, startGateway } from '@waggle/gateway';
import { writeWorld } from '@waggle/simulator';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { networkModel } from '../../../packages/models/test/fixtures/onnx-model.js';

const waggle = fileURLToPath(new URL('../bin/waggle.mjs', import.meta.url));
const home = mkdtempSync(join(tmpdir(), 'waggle-gate-'));
const env = {
  ...process.env,
  WAGGLE_DIR: join(home, '.waggle'),
  WAGGLE_CACHE_DIR: join(home, 'cache'),
  WAGGLE_OFFLINE: 'true',
};

function json<T>(...args: string[]): T {
  const text = execFileSync(process.execPath, [waggle, ...args, '--json'], {
    env,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  return JSON.parse(text) as T;
}

function refusal(...args: string[]): string {
  const run = spawnSync(process.execPath, [waggle, ...args, '--json'], { env, encoding: 'utf8' });
  expect(run.status, run.stdout).toBe(1);
  return (JSON.parse(run.stdout) as { error: { code: string } }).error.code;
}

interface Verdict {
  readonly version: string;
  readonly decision: string;
  readonly selection: { readonly level: number; readonly edge: number } | null;
  readonly selectionVerdict: { readonly passed: boolean; readonly explanation: string } | null;
  readonly gate: {
    readonly passed: boolean;
    readonly summary: string;
    readonly rows: number;
    readonly checks: readonly { readonly name: string; readonly passed: boolean }[];
  };
}

/** Imports a network that adds to the prior's logit `lift` times what stands in the column. @returns its version */
function imported(name: string, lift: number, o: { to: string; set?: string }): string {
  const { names, fingerprint } = ctrFeatures;
  const position = names.indexOf('position');
  const hidden = names.map((_, f) => (f === position ? 1 : 0));
  writeFileSync(join(home, 'net.onnx'), networkModel(hidden, [lift], { logit: true }));
  writeFileSync(
    join(home, 'net.json'),
    JSON.stringify({
      ...{ contractVersion: 1, name, format: 'onnx', missing: 'refuse' },
      features: names.map((feature) => ({ name: feature, dtype: 'float32' })),
      featureSetFingerprint: o.set ?? fingerprint,
      output: { meaning: 'probability' },
      tensors: { input: 'features', output: 'answer' },
      offsetFeature: 'prior_logit_ctr',
      producer: 'test 1.0',
      dataRange: { from: '2020-01-01T00:00:00Z', to: o.to },
    }),
  );
  const args = ['models', 'import', join(home, 'net.onnx'), '--contract', join(home, 'net.json')];
  return json<{ version: string }>(...args).version;
}

let asOfMs = 0;
beforeAll(() => {
  // Enough ads for a correction to be fitted on the earlier half of them and judged on the later one.
  const overrides = { publications: 100, campaigns: 30 };
  writeWorld({ scale: 'tiny', seed: 1, overrides }, join(home, 'world'));
  json('ingest', join(home, 'world'));
  const { id } = json<{ id: string }>('release', '--prior-only');
  const { lineage } = json<{ lineage: { data_as_of: string } }>('release', 'show', id);
  asOfMs = Date.parse(lineage.data_as_of);
}, 120_000);
afterAll(() => rmSync(home, { recursive: true, force: true }));

const daysBefore = (days: number) => new Date(asOfMs - days * 86_400_000).toISOString();

describe('waggle models gate', () => {
  it('passes a model that is as good as the prior, keeps the verdict with a card, and lets it be released', () => {
    const version = imported('pctr_same', 0, { to: daysBefore(400) });
    expect(refusal('release', '--prior-only', '--pctr', version)).toBe('WAGGLE_MODEL_NOT_GATED');
    const verdict = json<Verdict>('models', 'gate', 'pctr_same');
    expect(verdict.gate.passed, verdict.gate.summary).toBe(true);
    expect(verdict).toMatchObject({ decision: 'pctr' });
    expect(verdict.version).not.toBe(version);
    // The same again is the same version.
    expect(json<Verdict>('models', 'gate', version).version).toBe(verdict.version);
    expect(json('models', 'list')).toEqual([
      expect.objectContaining({ version, gate: null }),
      expect.objectContaining({ version: verdict.version, gate: 'passed' }),
    ]);
    const shown = json<{ card: string; contract: object }>('models', 'show', verdict.version);
    expect(shown.card).toContain('| gate | passed');
    expect(shown.contract).toMatchObject({ producer: 'test 1.0' });
    const { id } = json<{ id: string }>('release', '--prior-only', '--pctr', 'pctr_same');
    const { lineage } = json<{ lineage: { models: object } }>('release', 'show', id);
    expect(lineage.models).toMatchObject({ pctr: verdict.version });
    // Corrected for being selected by, on the card and in the release; a week of a small network says little.
    const { level, edge } = verdict.selection!;
    expect(Math.abs(level)).toBeGreaterThan(1e-6);
    expect(Math.abs(level)).toBeLessThan(0.1);
    expect(Math.abs(edge)).toBeLessThan(0.25);
    expect(shown.card).toContain(`level ${level.toFixed(3)} and slope ${(1 + edge).toFixed(3)}`);
    const { passed, explanation } = verdict.selectionVerdict!;
    expect(passed).toBe(true);
    expect(explanation).toMatch(/^corrected for being selected: on \d+ later ads/);
    expect(shown.card).toContain(explanation);
    const file = join(home, '.waggle/releases', id, 'models/pctr.contract.json');
    expect(JSON.parse(readFileSync(file, 'utf8'))).toMatchObject({ selection: { level, edge } });
  }, 240_000);

  it('fails one that promises too much, which then is released on somebody’s word alone, and answers say so', async () => {
    imported('pctr_bold', 2, { to: daysBefore(400) });
    const { gate, version, ...judged } = json<Verdict>('models', 'gate', 'pctr_bold');
    expect(gate.passed).toBe(false);
    expect(judged).toMatchObject({ selection: null, selectionVerdict: null });
    expect(gate.checks.filter((check) => !check.passed).map(({ name }) => name)).toEqual([
      'log_loss',
      'calibration',
    ]);
    expect(refusal('release', '--prior-only', '--pctr', 'pctr_bold')).toBe(
      'WAGGLE_MODEL_NOT_GATED',
    );
    json('release', '--prior-only', '--pctr', 'pctr_bold', '--ungated');
    const gateway = await startGateway({
      config: gatewayConfig({ dir: join(home, '.waggle'), port: 0 }),
      logger: silentLogger,
    });
    try {
      // Not `json`, which would keep the gateway waiting.
      const { stdout } = await promisify(execFile)(
        process.execPath,
        [waggle, 'rank', '--url', gateway.url, '--json'],
        { env },
      );
      const answer = JSON.parse(stdout) as { degraded: string[]; versions: { model: string } };
      expect(answer.degraded).toContain('ungated_model');
      expect(answer.degraded).not.toContain('onnx_unavailable');
      expect(answer.versions.model.split('+')[0]).toBe(version);
    } finally {
      await gateway.close();
    }
  }, 120_000);

  it('fails one that has seen everything, and refuses one of another feature set', () => {
    imported('pctr_late', 0, { to: daysBefore(-1) });
    const { gate } = json<Verdict>('models', 'gate', 'pctr_late');
    expect(gate).toMatchObject({ passed: false, rows: 0 });
    expect(gate.checks.find((check) => !check.passed)?.name).toBe('later_rows');
    imported('pctr_old', 0, { to: daysBefore(400), set: 'ctr_old' });
    expect(refusal('models', 'gate', 'pctr_old')).toBe('WAGGLE_MODEL_CONTRACT_MISMATCH');
    expect(refusal('models', 'gate', 'nobody')).toBe('WAGGLE_MODEL_NOT_FOUND');
  }, 120_000);
});
