import { isWaggleError, silentLogger } from '@waggle/core';
import type { Runner } from '@waggle/models';
import { type ResolvedModel, type ResolveModelOptions, resolveModel } from '../model/resolve.js';
import type { Embedder } from './embedder.js';
import { hashedEmbedder } from './hashed-embedder.js';
import { transformerEmbedder } from './transformer-embedder.js';

export interface CreateEmbedderOptions extends ResolveModelOptions {
  /** Threads to run on. A function is called only when there is a model, and its runner closed with the embedder. */
  readonly runner: Runner | (() => Runner);
  /** Tokens per text. @default what the lock file says */
  readonly maxTokens?: number;
  /** Answer with hashed n-grams when no model can be had; otherwise throw. @default true */
  readonly fallback?: boolean;
}

/**
 * The embedder of this machine: the sentence transformer where it can be had, else hashed n-grams of the same
 * width, marked `degraded: 'hashed_embedder'` and logged as a warning.
 *
 * @throws WAGGLE_MODEL_FILE_REFUSED, WAGGLE_MODEL_UNAVAILABLE (without fallback), WAGGLE_MODEL_CACHE,
 *   WAGGLE_MODEL_LOCK_INVALID, WAGGLE_ABORTED
 */
export async function createEmbedder(options: CreateEmbedderOptions): Promise<Embedder> {
  let model: ResolvedModel;
  try {
    model = await resolveModel(options);
  } catch (error) {
    const missing = isWaggleError(error) && error.code === 'WAGGLE_MODEL_UNAVAILABLE';
    if (!missing || options.fallback === false) throw error;
    (options.logger ?? silentLogger).warn(
      { code: error.code, ...error.details, remedy: error.remedy },
      'no embedding model: hashed n-grams stand in, and everything made with them is marked degraded',
    );
    return hashedEmbedder();
  }
  const owned = typeof options.runner === 'function';
  const runner = typeof options.runner === 'function' ? options.runner() : options.runner;
  try {
    return await transformerEmbedder({
      model,
      runner,
      ownsRunner: owned,
      ...(options.maxTokens === undefined ? {} : { maxTokens: options.maxTokens }),
    });
  } catch (error) {
    if (owned) await runner.close();
    throw error;
  }
}
