/** Anything that turns feature rows into calibrated probabilities. */
export interface Scorer {
  /** Names the model and its calibration. */
  readonly version: string;
  readonly nFeatures: number;
  /**
   * @param x float32 [nRows × nFeatures], row-major; borrowed until settled
   * @returns float32 [nRows] in [0, 1]
   */
  score(x: Float32Array, nRows: number, options?: { signal?: AbortSignal }): Promise<Float32Array>;
}
