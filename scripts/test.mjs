// npm test: prepare the clone, run every test (TypeScript and C++), close with "N passed, N failed".
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gather } from './processes.mjs';
import { root, say, setup } from './setup.mjs';

const turbo = join(root, 'node_modules', 'turbo', 'bin', 'turbo');
const env = { ...process.env, TURBO_TELEMETRY_DISABLED: '1', DO_NOT_TRACK: '1' };

/** Folders of the packages that have tests. */
export function workspaces() {
  return [
    'native',
    'benchmarks',
    ...['apps', 'packages'].flatMap((group) =>
      readdirSync(join(root, group)).map((name) => join(group, name)),
    ),
  ].filter((dir) => existsSync(join(root, dir, 'test')));
}

/** Counts a vitest report and names what failed, a line each, so that the end of a long log says it again. */
export function readReport(dir, file) {
  if (!existsSync(file)) {
    say(`✘ ${dir}: its tests wrote no report; counted as a failure`);
    return { passed: 0, failed: 1, skipped: 0 };
  }
  const report = JSON.parse(readFileSync(file, 'utf8'));
  let failed = report.numFailedTests;
  for (const suite of report.testResults) {
    const failures = suite.assertionResults.filter(({ status }) => status === 'failed');
    for (const { fullName, failureMessages } of failures) {
      const lines = (failureMessages[0] ?? '').split('\n');
      // What a property fails on, and how to try it again.
      const example = lines.slice(1).filter((line) => /^(Counterexample|\{ seed)/.test(line));
      const why = [lines[0], ...example.map((line) => line.slice(0, 600))].join(' ');
      say(`✘ ${dir}: ${basename(suite.name)}: ${fullName}: ${why}`);
    }
    // A file that fails to load has no failing test of its own.
    if (suite.status === 'failed' && failures.length === 0) {
      failed++;
      say(`✘ ${suite.name}: failed to run`);
    }
  }
  const skipped = report.numPendingTests + (report.numTodoTests ?? 0);
  return { passed: report.numPassedTests, failed, skipped };
}

/**
 * Runs the tests of one package in one process, so that others can run beside it.
 * @param options.report where vitest writes its report
 * @param options.name what failures are named with
 */
export async function packageTests(dir, options) {
  const { report, name = dir, node = process.execPath, args = [], env: more = {} } = options;
  rmSync(report, { force: true });
  const vitest = join(root, 'node_modules', 'vitest', 'vitest.mjs');
  const { ok, output } = await gather(
    node,
    [vitest, 'run', '--reporter=dot', '--reporter=json', `--outputFile.json=${report}`, ...args],
    {
      cwd: join(root, dir),
      env: { ...process.env, VITEST_MAX_WORKERS: '1', NO_COLOR: '1', ...more },
    },
  );
  const { passed, failed } = readReport(name, report);
  return { output, passed, failed: ok || failed > 0 ? failed : 1 };
}

function turboRun(task, { concurrency = 1, filter, ...more } = {}) {
  const flags = [
    '--continue',
    `--concurrency=${concurrency}`,
    '--output-logs=new-only',
    '--no-update-notifier',
  ];
  if (filter !== undefined) flags.push(`--filter=${filter}`);
  const args = [turbo, 'run', task, ...flags];
  return spawnSync(process.execPath, args, {
    cwd: root,
    stdio: 'inherit',
    env: { ...env, ...more },
  });
}

/** Runs all vitest suites through turbo and adds up their JSON reports. */
export function typescriptTests() {
  const dirs = workspaces();
  for (const dir of dirs) rmSync(join(root, dir, '.vitest', 'results.json'), { force: true });
  // Two packages at a time with one test process each, instead of one with two: none waits for another's last file. The
  // one that depends on all others, and takes longest, would be left alone: it gets both processes.
  const last = '@waggle/pipeline';
  const runs = [
    turboRun('test', { concurrency: 2, filter: `!${last}`, VITEST_MAX_WORKERS: '1' }),
    turboRun('test', { filter: last, VITEST_MAX_WORKERS: '2' }),
  ];
  let passed = 0;
  let failed = 0;
  let skipped = 0;
  for (const dir of dirs) {
    const part = readReport(dir, join(root, dir, '.vitest', 'results.json'));
    passed += part.passed;
    failed += part.failed;
    skipped += part.skipped;
  }
  if (runs.some(({ status }) => status !== 0) && failed === 0) {
    failed++;
    say('✘ TypeScript tests: turbo failed, and no test did');
  }
  return { passed, failed, skipped };
}

/** Builds and runs the C++ tests through turbo and reads their JUnit report. */
export function nativeTests() {
  const file = join(root, 'native', 'build', 'ctest.xml');
  rmSync(file, { force: true });
  const run = turboRun('test:cpp');
  const report = existsSync(file) ? readFileSync(file, 'utf8') : '';
  const count = (name) =>
    Number(report.match(new RegExp(`<testsuite[^>]*\\s${name}="(\\d+)"`))?.[1]);
  const [all, failed, skipped] = [count('tests'), count('failures'), count('skipped')];
  if (!(all > 0)) {
    say('✘ native: the C++ tests wrote no report; counted as a failure');
    return { passed: 0, failed: 1, skipped: 0 };
  }
  for (const [, name] of report.matchAll(/<testcase name="([^"]*)"[^>]*status="fail"/g)) {
    process.stdout.write(`✘ native: ${name}\n`);
  }
  const unexplained = run.status !== 0 && failed === 0 ? 1 : 0;
  if (unexplained > 0) say('✘ native: turbo failed, and no C++ test did');
  return { passed: all - failed - skipped, failed: failed + unexplained, skipped };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  setup();
  const parts = [nativeTests(), typescriptTests()];
  const sum = (key) => parts.reduce((total, part) => total + part[key], 0);
  const failed = sum('failed');
  process.stdout.write(`\n${sum('passed')} passed, ${failed} failed, ${sum('skipped')} skipped\n`);
  process.exit(failed === 0 ? 0 : 1);
}
