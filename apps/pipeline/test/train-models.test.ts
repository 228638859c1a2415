import { spawn } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const waggle = fileURLToPath(new URL('../bin/waggle.mjs', import.meta.url));
const home = mkdtempSync(join(tmpdir(), 'waggle-train-'));
const dir = join(home, '.waggle');
/** Offline: without a cache, hashed n-grams stand in for the transformer. */
const env = {
  ...process.env,
  WAGGLE_DIR: dir,
  WAGGLE_CACHE_DIR: join(home, 'cache'),
  WAGGLE_DATA_DIR: join(home, 'no-data'),
  WAGGLE_OFFLINE: 'true',
};
const start = (...args: string[]) => spawn(process.execPath, [waggle, ...args, '--json'], { env });

function cli(...args: string[]): Promise<{ code: number | null; stdout: string; stderr: string }> {
  return new Promise((resolve, reject) => {
    const child = start(...args);
    const out = { stdout: '', stderr: '' };
    for (const stream of ['stdout', 'stderr'] as const) {
      child[stream].setEncoding('utf8').on('data', (text: string) => {
        out[stream] += text;
      });
    }
    child.once('error', reject);
    child.once('close', (code) => resolve({ code, ...out }));
  });
}

async function json<T>(...args: string[]): Promise<T> {
  const run = await cli(...args);
  expect(run.code, run.stderr).toBe(0);
  return JSON.parse(run.stdout) as T;
}

async function refusal(...args: string[]): Promise<string> {
  const run = await cli(...args);
  expect(run.code, run.stdout).not.toBe(0);
  return (JSON.parse(run.stdout) as { error: { code: string } }).error.code;
}

interface Gate {
  readonly passed: boolean;
  readonly released?: string;
  readonly summary: string;
  readonly checks: readonly { readonly name: string; readonly passed: boolean }[];
  readonly relativeLogLoss?: { readonly estimate: number } | null;
}
interface Told {
  readonly version: string;
  readonly registered?: string;
  readonly gate: Gate;
}

/** Every file of the registry but what is half written, with its bytes. */
function registryFiles(): ReadonlyMap<string, string> {
  const root = join(dir, 'models');
  if (!existsSync(root)) return new Map();
  return new Map(
    readdirSync(root, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name))
      .map((path) => [path, readFileSync(path).toString('base64')]),
  );
}

/** Stops a store that a killed command left behind. */
function stopStore(): void {
  const file = join(dir, 'store', 'owner.json');
  if (!existsSync(file)) return;
  const { pid } = JSON.parse(readFileSync(file, 'utf8')) as { pid: number };
  try {
    process.kill(pid, 'SIGTERM');
  } catch {
    // It had gone by itself.
  }
}

/**
 * Hardly anything has happened by then: a day into the network, or half an hour where single clicks are learnt from, of which a day
 * brings thousands.
 */
const TOO_EARLY = (name: string) =>
  name === 'human' ? '2026-02-16T00:30:00Z' : '2026-02-17T00:00:00Z';

beforeAll(async () => {
  const world = await json<{ dir: string }>('simulate', '--scale', 'ci', '--seed', '11');
  await json('ingest', world.dir);
  await json('embed');
}, 600_000);
afterAll(() => {
  stopStore();
  rmSync(home, { recursive: true, force: true });
});

const SUITE = ['sent', 'human', 'pcvr', 'answers', 'content_fit', 'content_quality'] as const;

it('two weeks of a small network are enough to forecast from', async () => {
  const { sends } = await json<{
    sends: { quantiles: Record<string, (number | null)[]> }[];
  }>('forecast');
  expect(sends.length).toBeGreaterThan(50);
  const known = sends.filter(({ quantiles }) => quantiles['clicks']!.every((q) => q !== null));
  expect(known.length).toBeGreaterThan(sends.length / 2);
}, 120_000);

