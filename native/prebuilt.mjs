// Engines that come built in the package: prebuilds/<platform>, one for each platform that `build-addon.mjs --prebuild`
// ran on before the package was packed. Installing takes the one of this machine if it is of these sources and loads;
// nothing is fetched from anywhere. Node built-ins only.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { basename, join, relative } from 'node:path';

function sourceFiles(folder) {
  return readdirSync(folder, { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) => {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) return sourceFiles(path);
      return /\.(c|cc|cpp|cu|cuh|h|hpp|inc|txt|cmake)$/.test(entry.name) ? [path] : [];
    });
}

/** What the engine of the package at `root` is built of. Contents, not times: a fresh checkout must not look like a change. */
export function sourcesFingerprint(root) {
  const folders = ['abi', 'include', 'src', 'cpu', 'cuda', 'addon'].map((name) => join(root, name));
  const files = [join(root, 'CMakeLists.txt'), ...folders.filter(existsSync).flatMap(sourceFiles)];
  const hash = createHash('sha256');
  for (const file of files) {
    hash.update(`\0${relative(root, file)}\0`).update(readFileSync(file));
  }
  return hash.digest('hex');
}

/** What a machine must be to load an engine: on Linux the C library is part of it. */
export function platformName() {
  const { platform, arch } = process;
  if (platform !== 'linux') return `${platform}-${arch}`;
  const glibc = process.report.getReport().header.glibcVersionRuntime;
  return `${platform}-${arch}-${glibc === undefined ? 'musl' : 'gnu'}`;
}

const folderOf = (root) => join(root, 'prebuilds', platformName());
const aboutOf = (folder) => join(folder, 'waggle-build.json');

/**
 * Puts what was built into the package at `root`.
 * @param files the addon and perhaps the CUDA plugin, in this order
 * @param about.sources fingerprint of what they were built of
 * @param about.settings what they were built with
 * @returns the folder
 */
export function collectPrebuilt(root, files, about) {
  const folder = folderOf(root);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  for (const file of files) copyFileSync(file, join(folder, basename(file)));
  const all = { ...about, files: files.map((file) => basename(file)) };
  writeFileSync(aboutOf(folder), `${JSON.stringify(all, null, 2)}\n`);
  return folder;
}

/**
 * Copies the engine of this platform into `release`, where the package at `root` has one that can be used.
 * @param wanted.sources fingerprint of the sources beside it
 * @param wanted.plugin whether an engine without the CUDA plugin will not do
 * @returns `taken`, with `plugin` (whether there is one) and `settings`, or `why` what is there cannot be used
 */
export function takePrebuilt(root, release, wanted) {
  const folder = folderOf(root);
  if (!existsSync(aboutOf(folder))) return { taken: false };
  const { sources, settings, files } = JSON.parse(readFileSync(aboutOf(folder), 'utf8'));
  const [addon, plugin] = files;
  if (sources !== wanted.sources) return { taken: false, why: 'it was built of other sources' };
  if (wanted.plugin && plugin === undefined) {
    return { taken: false, why: 'it has no CUDA plugin' };
  }
  // In a process of its own: what cannot be loaded must not end this one.
  const load = spawnSync(
    process.execPath,
    ['-e', 'require(process.argv[1])', join(folder, addon)],
    {
      encoding: 'utf8',
    },
  );
  if (load.status !== 0) {
    const error = load.stderr.split('\n').find((line) => line.startsWith('Error: '));
    return { taken: false, why: `it does not load here (${error ?? load.signal ?? load.status})` };
  }
  mkdirSync(release, { recursive: true });
  for (const name of files) copyFileSync(join(folder, name), join(release, name));
  return { taken: true, plugin: plugin !== undefined, settings };
}
