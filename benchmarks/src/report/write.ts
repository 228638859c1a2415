import { existsSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { compare, machineName } from './compare.js';
import type { Prices } from './cost.js';
import { makePage } from './page.js';
import { parseFolderName, readResults } from './read.js';

/** Result folders below `root`, oldest first. */
function resultFolders(root: string): string[] {
  return readdirSync(root)
    .map((name) => join(root, name))
    .filter((path) => statSync(path).isDirectory() && /\d{4}-\d{2}-\d{2}-/.test(path))
    .sort();
}

/**
 * Draws the folders named, or all of them, into themselves: README.md and SVG files.
 * @returns the files written
 * @throws Error naming a file that is not in the record format, or a folder that mixes machines
 */
export function writeReports(
  root: string,
  options: Prices & { readonly folders: readonly string[] },
): string[] {
  const all = existsSync(root) ? resultFolders(root) : [];
  const folders =
    options.folders.length === 0
      ? all
      : options.folders.map((name) => (existsSync(name) ? resolve(name) : join(root, name)));
  const written: string[] = [];
  for (const folder of folders) {
    const { date } = parseFolderName(folder);
    const records = readResults(folder).flatMap((file) => file.records);
    const before = all
      .filter((other) => other < folder)
      .findLast((other) => {
        const known = readResults(other).flatMap((file) => file.records);
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
              changes: compare(
                readResults(before).flatMap((file) => file.records),
                records,
              ),
            },
          }),
    });
    for (const { file, svg } of charts) {
      writeFileSync(join(folder, file), svg);
      written.push(join(folder, file));
    }
    writeFileSync(join(folder, 'README.md'), markdown);
    written.push(join(folder, 'README.md'));
  }
  return written;
}
