import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  copyFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import type { RankResponseBody } from '@waggle/core/contract';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';

const waggle = fileURLToPath(new URL('../bin/waggle.mjs', import.meta.url));
let home: string;

beforeAll(() => {
  home = mkdtempSync(join(tmpdir(), 'waggle-cli-'));
});
afterAll(() => rmSync(home, { recursive: true, force: true }));

interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

const PATIENCE = { timeout: 150_000, interval: 50 };

/** Starts the built command line offline: without a cache, hashed n-grams stand in for the transformer. */
const command = (...args: string[]) =>
  spawn(process.execPath, [waggle, ...args], {
    env: {
      ...process.env,
      WAGGLE_DIR: join(home, '.waggle'),
      WAGGLE_CACHE_DIR: join(home, 'cache'),
      WAGGLE_DATA_DIR: join(home, 'no-data'),
      WAGGLE_OFFLINE: 'true',
    },
  });

function cli(...args: string[]): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const child = command(...args);
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    child.once('error', reject);
    child.once('close', (code) => resolve({ code, stdout, stderr }));
  });
}

async function json<T>(...args: string[]): Promise<T> {
  const run = await cli(...args, '--json');
  expect(run.code, run.stderr).toBe(0);
  const lines = run.stdout.trimEnd().split('\n');
  expect(lines, 'exactly one document').toHaveLength(1);
  return JSON.parse(lines[0]!) as T;
}

async function refused(code: string, ...args: string[]): Promise<Finished> {
  const run = await cli(...args, '--json');
  expect(run.code, run.stdout).not.toBe(0);
  expect((JSON.parse(run.stdout) as { error: { code: string } }).error.code).toBe(code);
  expect(run.stderr).toContain('→');
  return run;
}

describe('wrong use', () => {
  it.each([
    [['nonsense']],
    [['simulate', '--scale', 'huge']],
    [['simulate', '--seed', '-1']],
    [['train', '--seed', 'x']],
    [['serve', '--port', '70000']],
    [['serve', '--clock', 'moon']],
    [['rank', '--mode', 'guess']],
    [['release', 'explode']],
    [['release', 'activate']],
    [['features', '--set', 'other']],
    [['forecast', '--days', '0']],
    [['ingest']],
    [['simulate', '--bogus']],
  ])('waggle %j exits 2 with WAGGLE_USAGE', async (args) => {
    const run = await refused('WAGGLE_USAGE', ...args);
    expect(run.code).toBe(2);
  });

  it('says what to do when nobody answers', async () => {
    await refused(
      'WAGGLE_SERVER_UNREACHABLE',
      'rank',
      '--url',
      'http://127.0.0.1:9',
      '--publication',
      'pub_x',
    );
  });

  it('rank leaves a busy gateway time to answer by its model', async () => {
    let asked: Promise<string> | undefined;
    const gateway = createServer((request, response) => {
      asked = text(request);
      const error = { code: 'WAGGLE_OVERLOADED', message: 'busy', remedy: 'Wait.' };
      response.writeHead(503).end(JSON.stringify({ error }));
    });
    await once(gateway.listen(0, '127.0.0.1'), 'listening');
    const { port } = gateway.address() as AddressInfo;
    await refused(
      'WAGGLE_OVERLOADED',
      ...['rank', '--url', `http://127.0.0.1:${port}`, '--publication', 'pub_x'],
    );
    gateway.close();
    expect(JSON.parse((await asked)!)).toMatchObject({
      publication_id: 'pub_x',
      deadline_ms: 10_000,
    });
  });

  it('says that a step lacks its data', async () => {
    await refused('WAGGLE_NO_DATA', 'train');
    await refused('WAGGLE_NO_DATA', 'release', '--prior-only');
    await refused('WAGGLE_NO_DATA', 'forecast');
  });
});

