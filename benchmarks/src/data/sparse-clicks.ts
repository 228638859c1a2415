import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { hashFeatures, type SparseRows, type SparseTargets } from '@waggle/native';
import { FastRandom } from './vectors.js';

/** One entry per field. */
export interface SparseClicks extends SparseRows, SparseTargets {
  readonly nFeatures: number;
  readonly nFields: number;
}

/** Two ids that decide together, then what stands beside them. */
export const CARDINALITIES = [
  400, 250, 24, 7, 12, 5, 40, 3, 60, 9, 2, 100, 15, 30, 4, 8, 500, 20, 6, 50,
] as const;
/** Dimensions of the taste of a publication's readers and of a campaign's appeal. */
const TASTES = 3;

const BITS = 18;
/** The wide set has more ids per field: their weights do not stay in a cache. */
const MORE_IDS = 50;

/**
 * Clicks at newsletter rates (2 to 3 %): logit = base + effect of the publication + effect of the campaign + their
 * match + small effects of the other fields. The match is a product of normal vectors, of variance 1 and, by
 * construction, without a part that either id explains alone: no linear model of the same one-hot fields can say it.
 * Ids are drawn with frequencies like 1/√rank, and hashed to 2¹⁸ buckets.
 */
export async function idPairClicks(
  nRows: number,
  seed: number,
  size: 'narrow' | 'wide',
): Promise<SparseClicks> {
  const cardinalities = size === 'wide' ? CARDINALITIES.map((n) => n * MORE_IDS) : CARDINALITIES;
  const truth = new FastRandom(seed, 0x74727574);
  const normals = (n: number, sd: number): Float64Array =>
    Float64Array.from({ length: n }, () => sd * truth.normal());
  const effects = cardinalities.map((n, f) => normals(n, f < 2 ? 0.5 : 0.08));
  const tastes = [0, 1].map((f) => normals(cardinalities[f]! * TASTES, TASTES ** -0.25));
  const rng = new FastRandom(seed, 0x726f7773);
  const columns = cardinalities.map(() => new Int32Array(nRows));
  const successes = new Float64Array(nRows);
  for (let i = 0; i < nRows; i++) {
    let logit = -4.3;
    for (const [f, n] of cardinalities.entries()) {
      const id = Math.floor((rng.uint32() / 2 ** 32) ** 2 * n);
      columns[f]![i] = id;
      logit += effects[f]![id]!;
    }
    const [publication, campaign] = [columns[0]![i]!, columns[1]![i]!];
    for (let d = 0; d < TASTES; d++) {
      logit += tastes[0]![publication * TASTES + d]! * tastes[1]![campaign * TASTES + d]!;
    }
    successes[i] = rng.uint32() / 2 ** 32 < 1 / (1 + Math.exp(-logit)) ? 1 : 0;
  }
  const hashed = await hashFeatures({
    nRows,
    columns: columns.map((values, f) => ({ field: `field ${f}`, values })),
    bits: BITS,
    count: false,
  });
  return { ...hashed, successes };
}

/** iPinYou's campaign 2997: one-hot fields of impressions and whether each was clicked; undefined where it is not. */
export function ipinyou(): SparseClicks | undefined {
  const folder =
    process.env['WAGGLE_DATA_DIR'] ||
    fileURLToPath(new URL('../../../../shared/data', import.meta.url));
  const path = join(folder, 'ipinyou', 'train.fm.txt.gz');
  if (!existsSync(path)) return undefined;
  const lines = gunzipSync(readFileSync(path)).toString('utf8').trim().split('\n');
  const rows = lines.map((line) => line.split(' '));
  const nFields = rows[0]!.length - 1;
  const indices = new Int32Array(rows.length * nFields);
  for (const [i, [, ...entries]] of rows.entries()) {
    if (entries.length !== nFields)
      throw new Error(`${path}: line ${i + 1} has ${entries.length} entries`);
    for (const [f, entry] of entries.entries())
      indices[i * nFields + f] = Number.parseInt(entry, 10);
  }
  return {
    nRows: rows.length,
    indptr: Int32Array.from({ length: rows.length + 1 }, (_, i) => i * nFields),
    indices,
    successes: Float64Array.from(rows, ([label]) => Number(label)),
    nFeatures: indices.reduce((most, index) => Math.max(most, index), 0) + 1,
    nFields,
  };
}

/** Rows [begin, end). */
export function sliceOf(clicks: SparseClicks, begin: number, end: number): SparseClicks {
  const from = clicks.indptr[begin]!;
  return {
    nRows: end - begin,
    indptr: clicks.indptr.slice(begin, end + 1).map((at) => at - from),
    indices: clicks.indices.slice(from, clicks.indptr[end]),
    successes: clicks.successes.slice(begin, end),
    nFeatures: clicks.nFeatures,
    nFields: clicks.nFields,
  };
}
