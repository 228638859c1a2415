import { areaByRank, DAY_MS } from '@waggle/core';
import { buildDataset, type DatasetOptions, decisionFeatures } from './dataset.js';
import type { FeatureSet } from './definition.js';
import { type FeatureStore, latestEmbeddingModel } from './feature-store.js';

export interface Leak {
  readonly feature: string;
  /**
   * `future`: the value changes when later events are deleted. `too_good`: the feature alone orders outcomes
   * almost perfectly, which a feature that knows only the past does not.
   */
  readonly kind: 'future' | 'too_good';
  readonly detail: string;
}

export interface LeakOptions extends DatasetOptions {
  /** Moments after which events are deleted. Default 3, spread over the decisions. */
  readonly probes?: number;
  /** Features whose AUC (or 1 − AUC) is above this are reported. Default 0.98. */
  readonly maxAuc?: number;
}

/** Decisions so long before a probe are compared: outcomes take three days to mature. */
const LOOK_BACK_MS = 4 * DAY_MS;
/** Deleting rows regroups sums of doubles and solvers start elsewhere; what counts are differences, not last bits. */
const TOLERANCE = 1e-5;

/**
 * Looks for features that know the future. At each probe all events and entity versions after the probe are
 * hidden, features of the decisions just before it are computed again, and must not have changed. Then each
 * feature's AUC against the outcome is checked. Costs two training statements per probe and one dataset.
 */
export async function findLeaks(
  store: FeatureStore,
  set: FeatureSet,
  options: LeakOptions,
): Promise<Leak[]> {
  const embeddingModel =
    options.embeddingModel ?? (await latestEmbeddingModel(store, options.tenantId, options.signal));
  const leaks: Leak[] = [];
  const reported = new Set<string>();
  const dataset = await buildDataset(store, set, { ...options, embeddingModel });
  const nProbes = options.probes ?? 3;
  for (let k = 1; k <= nProbes && dataset.nRows > 0; k++) {
    // A decision is taken one millisecond before it takes effect; the probe is that very moment.
    const at = Math.floor((dataset.nRows * k) / (nProbes + 1));
    const probeMs = dataset.decisionTsMs[at]! - 1;
    const range = {
      ...options,
      embeddingModel,
      fromMs: Math.max(options.fromMs, probeMs - LOOK_BACK_MS),
      toMs: probeMs + 2,
    };
    const known = await decisionFeatures(store, set, range);
    const without = await decisionFeatures(store, set, range, { untilMs: probeMs });
    const width = set.names.length;
    set.names.forEach((feature, f) => {
      if (reported.has(feature)) return;
      for (let i = f; i < known.length; i += width) {
        if (Math.abs(known[i]! - without[i]!) > TOLERANCE * (1 + Math.abs(known[i]!))) {
          reported.add(feature);
          leaks.push({
            feature,
            kind: 'future',
            detail: `${known[i]} with and ${without[i]} without the events after ${new Date(probeMs).toISOString()}`,
          });
          break;
        }
      }
    });
  }
  const limit = options.maxAuc ?? 0.98;
  const column = new Float64Array(dataset.nRows);
  const failures = dataset.trials.map((n, i) => n - dataset.successes[i]!);
  set.names.forEach((feature, f) => {
    for (let i = 0; i < dataset.nRows; i++) column[i] = dataset.x[i * set.names.length + f]!;
    const auc = areaByRank(column, dataset.successes, failures);
    // NaN, where nothing succeeded or nothing failed, gives nothing away.
    if (Math.max(auc, 1 - auc) > limit) {
      leaks.push({ feature, kind: 'too_good', detail: `AUC ${auc.toFixed(4)} by itself` });
    }
  });
  return leaks;
}