describe('from nothing to a served ranking', () => {
  it('simulates, and finds the same network there the second time', async () => {
    const first = await json<{ counts: Record<string, number>; reused: boolean; dir: string }>(
      'simulate',
      '--scale',
      'tiny',
    );
    expect(first.reused).toBe(false);
    // Rows: two versions per publication (onboarding, then eligible) and one for each later pause and return.
    expect(first.counts['publications']).toBeGreaterThanOrEqual(100);
    expect(first.counts['publications']).toBeLessThan(120);
    const second = await json<{ reused: boolean; counts: unknown }>('simulate', '--scale', 'tiny');
    expect(second).toMatchObject({ reused: true, counts: first.counts });
  });

  it('loads it twice with the result of once', async () => {
    const world = join(home, '.waggle', 'worlds', 'tiny-1');
    const first = await json<{ rows: number }>('ingest', world);
    expect(first.rows).toBeGreaterThan(1000);
    const rows = async () => (await json<{ nRows: number }>('features')).nRows;
    const before = await rows();
    await json('ingest', world);
    expect(await rows()).toBe(before);
  });

  it('does not learn from the time before all data, and registers nothing', async () => {
    for (const step of ['train', 'features', 'release']) {
      const { stderr } = await refused('WAGGLE_NO_DATA', step, '--as-of', '2020-01-01T00:00:00Z');
      expect(stderr).toContain('data begin at 20');
    }
    expect(await json('models', 'list')).toEqual([]);
  });

  it('does not forecast from a week of a small network', async () => {
    await refused('WAGGLE_FORECASTING_TOO_FEW_SENDS', 'forecast');
  });

  it('refuses bad files with the line, and loads nothing of them', async () => {
    const file = join(home, 'advertisers.ndjson');
    const row = {
      tenant_id: 'ten_sample',
      version: 1,
      updated_at: '2026-02-01T00:00:00Z',
      created_at: '2026-02-01T00:00:00Z',
      advertiser_id: 'adv_x',
      name: 'X',
      domain: 'x.example',
      category: 'tech',
      competitor_group: '',
      status: 'active',
    };
    writeFileSync(file, `${JSON.stringify(row)}\n${JSON.stringify({ ...row, version: 0 })}\n`);
    expect((await refused('WAGGLE_INGEST_INVALID', 'ingest', file)).stderr).toContain(`${file}:2`);
    writeFileSync(file, `${JSON.stringify(row)}\n{"tenant_id":\n`);
    expect((await refused('WAGGLE_INGEST_INVALID', 'ingest', file)).stderr).toContain(`${file}:2`);
    writeFileSync(
      file,
      Buffer.concat([
        Buffer.from(`${JSON.stringify(row)}\n`),
        Buffer.from([0x7b, 0xff, 0xfe, 0x7d, 0x0a]),
      ]),
    );
    expect((await refused('WAGGLE_INGEST_INVALID', 'ingest', file)).stderr).toContain('UTF-8');
    await refused('WAGGLE_INGEST_UNREADABLE', 'ingest', join(home, 'absent.parquet'));
    const unknown = join(home, 'unknown.ndjson');
    writeFileSync(unknown, '{}\n');
    await refused('WAGGLE_INGEST_UNREADABLE', 'ingest', unknown);
    const truncated = join(home, 'clicks.parquet');
    copyFileSync(join(home, '.waggle', 'worlds', 'tiny-1', 'clicks.parquet'), truncated);
    truncateSync(truncated, Math.floor(statSync(truncated).size / 2));
    const run = await cli('ingest', truncated, '--json');
    expect(run.code).toBe(1);
    expect(run.stdout).toContain('WAGGLE_STORE_');
  });

  it('serves a release of the prior alone, built while another command uses the store', async () => {
    const [built, features] = await Promise.all([
      json<{ id: string; priorOnly: Record<string, boolean> }>('release', '--prior-only'),
      json<{ nRows: number }>('features', '--set', 'accept'),
    ]);
    expect(built.priorOnly).toEqual({ pctr: true, accept: true });
    expect(features.nRows).toBeGreaterThan(0);
  });

  it('runs the whole pipeline, says that the embedder was a stand-in, and rolls back', async () => {
    const run = await json<{ release: { id: string }; embedding: { degraded: string } }>('run');
    expect(run.embedding.degraded).toBe('hashed_embedder');
    const list = await json<{ id: string; active: boolean }[]>('release', 'list');
    expect(list.filter((r) => r.active).map((r) => r.id)).toEqual([run.release.id]);
    const back = await json<{ from: string; to: string }>('release', 'rollback');
    expect(back.from).toBe(run.release.id);
    await json('release', 'activate', run.release.id);
    const history = await json<unknown[]>('release', 'history');
    expect(history.length).toBeGreaterThanOrEqual(3);
  });

  it('start --once --json prints exactly one document with release, rank and timings', async () => {
    const answer = await json<{
      release: string;
      rank: RankResponseBody;
      timings: Record<string, number>;
    }>('start', '--once', '--scale', 'tiny', '--seed', '2');
    expect(answer.release).toMatch(/^rel_/);
    expect(answer.rank.versions.release).toBe(answer.release);
    expect(answer.rank.items.length).toBeGreaterThan(0);
    expect(answer.rank.degraded).toContain('hashed_embedder');
    for (const item of answer.rank.items) {
      const sum = Object.values(item.explain!.terms).reduce((a, b) => a + b, 0);
      expect(Math.abs(sum - item.score)).toBeLessThanOrEqual(1e-6 * Math.abs(item.score) + 9);
    }
    expect(Object.values(answer.timings).every((ms) => Number.isFinite(ms))).toBe(true);
  });

  it('a second start reuses what exists', async () => {
    const startedAt = performance.now();
    const answer = await json<{ timings: Record<string, number>; rank: RankResponseBody }>(
      'start',
      '--once',
      '--scale',
      'tiny',
      '--seed',
      '2',
    );
    expect(answer.timings).not.toHaveProperty('embedding_texts');
    // 5 s on an idle machine is the promise; a busy one gets room.
    expect(performance.now() - startedAt).toBeLessThan(120_000);
  });

  it('serve says that no release is served, why and what to do, and serves once one is whole', async () => {
    const list = await json<{ id: string; active: boolean }[]>('release', 'list');
    const active = list.find((r) => r.active)!;
    const file = join(home, '.waggle', 'releases', active.id, 'models', 'pctr.json');
    const whole = readFileSync(file);
    writeFileSync(file, whole.subarray(0, 10));
    const server = command('serve', '--port', '0');
    let stdout = '';
    server.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    let stderr = '';
    server.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    const closed = new Promise((resolve) => server.once('close', resolve));
    try {
      const said = await vi.waitUntil(() => /on (http:\S+);/.exec(stdout), PATIENCE);
      expect(stdout).toMatch(
        /^WAGGLE_NOT_READY: rel_\w+ was refused \(WAGGLE_RELEASE_CORRUPT: .*models\/pctr\.json/,
      );
      expect(stdout).toContain('  → Build the release again with `waggle release`');
      expect(stdout).not.toContain('undefined');
      expect(stderr.match(/release refused, none is served/g)).toHaveLength(1);
      const url = said[1]!;
      expect((await fetch(`${url}/readyz`)).status).toBe(503);
      await json('release', 'rollback');
      await vi.waitUntil(async () => (await fetch(`${url}/readyz`)).ok, PATIENCE);
    } finally {
      server.kill('SIGTERM');
      await closed;
      writeFileSync(file, whole);
    }
    await json('release', 'activate', active.id);
  });

  it('signals that come together, as of Ctrl-C on npm, are one: the store stops with the gateway', async () => {
    const server = command('serve', '--port', '0');
    let stdout = '';
    server.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    const closed = new Promise<number | null>((resolve) => server.once('close', resolve));
    await vi.waitUntil(() => stdout.includes('Serving'), PATIENCE);
    const owner = join(home, '.waggle', 'store', 'owner.json');
    await vi.waitUntil(() => existsSync(owner), PATIENCE);
    for (let i = 0; i < 3; i++) server.kill('SIGINT');
    expect(await closed).toBe(0);
    expect(existsSync(owner)).toBe(false);
  });

  it('a truncated release is refused by the doctor', async () => {
    const list = await json<{ id: string; active: boolean }[]>('release', 'list');
    const active = list.find((r) => r.active)!;
    const file = join(home, '.waggle', 'releases', active.id, 'models', 'pctr.json');
    const whole = readFileSync(file);
    truncateSync(file, 10);
    const run = await cli('doctor', '--json');
    expect(run.code).toBe(1);
    expect(run.stdout).toContain('"state":"problem"');
    writeFileSync(file, whole);
    expect((await cli('doctor', '--json')).code).toBe(0);
  });

  it('doctor finds a damaged pointer and a damaged model, and training makes the model whole', async () => {
    const doctor = async (what: string) => {
      const { stdout } = await cli('doctor', '--json');
      const { findings } = JSON.parse(stdout) as { findings: { what: string; state: string }[] };
      return findings.find((finding) => finding.what === what);
    };
    const pointer = join(home, '.waggle', 'releases', 'active');
    const active = readFileSync(pointer);
    writeFileSync(pointer, 'junk');
    expect(await doctor('Release')).toMatchObject({
      state: 'problem',
      remedy: expect.stringContaining('`waggle release activate <id>`'),
    });
    writeFileSync(pointer, active);
    const models = join(home, '.waggle', 'models');
    const [version] = readdirSync(join(models, 'promotions', 'pctr')).slice(-1);
    const promoted = JSON.parse(
      readFileSync(join(models, 'promotions', 'pctr', version!), 'utf8'),
    ) as { version: string };
    const { artifacts } = JSON.parse(
      readFileSync(join(models, 'models', 'pctr', `${promoted.version.slice(5)}.json`), 'utf8'),
    ) as { artifacts: Record<string, { sha256: string }> };
    const { sha256 } = artifacts['model.json']!;
    truncateSync(join(models, 'artifacts', sha256.slice(0, 2), sha256), 10);
    expect(await doctor('Models')).toMatchObject({
      state: 'problem',
      found: expect.stringContaining(`model.json of ${promoted.version}`),
    });
    await refused('WAGGLE_MODEL_CORRUPT', 'release');
    await json('train', '--model', 'pctr');
    expect(await doctor('Models')).toMatchObject({ state: 'ok' });
    expect((await doctor('Release'))!.state).toBe('ok');
  });
}, 240_000);
