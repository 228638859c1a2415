// Runs the TypeScript tests once more under npm's node@22, beside whatever Node runs the build.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inLanes } from './processes.mjs';
import { root, say, setup } from './setup.mjs';
import { packageTests, workspaces } from './test.mjs';

// Minutes in all, and not about what runs them: how good models are, and what a simulated network is like, which is arithmetic
// without an addon, a file, a thread or a socket.
const LEFT_OUT = {
  'apps/pipeline': ['test/train-models.test.ts'],
  'packages/content': ['test/embedding-quality.test.ts'],
  'packages/simulator': [
    'test/expected-send.test.ts',
    'test/holidays.test.ts',
    'test/invariants.test.ts',
    'test/languages.test.ts',
    'test/magnitudes.test.ts',
    'test/serving.test.ts',
    'test/texts.test.ts',
    'test/verified-clicks.test.ts',
    'test/volumes.test.ts',
  ],
};

for (const [dir, files] of Object.entries(LEFT_OUT)) {
  for (const file of files) {
    // A file that was renamed would come back unnoticed.
    if (!existsSync(join(root, dir, file)))
      throw new Error(`there is no ${dir}/${file} to leave out`);
  }
}

setup();
const prefix = mkdtempSync(join(tmpdir(), 'waggle-node22-'));
let passed = 0;
let failed = 0;

/** Runs the tests of one package and adds its report to the sums. */
async function test(node, dir) {
  const part = await packageTests(dir, {
    node,
    name: `Node 22, ${dir}`,
    args: (LEFT_OUT[dir] ?? []).flatMap((file) => ['--exclude', file]),
    report: join(prefix, `${dir.replaceAll('/', '-')}.json`),
    env: { PATH: `${join(node, '..')}:${process.env.PATH}` },
  });
  process.stdout.write(`\n${dir}:\n${part.output}`);
  passed += part.passed;
  failed += part.failed;
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
