import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const page = readFileSync(join(root, 'docs/models-from-python.md'), 'utf8');
const python = process.env['WAGGLE_BENCH_PYTHON'] || 'python3';

function has(...packages: readonly string[]): boolean {
  const run = spawnSync(python, ['-c', `import ${packages.join(', ')}`], { stdio: 'ignore' });
  if (run.status === 0) return true;
  process.stderr.write(
    `models-from-python: SKIPPED what needs ${packages.join(', ')} (${python}; WAGGLE_BENCH_PYTHON names another)\n`,
  );
  return false;
}

/** Commands of the page under a heading, in order; the network is a smaller one. */
function commandsOf(heading: string): readonly string[] {
  const section = page.split(/^## /m).find((part) => part.startsWith(`${heading}\n`))!;
  return [...section.matchAll(/```sh\n(.*?)```/gs)].flatMap(([, block]) =>
    block!
      .trim()
      .split('\n')
      .map((line) => line.replace('--scale ci', '--scale tiny').replace('/ci-1', '/tiny-1')),
  );
}

const withXgboost = has('numpy', 'pyarrow', 'xgboost');
const withTorch = withXgboost && has('torch', 'onnx');

describe.skipIf(!withXgboost)('the page on models from Python', () => {
  let home: string;

  beforeAll(() => {
    home = mkdtempSync(join(tmpdir(), 'waggle-python-'));
    cpSync(join(root, 'docs/examples'), join(home, 'docs/examples'), { recursive: true });
    mkdirSync(join(home, 'bin'));
    for (const [name, command] of [
      ['waggle', `"${process.execPath}" "${join(root, 'apps/pipeline/bin/waggle.mjs')}"`],
      ['python', `"${python}"`],
    ] as const) {
      writeFileSync(join(home, 'bin', name), `#!/bin/sh\nexec ${command} "$@"\n`);
      chmodSync(join(home, 'bin', name), 0o755);
    }
  });
  afterAll(() => rmSync(home, { recursive: true, force: true }));

  /** Like the reader's shell, offline: without a cache, hashed n-grams stand in for the transformer. */
  function shell(command: string): string {
    return execFileSync('sh', ['-c', command], {
      cwd: home,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
      env: {
        ...process.env,
        PATH: `${join(home, 'bin')}${delimiter}${process.env['PATH']}`,
        WAGGLE_DIR: join(home, '.waggle'),
        WAGGLE_CACHE_DIR: join(home, 'cache'),
        WAGGLE_OFFLINE: 'true',
      },
    });
  }
  const runAll = (heading: string): string =>
    commandsOf(heading)
      .map((command) => shell(command))
      .join('');

  /** The verdict that the page's gate came to. */
  const gateOf = (name: string): string =>
    (JSON.parse(shell('waggle models list --json')) as { version: string; gate: string | null }[])
      .filter(({ version }) => version.startsWith(`${name}@`))
      .at(-1)!.gate!;

  /**
   * Runs the commands under a heading; the smaller network may be too small for the gate, and then the release needs somebody's word.
   */
  function runAndRelease(heading: string, name: string): void {
    const commands = commandsOf(heading);
    const release = commands.at(-1)!;
    expect(release).toBe(`waggle release --pctr ${name}`);
    const said = commands.slice(0, -1).map((command) => shell(command));
    expect(said[0]).toMatch(/later rows 0\.\d+/);
    const imported = new RegExp(`${name}@[0-9a-f]{12}`).exec(said[1]!)?.[0];
    const gated = new RegExp(`${name}@[0-9a-f]{12}`).exec(said[2]!)?.[0];
    expect(gated).not.toBe(imported);
    expect(said[2]).toMatch(/passed|FAILED/);
    const passed = gateOf(name) === 'passed';
    if (passed) shell(release);
    else {
      expect(() => shell(release)).toThrow(/WAGGLE_MODEL_NOT_GATED/);
      shell(`${release} --ungated`);
    }
    // What has not been gated at all is refused in any case.
    expect(() => shell(`waggle release --pctr ${imported}`)).toThrow(/WAGGLE_MODEL_NOT_GATED/);
    const active = (
      JSON.parse(shell('waggle release list --json')) as { active: boolean; models: string }[]
    ).find((each) => each.active)!;
    expect(active.models.split(', ')[0]).toBe(gated);
    const card = shell(`waggle models show ${gated}`);
    expect(card).toContain('Trained elsewhere');
    expect(card).toMatch(passed ? /\| gate \| passed/ : /\| gate \| \*\*failed/);
  }

  it('exports rows, trains XGBoost on them, gates the result and releases it', () => {
    expect(commandsOf('Rows')).toHaveLength(5);
    runAll('Rows');
    runAndRelease('XGBoost', 'pctr_xgboost');
    const contract = JSON.parse(readFileSync(join(home, 'pctr.contract.json'), 'utf8')) as object;
    expect(contract).toMatchObject({ featureParams: expect.any(Object) as object });
  }, 300_000);

  it.skipIf(!withTorch)(
    'trains a network by PyTorch, gates and releases it',
    () => {
      runAndRelease('PyTorch', 'pctr_pytorch');
    },
    300_000,
  );
});
