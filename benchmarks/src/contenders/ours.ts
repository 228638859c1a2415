import { setTimeout as sleep } from 'node:timers/promises';
import {
  type DeviceDtype,
  DeviceMatrix,
  type EncodedDtype,
  type EncodedMatrix,
  encodeMatrix,
  type Metric,
  probeMachine,
  type TopkResult,
  topk,
  topkEncoded,
} from '@waggle/native';
import { writeRaw } from '../data/files.js';
import { timerOvershootP99 } from './event-loop.js';
import { fitHandlers } from './ours-fit.js';
import { indexHandlers } from './ours-index.js';
import { ivfHandlers } from './ours-ivf.js';
import { rankHandlers } from './ours-rank.js';
import { treesHandlers } from './ours-trees.js';
import { resetPeak, residentBytes } from './process-memory.js';
import { type Handlers, timed } from './protocol.js';
import { Arrays, type LoadRequest } from './state.js';

interface TopkArgs {
  readonly queries: string;
  readonly matrix: string;
  readonly k: number;
  readonly metric?: Metric;
  /** Bitmap shared by the batch. */
  readonly filter?: string;
  /** One bitmap per query. */
  readonly filters?: string;
  readonly allowRows?: string;
  /** Only so many of the queries. */
  readonly first?: number;
  /** Files to be written: rows and scores. */
  readonly save?: string;
}

function save(prefix: string | undefined, { rows, scores }: TopkResult): void {
  if (prefix === undefined) return;
  writeRaw(`${prefix}.rows`, rows);
  writeRaw(`${prefix}.scores`, scores);
}

/** What our engine does for a benchmark, at the instruction set and on the device that the environment forced. */
export function ourHandlers(): Handlers {
  const arrays = new Arrays();
  return {
    ...fitHandlers(arrays),
    ...searchHandlers(arrays),
    ...indexHandlers(),
    ...ivfHandlers(arrays),
    ...treesHandlers(arrays),
    ...rankHandlers(),
  };
}

function searchHandlers(arrays: Arrays): Handlers {
  const encodings = new Map<EncodedDtype, EncodedMatrix>();
  const onDevice = new Map<DeviceDtype, DeviceMatrix>();
  const filterOf = ({ filter, filters, allowRows }: TopkArgs) => ({
    filter: filter === undefined ? undefined : arrays.u8(filter),
    filters: filters === undefined ? undefined : arrays.u8(filters),
    allowRows: allowRows === undefined ? undefined : arrays.i32(allowRows),
  });
  return {
    load: (o: LoadRequest) => arrays.load(o),
    drop: ({ name }: { name: string }) => arrays.drop(name),
    topk: async (o: TopkArgs) => {
      const queries = arrays.f32(o.queries);
      const matrix = arrays.f32(o.matrix);
      const { ms, value } = await timed(() =>
        topk({
          queries: queries.data,
          nQueries: Math.min(queries.rows, o.first ?? queries.rows),
          matrix: matrix.data,
          nRows: matrix.rows,
          dim: matrix.cols,
          k: o.k,
          metric: o.metric ?? 'ip',
          ...filterOf(o),
        }),
      );
      save(o.save, value);
      return { ms };
    },
    encode: async (o: { matrix: string; dtype: EncodedDtype }) => {
      const { data: matrix, rows: nRows, cols: dim } = arrays.f32(o.matrix);
      const { dtype } = o;
      // As VectorIndex keeps it: of bf16 the floats are the other half.
      const lossless = dtype === 'bf16';
      const { ms, value } = await timed(() =>
        encodeMatrix({ matrix, nRows, dim, dtype, lossless }),
      );
      encodings.set(dtype, value);
      return { ms };
    },
    /** The certified answer: scanned in low precision, re-scored from the floats. */
    topkEncoded: async (o: TopkArgs & { dtype: EncodedDtype }) => {
      const encoded = encodings.get(o.dtype);
      if (encoded === undefined) throw new Error(`nothing was encoded as ${o.dtype}`);
      const queries = arrays.f32(o.queries);
      const matrix = arrays.f32(o.matrix);
      const { ms, value } = await timed(() =>
        topkEncoded({
          queries: queries.data,
          nQueries: queries.rows,
          encoded,
          matrix: encoded.lower === undefined ? matrix.data : undefined,
          k: o.k,
          metric: o.metric ?? 'ip',
          ...filterOf(o),
        }),
      );
      save(o.save, value);
      if (!value.certified) throw new Error('an answer with the floats at hand is not certified');
      return { ms, nRescored: value.nRescored };
    },
    deviceOpen: async (o: { matrix: string; dtype: DeviceDtype }) => {
      const { data: matrix, rows: nRows, cols: dim } = arrays.f32(o.matrix);
      const { ms, value } = await timed(() =>
        DeviceMatrix.open({ matrix, nRows, dim, dtype: o.dtype }),
      );
      onDevice.set(o.dtype, value);
      return { ms, deviceBytes: value.deviceBytes };
    },
    deviceTopk: async (o: { queries: string; k: number; dtype: DeviceDtype; save?: string }) => {
      const matrix = onDevice.get(o.dtype);
      if (matrix === undefined) throw new Error(`nothing is on the device as ${o.dtype}`);
      const queries = arrays.f32(o.queries);
      const { ms, value } = await timed(() =>
        matrix.topk({ queries: queries.data, nQueries: queries.rows, k: o.k, metric: 'ip' }),
      );
      save(o.save, value);
      return { ms };
    },
    probe: () => probeMachine(),
    /** Searches of about `searchMs` each, queued at once, and how late a timer comes meanwhile. */
    eventLoop: async (o: TopkArgs & { searches: number; searchMs: number }) => {
      const queries = arrays.f32(o.queries);
      const matrix = arrays.f32(o.matrix);
      const search = (nRows: number) =>
        topk({
          queries: queries.data,
          nQueries: queries.rows,
          matrix: matrix.data,
          nRows,
          dim: matrix.cols,
          k: o.k,
          metric: 'ip',
        });
      // As many rows as take that long.
      let nRows = Math.min(matrix.rows, 20_000);
      for (let tries = 0; tries < 3; tries++) {
        const { ms } = await timed(() => search(nRows));
        nRows = Math.max(o.k, Math.min(matrix.rows, Math.round((nRows * o.searchMs) / ms)));
      }
      const idleP99Ms = await timerOvershootP99(sleep(o.searches * o.searchMs));
      const searches = Promise.all(Array.from({ length: o.searches }, () => search(nRows)));
      const { ms, value: p99Ms } = await timed(() => timerOvershootP99(searches));
      return { p99Ms, idleP99Ms, ms };
    },
    /** What a search needs beside its inputs and outputs: peak of resident memory over what was there before. */
    scratch: async (o: TopkArgs) => {
      const queries = arrays.f32(o.queries);
      const matrix = arrays.f32(o.matrix);
      const nAnswers = queries.rows * o.k;
      const out = {
        scores: new Float32Array(nAnswers).fill(1),
        rows: new Int32Array(nAnswers).fill(1),
      };
      // Every page of the inputs is there, and nothing waits to be collected.
      const search = (nQueries: number) =>
        topk({
          queries: queries.data,
          nQueries,
          matrix: matrix.data,
          nRows: matrix.rows,
          dim: matrix.cols,
          k: o.k,
          metric: 'ip',
          ...(nQueries === queries.rows ? { out } : {}),
        });
      await search(1);
      resetPeak();
      const before = residentBytes().now;
      await search(queries.rows);
      return { scratchBytes: Math.max(0, residentBytes().peak - before) };
    },
  };
}
