export { modelsError, modelsErrors } from './errors.js';
export {
  checkServed,
  FOREIGN_FILES,
  type ForeignContract,
  type ForeignFormat,
  parseContract,
  type ServedFeatures,
} from './registry/contract.js';
export { DurableFolder } from './registry/durable-folder.js';
export {
  checkFormat,
  detectFormat,
  type ForeignModel,
  openForeign,
  registerForeign,
} from './registry/foreign-model.js';
export type {
  ArtifactRef,
  ModelLineage,
  ModelManifest,
  PromotionRecord,
} from './registry/manifest.js';
export {
  ModelRegistry,
  type ModelRegistryOptions,
  type RegisteredModel,
  type RegisterRequest,
} from './registry/model-registry.js';
export * from './runner/inline-runner.js';
export * from './runner/onnx-runner.js';
export * from './runner/runner.js';
export {
  checkSignature,
  type ModelSignature,
  type TensorArrays,
  type TensorDtype,
  type TensorMap,
  type TensorSpec,
  type TensorValue,
  tensor,
} from './runner/tensor.js';
export { compiledFile } from './runner/worker-file.js';
export type { WorkerContext, WorkerHook, WorkerHookResult } from './worker/hook.js';
export type { ModelLocation } from './worker/messages.js';
export type { ModelSession } from './worker/sessions.js';
