export * from './calibration.js';
export { rankingErrors } from './errors.js';
export * from './linear-model.js';
