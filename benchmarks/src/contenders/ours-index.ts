import { closeSync, openSync, readSync } from 'node:fs';
import { type VectorDtype, VectorIndex } from '@waggle/native';
import { residentBytes } from './process-memory.js';
import type { Handlers } from './protocol.js';

/** Rows that an index is given at a time. */
const PIECE_ROWS = 16_384;

/** What an index takes. */
export function indexHandlers(): Handlers {
  return {
    /** Resident memory of an index beside nothing else: rows come in pieces that are dropped again. */
    indexMemory: async (o: {
      path: string;
      rows: number;
      dim: number;
      dtype: VectorDtype;
      keepF32: boolean;
    }) => {
      const piece = new Float32Array(PIECE_ROWS * o.dim).fill(1);
      const before = residentBytes().now;
      const index = VectorIndex.create({
        dim: o.dim,
        metric: 'ip',
        idType: 'uint64',
        dtype: o.dtype,
        keepF32: o.keepF32,
      });
      const file = openSync(o.path, 'r');
      for (let from = 0; from < o.rows; from += PIECE_ROWS) {
        const n = Math.min(PIECE_ROWS, o.rows - from);
        const vectors = piece.subarray(0, n * o.dim);
        readSync(file, vectors, 0, vectors.byteLength, from * o.dim * 4);
        await index.upsert(
          BigUint64Array.from({ length: n }, (_, i) => BigInt(from + i)),
          vectors,
        );
      }
      closeSync(file);
      const bytes = residentBytes().now - before;
      const { total } = index.stats().bytes;
      await index.close();
      return { bytes, told: total };
    },
  };
}
