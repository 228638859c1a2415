import { execFile, execFileSync } from 'node:child_process';
import {
  appendFileSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  truncateSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { addonFile } from './arrays.js';

const native = fileURLToPath(new URL('../../', import.meta.url));
const scratch = mkdtempSync(join(tmpdir(), 'waggle-install-'));
const packed = join(scratch, 'packed');
const installed = join(scratch, 'node_modules', '@waggle', 'native');
const nothing = join(scratch, 'nothing');

/** Runs node in the installed package, on a machine with no tool to build with. */
function node(
  args: readonly string[],
  more: Record<string, string> = {},
): Promise<{ code: number; stdout: string; stderr: string }> {
  const { CXX: _CXX, WAGGLE_CUDA: _cuda, ...env } = process.env;
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      [...args],
      { cwd: installed, env: { ...env, PATH: nothing, ...more } },
      (error, stdout, stderr) => {
        resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr });
      },
    );
  });
}

const install = (env: Record<string, string> = {}) => node(['build-addon.mjs', '--install'], env);
/** What --prebuild does behind a build. */
const collect = (files: readonly string[]) =>
  execFileSync(process.execPath, [
    '--input-type=module',
    '-e',
    `import { collectPrebuilt, sourcesFingerprint } from ${JSON.stringify(join(packed, 'prebuilt.mjs'))};
     const sources = sourcesFingerprint(${JSON.stringify(packed)});
     collectPrebuilt(${JSON.stringify(packed)}, ${JSON.stringify(files)}, { sources, settings: {} });`,
  ]);
const engine = join(installed, 'build', 'Release', 'waggle_native.node');

beforeAll(() => {
  mkdirSync(nothing);
  mkdirSync(packed);
  const archive = execFileSync(
    'npm',
    ['pack', '--ignore-scripts', '--silent', '--pack-destination', scratch],
    { cwd: native, encoding: 'utf8' },
  ).trim();
  execFileSync('tar', ['-xzf', join(scratch, archive), '-C', packed, '--strip-components=1']);
  rmSync(join(packed, 'prebuilds'), { recursive: true, force: true });
  collect([addonFile]);
  mkdirSync(join(scratch, 'node_modules', '@waggle'), { recursive: true });
  symlinkSync(join(native, '../packages/core'), join(scratch, 'node_modules', '@waggle', 'core'));
});

beforeEach(() => {
  rmSync(installed, { recursive: true, force: true });
  cpSync(packed, installed, { recursive: true });
});

afterAll(() => {
  rmSync(scratch, { recursive: true, force: true });
});

describe('installing the package from its archive', () => {
  it('takes the engine that came with it, without any tool, and the engine works', async () => {
    const first = await install();
    expect(first).toMatchObject({ code: 0 });
    expect(first.stderr).toMatch(/built already, for /);
    const search = `import { topk } from '@waggle/native';
      const one = { dim: 2, k: 1, metric: 'ip', nQueries: 1, nRows: 2 };
      const found = await topk({ ...one, queries: Float32Array.of(0, 1), matrix: Float32Array.of(1, 0, 0, 3) });
      console.log(found.rows[0], found.scores[0]);`;
    const used = await node(['--input-type=module', '-e', search]);
    expect(used).toMatchObject({ code: 0, stdout: '1 3\n' });
    // Asked again it has nothing to do.
    const again = await install();
    expect(again).toMatchObject({ code: 0, stderr: '' });
  });

  const unused: readonly [string, () => void, RegExp][] = [
    [
      'of other sources',
      () => appendFileSync(join(installed, 'cpu', 'topk.cpp'), '\n'),
      /is not used: it was built of other sources/,
    ],
    [
      'that does not load',
      () => {
        const [platform] = readdirSync(join(installed, 'prebuilds'));
        truncateSync(join(installed, 'prebuilds', platform!, 'waggle_native.node'), 4096);
      },
      // A signal, where the loader maps what is not there.
      /is not used: it does not load here \((Error: |SIG)/,
    ],
  ];
  it.each(unused)('builds instead of an engine %s', async (_, spoil, why) => {
    spoil();
    const built = await install();
    // There is nothing to build with here, which it says.
    expect(built.code).toBe(1);
    expect(built.stderr).toMatch(why);
    expect(built.stderr).toMatch(/C\+\+20 compiler is missing/);
    expect(existsSync(engine)).toBe(false);
  });

  it('builds where the sources are asked for', async () => {
    const built = await install({ npm_config_build_from_source: 'true' });
    expect(built.code).toBe(1);
    expect(built.stderr).toMatch(/C\+\+20 compiler is missing/);
    expect(built.stderr).not.toMatch(/is not used/);
  });

  it('takes the CUDA plugin along where it is not left out, and misses it where it is insisted on', async () => {
    const refused = await install({ WAGGLE_CUDA: 'on' });
    expect(refused).toMatchObject({ code: 1, stderr: expect.stringMatching(/has no CUDA plugin/) });
    // Nobody asks the plugin anything while it is installed.
    const file = join(scratch, 'libwaggle_backend_cuda.so');
    copyFileSync(addonFile, file);
    collect([addonFile, file]);
    try {
      for (const [choice, there] of [
        ['on', true],
        ['auto', true],
        ['off', false],
      ] as const) {
        rmSync(installed, { recursive: true, force: true });
        cpSync(packed, installed, { recursive: true });
        expect(await install({ WAGGLE_CUDA: choice })).toMatchObject({ code: 0 });
        expect(existsSync(join(engine, '..', basename(file)))).toBe(there);
      }
    } finally {
      collect([addonFile]);
    }
  });
});
