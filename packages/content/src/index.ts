export { type CreateEmbedderOptions, createEmbedder } from './embedding/create-embedder.js';
export type { Embedder, EmbedderStats, EmbedOptions } from './embedding/embedder.js';
export { hashedEmbedder } from './embedding/hashed-embedder.js';
export {
  DEFAULT_PACKING,
  type PackedBatch,
  type PackingLimits,
  packByLength,
  paddingWaste,
} from './embedding/packing.js';
export { MAX_PASSAGES, passageEmbedder, passagesOf } from './embedding/passage-embedder.js';
export { normalizeRow, poolMean } from './embedding/pooling.js';
export {
  type TransformerEmbedderOptions,
  transformerEmbedder,
} from './embedding/transformer-embedder.js';
export { contentError, contentErrors } from './errors.js';
export type { PackageDownloader } from './model/download.js';
export { committedLock, type ModelLock, parseModelLock } from './model/lock.js';
export {
  type ModelPlace,
  type ResolveAttempt,
  type ResolvedFile,
  type ResolvedModel,
  type ResolveModelOptions,
  resolveModel,
} from './model/resolve.js';
export { campaignText, creativeText, publicationText } from './text.js';
