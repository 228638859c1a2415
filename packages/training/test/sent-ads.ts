import { DAY_MS, stringColumn } from '@waggle/core';
import { ctrFeatures, type EntityVectors } from '@waggle/features';
import type { TrainingDataset } from '../src/index.js';
import { START_MS } from './synthetic.js';

/** Where a feature of pCTR stands in a row. */
export const at = (name: string) => ctrFeatures.names.indexOf(name);

/** Final rows of 40 days, one after the other; creatives are named like their campaigns. */
export function sentAds(o: {
  readonly x: Float32Array;
  readonly successes: Float64Array;
  readonly trials: Float64Array;
  readonly publications: readonly string[];
  readonly campaigns: readonly string[];
}): TrainingDataset {
  const nRows = o.successes.length;
  return {
    nRows,
    x: o.x,
    featureNames: ctrFeatures.names,
    decisionTsMs: Float64Array.from(
      { length: nRows },
      (_, i) => START_MS + (i / nRows) * 40 * DAY_MS,
    ),
    successes: o.successes,
    trials: o.trials,
    maturity: new Float64Array(nRows).fill(1),
    publication: stringColumn(o.publications),
    campaign: stringColumn(o.campaigns),
    creative: stringColumn(o.campaigns),
    rowIds: stringColumn(Array.from({ length: nRows }, (_, i) => `plc_${i}`)),
  };
}

/** Vectors of `<prefix>_0`, `<prefix>_1`, … */
export const vectorsOf = (prefix: string, rows: readonly Float64Array[]): EntityVectors => ({
  model: 'test',
  dim: rows[0]!.length,
  rowOf: new Map(rows.map((_, i) => [`${prefix}_${i}`, i])),
  vectors: Float32Array.from(rows.flatMap((row) => [...row])),
});

/** A random direction that lies mostly along the first few of its dimensions. */
export const unitRow = (dim: number, main: number, normal: () => number): Float64Array => {
  const row = Float64Array.from({ length: dim }, (_, d) => (d < main ? 2 : 0.15) * normal());
  const norm = Math.hypot(...row);
  return row.map((v) => v / norm);
};

/** Pearson's. */
export function correlation(a: ArrayLike<number>, b: ArrayLike<number>): number {
  const n = a.length;
  const mean = (v: ArrayLike<number>) => Array.from(v).reduce((s, x) => s + x, 0) / n;
  const [ma, mb] = [mean(a), mean(b)];
  let [ab, aa, bb] = [0, 0, 0];
  for (let i = 0; i < n; i++) {
    ab += (a[i]! - ma) * (b[i]! - mb);
    aa += (a[i]! - ma) ** 2;
    bb += (b[i]! - mb) ** 2;
  }
  return ab / Math.sqrt(aa * bb);
}
