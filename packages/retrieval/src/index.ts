export * from './bit-set.js';
export * from './eligibility-index.js';
export { retrievalErrors } from './errors.js';
export * from './exact-index.js';
export * from './explain-filters.js';
export * from './flight-index.js';
