import { Trees } from '@waggle/native';
import { writeRaw } from '../data/files.js';
import { type Handlers, timed } from './protocol.js';
import type { Arrays } from './state.js';

/** Tree ensembles; the model that was opened last predicts. */
export function treesHandlers(arrays: Arrays): Handlers {
  let trees: Trees | undefined;
  return {
    open: async (o: { path: string }) => {
      await trees?.close();
      trees = await Trees.load(o.path);
    },
    trees: async (o: { x: string; threads?: number; save?: string }) => {
      if (trees === undefined) throw new Error('no model is open');
      const model = trees;
      const { data: x, rows: nRows } = arrays.f32(o.x);
      const { ms, value } = await timed(() => model.predict({ x, nRows, threads: o.threads }));
      if (o.save !== undefined) writeRaw(o.save, value);
      return { ms };
    },
  };
}
