import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';

export interface M4Series {
  readonly id: string;
  readonly train: Float64Array;
  readonly test: Float64Array;
}

/** Values of one competition file by id, ends of shorter rows left off. */
function readRows(path: string): Map<string, Float64Array> {
  const lines = gunzipSync(readFileSync(path)).toString('utf8').trimEnd().split('\n');
  return new Map(
    lines.slice(1).map((line) => {
      const [id, ...values] = line.trimEnd().replaceAll('"', '').split(',');
      const present = values.filter((v) => v !== '' && v !== 'NA');
      return [id!, Float64Array.from(present, Number)] as const;
    }),
  );
}

/** The hourly series of the M4 competition with their test parts; nothing where the data is not installed. */
export function readM4Hourly(): readonly M4Series[] | undefined {
  const folder = join(
    process.env['WAGGLE_DATA_DIR'] ||
      fileURLToPath(new URL('../../../../shared/data', import.meta.url)),
    'm4',
  );
  const trainFile = join(folder, 'Train', 'Hourly-train.csv.gz');
  const testFile = join(folder, 'Test', 'Hourly-test.csv.gz');
  if (!existsSync(trainFile) || !existsSync(testFile)) return undefined;
  const test = readRows(testFile);
  return [...readRows(trainFile)].map(([id, train]) => ({ id, train, test: test.get(id)! }));
}
