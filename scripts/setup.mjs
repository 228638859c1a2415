// Prepares a fresh clone: checks the machine, installs packages, builds everything.
// Node built-ins only, since nothing is installed yet. A no-op in well under 2 s when nothing changed.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(fileURLToPath(import.meta.url)));
const stampFile = join(root, 'node_modules', '.waggle-setup.json');
const npmCommand = process.platform === 'win32' ? 'npm.cmd' : 'npm';

/** Human lines go to stderr: stdout belongs to the command that follows. */
export function say(text) {
  process.stderr.write(`${text}\n`);
}

function fail(problem, remedy) {
  say(`\nwaggle setup: ${problem}\n  → ${remedy}`);
  process.exit(1);
}

/** What a command says of its version, or undefined where it is not there. */
export function works(command, args = ['--version']) {
  const result = spawnSync(command, args, {
    stdio: ['ignore', 'pipe', 'ignore'],
    encoding: 'utf8',
  });
  return result.status === 0 ? result.stdout : undefined;
}

/** Names everything that is missing at once, each with the way to install it. */
function checkMachine() {
  const missing = [];
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major < 20 || (major === 20 && minor < 19)) {
    missing.push(
      `Node ≥ 20.19 (this is ${process.versions.node}): install Node 22 or 24 from nodejs.org or with your version manager`,
    );
  }
  const cmake = works('cmake');
  const cmakeVersion = cmake?.match(/(\d+)\.(\d+)/);
  if (!cmakeVersion || Number(cmakeVersion[1]) * 100 + Number(cmakeVersion[2]) < 322) {
    missing.push(
      'CMake ≥ 3.22: `apt-get install cmake`, `brew install cmake` or `pip install cmake`',
    );
  }
  if (
    !(process.env.CXX && works(process.env.CXX)) &&
    !works('c++') &&
    !works('g++') &&
    !works('clang++')
  ) {
    missing.push(
      'a C++20 compiler: `apt-get install g++` (11 or newer), or the Xcode command line tools (`xcode-select --install`)',
    );
  }
  if (!works('ninja') && !works('make') && process.platform !== 'win32') {
    missing.push('Ninja or make: `apt-get install ninja-build` or `brew install ninja`');
  }
  if (missing.length > 0)
    fail(`this machine lacks ${missing.length} thing(s)`, missing.join('\n  → '));
}

function hashFile(path) {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}

const SKIP = new Set([
  'node_modules',
  'dist',
  'build',
  'prebuilds',
  '.turbo',
  '.vitest',
  '.git',
  '.waggle',
  'results',
  'test',
]);

/** Path, size and modification time of every file a build reads: cheap, and any edit changes it. */
function sourceFingerprint() {
  const hash = createHash('sha256');
  const visit = (dir) => {
    for (const entry of readdirSync(dir, { withFileTypes: true }).sort((a, b) =>
      a.name < b.name ? -1 : 1,
    )) {
      if (SKIP.has(entry.name)) continue;
      const path = join(dir, entry.name);
      if (entry.isDirectory()) visit(path);
      else if (entry.isFile()) {
        const { size, mtimeMs } = statSync(path);
        hash.update(`${relative(root, path)}\0${size}\0${mtimeMs}\n`);
      }
    }
  };
  for (const dir of ['packages', 'apps', 'native', 'benchmarks']) visit(join(root, dir));
  for (const file of ['package.json', 'turbo.json', 'tsconfig.base.json'])
    hash.update(hashFile(join(root, file)));
  for (const name of ['WAGGLE_CUDA', 'WAGGLE_CUDA_ARCHITECTURES']) {
    hash.update(`${process.env[name] ?? ''}\0`);
  }
  return hash.digest('hex');
}

function outputsExist() {
  const built = (dir) => existsSync(join(root, dir, 'dist'));
  return (
    existsSync(join(root, 'native', 'build', 'Release', 'waggle_native.node')) &&
    built('native') &&
    ['packages', 'apps'].every((group) =>
      readdirSync(join(root, group)).every((name) => built(join(group, name))),
    )
  );
}

/** There is a CUDA compiler, and what it was to build is missing: native/build-addon.mjs went on without. */
function lacksPlugin() {
  const file = join(root, 'native', 'build', 'Release', 'waggle-build.json');
  const { plugin, settings } = JSON.parse(readFileSync(file, 'utf8'));
  return !plugin && settings.cuda !== 'off';
}

function readStamp() {
  try {
    return JSON.parse(readFileSync(stampFile, 'utf8'));
  } catch {
    return {};
  }
}

function run(command, args, what, remedy) {
  const startedAt = Date.now();
  say(`${what} …`);
  // The children's stdout joins our stderr, so that `npm start -- --json` prints one document only.
  const result = spawnSync(command, args, {
    cwd: root,
    stdio: ['ignore', 2, 2],
    env: { ...process.env, TURBO_TELEMETRY_DISABLED: '1', DO_NOT_TRACK: '1' },
  });
  if (result.status !== 0) fail(`${what} failed (exit ${result.status ?? result.signal})`, remedy);
  say(`${what}: ${((Date.now() - startedAt) / 1000).toFixed(1)} s`);
}

export function setup() {
  checkMachine();
  const stamp = readStamp();
  const lock = hashFile(join(root, 'package-lock.json')) + process.version;
  let installed = false;
  if (stamp.lock !== lock) {
    // Not `npm ci`: it refuses a lock file that was written where only one platform's optional binaries could be had.
    // `install --no-save` takes every locked version as it is and adds this platform's binaries.
    run(
      npmCommand,
      ['install', '--no-save', '--no-audit', '--no-fund', '--loglevel=error'],
      'Installing packages',
      'check the network and that the npm registry can be reached, then run it again',
    );
    installed = true;
  }
  const sources = sourceFingerprint();
  if (installed || stamp.sources !== sources || !outputsExist()) {
    run(
      process.execPath,
      [
        join(root, 'node_modules', 'turbo', 'bin', 'turbo'),
        'run',
        'build',
        '--output-logs=errors-only',
        '--no-update-notifier',
      ],
      'Building',
      'read the first error above; `npm run setup` repeats the build',
    );
    if (lacksPlugin()) {
      say('The CUDA plugin could not be built, so everything will run on the CPU.');
      say('  → `WAGGLE_CUDA=on npm run setup` shows why; `WAGGLE_CUDA=off` leaves it out');
    }
    mkdirSync(dirname(stampFile), { recursive: true });
    writeFileSync(stampFile, JSON.stringify({ lock, sources: sourceFingerprint() }));
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const startedAt = Date.now();
  setup();
  say(`Ready (${((Date.now() - startedAt) / 1000).toFixed(1)} s).`);
}
