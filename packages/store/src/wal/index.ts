export * from './write-ahead-log.js';
