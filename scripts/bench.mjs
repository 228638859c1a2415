// npm run bench -- <suite> [--quick] [--json FILE]
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { root, setup } from './setup.mjs';

setup();
const result = spawnSync(
  process.execPath,
  [join(root, 'benchmarks', 'dist', 'index.js'), ...process.argv.slice(2)],
  { stdio: 'inherit', cwd: root },
);
process.exit(result.status ?? 1);
