import { existsSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { besideTable } from './beside.js';
import { compare, machineName } from './compare.js';
import type { Prices } from './cost.js';
import { makePage } from './page.js';
import { isNativeFolder, parseFolderName, readNativeFigures, readResults } from './read.js';

/** Result folders below `root`, oldest first. */
function resultFolders(root: string): string[] {
  return readdirSync(root)
    .filter((name) => /^\d{4}-\d{2}-\d{2}-/.test(name))
    .map((name) => join(root, name))
    .filter((path) => statSync(path).isDirectory())
    .sort();
}

function folderNamed(root: string, name: string): string {
  const found = [resolve(name), join(root, name)].find((path) => existsSync(path));
  if (found === undefined) {
    throw new Error(`no folder of results is called ${name}, neither here nor in ${root}`);
  }
  return found;
}

const recordsOf = (folder: string) => readResults(folder).flatMap((file) => file.records);

export interface Written {
  readonly files: readonly string[];
  /** What several named folders say about the same work, in Markdown. */
  readonly beside: string;
}

/**
 * Draws the folders named, or all of them, into themselves: README.md and SVG files. A page that was written by hand is
 * left alone.
 * @returns the files written, and the folders side by side where several are named
 * @throws Error naming a file that is not in the record format, or a folder that mixes machines
 */
export function writeReports(
  root: string,
  options: Prices & { readonly folders: readonly string[] },
): Written {
  const all = existsSync(root) ? resultFolders(root) : [];
  const named = options.folders.map((name) => folderNamed(root, name));
  const several = named.length > 1;
  const files: string[] = [];
  for (const folder of named.length === 0 ? all : named) {
    if (several && isNativeFolder(folder)) continue;
    const { date } = parseFolderName(folder);
    const records = recordsOf(folder);
    const before = all
      .filter((other) => basename(other) < basename(folder))
      .findLast((other) => {
        const known = recordsOf(other);
        return (
          known[0] !== undefined &&
          records[0] !== undefined &&
          machineName(known[0].machine) === machineName(records[0].machine)
        );
      });
    const { markdown, charts } = makePage({
      date,
      records,
      prices: options,
      ...(before === undefined
        ? {}
        : {
            since: {
              name: parseFolderName(before).date,
              changes: compare(recordsOf(before), records),
            },
          }),
    });
    for (const { file, svg } of charts) {
      writeFileSync(join(folder, file), svg);
      files.push(join(folder, file));
    }
    writeFileSync(join(folder, 'README.md'), markdown);
    files.push(join(folder, 'README.md'));
  }
  const machines = named.map((folder) => ({
    name: basename(folder),
    figures: isNativeFolder(folder) ? readNativeFigures(folder) : recordsOf(folder),
  }));
  return { files, beside: several ? besideTable(machines, options) : '' };
}
