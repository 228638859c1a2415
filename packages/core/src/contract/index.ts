export * from './events.js';
export * from './rank.js';
