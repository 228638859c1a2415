// npm test: prepare the clone, run every test (TypeScript and C++), close with "N passed, N failed".
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { root, say, setup } from './setup.mjs';

const turbo = join(root, 'node_modules', 'turbo', 'bin', 'turbo');
const env = { ...process.env, TURBO_TELEMETRY_DISABLED: '1', DO_NOT_TRACK: '1' };

function workspaces() {
  return [
    'native',
    'benchmarks',
    ...['packages', 'apps'].flatMap((group) =>
      readdirSync(join(root, group)).map((name) => join(group, name)),
    ),
  ].filter((dir) => existsSync(join(root, dir, 'test')));
}

/** Runs all vitest suites through turbo and adds up their JSON reports. */
export function typescriptTests() {
  const dirs = workspaces();
  for (const dir of dirs) rmSync(join(root, dir, '.vitest', 'results.json'), { force: true });
  const run = spawnSync(
    process.execPath,
    [
      turbo,
      'run',
      'test',
      '--continue',
      '--concurrency=1',
      '--output-logs=new-only',
      '--no-update-notifier',
    ],
    { cwd: root, stdio: 'inherit', env },
  );
  let passed = 0;
  let failed = 0;
  let skipped = 0;
  for (const dir of dirs) {
    const file = join(root, dir, '.vitest', 'results.json');
    if (!existsSync(file)) {
      say(`${dir}: its tests wrote no report; counted as a failure`);
      failed++;
      continue;
    }
    const report = JSON.parse(readFileSync(file, 'utf8'));
    passed += report.numPassedTests;
    failed += report.numFailedTests;
    skipped += report.numPendingTests + (report.numTodoTests ?? 0);
    // A file that fails to load has no failing test of its own.
    for (const suite of report.testResults) {
      if (suite.status === 'failed' && suite.assertionResults.every((t) => t.status !== 'failed')) {
        failed++;
        say(`${suite.name}: failed to run`);
      }
    }
  }
  if (run.status !== 0 && failed === 0) failed++;
  return { passed, failed, skipped };
}

/** Builds the C++ core without Node and runs its conformance cases. */
export function nativeTests() {
  const dir = join(root, 'native');
  const steps = [
    ['cmake', ['--preset', 'dev']],
    ['cmake', ['--build', '--preset', 'dev', '--parallel', '2']],
  ];
  for (const [command, args] of steps) {
    const step = spawnSync(command, args, { cwd: dir, stdio: ['ignore', 'ignore', 'inherit'] });
    if (step.status !== 0) {
      say(`native: ${command} ${args.join(' ')} failed`);
      return { passed: 0, failed: 1, skipped: 0 };
    }
  }
  // The tests of the emulated device take one thread for minutes: they start first, the others beside them.
  const ctest = spawnSync('ctest', ['--preset', 'dev', '--output-on-failure', '--parallel', '2'], {
    cwd: dir,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    maxBuffer: 1 << 28,
  });
  process.stdout.write(ctest.stdout);
  const summary = ctest.stdout.match(/(\d+) tests failed out of (\d+)/);
  const skipped = (ctest.stdout.match(/\*\*\*Skipped/g) ?? []).length;
  if (!summary) return { passed: 0, failed: 1, skipped: 0 };
  const failed = Number(summary[1]);
  return { passed: Number(summary[2]) - failed - skipped, failed, skipped };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  setup();
  const parts = [nativeTests(), typescriptTests()];
  const sum = (key) => parts.reduce((total, part) => total + part[key], 0);
  const failed = sum('failed');
  process.stdout.write(`\n${sum('passed')} passed, ${failed} failed, ${sum('skipped')} skipped\n`);
  process.exit(failed === 0 ? 0 : 1);
}
