import { defineErrors } from '@waggle/core';

const training = defineErrors({
  WAGGLE_TRAINING_SHAPE: {
    summary: 'The columns of a dataset do not fit together, or not to the feature set.',
    remedy: 'Build the dataset again with the feature set that the model is trained for.',
  },
  WAGGLE_TRAINING_NOT_FINITE: {
    summary: 'A feature, label or time of a dataset is NaN or infinite.',
    remedy: 'Give the named feature a default for missing values, then build the dataset again.',
  },
  WAGGLE_TRAINING_LABEL: {
    summary: 'A label lies outside 0 … trials, or a maturity outside (0, 1].',
    remedy:
      'Correct the events of the named decision: successes are unique verified events among trials, such as clicks among delivered emails.',
  },
  WAGGLE_TRAINING_TIME: {
    summary: 'A row was decided after the time that the dataset claims to describe.',
    remedy:
      'Build the dataset with an as-of time at or after its last decision; rows from the future leak.',
  },
  WAGGLE_TRAINING_DUPLICATE: {
    summary:
      'A dataset holds a decision twice; it would count double and stand on both sides of a split.',
    remedy:
      'Keep one row per decision, the latest; a join that multiplies rows is the usual cause.',
  },
  WAGGLE_TRAINING_TOO_FEW: {
    summary: 'There is hardly anything to learn from: too few rows, or outcomes of one kind only.',
    remedy: 'Wait for more matured outcomes or widen the window; the model that is active stays.',
  },
  WAGGLE_TRAINING_FIT_FAILED: {
    summary: 'The fit did not converge, or ended in coefficients that are not finite.',
    remedy:
      'Look for features on wild scales or a window with hardly any events; the prior stays served.',
  },
  WAGGLE_TRAINING_EXPORT_TOO_LARGE: {
    summary: 'A tree ensemble asks for more category tables than an ONNX file should hold.',
    remedy:
      'Number the categories of the named feature densely from 0, or group its rare levels, and train again.',
  },
  WAGGLE_TRAINING_EXPORT_MISMATCH: {
    summary: 'A model cannot be written as float32 ONNX without losing the stated accuracy.',
    remedy: 'Rescale the named feature; its coefficient or values overflow float32.',
  },
});

export const trainingErrors = training.specs;
export const trainingError = training.error;
