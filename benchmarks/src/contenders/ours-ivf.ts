import { IvfIndex } from '@waggle/native';
import { writeRaw } from '../data/files.js';
import { type Handlers, timed } from './protocol.js';
import type { Arrays } from './state.js';

/** Approximate search over lists; the index that was built last is searched. */
export function ivfHandlers(arrays: Arrays): Handlers {
  let ivf: IvfIndex | undefined;
  return {
    ivfBuild: async (o: { matrix: string; heldOut?: string; recall: number; k: number }) => {
      await ivf?.close();
      const matrix = arrays.f32(o.matrix);
      const heldOut = o.heldOut === undefined ? undefined : arrays.f32(o.heldOut);
      const { ms, value } = await timed(() =>
        IvfIndex.build({
          matrix: matrix.data,
          nRows: matrix.rows,
          dim: matrix.cols,
          metric: 'ip',
          lists: 'int8',
          recall: o.recall,
          recallK: o.k,
          heldOut: heldOut?.data,
          nHeldOut: heldOut?.rows,
        }),
      );
      ivf = value;
      const { nProbe, nLists, bytes } = value.stats();
      return { ms, probes: nProbe, lists: nLists, bytes };
    },
    ivfSearch: async (o: {
      queries: string;
      k: number;
      probes?: number;
      /** Queries per call; all at once when absent. */
      batch?: number;
      first?: number;
      save?: string;
    }) => {
      if (ivf === undefined) throw new Error('no index is built');
      const index = ivf;
      const queries = arrays.f32(o.queries);
      const nQueries = Math.min(queries.rows, o.first ?? queries.rows);
      const batch = o.batch ?? nQueries;
      const rows = new Int32Array(nQueries * o.k);
      const { ms } = await timed(async () => {
        for (let from = 0; from < nQueries; from += batch) {
          const n = Math.min(batch, nQueries - from);
          const found = await index.search({
            queries: queries.data.subarray(from * queries.cols, (from + n) * queries.cols),
            nQueries: n,
            k: o.k,
            nProbe: o.probes,
          });
          rows.set(found.rows, from * o.k);
        }
      });
      if (o.save !== undefined) writeRaw(`${o.save}.rows`, rows);
      return { ms };
    },
  };
}
