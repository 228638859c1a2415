// npm run check: format, lint, types, boundaries, unused code, packaging, build, every test.
import { readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { clangTidy } from './clang-tidy.mjs';
import { gather, inLanes } from './processes.mjs';
import { root, setup, works } from './setup.mjs';
import { nativeTests, typescriptTests } from './test.mjs';

setup();
const bin = (name) => join(root, 'node_modules', '.bin', name);
const turbo = [process.execPath, join(root, 'node_modules', 'turbo', 'bin', 'turbo')];
const env = { ...process.env, TURBO_TELEMETRY_DISABLED: '1', DO_NOT_TRACK: '1' };

let passed = 0;
let failed = 0;
const steps = [];
const step = (name, command, args) =>
  steps.push(() => run(name, () => gather(command, args, { cwd: root, env })));

/** Runs one step to its end and says how it went. */
async function run(name, body) {
  const startedAt = Date.now();
  const { ok, output } = await body();
  if (ok) passed++;
  else failed++;
  const seconds = ((Date.now() - startedAt) / 1000).toFixed(1);
  process.stdout.write(`${ok ? '✔' : '✘'} ${name} (${seconds} s)\n`);
  if (!ok) process.stdout.write(`${output}\n`);
}

/** A C++ tool that is not there: said aloud, and a failure where CI has promised it. */
const missing = (name, tool) => {
  const required = process.env.WAGGLE_REQUIRE_CLANG_TOOLS === '1';
  if (required) failed++;
  process.stdout.write(
    `${required ? '✘' : '–'} ${name}: ${tool} is not installed, ${required ? 'but required' : 'skipped'}\n`,
  );
};

step('format and plain lint (biome)', bin('biome'), ['ci', '.']);
step('type-aware lint (eslint)', bin('eslint'), ['.', '--max-warnings=0']);
step('types (tsc)', turbo[0], [turbo[1], 'run', '//#typecheck', '--output-logs=errors-only']);
step('floors and cycles (dependency-cruiser)', bin('depcruise'), [
  'packages',
  'apps',
  'native/ts',
  'benchmarks/src',
  '--config',
  '.dependency-cruiser.cjs',
]);
step('unused code (knip)', bin('knip'), ['--no-progress']);
for (const dir of [
  'native',
  ...readdirSync(join(root, 'packages')).map((name) => join('packages', name)),
]) {
  step(`packaging of @waggle/${basename(dir)} (publint)`, bin('publint'), ['--strict', dir]);
}
if (works('clang-format')) {
  step('C++ format (clang-format)', 'sh', [
    '-c',
    "git ls-files 'native/*.cpp' 'native/*.hpp' 'native/*.h' 'native/*.cu' 'native/*.cuh' 'native/*.inc' | xargs clang-format --dry-run --Werror",
  ]);
} else {
  missing('C++ format', 'clang-format');
}

// One at a time for each CPU: each of them uses one.
await inLanes(steps);

if (works('clang-tidy')) {
  await run('C++ lint (clang-tidy)', () => clangTidy());
} else {
  missing('C++ lint', 'clang-tidy');
}

const results = [nativeTests(), typescriptTests()];
for (const part of results) {
  passed += part.passed;
  failed += part.failed;
}
process.stdout.write(`\n${passed} passed, ${failed} failed\n`);
process.exit(failed === 0 ? 0 : 1);
