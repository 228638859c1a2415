import { type ColumnTable, encodeColumns, numericColumn } from '@waggle/core';
import type { Dataset, FeatureSet } from '@waggle/features';
import { learnableUntil } from '@waggle/training';
import { parquetWriteBuffer } from 'hyparquet-writer';

/** Rows of a feature set as a file: Parquet where the name says so, else a column file. */
export function datasetFile(
  path: string,
  o: { readonly set: FeatureSet; readonly rows: Dataset; readonly asOfMs: number },
): Uint8Array {
  return /\.parquet$/i.test(path) ? asParquet(o) : encodeColumns(asColumns(o));
}

type Rows = Parameters<typeof datasetFile>[1];

function feature({ rows }: Rows, f: number): Float32Array {
  const width = rows.featureNames.length;
  return Float32Array.from({ length: rows.nRows }, (_, i) => rows.x[i * width + f]!);
}

const IDS = {
  row_id: 'rowIds',
  publication_id: 'publication',
  campaign_id: 'campaign',
  creative_id: 'creative',
} as const;
const NUMBERS = {
  decision_ts_ms: 'decisionTsMs',
  successes: 'successes',
  trials: 'trials',
  maturity: 'maturity',
} as const;

function asColumns(o: Rows): ColumnTable {
  const { rows, set, asOfMs } = o;
  return {
    nRows: rows.nRows,
    meta: { set: set.name, fingerprint: set.fingerprint, as_of_ms: asOfMs },
    columns: {
      ...Object.fromEntries(
        set.names.map((name, f) => [name, numericColumn('f32', feature(o, f))]),
      ),
      ...Object.fromEntries(Object.entries(IDS).map(([name, from]) => [name, rows[from]])),
      ...Object.fromEntries(
        Object.entries(NUMBERS).map(([name, from]) => [name, numericColumn('f64', rows[from])]),
      ),
    },
  };
}

/** Key `waggle` of the file's metadata is JSON: what a contract of a model trained on it has to say. */
function asParquet(o: Rows): Uint8Array {
  const { rows, set, asOfMs } = o;
  const { learnUntilMs, gateFromMs } = learnableUntil(rows.decisionTsMs);
  const iso = (ms: number) => new Date(Number.isNaN(ms) ? asOfMs : ms).toISOString();
  const about = {
    set: set.name,
    fingerprint: set.fingerprint,
    features: set.names,
    params: rows.params,
    embedding_model: rows.embeddingModel,
    from: iso(rows.decisionTsMs[0] ?? asOfMs),
    to: iso(asOfMs),
    // Later rows are left for the gate; a model that saw them is judged on later ones still.
    learn_until: iso(learnUntilMs),
    gate_from: iso(gateFromMs),
  };
  return new Uint8Array(
    parquetWriteBuffer({
      columnData: [
        ...set.names.map((name, f) => ({ name, data: feature(o, f), type: 'FLOAT' as const })),
        ...Object.entries(IDS).map(([name, from]) => ({
          name,
          data: Array.from(rows[from].codes, (code) => rows[from].dictionary[code]!),
          type: 'STRING' as const,
        })),
        ...Object.entries(NUMBERS).map(([name, from]) => ({
          name,
          data: rows[from],
          type: 'DOUBLE' as const,
        })),
      ],
      kvMetadata: [{ key: 'waggle', value: JSON.stringify(about) }],
    }),
  );
}
