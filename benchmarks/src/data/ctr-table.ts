import { buildDataset, ctrFeatures } from '@waggle/features';
import { estimateCtrParams } from '@waggle/training';
import { withSimulatedWorld } from './simulated-world.js';
import type { Table } from './tables.js';

/**
 * What pCTR learns from in a simulated network: clicks of deliveries by placement, all its features. Only rows whose clicks have
 * all come, since no peer knows of maturity.
 */
export function ctrTable(name: string, scale: string, seed: number): Promise<Table> {
  return withSimulatedWorld({ scale, seed }, async ({ store, config }) => {
    const { tenantId, startMs, endMs } = config;
    const window = { tenantId, fromMs: startMs, toMs: endMs, asOfMs: endMs };
    const params = await estimateCtrParams(store, window);
    const all = await buildDataset(store, ctrFeatures, { ...window, params });
    const rows: number[] = [];
    for (let i = 0; i < all.nRows; i++) if (all.maturity[i] === 1) rows.push(i);
    const nFeatures = ctrFeatures.names.length;
    const x = new Float32Array(rows.length * nFeatures);
    for (const [r, i] of rows.entries()) {
      x.set(all.x.subarray(i * nFeatures, (i + 1) * nFeatures), r * nFeatures);
    }
    return {
      name,
      nRows: rows.length,
      nFeatures,
      x,
      y: Float32Array.from(rows, (i) => all.successes[i]!),
      trials: Float32Array.from(rows, (i) => all.trials[i]!),
      groups: Uint32Array.from(rows, (i) => all.publication.codes[i]!),
      categorical: [],
    };
  });
}
