// npm start: prepare the clone, then build and serve a sample network.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { root, setup } from './setup.mjs';

const startedAt = Date.now();
setup();
const child = spawn(
  process.execPath,
  [join(root, 'apps', 'pipeline', 'bin', 'waggle.mjs'), 'start', ...process.argv.slice(2)],
  {
    stdio: 'inherit',
    cwd: root,
    env: { ...process.env, WAGGLE_SETUP_MS: String(Date.now() - startedAt) },
  },
);
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal));
child.on('exit', (code, signal) => process.exit(code ?? (signal ? 130 : 1)));
