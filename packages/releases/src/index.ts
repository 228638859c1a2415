export { releaseErrors } from './errors.js';
export type { ReleaseFile, ReleaseManifest } from './manifest.js';
export { isReleaseId } from './manifest.js';
export type { Promotion } from './promotion-history.js';
export type { Release } from './release.js';
export { type ReleaseInput, releaseInMemory } from './release-input.js';
export type { ReleaseStoreOptions } from './release-store.js';
export { ReleaseStore } from './release-store.js';
