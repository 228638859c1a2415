export { modelsError, modelsErrors } from './errors.js';
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
