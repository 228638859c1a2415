import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { builtinModules } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../../../', import.meta.url));

interface PackageJson {
  readonly name: string;
  readonly engines?: { readonly node?: string };
  readonly exports: Readonly<Record<string, Readonly<Record<string, string>>>>;
  readonly scripts?: Readonly<Record<string, string>>;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly peerDependencies?: Readonly<Record<string, string>>;
}

const folders = [
  'native',
  ...readdirSync(join(root, 'packages')).map((name) => `packages/${name}`),
];

/** What `npm pack` would put into each package's archive: one call for all. */
const packed = new Map(
  (
    JSON.parse(
      execFileSync(
        'npm',
        [
          'pack',
          '--dry-run',
          '--json',
          '--ignore-scripts',
          ...folders.flatMap((folder) => ['--workspace', folder]),
        ],
        { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'], maxBuffer: 1 << 26 },
      ),
    ) as { name: string; files: { path: string }[] }[]
  ).map(({ name, files }) => [name, files.map(({ path }) => path)]),
);

/** Names of the packages that a compiled file imports. */
function imports(text: string): string[] {
  return [
    ...text.matchAll(/^(?:import|export) .*?from '([^'.][^']*)';|\bimport\('([^'.][^']*)'\)/gm),
  ]
    .map(([, from, dynamic]) => (from ?? dynamic)!)
    .filter((name) => !name.startsWith('node:') && !builtinModules.includes(name))
    .map((name) => /^(?:@[^/]+\/)?[^/]+/.exec(name)![0]);
}

describe.each(folders)('the archive of %s', (folder) => {
  const about = JSON.parse(readFileSync(join(root, folder, 'package.json'), 'utf8')) as PackageJson;
  const files = packed.get(about.name) ?? [];

  it('holds licence and README, and neither tests nor built objects', () => {
    expect(files).toEqual(expect.arrayContaining(['LICENSE', 'README.md', 'package.json']));
    expect(
      files.filter((path) => /^(test|build|bench)\/|\.test\.|\.tsbuildinfo$/.test(path)),
    ).toEqual([]);
    expect(readFileSync(join(root, folder, 'LICENSE'), 'utf8')).toBe(
      readFileSync(join(root, 'LICENSE'), 'utf8'),
    );
  });

  it('holds every file that its exports and its install script name', () => {
    const named = Object.values(about.exports).flatMap((paths) => Object.values(paths));
    const script = /^node (\S+)/.exec(about.scripts?.['install'] ?? '')?.[1];
    expect(files).toEqual(
      expect.arrayContaining([
        ...named.map((path) => path.slice(2)),
        ...(script === undefined ? [] : [script]),
      ]),
    );
  });

  it('declares all that it imports, and the Node versions it is for', () => {
    const declared = { ...about.dependencies, ...about.peerDependencies };
    const missing = files
      .filter((path) => /^dist\/.*\.(js|d\.ts)$/.test(path))
      .filter((path) => existsSync(join(root, folder, path)))
      .flatMap((path) =>
        imports(readFileSync(join(root, folder, path), 'utf8'))
          .filter((name) => name !== about.name && declared[name] === undefined)
          .map((name) => `${path} imports ${name}`),
      );
    expect(missing).toEqual([]);
    expect(about.engines?.node).toBe('>=20.19.0');
  });

  it('types nothing that is internal', () => {
    const typed = files
      .filter((path) => /^dist\/.*\.d\.ts$/.test(path))
      .filter((path) => readFileSync(join(root, folder, path), 'utf8').includes('@internal'));
    expect(typed).toEqual([]);
  });
});
