import type { Progress } from '@waggle/core';

export interface EmbedOptions {
  readonly signal?: AbortSignal;
  readonly progress?: Progress;
}

/** What embedding has cost since the embedder was made. */
export interface EmbedderStats {
  /** Texts asked for; equal texts of one call are computed once. */
  readonly texts: number;
  readonly uniqueTexts: number;
  readonly truncatedTexts: number;
  readonly tokens: number;
  /** Tokens computed, padding included. */
  readonly paddedTokens: number;
  /** 1 − tokens / paddedTokens. */
  readonly paddingWaste: number;
  readonly batches: number;
}

/** Texts to vectors. */
export interface Embedder {
  readonly dim: number;
  /** Vectors of different ids must not be compared. */
  readonly modelId: string;
  /** Set when a stand-in answers; every output made with it says so. */
  readonly degraded?: 'hashed_embedder';
  /**
   * @param texts any strings: '' and lone surrogates are allowed, long texts are cut to the model's length
   * @returns float32 [texts.length × dim], row-major, unit rows, owned by the caller
   * @throws WAGGLE_ABORTED, WAGGLE_EMBEDDER_CLOSED, WAGGLE_MODEL_*, WAGGLE_RUNNER_*
   */
  embed(texts: readonly string[], options?: EmbedOptions): Promise<Float32Array>;
  stats(): EmbedderStats;
  close(): Promise<void>;
}
