import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { type BenchRecord, parseRecords } from '../record.js';

export interface ResultFile {
  readonly name: string;
  readonly records: readonly BenchRecord[];
}

/** Every result of a folder, by file name. @throws Error naming a file that is not in the record format */
export function readResults(folder: string): ResultFile[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith('.json'))
    .sort()
    .map((name) => {
      let value: unknown;
      try {
        value = JSON.parse(readFileSync(join(folder, name), 'utf8'));
      } catch (error) {
        throw new Error(`${name} is not JSON`, { cause: error });
      }
      return { name, records: parseRecords(value, name) };
    });
}

/** Result folders are called `<date>-<machine>`. */
export function parseFolderName(folder: string): { date: string; machine: string } {
  const match = /^(\d{4}-\d{2}-\d{2})-(.+)$/.exec(basename(folder));
  if (match === null) {
    throw new Error(
      `${folder}: a result folder is called <date>-<machine>, 2026-01-31-epyc-2core say`,
    );
  }
  return { date: match[1]!, machine: match[2]! };
}
