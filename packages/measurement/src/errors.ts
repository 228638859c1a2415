import { defineErrors } from '@waggle/core';

const measurement = defineErrors({
  WAGGLE_MEASUREMENT_SHAPE: {
    summary: 'Columns of one sample have different lengths.',
    remedy: 'Pass columns with one entry per row, all of the same table.',
  },
  WAGGLE_MEASUREMENT_EMPTY: {
    summary: 'A metric was asked for a sample without rows, or whose rows carry no weight.',
    remedy: 'Widen the slice, or skip it before measuring.',
  },
  WAGGLE_MEASUREMENT_NOT_FINITE: {
    summary: 'A prediction, label, weight or score is NaN or infinite.',
    remedy: 'Find the row that the message names and correct what produced it.',
  },
  WAGGLE_MEASUREMENT_OUT_OF_RANGE: {
    summary:
      'A probability lies outside [0, 1], a count outside [0, trials], or a weight or gain is negative.',
    remedy: 'Correct the row that the message names; labels are counts of successes among trials.',
  },
  WAGGLE_MEASUREMENT_SINGLE_CLASS: {
    summary: 'The metric compares successes with failures and the sample has only one of them.',
    remedy: 'Use a longer window, or a metric that is defined for one class (log-loss, Brier).',
  },
  WAGGLE_MEASUREMENT_NO_RELEVANT: {
    summary: 'A ranking metric was asked for a query that has no relevant item.',
    remedy: 'Skip such queries; meanOverQueries does and says how many it skipped.',
  },
  WAGGLE_MEASUREMENT_TOO_FEW_CLUSTERS: {
    summary: 'An interval by cluster needs at least two clusters with rows.',
    remedy: 'Use more publications, or a longer window; one publication says nothing about others.',
  },
});

export const measurementErrors = measurement.specs;
export const measurementError = measurement.error;
