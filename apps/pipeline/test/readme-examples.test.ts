import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { afterAll, describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const readmes = [
  'native',
  ...readdirSync(join(root, 'packages')).map((name) => `packages/${name}`),
];

/** Inside the repository, so that packages are found, and in no folder that a tool looks at. */
const cache = join(root, 'node_modules', '.cache');
mkdirSync(cache, { recursive: true });
const folder = mkdtempSync(join(cache, 'waggle-readme-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A block that begins with an import is a whole program; others are parts of one. */
const programs = readmes.flatMap((dir) => {
  const page = readFileSync(join(root, dir, 'README.md'), 'utf8');
  return [...page.matchAll(/^```ts\n(import [\s\S]*?)^```$/gm)].map(([, text], i) => {
    const name = `${dir.replace('/', '-')}-${i + 1}`;
    const file = join(folder, `${name}.mts`);
    writeFileSync(file, text!);
    return { name, dir, file, text: text! };
  });
});

const options: ts.CompilerOptions = {
  target: ts.ScriptTarget.ES2022,
  module: ts.ModuleKind.NodeNext,
  moduleResolution: ts.ModuleResolutionKind.NodeNext,
  strict: true,
  noUncheckedIndexedAccess: true,
  exactOptionalPropertyTypes: true,
  skipLibCheck: true,
  noEmit: true,
  types: ['node'],
  typeRoots: [join(root, 'node_modules', '@types')],
};

describe('examples of the READMEs', () => {
  it('are there for the packages that are used alone', () => {
    const shown = new Set(programs.map(({ dir }) => dir.replace('packages/', '')));
    const expected = ['native', 'content', 'core', 'features', 'forecasting', 'measurement'];
    expected.push('ranking', 'releases', 'retrieval', 'simulator', 'training');
    expect(expected.filter((name) => !shown.has(name))).toEqual([]);
  });

  it('compile as printed, against the built packages', () => {
    const program = ts.createProgram(
      programs.map(({ file }) => file),
      options,
    );
    const found = ts.getPreEmitDiagnostics(program).map((d) => {
      const line = d.file?.getLineAndCharacterOfPosition(d.start ?? 0).line ?? 0;
      return `${d.file?.fileName.slice(folder.length)}:${line + 1} ${ts.flattenDiagnosticMessageText(d.messageText, ' ')}`;
    });
    expect(found).toEqual([]);
  });

  it.each(programs)('$name runs as printed', ({ name, text }) => {
    const { outputText } = ts.transpileModule(text, {
      compilerOptions: { ...options, module: ts.ModuleKind.ESNext },
    });
    const file = join(folder, `${name}.run.mjs`);
    writeFileSync(file, outputText);
    const cwd = mkdtempSync(join(folder, 'cwd-'));
    const output = execFileSync(process.execPath, [file], { cwd, encoding: 'utf8', stdio: 'pipe' });
    expect(output).not.toBe('');
  });
});
