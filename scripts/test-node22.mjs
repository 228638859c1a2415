// Runs the TypeScript tests once more under npm's node@22, beside whatever Node runs the build.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gather, inLanes } from './processes.mjs';
import { root, say, setup } from './setup.mjs';
import { readReport, workspaces } from './test.mjs';

setup();
const prefix = mkdtempSync(join(tmpdir(), 'waggle-node22-'));
let passed = 0;
let failed = 0;

/** Runs the tests of one package and adds its report to the sums. */
async function test(node, dir) {
  const report = join(prefix, `${dir.replaceAll('/', '-')}.json`);
  const vitest = join(root, 'node_modules', 'vitest', 'vitest.mjs');
  const reporters = ['--reporter=dot', '--reporter=json', `--outputFile.json=${report}`];
  const path = `${join(node, '..')}:${process.env.PATH}`;
  const { ok, output } = await gather(node, [vitest, 'run', ...reporters], {
    cwd: join(root, dir),
    env: { ...process.env, PATH: path, VITEST_MAX_WORKERS: '1', NO_COLOR: '1' },
  });
  process.stdout.write(`\n${dir}:\n${output}`);
  const part = readReport(`Node 22, ${dir}`, report);
  passed += part.passed;
  failed += part.failed;
  if (!ok && part.failed === 0) failed++;
}

try {
  const platform = `node-${process.platform}-${process.arch}`;
  const install = spawnSync(
    'npm',
    [
      'install',
      '--prefix',
      prefix,
      '--no-save',
      '--no-audit',
      '--no-fund',
      '--loglevel=error',
      `${platform}@22`,
    ],
    { stdio: ['ignore', 2, 2] },
  );
  const node = join(prefix, 'node_modules', platform, 'bin', 'node');
  if (install.status !== 0 || !existsSync(node)) {
    say(`Node 22: npm has no ${platform}@22 here, skipped`);
  } else {
    say(`Node 22: ${spawnSync(node, ['--version'], { encoding: 'utf8' }).stdout.trim()}`);
    // Two packages at a time with one test process each, as scripts/test.mjs does; what a package prints stays together.
    await inLanes(
      workspaces().map((dir) => () => test(node, dir)),
      2,
    );
  }
} finally {
  rmSync(prefix, { recursive: true, force: true });
}
process.stdout.write(`\n${passed} passed, ${failed} failed\n`);
process.exit(failed === 0 ? 0 : 1);
