import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { type BenchRecord, parseRecords } from '../record.js';
import type { RankingFigure } from './cost.js';

export interface ResultFile {
  readonly name: string;
  readonly records: readonly BenchRecord[];
}

/** Every result of a folder, by file name. @throws Error naming a file that is not in the record format */
export function readResults(folder: string): ResultFile[] {
  return readJsonFiles(folder).map(({ name, value }) => ({
    name,
    records: parseRecords(value, name),
  }));
}

function readJsonFiles(folder: string): { name: string; value: unknown }[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith('.json'))
    .sort()
    .map((name) => {
      try {
        return { name, value: JSON.parse(readFileSync(join(folder, name), 'utf8')) as unknown };
      } catch (error) {
        throw new Error(`${name} is not JSON`, { cause: error });
      }
    });
}

/** Whether `native_bench` and its like filled the folder on a machine without Node: it is called `<machine>-<date>`. */
export const isNativeFolder = (folder: string): boolean =>
  /^.+-\d{4}-\d{2}-\d{2}$/.test(basename(folder));

/** The figures among what such a folder's files hold: they name no machine, so they are no records. */
export function readNativeFigures(folder: string): RankingFigure[] {
  const isFigure = (one: unknown): one is RankingFigure => {
    const { suite, case: id, metric, value } = (one ?? {}) as Record<string, unknown>;
    return [suite, id, metric].every((x) => typeof x === 'string') && typeof value === 'number';
  };
  return readJsonFiles(folder).flatMap(({ value }) =>
    Array.isArray(value) ? value.filter(isFigure) : [],
  );
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
