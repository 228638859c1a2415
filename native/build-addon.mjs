#!/usr/bin/env node
// Builds the addon with cmake-js into build/Release: waggle_native.node and, where nvcc is found, the CUDA
// plugin beside it (WAGGLE_CUDA=off leaves it out, WAGGLE_CUDA=on insists; WAGGLE_CUDA_ARCHITECTURES names the devices it
// is for, as CMake does). Does nothing when nothing changed. `--install` is npm's: where the package is a dependency it
// takes what came built for this platform (prebuilt.mjs) or builds, and in the repository, which `npm run build` builds,
// it does nothing. `--prebuild` puts what it builds where `npm pack` finds it, for other machines of this platform.
// Node built-ins only; everything it says goes to stderr.
//
//   node build-addon.mjs [--force] [--verbose] [--install | --prebuild]

import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { collectPrebuilt, platformName, sourcesFingerprint, takePrebuilt } from './prebuilt.mjs';

const native = fileURLToPath(new URL('./', import.meta.url));
const release = join(native, 'build', 'Release');
const addon = join(release, 'waggle_native.node');
const plugin = join(
  release,
  `libwaggle_backend_cuda.${process.platform === 'darwin' ? 'dylib' : 'so'}`,
);
const stamp = join(release, 'waggle-build.json');

const install = process.argv.includes('--install');
const prebuild = process.argv.includes('--prebuild');
// Only the repository has the tests.
if (install && existsSync(join(native, 'test'))) process.exit(0);

const force = process.argv.includes('--force');
const verbose = process.argv.includes('--verbose');

function say(message) {
  process.stderr.write(`native: ${message}\n`);
}

function stop(message, remedy) {
  say(message);
  if (remedy) say(remedy);
  process.exit(1);
}

function onPath(name) {
  if (name.includes('/')) return existsSync(name) ? name : undefined;
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    const file = join(folder, name);
    if (folder !== '' && existsSync(file)) return file;
  }
  return undefined;
}

function findNvcc() {
  const candidates = [process.env.CUDACXX, 'nvcc', '/usr/local/cuda/bin/nvcc'];
  for (const candidate of candidates) {
    const found = candidate ? onPath(candidate) : undefined;
    if (found) return found;
  }
  return undefined;
}

const cudaChoice = (process.env.WAGGLE_CUDA ?? 'auto').toLowerCase();
if (!['auto', 'on', 'off'].includes(cudaChoice)) {
  stop(`WAGGLE_CUDA=${cudaChoice} is unknown`, 'use auto, on or off');
}
const nvcc = cudaChoice === 'off' ? undefined : findNvcc();
const architectures = process.env.WAGGLE_CUDA_ARCHITECTURES ?? '';
const settings = {
  platform: process.platform,
  arch: process.arch,
  compiler: process.env.CXX ?? '',
  flags: process.env.CXXFLAGS ?? '',
  cuda: nvcc ?? 'off',
  architectures,
};
const sources = sourcesFingerprint(native);
const wanted = createHash('sha256').update(JSON.stringify(settings)).update(sources).digest('hex');

function upToDate() {
  if (force || !existsSync(addon) || !existsSync(stamp)) return false;
  try {
    const built = JSON.parse(readFileSync(stamp, 'utf8'));
    // A plugin that could not be built is tried again where somebody insists on it.
    const whole = built.plugin ? existsSync(plugin) : cudaChoice !== 'on';
    return built.fingerprint === wanted && whole;
  } catch {
    return false;
  }
}

function writeStamp(about) {
  writeFileSync(stamp, `${JSON.stringify({ fingerprint: wanted, ...about }, null, 2)}\n`);
}

/** What there is now is what was asked for. */
function finish() {
  if (prebuild) {
    const files = [addon, plugin].filter(existsSync);
    say(`ready to pack: ${collectPrebuilt(native, files, { sources, settings })}`);
  }
  process.exit(0);
}

if (upToDate()) {
  if (verbose) say('nothing changed');
  finish();
}

const missing = [
  ['CMake 3.22 or newer', ['cmake'], 'apt-get install cmake; brew install cmake'],
  [
    'a C++20 compiler',
    [process.env.CXX, 'c++', 'g++', 'clang++'],
    'g++ 11 or newer, clang 14 or newer',
  ],
  ['Ninja or make', ['ninja', 'make'], 'apt-get install ninja-build; brew install ninja'],
].filter(([, names]) => !names.some((name) => name && onPath(name)));

// `npm install --build-from-source`, as other packages with an addon have it.
if (install && !force && !process.env.npm_config_build_from_source) {
  const couldBuild = nvcc !== undefined && missing.length === 0;
  const built = takePrebuilt(native, release, {
    sources,
    plugin: cudaChoice === 'on' || couldBuild,
  });
  if (built.taken) {
    const withPlugin = built.plugin && cudaChoice !== 'off';
    if (!withPlugin) rmSync(plugin, { force: true });
    writeStamp({ plugin: withPlugin, settings: built.settings });
    say(`built already, for ${platformName()}${withPlugin ? ' with the CUDA plugin' : ''}`);
    process.exit(0);
  }
  if (built.why) say(`the engine built for ${platformName()} is not used: ${built.why}`);
}

