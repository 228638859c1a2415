// The C++ tests, in the build tree of the addon: they link the very library that ships. Turbo runs this (task
// `test:cpp`) and keeps what passed; the report is native/build/ctest.xml. `cmake --preset dev` builds them without Node.
import { spawnSync } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { root } from './setup.mjs';

const jobs = String(availableParallelism());
const steps = [
  ['cmake', ['-S', '.', '-B', 'build', '-DWAGGLE_TESTS=ON'], 'ignore'],
  ['cmake', ['--build', 'build', '--config', 'Release', '--parallel', jobs], 'pipe'],
  // The tests of the emulated device take one thread for minutes: they start first, the others beside them.
  [
    'ctest',
    [
      ...['--test-dir', 'build', '--build-config', 'Release', '--parallel', jobs],
      ...['--output-on-failure', '--output-junit', 'ctest.xml'],
    ],
    'inherit',
  ],
];
for (const [command, args, stdout] of steps) {
  const step = spawnSync(command, args, {
    cwd: join(root, 'native'),
    stdio: ['ignore', stdout, 'inherit'],
    maxBuffer: 1 << 28,
  });
  if (step.status !== 0) {
    // What ninja says of a failed compilation, it says on stdout.
    process.stderr.write(`${step.stdout ?? ''}\nnative: ${command} ${args.join(' ')} failed\n`);
    process.exit(1);
  }
}
