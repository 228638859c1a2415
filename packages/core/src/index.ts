export * from './clock.js';
export * from './columns.js';
export * from './config.js';
export * from './errors.js';
export * from './hash.js';
export * from './ids.js';
export * from './logger.js';
export * from './rng.js';
