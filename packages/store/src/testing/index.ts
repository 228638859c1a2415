export * from './store-contract.js';
export * from './temporary-store.js';
