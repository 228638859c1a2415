// Runs the TypeScript tests once more under npm's node@22, beside whatever Node runs the build.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root, say, setup } from './setup.mjs';

setup();
const prefix = mkdtempSync(join(tmpdir(), 'waggle-node22-'));
let passed = 0;
let failed = 0;
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
    const groups = ['packages', 'apps'].flatMap((g) =>
      readdirSync(join(root, g)).map((n) => join(g, n)),
    );
    for (const dir of ['native', 'benchmarks', ...groups]) {
      if (!existsSync(join(root, dir, 'test'))) continue;
      const report = join(prefix, 'results.json');
      rmSync(report, { force: true });
      const run = spawnSync(
        node,
        [
          join(root, 'node_modules', 'vitest', 'vitest.mjs'),
          'run',
          '--reporter=dot',
          '--reporter=json',
          `--outputFile.json=${report}`,
        ],
        {
          cwd: join(root, dir),
          stdio: ['ignore', 'inherit', 'inherit'],
          env: { ...process.env, PATH: `${join(node, '..')}:${process.env.PATH}` },
        },
      );
      if (existsSync(report)) {
        const result = JSON.parse(readFileSync(report, 'utf8'));
        passed += result.numPassedTests;
        failed += result.numFailedTests;
      }
      if (run.status !== 0) failed++;
    }
  }
} finally {
  rmSync(prefix, { recursive: true, force: true });
}
process.stdout.write(`\n${passed} passed, ${failed} failed\n`);
process.exit(failed === 0 ? 0 : 1);
