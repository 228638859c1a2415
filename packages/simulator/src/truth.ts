import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { asyncBufferFromFile, parquetMetadataAsync, parquetRead } from 'hyparquet';
import { simulatorError } from './errors.js';
import { HiddenOdds } from './hidden-odds.js';
import { TRUTH_TABLES, type TruthName } from './tables.js';
import { readManifest } from './write-world.js';

export { type ExpectedSend, expectedSend } from './expected-send.js';
export { HiddenOdds, type HiddenSend, type RanPlacements } from './hidden-odds.js';
export { TRUTH_TABLES, type TruthName } from './tables.js';

/** One truth table as columns. Times are UTC milliseconds, booleans 0 or 1. */
export interface TruthTable {
  readonly nRows: number;
  numbers(column: string): Float64Array;
  strings(column: string): readonly string[];
}

/**
 * Reads a table of a world's hidden truth. For evaluation only: nothing that trains, ranks or serves may
 * see it. O(rows × columns).
 * @throws WAGGLE_SIMULATOR_WORLD when the world has no such table or the file cannot be read
 */
export async function readTruth(directory: string, name: TruthName): Promise<TruthTable> {
  const path = join(directory, 'truth', `${name}.parquet`);
  if (!existsSync(path)) {
    throw simulatorError('WAGGLE_SIMULATOR_WORLD', `${path} does not exist`);
  }
  const numbers = new Map<string, Float64Array>();
  const strings = new Map<string, string[]>();
  let nRows = 0;
  try {
    const file = await asyncBufferFromFile(path);
    const metadata = await parquetMetadataAsync(file);
    nRows = Number(metadata.num_rows);
    for (const [column, kind] of TRUTH_TABLES[name].columns) {
      if (kind === 'dict' || kind === 'id' || kind === 'text') {
        strings.set(column, new Array<string>(nRows).fill(''));
      } else {
        numbers.set(column, new Float64Array(nRows));
      }
    }
    await parquetRead({
      file,
      metadata,
      onChunk: ({ columnName, columnData, rowStart }) => {
        const text = strings.get(columnName);
        const values = numbers.get(columnName);
        for (let i = 0; i < columnData.length; i++) {
          const value: unknown = columnData[i];
          if (text !== undefined) text[rowStart + i] = value as string;
          else if (values !== undefined) values[rowStart + i] = Number(value);
        }
      },
    });
  } catch (cause) {
    throw simulatorError('WAGGLE_SIMULATOR_WORLD', `${path} cannot be read`, { cause });
  }
  const missing = (column: string) =>
    simulatorError('WAGGLE_SIMULATOR_OPTION', `truth table ${name} has no such column: ${column}`);
  return {
    nRows,
    numbers(column) {
      const values = numbers.get(column);
      if (values === undefined) throw missing(column);
      return values;
    },
    strings(column) {
      const values = strings.get(column);
      if (values === undefined) throw missing(column);
      return values;
    },
  };
}

/**
 * Opens the odds of every ad that a written world could have shown, see `HiddenOdds`. About a second for
 * `demo`.
 * @throws WAGGLE_SIMULATOR_WORLD
 */
export async function readHiddenOdds(directory: string): Promise<HiddenOdds> {
  const { config } = readManifest(directory);
  const placements = await readTruth(directory, 'placements');
  return new HiddenOdds(config, {
    publicationIds: placements.strings('publication_id'),
    campaignIds: placements.strings('campaign_id'),
    sentAtMs: placements.numbers('sent_at'),
  });
}
