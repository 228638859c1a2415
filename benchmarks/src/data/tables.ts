import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { dataFolder, FastRandom } from './vectors.js';

/** Rows as every trainer of trees takes them: a label 0 or 1 each, or successes of trials. */
export interface Table {
  readonly name: string;
  readonly nRows: number;
  readonly nFeatures: number;
  /** float32 [nRows × nFeatures], NaN = missing; categories are numbers from 0. */
  readonly x: Float32Array;
  readonly y: Float32Array;
  /** Of which `y` are successes; absent = 1 each. */
  readonly trials?: Float32Array;
  /** Rows of one number stay in one fold; absent = each row by itself. */
  readonly groups?: Uint32Array;
  /** Columns that hold categories. */
  readonly categorical: readonly number[];
}

const LEVELS = [3, 4, 6, 9, 14, 22, 35, 60, 110, 200] as const;
const NUMERIC = 40;

/**
 * Rows as an ad network has them: 40 numbers (a third normal, a third log-normal, the others counts, flags and shares,
 * some missing) and 10 categories of 3 to 200 levels, the frequent ones first. The truth is a smooth function of some,
 * steps of others, effects of categories, and products of pairs; every fifth row succeeds. Eleven numbers say nothing.
 */
export function clickTable(nRows: number, seed: number): Table {
  const nFeatures = NUMERIC + LEVELS.length;
  // The truth is the same for every seed: seeds are other rows of one world.
  const world = new FastRandom(1, 0x77_6f_72_6c);
  const effects = LEVELS.map((n) => Float64Array.from({ length: n }, () => 0.5 * world.normal()));
  const pair = Float64Array.from({ length: LEVELS[4] * LEVELS[6] }, () => 0.4 * world.normal());
  const slope = Float64Array.from({ length: 12 }, () => 0.3 * world.normal());
  const rng = new FastRandom(seed, 0x726f_7773);
  const uniform = (): number => (rng.uint32() + 0.5) * 2 ** -32;
  const x = new Float32Array(nRows * nFeatures);
  const y = new Float32Array(nRows);
  const row = new Float64Array(nFeatures);
  for (let r = 0; r < nRows; r++) {
    const shared = rng.normal();
    for (let f = 0; f < NUMERIC; f++) {
      const z = f % 4 === 0 ? 0.6 * shared + 0.8 * rng.normal() : rng.normal();
      row[f] =
        f < 14
          ? z
          : f < 27
            ? Math.exp(1.2 * z)
            : f < 33
              ? Math.floor(Math.exp(0.8 * z + 1))
              : f < 36
                ? Number(z > 0.8)
                : 1 / (1 + Math.exp(-z));
    }
    // Small numbers are frequent: u² makes level 0 come up in a share of 1/√n.
    for (const [c, n] of LEVELS.entries()) row[NUMERIC + c] = Math.floor(n * uniform() ** 2);
    let logit = -2.85;
    for (let f = 0; f < 12; f++) logit += slope[f]! * row[f]!;
    logit += 0.5 * Math.sin(2 * row[0]!) + 0.35 * row[1]! * row[2]! - 0.25 * row[3]! * row[3]!;
    logit += 0.4 * Math.log(row[14]!) - 0.2 * Number(row[15]! > 2) + 0.15 * Math.min(row[27]!, 8);
    logit += 0.5 * row[33]! * Number(row[5]! > 0) - 0.8 * row[36]! * row[37]!;
    for (const [c, effect] of effects.entries()) logit += effect[row[NUMERIC + c]!]!;
    logit += pair[row[NUMERIC + 4]! * LEVELS[6] + row[NUMERIC + 6]!]!;
    y[r] = uniform() < 1 / (1 + Math.exp(-logit)) ? 1 : 0;
    for (let f = 0; f < nFeatures; f++) {
      const missing = f < NUMERIC && f % 5 === 2 && uniform() < 0.07;
      x[r * nFeatures + f] = missing ? Number.NaN : row[f]!;
    }
  }
  const categorical = LEVELS.map((_, c) => NUMERIC + c);
  return { name: 'clicks', nRows, nFeatures, x, y, categorical };
}

interface PublicTable {
  readonly file: string;
  /** Names, or the number of columns of a file without a header. */
  readonly columns: readonly string[];
  readonly hasHeader: boolean;
  readonly label: (text: string) => boolean;
  readonly categorical: readonly string[];
}

const PUBLIC: Readonly<Record<string, PublicTable>> = {
  adult: {
    file: 'adult/adult.data.gz',
    columns:
      'age workclass fnlwgt education education-num marital-status occupation relationship race sex capital-gain capital-loss hours-per-week native-country income'.split(
        ' ',
      ),
    hasHeader: false,
    label: (text) => text.startsWith('>50K'),
    categorical:
      'workclass education marital-status occupation relationship race sex native-country'.split(
        ' ',
      ),
  },
  'online-shoppers': {
    file: 'online-shoppers/online-shoppers.csv.gz',
    columns: [],
    hasHeader: true,
    label: (text) => text === 'TRUE',
    categorical: 'Month OperatingSystems Browser Region TrafficType VisitorType Weekend'.split(' '),
  },
};

export const PUBLIC_TABLES = Object.keys(PUBLIC);

/** A public data set, its label last in each line; undefined where it is not there. */
export function publicTable(name: string): Table | undefined {
  const spec = PUBLIC[name]!;
  const path = join(dataFolder(), spec.file);
  if (!existsSync(path)) return undefined;
  const lines = gunzipSync(readFileSync(path))
    .toString('utf8')
    .split('\n')
    .map((line) => line.split(',').map((cell) => cell.trim()))
    .filter((cells) => cells.length > 1);
  const columns = spec.hasHeader ? lines.shift()! : spec.columns;
  const nFeatures = columns.length - 1;
  const categorical = spec.categorical.map((column) => columns.indexOf(column));
  const x = new Float32Array(lines.length * nFeatures);
  const y = new Float32Array(lines.length);
  const numbers = new Map(categorical.map((f) => [f, new Map<string, number>()]));
  for (const [r, cells] of lines.entries()) {
    if (cells.length !== columns.length)
      throw new Error(`${path}: row ${r} has ${cells.length} cells`);
    y[r] = spec.label(cells[nFeatures]!) ? 1 : 0;
    for (let f = 0; f < nFeatures; f++) {
      const cell = cells[f]!;
      const levels = numbers.get(f);
      let value = Number.NaN;
      if (cell !== '?' && cell !== '') {
        if (levels === undefined) value = Number(cell);
        else {
          if (!levels.has(cell)) levels.set(cell, levels.size);
          value = levels.get(cell)!;
        }
      }
      x[r * nFeatures + f] = value;
    }
  }
  return { name, nRows: lines.length, nFeatures, x, y, categorical };
}
