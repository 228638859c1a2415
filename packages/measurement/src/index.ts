export * from './errors.js';
export * from './intervals.js';
export {
  type CalibrationBin,
  type CalibrationRatio,
  calibrationCurve,
  calibrationRatio,
  expectedCalibrationError,
} from './metrics/calibration.js';
export * from './metrics/curves.js';
export * from './metrics/discrimination.js';
export * from './metrics/forecast.js';
export * from './metrics/log-loss.js';
export * from './metrics/multiclass.js';
export * from './metrics/ranking-quality.js';
export * from './metrics/reliability.js';
export type { BinomialSample } from './metrics/sample.js';
export * from './plots/index.js';
export {
  metricDifferenceInterval,
  metricInterval,
  type SampleMetric,
  type WeightedSample,
} from './resampling.js';
export * from './slices.js';
