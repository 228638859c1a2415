// npm run hooks: installs the git hooks of lefthook.yml. Never part of `npm install`, which may run where there is no git.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './setup.mjs';

const lefthook = join(root, 'node_modules', 'lefthook', 'bin', 'index.js');
if (!existsSync(join(root, '.git'))) {
  process.stderr.write('This is not a git checkout: there is nowhere to install hooks.\n');
  process.exit(1);
}
if (!existsSync(lefthook)) {
  process.stderr.write('lefthook is not installed. Run `npm install` first.\n');
  process.exit(1);
}
const run = spawnSync(process.execPath, [lefthook, 'install'], { cwd: root, stdio: 'inherit' });
process.exit(run.status ?? 1);
