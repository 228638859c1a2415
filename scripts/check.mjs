// npm run check: format, lint, types, boundaries, unused code, packaging, build, every test.
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { root, setup } from './setup.mjs';
import { nativeTests, typescriptTests } from './test.mjs';

setup();
const bin = (name) => join(root, 'node_modules', '.bin', name);
const turbo = [process.execPath, join(root, 'node_modules', 'turbo', 'bin', 'turbo')];
const env = { ...process.env, TURBO_TELEMETRY_DISABLED: '1', DO_NOT_TRACK: '1' };
const which = (name) => spawnSync(name, ['--version'], { stdio: 'ignore' }).status === 0;

let passed = 0;
let failed = 0;
const step = (name, command, args) => {
  const startedAt = Date.now();
  const run = spawnSync(command, args, { cwd: root, encoding: 'utf8', env, maxBuffer: 1 << 28 });
  const ok = run.status === 0;
  if (ok) passed++;
  else failed++;
  process.stdout.write(
    `${ok ? '✔' : '✘'} ${name} (${((Date.now() - startedAt) / 1000).toFixed(1)} s)\n`,
  );
  if (!ok) process.stdout.write(`${run.stdout ?? ''}${run.stderr ?? ''}${run.error ?? ''}\n`);
};

step('format and plain lint (biome)', bin('biome'), ['ci', '.']);
step('type-aware lint (eslint)', bin('eslint'), ['.', '--max-warnings=0']);
step('types (tsc)', turbo[0], [turbo[1], 'run', 'typecheck', '--output-logs=errors-only']);
step('floors and cycles (dependency-cruiser)', bin('depcruise'), [
  'packages',
  'apps',
  'native/ts',
  'benchmarks/src',
  '--config',
  '.dependency-cruiser.cjs',
]);
step('unused code (knip)', bin('knip'), ['--no-progress']);
for (const name of readdirSync(join(root, 'packages'))) {
  step(`packaging of @waggle/${name} (publint)`, bin('publint'), [
    '--strict',
    join('packages', name),
  ]);
}
if (which('clang-format')) {
  step('C++ format (clang-format)', 'sh', [
    '-c',
    "git ls-files 'native/*.cpp' 'native/*.hpp' 'native/*.h' 'native/*.cu' 'native/*.cuh' | xargs clang-format --dry-run --Werror",
  ]);
} else {
  process.stdout.write('– C++ format: clang-format is not installed, skipped\n');
}

const results = [nativeTests(), typescriptTests()];
for (const part of results) {
  passed += part.passed;
  failed += part.failed;
}
process.stdout.write(`\n${passed} passed, ${failed} failed\n`);
process.exit(failed === 0 ? 0 : 1);
