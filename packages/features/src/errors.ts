import { defineErrors } from '@waggle/core';

const features = defineErrors({
  WAGGLE_FEATURES_DECLARATION: {
    summary: 'A feature is declared inconsistently.',
    remedy: 'Correct the declaration that the message names; the README shows a complete one.',
  },
  WAGGLE_FEATURES_FINGERPRINT: {
    summary: 'A feature snapshot or model was built from other feature declarations.',
    remedy:
      'Rebuild it with this version: run `waggle run`, or serve the release with the version that made it.',
  },
  WAGGLE_FEATURES_SNAPSHOT: {
    summary: 'A feature snapshot lacks a file, a column or an entity that its declarations need.',
    remedy: 'Rebuild the release with `waggle run`; never edit release files by hand.',
  },
  WAGGLE_FEATURES_PARAM: {
    summary: 'A feature parameter is unknown or not a finite number.',
    remedy: 'Pass only parameters that the feature set declares, each a finite number.',
  },
  WAGGLE_FEATURES_SHAPE: {
    summary:
      'An array given to feature evaluation does not have the length that its neighbours imply.',
    remedy:
      'Pass one campaign row and one creative row per candidate and an output of nCandidates × nFeatures.',
  },
});

export const featuresErrors = features.specs;
export const featuresError = features.error;