if (cudaChoice === 'on' && nvcc === undefined) {
  stop(
    'WAGGLE_CUDA=on, but there is no nvcc',
    'install the CUDA toolkit, or set CUDACXX to its nvcc',
  );
}

// Two builds in one folder would spoil each other: the second waits, and then usually finds nothing to do.
mkdirSync(join(native, 'build'), { recursive: true });
const lock = join(native, 'build', 'build.lock');

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
}

function takeLock() {
  try {
    writeFileSync(lock, String(process.pid), { flag: 'wx' });
    return true;
  } catch (error) {
    if (error.code !== 'EEXIST') throw error;
  }
  const owner = Number(readFileSync(lock, 'utf8')) || 0;
  if (owner > 0 && !isAlive(owner)) rmSync(lock, { force: true });
  return false;
}

if (!takeLock()) {
  say('waiting for another build');
  const pause = new Int32Array(new SharedArrayBuffer(4));
  const deadline = performance.now() + 15 * 60_000;
  while (!takeLock()) {
    if (performance.now() > deadline) {
      stop('another build has run for 15 minutes', `if none is running, remove ${lock}`);
    }
    Atomics.wait(pause, 0, 0, 250);
  }
}
process.on('exit', () => rmSync(lock, { force: true }));
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(1));

// By whoever had the lock before.
if (upToDate()) finish();

if (missing.length > 0) {
  stop(
    missing.map(([what, , how]) => `${what} is missing (${how})`).join('\nnative: '),
    process.env.npm_lifecycle_event === 'install'
      ? 'npm install --ignore-scripts goes on without the addon: types are there, and calls fail with WAGGLE_NATIVE_LOAD'
      : undefined,
  );
}

// A CMake cache remembers its own folder and generator; one copied from elsewhere would only confuse.
const cache = join(native, 'build', 'CMakeCache.txt');
const generator = onPath('ninja') ? 'Ninja' : 'Unix Makefiles';
if (existsSync(cache)) {
  const text = readFileSync(cache, 'utf8');
  const same =
    text.includes(`CMAKE_HOME_DIRECTORY:INTERNAL=${native.replace(/\/$/, '')}\n`) &&
    text.includes(`CMAKE_GENERATOR:INTERNAL=${generator}\n`);
  if (!same || force) {
    rmSync(cache);
    rmSync(join(native, 'build', 'CMakeFiles'), { recursive: true, force: true });
  }
}

const require = createRequire(join(native, 'package.json'));
let cmakeJs;
try {
  cmakeJs = join(require.resolve('cmake-js/package.json'), '..', 'bin', 'cmake-js');
} catch {
  stop('cmake-js is not installed', 'run npm install again');
}

// cmake-js resolves node-addon-api relative to the folder it runs in.
function runCmakeJs(command, options) {
  const run = spawnSync(process.execPath, [cmakeJs, command, '--directory', native, ...options], {
    cwd: native,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    stdio: verbose ? ['ignore', 2, 2] : ['ignore', 'pipe', 'pipe'],
  });
  if (run.status === 0) return true;
  if (!verbose) {
    const log = `${run.stdout ?? ''}${run.stderr ?? ''}`.trimEnd().split('\n');
    process.stderr.write(`${log.slice(-60).join('\n')}\n`);
  }
  return false;
}

function build(cuda) {
  const jobs = process.env.CMAKE_BUILD_PARALLEL_LEVEL ?? String(availableParallelism());
  const common = ['--config', 'Release', '--generator', generator];
  const started = performance.now();
  say(`building${cuda ? ' with the CUDA plugin' : ''} (${generator}, ${jobs} jobs)`);
  // Configured each time: `compile` alone would keep the options of an older configuration.
  const built =
    runCmakeJs('configure', [
      ...common,
      `--CDWAGGLE_CUDA=${cuda ? 'ON' : 'OFF'}`,
      '--CDWAGGLE_TESTS=OFF',
      ...(cuda ? [`--CDCMAKE_CUDA_COMPILER=${nvcc}`] : []),
      ...(cuda && architectures !== '' ? [`--CDWAGGLE_CUDA_ARCHITECTURES=${architectures}`] : []),
    ]) &&
    runCmakeJs('build', [...common, '--parallel', jobs]) &&
    existsSync(addon) &&
    (!cuda || existsSync(plugin));
  if (built) say(`built in ${((performance.now() - started) / 1000).toFixed(1)} s`);
  return built;
}

mkdirSync(release, { recursive: true });
rmSync(stamp, { force: true });
let withPlugin = nvcc !== undefined;
if (!build(withPlugin)) {
  // A toolkit that cannot compile (an unsupported host compiler, say) costs the plugin, not the engine.
  if (withPlugin && cudaChoice === 'auto') {
    say('trying again without the CUDA plugin (WAGGLE_CUDA=off skips it from the start)');
    rmSync(cache, { force: true });
    rmSync(plugin, { force: true });
    withPlugin = false;
    if (!build(false))
      stop('the build failed', 'the compiler output is above; --verbose shows all of it');
  } else {
    stop('the build failed', 'the compiler output is above; --verbose shows all of it');
  }
}
if (!withPlugin) rmSync(plugin, { force: true });
writeStamp({ plugin: withPlugin, settings });
finish();
