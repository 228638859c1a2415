import { isWaggleError } from '@waggle/core';
import { areaUnderRoc } from '@waggle/measurement';
import type { GateCheck } from './gate.js';

/** A single feature that orders outcomes this well has seen them. */
export const LEAK_AUC = 0.98;

export interface LeakSuspect {
  readonly feature: string;
  /** Area under the ROC curve of the feature alone, the better direction. */
  readonly auc: number;
}

/**
 * Features whose own AUC against the label exceeds `LEAK_AUC` in either direction: nothing known before a send
 * tells its clicks that well. O(nFeatures · n log n). Empty when the labels are of one class.
 */
export function findLeaks(
  featureNames: readonly string[],
  x: Float32Array,
  nRows: number,
  successes: Float64Array,
  trials: Float64Array,
): LeakSuspect[] {
  const nFeatures = featureNames.length;
  const rank = new Float64Array(nRows);
  const suspects: LeakSuspect[] = [];
  for (let f = 0; f < nFeatures; f++) {
    let least = Number.POSITIVE_INFINITY;
    let greatest = Number.NEGATIVE_INFINITY;
    for (let i = 0; i < nRows; i++) {
      const v = x[i * nFeatures + f]!;
      least = Math.min(least, v);
      greatest = Math.max(greatest, v);
    }
    if (!(least < greatest)) continue;
    // AUC only sees order; scaled into [0, 1] a feature passes as a probability.
    for (let i = 0; i < nRows; i++) {
      rank[i] = Math.min(1, Math.max(0, (x[i * nFeatures + f]! - least) / (greatest - least)));
    }
    try {
      const area = areaUnderRoc({ probability: rank, successes, trials });
      const auc = Math.max(area, 1 - area);
      if (auc > LEAK_AUC) suspects.push({ feature: featureNames[f]!, auc });
    } catch (thrown) {
      if (isWaggleError(thrown) && /_(SINGLE_CLASS|EMPTY)$/.test(thrown.code)) return [];
      throw thrown;
    }
  }
  return suspects;
}

/** The gate's check that no feature alone tells the outcomes, which it then has seen. @param told of what was found */
export function noLeakCheck(
  leaks: readonly LeakSuspect[],
  told: (leaks: readonly LeakSuspect[]) => string,
): GateCheck {
  return {
    name: 'no_leak',
    passed: leaks.length === 0,
    value: leaks.length,
    limit: 0,
    explanation:
      leaks.length === 0
        ? `no feature alone orders the outcomes with AUC above ${LEAK_AUC}`
        : told(leaks),
  };
}
