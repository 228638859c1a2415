import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { stringAt, stringData } from '@waggle/core';
import { numbers } from '@waggle/features';
import { openStoreOf } from '../local-store.js';
import { openScratch, removeScratch } from '../scratch.js';
import { dataFolder } from './vectors.js';

/** Headlines that were shown to random readers of a site, several for the same story. */
export interface HeadlineTests {
  readonly nArms: number;
  readonly headlines: readonly string[];
  /** [nArms] number of the test, in order of time. */
  readonly test: Int32Array;
  readonly nTests: number;
  /** [nArms] */
  readonly impressions: Float64Array;
  readonly clicks: Float64Array;
}

/** The first tests of the Upworthy Research Archive; undefined where the data is not installed. */
export async function readHeadlineTests(maxTests: number): Promise<HeadlineTests | undefined> {
  const file = join(dataFolder(), 'upworthy', 'upworthy_train.parquet');
  if (!existsSync(file)) return undefined;
  // Compressed by Zstandard: the store reads it, as it would a user's own file.
  const dir = openScratch('waggle-bench-headlines-');
  try {
    const store = await openStoreOf(dir);
    try {
      const table = await store.queryColumns(
        `SELECT clickability_test_id AS test, headline, toFloat64(impressions) AS impressions, toFloat64(clicks) AS clicks FROM file({file:String}, Parquet) ORDER BY test_week, test, headline`,
        { params: { file } },
      );
      const ids = stringData(table, 'test');
      const seen = new Map<string, number>();
      let nArms = 0;
      const test = new Int32Array(table.nRows);
      for (; nArms < table.nRows; nArms++) {
        const id = stringAt(ids, nArms);
        if (!seen.has(id) && seen.size === maxTests) break;
        if (!seen.has(id)) seen.set(id, seen.size);
        test[nArms] = seen.get(id)!;
      }
      const headlines = stringData(table, 'headline');
      return {
        nArms,
        headlines: Array.from({ length: nArms }, (_, i) => stringAt(headlines, i)),
        test: test.subarray(0, nArms),
        nTests: seen.size,
        impressions: Float64Array.from(numbers(table, 'impressions')).subarray(0, nArms),
        clicks: Float64Array.from(numbers(table, 'clicks')).subarray(0, nArms),
      };
    } finally {
      await store.close();
    }
  } finally {
    removeScratch(dir);
  }
}
