import type { HierarchicalNSW } from 'hnswlib-node';
import { writeRaw } from '../data/files.js';
import { type Handlers, timed } from './protocol.js';
import { Arrays, type LoadRequest } from './state.js';

/**
 * hnswlib-node: one thread, plain arrays of numbers in and out (its interface takes nothing else; they are made before
 * the clock starts).
 */
export async function hnswHandlers(): Promise<Handlers> {
  const { default: hnswlib } = await import('hnswlib-node');
  const arrays = new Arrays();
  const lists = new Map<string, number[][]>();
  let index: HierarchicalNSW | undefined;
  const listsOf = (name: string): number[][] => {
    const known = lists.get(name);
    if (known !== undefined) return known;
    const { data, rows, cols } = arrays.f32(name);
    const made = Array.from({ length: rows }, (_, i) =>
      Array.from(data.subarray(i * cols, (i + 1) * cols)),
    );
    lists.set(name, made);
    return made;
  };
  return {
    load: (o: LoadRequest) => arrays.load(o),
    /** Rows are turned into lists one at a time, off the clock: a million lists of numbers would fill the heap. */
    build: (o: { matrix: string; m: number; efConstruction: number }) => {
      const { data, rows, cols } = arrays.f32(o.matrix);
      index = new hnswlib.HierarchicalNSW('ip', cols);
      index.initIndex(rows, o.m, o.efConstruction, 100);
      let ms = 0;
      for (let i = 0; i < rows; i++) {
        const point = Array.from(data.subarray(i * cols, (i + 1) * cols));
        const start = performance.now();
        index.addPoint(point, i);
        ms += performance.now() - start;
      }
      return { ms };
    },
    search: async (o: { queries: string; k: number; ef: number; save?: string }) => {
      if (index === undefined) throw new Error('no index is built');
      const points = listsOf(o.queries);
      const rows = new Int32Array(points.length * o.k).fill(-1);
      index.setEf(o.ef);
      const { ms } = await timed(() => {
        for (const [q, point] of points.entries()) {
          rows.set(index!.searchKnn(point, o.k).neighbors, q * o.k);
        }
      });
      if (o.save !== undefined) writeRaw(`${o.save}.rows`, rows);
      return { ms };
    },
  };
}
