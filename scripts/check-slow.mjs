// npm run check:slow: what takes too long for every commit. The C++ tests under sanitizers, the C++ lint along longer
// paths, every fuzz target for minutes, every property test on many inputs that it has not seen. Takes at most an hour;
// what did not fit, or was interrupted, is picked up by the next run on the same sources. Writes docs/checks/<date>.md, to be committed.
//
//   --fuzz-seconds N   per target, 300 unless told otherwise
//   --property-runs N  so many times as many inputs as npm test tries, 20 unless told otherwise
//   --seed N           of the properties' inputs, random unless told otherwise
//   --only TEXT        only the steps whose name has it; no summary file
//   --minutes N        stop starting steps after so long, 60 unless told otherwise
//   --fresh            forget what passed before
//   --ci               the fuzz targets alone, 20 s each, no summary file; a machine without clang skips them aloud
import { spawnSync } from 'node:child_process';
import { createHash, randomInt } from 'node:crypto';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { availableParallelism, cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { clangTidy } from './clang-tidy.mjs';
import { gather, inLanes } from './processes.mjs';
import { root, works } from './setup.mjs';
import { packageTests, workspaces } from './test.mjs';

const { values: flags } = parseArgs({
  options: {
    'fuzz-seconds': { type: 'string' },
    'property-runs': { type: 'string', default: '20' },
    seed: { type: 'string', default: String(randomInt(2 ** 31)) },
    only: { type: 'string', default: '' },
    minutes: { type: 'string', default: '60' },
    fresh: { type: 'boolean', default: false },
    ci: { type: 'boolean', default: false },
  },
});
const fuzzSeconds = Number(flags['fuzz-seconds'] ?? (flags.ci ? 20 : 300));
const propertyRuns = Number(flags['property-runs']);
const seed = Number(flags.seed);
const startedAt = Date.now();
const deadline = startedAt + Number(flags.minutes) * 60_000;
if (!(fuzzSeconds > 0 && deadline > startedAt && propertyRuns > 0 && Number.isInteger(seed))) {
  process.stderr.write(
    '--fuzz-seconds, --property-runs and --minutes take numbers above 0, --seed a whole one\n',
  );
  process.exit(2);
}

const native = join(root, 'native');
const work = join(native, 'build', 'check-slow');
const stateFile = join(work, 'state.json');
mkdirSync(work, { recursive: true });

const git = (...args) =>
  spawnSync('git', args, { cwd: root, encoding: 'utf8', maxBuffer: 1 << 28 }).stdout.trim();

/** Contents of what the steps test: a step that passed on the same contents need not run again. */
function sourcesFingerprint() {
  const hash = createHash('sha256').update(`${fuzzSeconds}\0`);
  const files = git('ls-files', '--cached', '--others', '--exclude-standard', 'native').split('\n');
  for (const file of files.sort()) {
    if (!/\.(cpp|hpp|h|inc|txt|cmake|json)$/.test(file) || !existsSync(join(root, file))) continue;
    hash.update(`${file}\0`).update(readFileSync(join(root, file)));
  }
  return hash.digest('hex');
}

const fingerprint = sourcesFingerprint();
const commit = git('rev-parse', '--short', 'HEAD');
const changes = git('status', '--porcelain', '--', 'native') === '' ? '' : ' with changes';
let state = { fingerprint, steps: {} };
if (!flags.fresh && existsSync(stateFile)) {
  try {
    const kept = JSON.parse(readFileSync(stateFile, 'utf8'));
    if (kept.fingerprint === fingerprint) state = kept;
  } catch {
    // Written half: begin anew.
  }
}

function record(name, result) {
  state.steps[name] = result;
  writeFileSync(`${stateFile}.tmp`, JSON.stringify(state, null, 2));
  renameSync(`${stateFile}.tmp`, stateFile);
}

const say = (text) => process.stdout.write(`${text}\n`);
const marks = { passed: '✔', failed: '✘', skipped: '–', 'not run': '…' };
const results = [];

/** Runs one command to its end; output goes to a file of its own. */
async function run(command, args, logName, env = {}, cwd = native) {
  const result = await gather(command, args, { cwd, env: { ...process.env, ...env } });
  writeFileSync(join(work, `${logName}.log`), result.output);
  return result;
}

/** @param body resolves with { status, detail } */
async function step(name, body, { keep = true } = {}) {
  if (!name.includes(flags.only)) return;
  const before = keep ? state.steps[name] : undefined;
  let result;
  if (before?.status === 'passed') {
    result = { ...before, detail: `${before.detail} (kept from ${before.at})` };
    say(`${marks.passed} ${name}: ${result.detail}`);
    results.push({ name, ...result });
    return;
  }
  if (Date.now() > deadline) {
    result = { status: 'not run', seconds: 0, detail: 'no time left; run it again to go on' };
  } else {
    const begin = Date.now();
    const { status, detail } = await body();
    const at = new Date().toISOString().slice(0, 16);
    result = { status, detail, seconds: Math.round((Date.now() - begin) / 1000), at };
    if (keep) record(name, result);
  }
  say(`${marks[result.status]} ${name} (${result.seconds} s): ${result.detail}`);
  results.push({ name, ...result });
}

const tail = (text) => text.trimEnd().split('\n').slice(-40).join('\n');
const jobs = String(availableParallelism());

async function build(preset, extra = [], targets = []) {
  const configured = await run('cmake', ['--preset', preset, ...extra], `${preset}-configure`);
  if (!configured.ok) return configured;
  const only = targets.flatMap((target) => ['--target', target]);
  return run('cmake', ['--build', '--preset', preset, '-j', jobs, ...only], `${preset}-build`);
}

/** The emulated device under AddressSanitizer and all cases in scalar code under ThreadSanitizer take long. */
const SANITIZED_TEST_S = 7_200;

async function sanitized(preset) {
  const built = await build(preset);
  if (!built.ok) return { status: 'failed', detail: `does not build\n${tail(built.output)}` };
  const tested = await run(
    'ctest',
    ['--preset', preset, '--parallel', jobs, '--timeout', String(SANITIZED_TEST_S)],
    `${preset}-ctest`,
  );
  const summary = tested.output.match(/(\d+) tests failed out of (\d+)/);
  if (tested.ok && summary) return { status: 'passed', detail: `${summary[2]} ctests` };
  return { status: 'failed', detail: `${summary?.[0] ?? 'no summary'}\n${tail(tested.output)}` };
}

/**
 * The TypeScript tests of the addon, on an addon of the preset asan. They load what lies in build/Release beside them, so
 * they run from a copy; Node loads the sanitizer before itself, and what Node itself never frees is not asked about.
 */
async function sanitizedAddon() {
  const modules = join(root, 'node_modules');
  const headers = [join(modules, 'node-api-headers', 'include'), join(modules, 'node-addon-api')];
  const targets = ['waggle_native', 'waggle_emulated_plugin'];
  const built = await build('asan', [`-DCMAKE_JS_INC=${headers.join(';')}`], targets);
  if (!built.ok) return { status: 'failed', detail: `does not build\n${tail(built.output)}` };
  const copy = join(work, 'addon');
  rmSync(copy, { recursive: true, force: true });
  const preset = join(native, 'build', 'preset', 'asan');
  const plugin = join('test', 'cuda_emulator', 'libwaggle_backend_cuda.so');
  const parts = [
    ...[
      'ts',
      'dist',
      'test/addon',
      'test/trees',
      'build-addon.mjs',
      'vitest.config.ts',
      'package.json',
      'tsconfig.json',
    ].map((name) => [join(native, name), join('native', name)]),
    [join(root, 'tsconfig.base.json'), 'tsconfig.base.json'],
    ...['vitest-config.ts', 'fast-check.ts'].map((name) => [
      join(root, 'scripts', name),
      join('scripts', name),
    ]),
    [join(preset, 'waggle_native.node'), join('native/build/Release', 'waggle_native.node')],
    [join(preset, plugin), join('native', 'build', plugin)],
  ];
  for (const [from, to] of parts) cpSync(from, join(copy, to), { recursive: true });
  const compiler = process.env.CXX ?? 'c++';
  const runtime = spawnSync(compiler, ['-print-file-name=libasan.so'], { encoding: 'utf8' });
  const vitest = join(modules, 'vitest', 'vitest.mjs');
  const tested = await run(
    process.execPath,
    [
      ...[vitest, 'run', '--testTimeout=1200000'],
      // What is freed is kept for a while here, to see who touches it: memory cannot stay flat.
      ...['-t', '^(?!.*(keep memory flat|without growing))'],
      // Packs the package, which is not here, and loads an addon without the sanitizer.
      ...['--exclude', 'test/addon/install.test.ts'],
    ],
    'asan-addon',
    { LD_PRELOAD: runtime.stdout.trim(), ASAN_OPTIONS: 'detect_leaks=0', NO_COLOR: '1' },
    join(copy, 'native'),
  );
  const summary = tested.output.match(/Tests +(.*\d+ passed.*)/);
  if (tested.ok && summary) return { status: 'passed', detail: summary[1] };
  return { status: 'failed', detail: `${summary?.[1] ?? 'no summary'}\n${tail(tested.output)}` };
}

/** Unit tests and conformance of a build by clang++ with LLVM's standard library, which lacks some of what GNU's has. */
async function builtWithLlvm() {
  const source = join(work, 'libcxx.cpp');
  writeFileSync(source, '#include <vector>\nint main() { return std::vector<int>().size(); }\n');
  const linked = ['-stdlib=libc++', source, '-o', join(work, 'libcxx')];
  if (spawnSync('clang++', linked, { stdio: 'ignore' }).status !== 0) {
    return {
      status: 'skipped',
      detail: 'no clang++ with libc++ (Debian: apt-get install clang libc++-dev libc++abi-dev)',
    };
  }
  const targets = ['waggle_unit', 'waggle_conformance'];
  const built = await build('libcxx', [], targets);
  if (!built.ok) return { status: 'failed', detail: `does not build\n${tail(built.output)}` };
  const counts = [];
  for (const target of targets) {
    const program = join(native, 'build', 'preset', 'libcxx', 'test', target);
    const { ok, output } = await run(program, [], `libcxx-${target}`, { WAGGLE_BACKEND: 'cpu' });
    const passed = output.match(/^(\d+) passed, 0 failed/m);
    if (!ok || !passed) return { status: 'failed', detail: `${target}\n${tail(output)}` };
    counts.push(`${target} ${passed[1]} passed`);
  }
  return { status: 'passed', detail: counts.join(', ') };
}

/** npm run check looks at these files, too, but less far along each path. */
async function lintedInDepth() {
  if (!works('clang-tidy')) {
    return { status: 'skipped', detail: 'no clang-tidy (Debian: apt-get install clang-tidy)' };
  }
  const { ok, output } = await clangTidy({ deep: true });
  return ok
    ? { status: 'passed', detail: 'no warning' }
    : { status: 'failed', detail: tail(output) };
}

/** Test files of a package that state properties of random inputs. */
function propertyTests(dir) {
  const found = spawnSync('git', ['grep', '-l', "from 'fast-check'", '--', `${dir}/test`], {
    cwd: root,
    encoding: 'utf8',
  });
  return found.stdout.split('\n').filter((file) => file.endsWith('.test.ts'));
}

async function properties(dir, files) {
  const name = `${dir.replaceAll('/', '-')}-properties`;
  const { output, passed, failed } = await packageTests(dir, {
    report: join(work, `${name}.json`),
    args: ['--testTimeout=1200000', ...files.map((file) => file.slice(dir.length + 1))],
    env: {
      WAGGLE_PROPERTY_RUNS: String(propertyRuns),
      WAGGLE_PROPERTY_SEED: String(seed),
      WAGGLE_PROPERTY_MS: '120000',
    },
  });
  writeFileSync(join(work, `${name}.log`), output);
  const detail = `${files.length} files, ${passed} tests passed, ${failed} failed; ${propertyRuns} × the inputs, seed ${seed}`;
  return { status: failed === 0 && passed > 0 ? 'passed' : 'failed', detail };
}

/** A clang++ whose libFuzzer links, or undefined. */
function findClang() {
  const names = ['clang++', ...Array.from({ length: 12 }, (_, i) => `clang++-${25 - i}`)];
  const probe = join(work, 'probe.cpp');
  writeFileSync(
    probe,
    'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }\n',
  );
  const arguments_ = ['-fsanitize=fuzzer,address', probe, '-o', join(work, 'probe')];
  return names.find((name) => spawnSync(name, arguments_, { stdio: 'ignore' }).status === 0);
}

async function fuzz(folder, target) {
  const name = target.replace('waggle_fuzz_', '');
  const corpus = join(work, 'corpus', name);
  const artifacts = join(work, 'crashes', name);
  mkdirSync(corpus, { recursive: true });
  mkdirSync(artifacts, { recursive: true });
  const seeds = await run(
    join(folder, `waggle_replay_${name}`),
    ['--seeds', corpus],
    `${name}-seeds`,
  );
  if (!seeds.ok) return { status: 'failed', detail: `no seeds\n${tail(seeds.output)}` };
  const fuzzed = await run(
    join(folder, target),
    [
      `-max_total_time=${fuzzSeconds}`,
      '-max_len=16384',
      '-timeout=30',
      '-rss_limit_mb=4096',
      '-print_final_stats=1',
      `-artifact_prefix=${artifacts}/`,
      corpus,
    ],
    `${name}-fuzz`,
    { WAGGLE_BACKEND: 'cpu' },
  );
  const runs = fuzzed.output.match(/Done (\d+) runs in (\d+) second/);
  if (fuzzed.ok && runs) {
    const inputs = readdirSync(corpus).length;
    return { status: 'passed', detail: `${runs[1]} runs in ${runs[2]} s, ${inputs} inputs kept` };
  }
  return { status: 'failed', detail: `see ${artifacts}\n${tail(fuzzed.output)}` };
}

if (!flags.ci) {
  await step('C++ tests under AddressSanitizer and UndefinedBehaviorSanitizer', () =>
    sanitized('asan'),
  );
  await step('addon tests under AddressSanitizer and UndefinedBehaviorSanitizer', sanitizedAddon);
  await step('C++ tests under ThreadSanitizer', () => sanitized('tsan'));
  await step('C++ tests built with LLVM', builtWithLlvm, { keep: false });
  await step('C++ lint in depth', lintedInDepth);
}

const waiting = [];
if (!flags.ci) {
  for (const dir of workspaces()) {
    const files = propertyTests(dir);
    if (files.length === 0) continue;
    waiting.push(() => step(`properties ${dir}`, () => properties(dir, files), { keep: false }));
  }
}

const fuzzing = flags.only === '' || flags.only.includes('fuzz');
const clang = fuzzing ? findClang() : undefined;
if (fuzzing && clang === undefined) {
  const detail = 'no clang++ with libFuzzer (Debian: apt-get install clang libclang-rt-dev)';
  results.push({ name: 'fuzz targets', status: 'skipped', seconds: 0, detail });
  say(`– fuzz targets: skipped, ${detail}`);
} else if (fuzzing) {
  const folder = join(native, 'build', 'preset', 'fuzz', 'test', 'fuzz');
  const built = await build('fuzz', [`-DCMAKE_CXX_COMPILER=${clang}`], ['waggle_all_fuzzers']);
  if (!built.ok) {
    await step('fuzz targets', async () => ({
      status: 'failed',
      detail: `do not build\n${tail(built.output)}`,
    }));
  } else {
    for (const target of readdirSync(folder)) {
      if (!target.startsWith('waggle_fuzz_')) continue;
      const name = `fuzz ${target.replace('waggle_fuzz_', '')}`;
      waiting.push(() => step(name, () => fuzz(folder, target)));
    }
  }
}
await inLanes(waiting);

const count = (status) => results.filter((result) => result.status === status).length;
const failed = count('failed') + count('not run');

if (!flags.ci && flags.only === '') {
  const date = new Date().toISOString().slice(0, 10);
  const [cpu] = cpus();
  const rows = results.map(({ name, status, seconds, detail }) => {
    const [first] = detail.split('\n');
    return `| ${name} | ${status} | ${seconds} | ${first.replaceAll('|', '\\|')} |`;
  });
  const text = [
    `# Slow checks of ${date}`,
    '',
    `Commit ${commit}${changes}; ${cpu?.model.trim()}, ${availableParallelism()} CPUs, ` +
      `${Math.round(totalmem() / 2 ** 30)} GiB; ${clang ?? 'no clang'}; ` +
      `\`npm run check:slow\`${results.some((r) => r.status !== 'passed') ? ', not all of it passed' : ''}.`,
    '',
    '| check | result | seconds | |',
    '| ----- | ------ | ------- | - |',
    ...rows,
    '',
  ].join('\n');
  mkdirSync(join(root, 'docs', 'checks'), { recursive: true });
  writeFileSync(join(root, 'docs', 'checks', `${date}.md`), text);
  say(`docs/checks/${date}.md`);
}
say(`\n${count('passed')} passed, ${failed} failed, ${count('skipped')} skipped`);
process.exit(failed === 0 ? 0 : 1);
