import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { Absent } from '../contenders/protocol.js';

/**
 * hnswlib-node comes as source. Its own install script runs node-gyp, which downloads Node's headers on most machines;
 * here it is compiled on first use with the same optimisation (-O3, no instruction set beyond the baseline: what its
 * users get) against the headers that this project's own addon is built with.
 * @throws Absent when it is not installed, or does not compile
 */
export function buildHnswlib(say: (text: string) => void): void {
  const require = createRequire(import.meta.url);
  let folder: string;
  try {
    folder = dirname(dirname(require.resolve('hnswlib-node')));
  } catch {
    throw new Absent('hnswlib-node is not installed (an optional dependency of benchmarks)');
  }
  const out = join(folder, 'build', 'Release', 'addon.node');
  if (existsSync(out)) return;
  if (process.platform !== 'linux') {
    throw new Absent('hnswlib-node is not built: run `npm rebuild hnswlib-node`');
  }
  const from = createRequire(join(folder, 'package.json'));
  try {
    const headers = createRequire(createRequire(import.meta.url).resolve('@waggle/native'));
    const nodeApi = (headers('node-api-headers') as { include_dir: string }).include_dir;
    const addonApi = dirname(from.resolve('node-addon-api'));
    say('bench: compiling hnswlib-node (once, about half a minute) …');
    mkdirSync(dirname(out), { recursive: true });
    execFileSync(
      process.env['CXX'] || 'c++',
      [
        ...['-O3', '-std=gnu++17', '-fPIC', '-shared', '-fexceptions', '-fno-omit-frame-pointer'],
        '-DNAPI_DISABLE_CPP_EXCEPTIONS',
        '-DNODE_GYP_MODULE_NAME=addon',
        '-DBUILDING_NODE_EXTENSION',
        ...[`-I${nodeApi}`, `-I${addonApi}`],
        join(folder, 'src', 'addon.cc'),
        ...['-o', out],
      ],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    );
  } catch (error) {
    const { stderr } = error as { stderr?: Buffer };
    const why = stderr
      ?.toString()
      .split('\n')
      .find((line) => line.includes('error'));
    throw new Absent(`hnswlib-node does not compile here: ${why ?? String(error)}`);
  }
}
