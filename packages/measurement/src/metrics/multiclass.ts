import { measurementError } from '../errors.js';
import { PROBABILITY_FLOOR } from './log-loss.js';
import { checkLength, finite, outOfRange } from './sample.js';

/** Predictions over several classes with the one that came true. */
export interface MultiClassSample {
  /** [nRows × nClasses], row-major, each in [0, 1], rows summing to 1. */
  readonly probability: ArrayLike<number>;
  readonly nClasses: number;
  /** [nRows] class numbers, 0 … nClasses − 1. */
  readonly labels: ArrayLike<number>;
  /** [nRows], ≥ 0; 1 when absent. Weight 2 means the same as the row standing there twice. */
  readonly weights?: ArrayLike<number> | undefined;
}

/** A row of probabilities in float32 may miss 1 by this. */
const SUM_TOLERANCE = 1e-5;

/** Visits the checked rows that carry weight and returns their total weight; O(n·k). */
function eachRow(
  sample: MultiClassSample,
  visit: (offset: number, label: number, weight: number) => void,
): number {
  const { probability, nClasses, labels, weights } = sample;
  if (!Number.isInteger(nClasses) || nClasses < 2) {
    throw measurementError(
      'WAGGLE_MEASUREMENT_OUT_OF_RANGE',
      `nClasses is ${nClasses}, allowed is a whole number from 2`,
    );
  }
  const nRows = labels.length;
  checkLength('probability', probability, nRows * nClasses);
  if (weights !== undefined) checkLength('weights', weights, nRows);
  let mass = 0;
  for (let i = 0; i < nRows; i++) {
    const label = finite('labels', labels, i);
    if (!Number.isInteger(label) || label < 0 || label >= nClasses) {
      throw outOfRange('labels', i, label, `a class from 0 to ${nClasses - 1}`);
    }
    let sum = 0;
    for (let at = i * nClasses, end = at + nClasses; at < end; at++) {
      const p = finite('probability', probability, at);
      if (p < 0 || p > 1) throw outOfRange('probability', at, p, '0 … 1');
      sum += p;
    }
    if (Math.abs(sum - 1) > SUM_TOLERANCE) {
      throw outOfRange('probability', i * nClasses, sum, `a row that sums to 1`);
    }
    const weight = weights === undefined ? 1 : finite('weights', weights, i);
    if (weight < 0) throw outOfRange('weights', i, weight, 'at least 0');
    if (weight === 0) continue;
    mass += weight;
    visit(i * nClasses, label, weight);
  }
  if (!(mass > 0)) {
    throw measurementError(
      'WAGGLE_MEASUREMENT_EMPTY',
      nRows === 0 ? 'the sample has no rows' : `none of ${nRows} rows has weight`,
    );
  }
  return mass;
}

/**
 * Mean −ln p of the class that came true, in nats. O(n·k).
 * @throws WAGGLE_MEASUREMENT_SHAPE, _NOT_FINITE, _OUT_OF_RANGE, _EMPTY
 */
export function multiClassLogLoss(sample: MultiClassSample): number {
  let loss = 0;
  const mass = eachRow(sample, (offset, label, weight) => {
    loss -= weight * Math.log(Math.max(sample.probability[offset + label]!, PROBABILITY_FLOOR));
  });
  return loss / mass;
}

/**
 * Brier's original score: the mean over rows of Σ_k (p_k − [k came true])², in [0, 2]; for two classes twice
 * `brierScore` (Brier 1950). O(n·k). @throws as `multiClassLogLoss`
 */
export function multiClassBrierScore(sample: MultiClassSample): number {
  let sum = 0;
  const mass = eachRow(sample, (offset, label, weight) => {
    for (let k = 0; k < sample.nClasses; k++) {
      sum += weight * (sample.probability[offset + k]! - (k === label ? 1 : 0)) ** 2;
    }
  });
  return sum / mass;
}

export interface ClassQuality {
  /** Of the rows predicted as this class, the share that are; null when none is predicted so. */
  readonly precision: number | null;
  /** Of the rows of this class, the share that is predicted so; null when there are none. */
  readonly recall: number | null;
  /** Harmonic mean of the two; null when the class neither occurs nor is predicted. */
  readonly f1: number | null;
  /** Weight of the rows of this class. */
  readonly support: number;
}

export interface ConfusionMatrix {
  readonly nClasses: number;
  /** float64 [nClasses × nClasses] weights, row = what came true, column = what was predicted. */
  readonly counts: Float64Array;
  readonly classes: readonly ClassQuality[];
  /** Share of the weight on the diagonal. */
  readonly accuracy: number;
  /** Mean F1 over the classes that have one. */
  readonly macroF1: number;
}

/** What was predicted (the likeliest class, the lower number winning ties) against what came true. O(n·k). @throws as `multiClassLogLoss` */
export function confusionMatrix(sample: MultiClassSample): ConfusionMatrix {
  const { nClasses, probability } = sample;
  const counts = new Float64Array(nClasses * nClasses);
  const mass = eachRow(sample, (offset, label, weight) => {
    let best = 0;
    for (let k = 1; k < nClasses; k++) {
      if (probability[offset + k]! > probability[offset + best]!) best = k;
    }
    counts[label * nClasses + best]! += weight;
  });
  let diagonal = 0;
  const classes = Array.from({ length: nClasses }, (_, k): ClassQuality => {
    const hits = counts[k * nClasses + k]!;
    let support = 0;
    let predicted = 0;
    for (let j = 0; j < nClasses; j++) {
      support += counts[k * nClasses + j]!;
      predicted += counts[j * nClasses + k]!;
    }
    diagonal += hits;
    return {
      precision: predicted > 0 ? hits / predicted : null,
      recall: support > 0 ? hits / support : null,
      f1: support + predicted > 0 ? (2 * hits) / (support + predicted) : null,
      support,
    };
  });
  const scored = classes.flatMap(({ f1 }) => (f1 === null ? [] : [f1]));
  return {
    nClasses,
    counts,
    classes,
    accuracy: diagonal / mass,
    macroF1: scored.reduce((sum, f1) => sum + f1, 0) / scored.length,
  };
}
