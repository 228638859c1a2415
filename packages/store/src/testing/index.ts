export * from './temporary-store.js';
