export * from './calibration.js';
export * from './effects-model.js';
export { rankingErrors } from './errors.js';
export * from './feature-matrix.js';
export * from './linear-model.js';
export * from './payout-interval.js';
export * from './score-terms.js';
export * from './scorer.js';
export * from './trees-scorer.js';
