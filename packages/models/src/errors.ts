import { defineErrors } from '@waggle/core';

const models = defineErrors({
  WAGGLE_MODEL_NOT_FOUND: {
    summary: 'A model, version or artifact is not where it was looked for.',
    remedy: 'Check the name and version, or train, import or download the model again.',
  },
  WAGGLE_MODEL_CORRUPT: {
    summary: 'A model file or manifest does not match its checksum or cannot be read.',
    remedy:
      'Train, import or download the model again, which makes a damaged artifact whole; delete any other file that is named.',
  },
  WAGGLE_MODEL_INVALID: {
    summary: 'A model file is not something the ONNX runtime can load.',
    remedy: 'Export the model again; the message carries the reason of the runtime.',
  },
  WAGGLE_MODEL_INPUT_MISMATCH: {
    summary:
      'Names, types or shapes of the tensors differ from what the model declares or the caller expects.',
    remedy:
      'Compare the inputs in the message with the declared signature, or use the model they were made for.',
  },
  WAGGLE_MODEL_CONTRACT_MISMATCH: {
    summary: 'A model and what feeds or describes it do not fit: features, fingerprint, output.',
    remedy:
      'Serve it with the feature set it was trained on, or correct the contract; the message names the difference.',
  },
  WAGGLE_MODEL_FORMAT: {
    summary:
      'A model file is not of the format that its contract declares, or of none that is known.',
    remedy:
      'Save the model again as XGBoost JSON or UBJSON, LightGBM text or ONNX, and name that format in the contract.',
  },
  WAGGLE_MODEL_RUN_FAILED: {
    summary: 'The ONNX runtime failed while it ran a model.',
    remedy:
      'Check the values and shapes of the inputs; the message carries the reason of the runtime.',
  },
  WAGGLE_MODEL_STORAGE: {
    summary: 'The model registry could not read or write its folder.',
    remedy:
      'Free space on the disk and make the named folder writable, then try again; nothing was half-applied.',
  },
  WAGGLE_RUNNER_QUEUE_FULL: {
    summary: 'The bounded queue of a model runner is full.',
    remedy: 'Send fewer requests at a time, raise maxQueue or add workers.',
  },
  WAGGLE_RUNNER_CLOSED: {
    summary: 'A model runner was used after close().',
    remedy: 'Keep the runner open for as long as it is used.',
  },
  WAGGLE_RUNNER_WORKER_LOST: {
    summary: 'A worker thread ended while it ran a task.',
    remedy: 'Try again: the pool starts a new worker. If it repeats, give the process more memory.',
  },
  WAGGLE_RUNNER_WORKER_MISSING: {
    summary: 'The compiled worker file of the model runner does not exist.',
    remedy: 'Build the packages first: npm run build.',
  },
  WAGGLE_RUNNER_HOOK_FAILED: {
    summary: 'A function that was sent to a worker thread threw something that carries no code.',
    remedy: 'Read the message: it is that of the function itself.',
  },
});

export const modelsErrors = models.specs;
export const modelsError = models.error;
