import { defineErrors } from '@waggle/core';

const ranking = defineErrors({
  WAGGLE_RANKING_MODEL_INVALID: {
    summary: 'A model file does not have the shape that ranking reads.',
    remedy: 'Train and release the model again; roll back to a release that opens meanwhile.',
  },
  WAGGLE_RANKING_EXAMPLES: {
    summary: "A model does not answer its contract's examples as the library that trained it did.",
    remedy:
      'Compare order and units of the features, the output and the missing values in the contract with the training script.',
  },
  WAGGLE_RANKING_SHAPE: {
    summary: 'A feature matrix or a column does not have the length that its row count asks for.',
    remedy: 'Pass row-major [nRows × nFeatures] features in the order of the model.',
  },
  WAGGLE_RANKING_NAN: {
    summary: 'A model was given, or gave, a value that is not a number.',
    remedy: 'Build the feature snapshot again; the message names the row and the feature.',
  },
});

export const rankingErrors = ranking.specs;
export const rankingError = ranking.error;