describe('waggle train --model', () => {
  let told: Record<string, Told>;

  it('trains the whole suite in one run, each with a card in the registry', async () => {
    told = await json<Record<string, Told>>('train', '--model', SUITE.join(','));
    expect(Object.keys(told).sort()).toEqual([...SUITE].sort());
    const listed = (await json<{ version: string }[]>('models')).map((m) => m.version);
    for (const name of SUITE) {
      const { version, registered = version, gate } = told[name]!;
      expect(registered, name).toMatch(new RegExp(`^${name}@[0-9a-f]{12}$`));
      expect(listed).toContain(registered);
      expect(gate.passed, name).toBe(gate.checks.every((check) => check.passed));
      expect(gate.summary).toMatch(gate.passed ? /passed its gate/ : /failed its gate/);
      const { card } = await json<{ card: string }>('models', 'show', registered);
      for (const row of ['unit', 'label', 'maturity', 'baseline', 'form', 'calibration']) {
        expect(card, name).toContain(`| ${row} |`);
      }
      expect(card).toContain(gate.summary);
    }
  });

  it('is the same model again for the same data and seed', async () => {
    const again = await json<Record<string, Told>>('train', '--model', 'pcvr');
    expect(again['pcvr']!.version).toBe(told['pcvr']!.version);
  });

  it('trains trees for a release, which serves whatever passed', async () => {
    const trees = await json<{
      pctr: Told & { linear: { registered: string; gate: Gate } };
    }>('train', '--model', 'pctr', '--head', 'trees');
    const { pctr } = trees;
    expect(pctr.registered).toMatch(/^pctr@/);
    // What a release and its answers call it leads to what the registry calls it.
    const rows = await json<{ version: string; served_as: string | null }[]>('models', 'list');
    const versions = rows.filter((row) => row.served_as === pctr.version).map((r) => r.version);
    expect(versions).toContain(pctr.registered);
    expect(await json('models', 'show', pctr.version)).toMatchObject({ version: versions.at(-1) });
    expect(pctr.linear.registered).toMatch(/^pctr@/);
    const { artifacts, lineage: made } = await json<{
      artifacts: Record<string, unknown>;
      lineage: { metrics: Record<string, unknown> };
    }>('models', 'show', pctr.registered!);
    expect(made.metrics['relativeLogLoss']).toBe(pctr.gate.relativeLogLoss!.estimate);
    expect(Object.keys(artifacts).sort()).toEqual(
      ['card.md', 'gate.json', 'model.json', 'model.onnx', 'model.trees', 'params.json'].sort(),
    );
    await json('train', '--model', 'accept');
    const release = await json<{ id: string; priorOnly: { pctr: boolean } }>('release');
    const { lineage } = await json<{ lineage: { models: { pctr: string } } }>(
      'release',
      'show',
      release.id,
    );
    if (pctr.gate.passed) {
      expect(lineage.models.pctr).toBe(pctr.version);
      expect(existsSync(join(dir, 'releases', release.id, 'models', 'pctr.trees'))).toBe(true);
    } else {
      expect(lineage.models.pctr).not.toBe(pctr.version);
      expect(pctr.gate.released).toMatch(/^(linear|prior_only)$/);
    }
  });

  it('corrects a pCTR for being chosen by, in the model, on its card and in the release', async () => {
    const { pctr } = await json<{ pctr: Told }>('train', '--model', 'pctr,accept');
    const { id } = await json<{ id: string }>('release');
    const served = JSON.parse(
      readFileSync(join(dir, 'releases', id, 'models', 'pctr.json'), 'utf8'),
    ) as { version: string; selection: { level: number; edge: number } };
    expect(served.version).toBe(pctr.version);
    const { level, edge } = served.selection;
    // Two weeks of a small network say something, and not much.
    expect(Math.abs(level)).toBeGreaterThan(1e-6);
    expect(Math.abs(level)).toBeLessThan(0.1);
    expect(Math.abs(edge)).toBeGreaterThan(1e-6);
    expect(Math.abs(edge)).toBeLessThan(0.25);
    const { card } = await json<{ card: string }>('models', 'show', pctr.registered!);
    expect(card).toContain(`level ${level.toFixed(3)} and slope ${(1 + edge).toFixed(3)}`);
    // Fitted on the same rows, it is the same model again.
    const again = await json<{ pctr: Told }>('train', '--model', 'pctr');
    expect(again.pctr.version).toBe(pctr.version);
  });

  it.each([
    [['--model', 'nonsense'], /--model must name some of/],
    [['--head', 'forest'], /--head must be linear or trees/],
    [['--head', 'trees', '--model', 'pcvr'], /for pctr, accept and sent, not pcvr/],
  ])('%j is wrong use', async (args, why) => {
    const run = await cli('train', ...args);
    expect(run.code).toBe(2);
    expect(run.stderr).toMatch(why);
  });

  it.each(SUITE)(
    '%s: the first of the data is too little, and what was registered stays',
    async (name) => {
      const before = registryFiles();
      const run = await cli('train', '--model', name, '--as-of', TOO_EARLY(name));
      if (run.code === 0) {
        // Nothing to learn is not always an error: then the gate has failed for want of data, and nothing was promoted.
        const answer = JSON.parse(run.stdout) as Record<string, Told>;
        expect(answer[name]!.gate.passed).toBe(false);
      } else {
        expect((JSON.parse(run.stdout) as { error: { code: string } }).error.code).toMatch(
          /^WAGGLE_(TRAINING_|NO_DATA)/,
        );
        expect(registryFiles()).toEqual(before);
      }
      for (const [path, bytes] of before) expect(registryFiles().get(path)).toBe(bytes);
    },
  );

  it('a run that is killed leaves the registry as it was, and the next one succeeds', async () => {
    const before = registryFiles();
    const child = start('train', '--model', 'answers', '--seed', '2');
    const closed = new Promise((resolve) => child.once('close', resolve));
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      if (text.includes('Training answers')) child.kill('SIGKILL');
    });
    await closed;
    expect(child.signalCode).toBe('SIGKILL');
    expect(registryFiles()).toEqual(before);
    const { answers } = await json<{ answers: Told }>('train', '--model', 'answers', '--seed', '2');
    await json('models', 'show', answers.version);
  });

  it('a model file altered on disk is refused, and is good again with its bytes', async () => {
    const { version } = told['pcvr']!;
    const { artifacts } = await json<{ artifacts: Record<string, { sha256: string }> }>(
      'models',
      'show',
      version,
    );
    const { sha256 } = artifacts['card.md']!;
    const path = [...registryFiles().keys()].find((file) => file.endsWith(sha256))!;
    const whole = readFileSync(path);
    chmodSync(path, 0o644);
    writeFileSync(path, Buffer.concat([whole.subarray(0, -1), Buffer.from('!')]));
    expect(await refusal('models', 'show', version)).toBe('WAGGLE_MODEL_CORRUPT');
    writeFileSync(path, whole);
    await json('models', 'show', version);
  });
}, 600_000);
