import { defineErrors } from '@waggle/core';

const content = defineErrors({
  WAGGLE_MODEL_UNAVAILABLE: {
    summary: 'The embedding model was found in no folder and could not be downloaded.',
    remedy:
      'Put model.onnx and tokenizer.json of models.lock.json into a folder and name it in WAGGLE_MODEL_DIR, or connect to the network once.',
  },
  WAGGLE_MODEL_FILE_REFUSED: {
    summary: 'A model file in the folder that was named does not match the committed SHA-256.',
    remedy: 'Replace the file by the one that models.lock.json lists, or unset WAGGLE_MODEL_DIR.',
  },
  WAGGLE_MODEL_CACHE: {
    summary: 'The folder for downloaded models could not be written.',
    remedy:
      'Free space on the disk, make the folder writable, or name another one in WAGGLE_CACHE_DIR.',
  },
  WAGGLE_MODEL_LOCK_INVALID: {
    summary: 'The lock file of the embedding models cannot be read.',
    remedy: 'Restore packages/content/models.lock.json from the repository.',
  },
  WAGGLE_EMBEDDER_TOKENIZER: {
    summary: 'The tokenizer file is not a tokenizer that this build understands.',
    remedy: 'Use the tokenizer.json that models.lock.json lists.',
  },
  WAGGLE_EMBEDDER_CLOSED: {
    summary: 'An embedder was used after close().',
    remedy: 'Keep the embedder open for as long as it is used.',
  },
});

export const contentErrors = content.specs;
export const contentError = content.error;
