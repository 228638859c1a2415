import { defineErrors } from '@waggle/core';

const retrieval = defineErrors({
  WAGGLE_RETRIEVAL_SHAPE: {
    summary: 'A vector, matrix or bitmap does not have the length that the index asks for.',
    remedy: 'Pass vectors of the dimension of the index and bitmaps over its rows.',
  },
});

export const retrievalErrors = retrieval.specs;
export const retrievalError = retrieval.error;
