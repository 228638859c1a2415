import { treesFit } from '@waggle/native';
import { writeRaw } from '../data/files.js';
import { resetPeak, residentBytes } from './process-memory.js';
import { type Handlers, timed } from './protocol.js';
import type { Arrays } from './state.js';

/** Settings that all three libraries have, by our names. */
export interface FitSettings {
  readonly nTrees: number;
  readonly maxLeaves: number;
  readonly learningRate: number;
  readonly maxBins: number;
  readonly minChildWeight: number;
  readonly minChildRows: number;
  readonly l2: number;
  readonly seed: number;
  readonly threads: number;
}

interface Rows {
  readonly x: string;
  readonly y: string;
  readonly categorical: readonly number[];
  readonly settings: FitSettings;
}

/** Learning of tree ensembles. */
export function fitHandlers(arrays: Arrays): Handlers {
  return {
    /** Peak memory is counted from what the process has with its inputs loaded. */
    fit: async (o: Rows & { test: string; save: string }) => {
      const { data: x, rows: nRows, cols: nFeatures } = arrays.f32(o.x);
      const y = Float64Array.from(arrays.f32(o.y).data);
      const { categorical, settings } = o;
      resetPeak();
      const before = residentBytes().now;
      const rows = { x, nRows, nFeatures, y, categorical, ...settings };
      const { ms, value } = await timed(() => treesFit({ ...rows, objective: 'logistic' }));
      const { peak } = residentBytes();
      const test = arrays.f32(o.test);
      writeRaw(o.save, await value.trees.predict({ x: test.data, nRows: test.rows }));
      await value.trees.close();
      return { ms, bytes: peak - before };
    },
    /** Learns without each fold in turn, and predicts it: [nRows]. */
    crossFit: async (
      o: Rows & { trials?: string; folds: string; nFolds: number; save: string },
    ) => {
      const { data: x, rows: nRows, cols: nFeatures } = arrays.f32(o.x);
      const y = arrays.f32(o.y).data;
      const trials = o.trials === undefined ? undefined : arrays.f32(o.trials).data;
      const folds = arrays.u8(o.folds);
      const out = new Float32Array(nRows);
      for (let fold = 0; fold < o.nFolds; fold++) {
        const pick = (held: boolean) => {
          const rows: number[] = [];
          for (let r = 0; r < nRows; r++) if ((folds[r] === fold) === held) rows.push(r);
          const some = new Float32Array(rows.length * nFeatures);
          for (const [i, r] of rows.entries()) {
            some.set(x.subarray(r * nFeatures, (r + 1) * nFeatures), i * nFeatures);
          }
          return { rows, x: some };
        };
        const train = pick(false);
        const { trees } = await treesFit({
          x: train.x,
          nRows: train.rows.length,
          nFeatures,
          y: Float64Array.from(train.rows, (r) => y[r]!),
          ...(trials && { trials: Float64Array.from(train.rows, (r) => trials[r]!) }),
          objective: 'logistic',
          categorical: o.categorical,
          ...o.settings,
        });
        const held = pick(true);
        const p = await trees.predict({ x: held.x, nRows: held.rows.length });
        for (const [i, r] of held.rows.entries()) out[r] = p[i]!;
        await trees.close();
      }
      writeRaw(o.save, out);
      return {};
    },
  };
}
