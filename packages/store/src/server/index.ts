export { type Standing, stepBack } from './background.js';
export { type LiveOwner, type Owner, readLiveOwner } from './owner-file.js';
export * from './store-server.js';
