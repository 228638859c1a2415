import {
  type BinomialSample,
  type CheckedSample,
  checkSample,
  requireBothClasses,
} from './sample.js';

/** Probabilities are kept this far from 0 and 1, so that one impossible event costs 34.5 nats and not infinity. */
export const PROBABILITY_FLOOR = 1e-15;

/** Loss of one row in nats, times its mass. Zero masses cost nothing at any probability. */
export function rowLogLoss(probability: number, positive: number, negative: number): number {
  const p = Math.min(Math.max(probability, PROBABILITY_FLOOR), 1 - PROBABILITY_FLOOR);
  let loss = 0;
  if (positive > 0) loss -= positive * Math.log(p);
  if (negative > 0) loss -= negative * Math.log1p(-p);
  return loss;
}

function meanLogLoss(sample: CheckedSample): number {
  let loss = 0;
  for (let i = 0; i < sample.nRows; i++) {
    loss += rowLogLoss(sample.probability[i]!, sample.positive[i]!, sample.negative[i]!);
  }
  return loss / (sample.totalPositive + sample.totalNegative);
}

/**
 * Mean negative log-likelihood per trial in nats (the binomial coefficient, which no model can change, left
 * out). Defined for one class. O(n).
 * @throws WAGGLE_MEASUREMENT_SHAPE, _NOT_FINITE, _OUT_OF_RANGE, _EMPTY
 */
export function logLoss(sample: BinomialSample): number {
  return meanLogLoss(checkSample(sample));
}

/**
 * Entropy in nats of a coin with the sample's own success rate: the loss of the best constant prediction.
 * 0 for one class. O(n).
 */
export function backgroundEntropy(sample: Omit<BinomialSample, 'probability'>): number {
  const probability = new Float64Array(sample.successes.length);
  const checked = checkSample({ ...sample, probability });
  return entropyOf(checked);
}

/**
 * Log-loss over background entropy: 1 = no better than the sample's base rate, 0 = perfect
 * (He et al., "Practical lessons from predicting clicks on ads at Facebook", 2014). O(n).
 * @throws WAGGLE_MEASUREMENT_SINGLE_CLASS, since the entropy is then 0
 */
export function normalisedEntropy(sample: BinomialSample): number {
  const checked = checkSample(sample);
  requireBothClasses(checked, 'normalised entropy');
  return meanLogLoss(checked) / entropyOf(checked);
}

/** Relative information gain, 1 − normalised entropy. Negative when worse than the base rate. */
export function relativeInformationGain(sample: BinomialSample): number {
  return 1 - normalisedEntropy(sample);
}

/**
 * Mean squared error per trial: Σ w·[s·(1−p)² + (n−s)·p²] / Σ w·n. O(n).
 * @throws WAGGLE_MEASUREMENT_SHAPE, _NOT_FINITE, _OUT_OF_RANGE, _EMPTY
 */
export function brierScore(sample: BinomialSample): number {
  const checked = checkSample(sample);
  let sum = 0;
  for (let i = 0; i < checked.nRows; i++) {
    const p = checked.probability[i]!;
    sum += checked.positive[i]! * (1 - p) * (1 - p) + checked.negative[i]! * p * p;
  }
  return sum / (checked.totalPositive + checked.totalNegative);
}

function entropyOf(sample: CheckedSample): number {
  const total = sample.totalPositive + sample.totalNegative;
  const rate = sample.totalPositive / total;
  return rowLogLoss(rate, rate, 1 - rate);
}
