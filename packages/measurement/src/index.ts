export * from './errors.js';
export * from './intervals.js';
export * from './metrics/calibration.js';
export * from './metrics/discrimination.js';
export * from './metrics/log-loss.js';
export * from './metrics/ranking-quality.js';
export type { BinomialSample } from './metrics/sample.js';
