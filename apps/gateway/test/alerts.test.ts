import { spawnSync } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { collectDefaultMetrics } from 'prom-client';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { OFFERS, rankResponse, testGateway } from './rank-fixture.js';

const OPERATIONS = new URL('../../../docs/operations.md', import.meta.url);
const hasPromtool = spawnSync('promtool', ['--version']).error === undefined;
if (!hasPromtool) console.warn('skipped: promtool is not installed (Debian: prometheus)');

const RANK = 'method="POST",route="/v1/rank"';
/** What makes each alert fire: series that the gateway exposes, over the minutes, in promtool's notation. */
const WRONG: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  WaggleDown: { 'up{job="waggle"}': '0x20' },
  WaggleNotReady: { waggle_ready: '0x20' },
  WaggleErrors: { [`waggle_http_requests_total{${RANK},status="500"}`]: '0+1x20' },
  WaggleSlow: {
    [`waggle_http_request_duration_seconds_bucket{le="0.08",${RANK}}`]: '0+98x20',
    [`waggle_http_request_duration_seconds_count{${RANK}}`]: '0+100x20',
  },
  WaggleRefusesLoad: { 'waggle_http_refused_total{reason="overload"}': '0+1x20' },
  WaggleStoreBehind: { waggle_forwarder_lag_seconds: '301x20' },
  WaggleReleaseRefused: { waggle_release_rejected: '1x20' },
  WagglePeersSilent: { waggle_ledger_peers: '1x20', waggle_ledger_peers_age_seconds: '61x20' },
  WaggleDecisionsLost: { waggle_decisions_dropped_total: '0x10 1x10' },
  WaggleEventConflicts: { 'waggle_events_total{outcome="conflict"}': '0x10 1x10' },
};

let dir: string;
let rules: string;
let exposed: string;
beforeAll(async () => {
  if (!hasPromtool) return;
  dir = await mkdtemp(join(tmpdir(), 'waggle-alerts-'));
  rules = /```yaml\n(groups:\n.*?)```/s.exec(await readFile(OPERATIONS, 'utf8'))![1]!;
  await writeFile(join(dir, 'rules.yml'), rules);
  const { app } = testGateway({
    engine: {
      rank(request, context) {
        if (request.k === 1) throw new Error('broken');
        return rankResponse(request, context);
      },
    },
  });
  collectDefaultMetrics({ register: app.gatewayMetrics.registry });
  for (const payload of [OFFERS, { ...OFFERS, k: 1 }]) {
    await app.inject({ method: 'POST', url: '/v1/rank', payload });
  }
  exposed = (await app.inject('/metrics')).body;
  await app.close();
});
afterAll(async () => {
  if (hasPromtool) await rm(dir, { recursive: true, force: true });
});

function promtool(args: readonly string[], input = ''): { status: number | null; output: string } {
  const { status, stdout, stderr } = spawnSync('promtool', args, {
    cwd: dir,
    input,
    encoding: 'utf8',
  });
  return { status, output: stdout + stderr };
}

test.skipIf(!hasPromtool)(
  'promtool finds nothing in the metrics but the names of the library’s own',
  () => {
    const { output } = promtool(['check', 'metrics'], exposed);
    const found = output.split('\n').filter((line) => line !== '');
    // Gauges of prom-client, which dashboards for Node.js know by these names.
    const known = /^nodejs_active_(?:handles|requests|resources)_total non-counter metrics/;
    expect(found.filter((line) => !known.test(line))).toEqual([]);
  },
);

test.skipIf(!hasPromtool)(
  'every alert fires when it should, and none while all is well',
  async () => {
    expect(promtool(['check', 'rules', 'rules.yml'])).toMatchObject({ status: 0 });
    const alerts = Array.from(rules.matchAll(/- alert: (\w+)/g), (m) => m[1]!);
    expect(alerts).toEqual(Object.keys(WRONG));
    const well = new Map<string, string>([['up{job="waggle"}', '1x20']]);
    for (const line of exposed.split('\n')) {
      const [, series, value] = /^(waggle_.+) (\S+)$/.exec(line) ?? [];
      if (series !== undefined) well.set(series, `${value}x20`);
    }
    const tests = [[undefined, {}] as const, ...Object.entries(WRONG)].map(([alert, wrong]) => {
      for (const name of Object.keys(wrong))
        expect(well.has(name), `${name} is exposed`).toBe(true);
      const minutes = new Map([...well, ...Object.entries(wrong)]);
      const firing = { labels: `{alertname="${alert}"}`, value: 1 };
      return {
        name: alert ?? 'all is well',
        interval: '1m',
        input_series: Array.from(minutes, ([series, values]) => ({ series, values })),
        promql_expr_test: [
          {
            expr: 'count by (alertname) (ALERTS{alertstate="firing"})',
            eval_time: '20m',
            exp_samples: alert === undefined ? [] : [firing],
          },
        ],
      };
    });
    // JSON is YAML.
    await writeFile(join(dir, 'tests.yml'), JSON.stringify({ rule_files: ['rules.yml'], tests }));
    expect(promtool(['test', 'rules', 'tests.yml'])).toMatchObject({ status: 0 });
  },
);
