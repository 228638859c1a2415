import { type BinomialSample, checkSample, descendingOrder, requireBothClasses } from './sample.js';

/** Masses of the rows predicted at or above each distinct prediction, from the highest on. */
interface Step {
  readonly threshold: number;
  readonly hits: number;
  readonly misses: number;
}

function steps(
  sample: BinomialSample,
  curve: string,
): { steps: Step[]; hits: number; misses: number } {
  const checked = checkSample(sample);
  requireBothClasses(checked, curve);
  const { probability, positive, negative } = checked;
  const order = descendingOrder(probability);
  const out: Step[] = [];
  let hits = 0;
  let misses = 0;
  for (let start = 0; start < order.length; ) {
    const threshold = probability[order[start]!]!;
    const before = hits + misses;
    for (; start < order.length && probability[order[start]!] === threshold; start++) {
      hits += positive[order[start]!]!;
      misses += negative[order[start]!]!;
    }
    // Rows without mass are no step: a weight of 0 means that the row is not there.
    if (hits + misses > before) out.push({ threshold, hits, misses });
  }
  return { steps: out, hits, misses };
}

export interface RocPoint {
  /** Predictions from here on are called successes; Infinity for the first point. */
  readonly threshold: number;
  readonly falsePositiveRate: number;
  readonly truePositiveRate: number;
}

/**
 * ROC curve: one point per distinct prediction, from (0, 0) to (1, 1); the area under its chords is `areaUnderRoc`.
 * O(n log n). @throws WAGGLE_MEASUREMENT_SINGLE_CLASS and what `checkSample` throws
 */
export function rocCurve(sample: BinomialSample): RocPoint[] {
  const { steps: all, hits, misses } = steps(sample, 'the ROC curve');
  return [
    { threshold: Number.POSITIVE_INFINITY, falsePositiveRate: 0, truePositiveRate: 0 },
    ...all.map((s) => ({
      threshold: s.threshold,
      falsePositiveRate: s.misses / misses,
      truePositiveRate: s.hits / hits,
    })),
  ];
}

export interface PrecisionRecallPoint {
  readonly threshold: number;
  readonly recall: number;
  readonly precision: number;
}

/**
 * Precision and recall of "predicted at or above the threshold", recall ascending; summed as steps it is
 * `areaUnderPrecisionRecall`. O(n log n). @throws as `rocCurve`
 */
export function precisionRecallCurve(sample: BinomialSample): PrecisionRecallPoint[] {
  const { steps: all, hits } = steps(sample, 'the precision–recall curve');
  return all.map((s) => ({
    threshold: s.threshold,
    recall: s.hits / hits,
    precision: s.hits / (s.hits + s.misses),
  }));
}

export interface GainPoint {
  /** Share of the trials taken, those predicted highest first. */
  readonly share: number;
  /** Share of the successes among them. */
  readonly gain: number;
}

/** Cumulative gains from (0, 0) to (1, 1): how many of the successes lie in the best so many trials. O(n log n). @throws as `rocCurve` */
export function gainCurve(sample: BinomialSample): GainPoint[] {
  const { steps: all, hits, misses } = steps(sample, 'the gain curve');
  return [
    { share: 0, gain: 0 },
    ...all.map((s) => ({ share: (s.hits + s.misses) / (hits + misses), gain: s.hits / hits })),
  ];
}

export interface LiftPoint {
  readonly share: number;
  /** Success rate of that share over the rate of all. */
  readonly lift: number;
}

/** How many times the average rate the best so many trials have; ends at 1. O(n log n). @throws as `rocCurve` */
export function liftCurve(sample: BinomialSample): LiftPoint[] {
  return gainCurve(sample)
    .slice(1)
    .map(({ share, gain }) => ({ share, lift: gain / share }));
}
