import { type Runner, tensor } from '@waggle/models';
import { rankingError } from './errors.js';
import type { LinearModel } from './linear-model.js';

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

/** The ONNX twin of a linear model, run by a model runner: the same probabilities to float32 precision. */
export class OnnxScorer implements Scorer {
  readonly version: string;
  readonly nFeatures: number;
  readonly #runner: Runner;
  readonly #modelId: string;

  private constructor(runner: Runner, modelId: string, model: LinearModel) {
    this.#runner = runner;
    this.#modelId = modelId;
    this.version = model.version;
    this.nFeatures = model.featureNames.length;
  }

  /**
   * Loads the twin: input `features` float32 [N, F], output `probability` float32 [N], calibration included.
   * @param bytes the ONNX file; its SHA-256 must be the one that the model names
   * @throws WAGGLE_RANKING_MODEL_INVALID when the model names no twin; WAGGLE_MODEL_CORRUPT, WAGGLE_MODEL_INVALID,
   *   WAGGLE_MODEL_INPUT_MISMATCH
   */
  static async open(runner: Runner, model: LinearModel, bytes: Uint8Array): Promise<OnnxScorer> {
    const { onnxSha256 } = model;
    if (onnxSha256 === undefined) {
      throw rankingError('WAGGLE_RANKING_MODEL_INVALID', `${model.version} names no ONNX file`);
    }
    const id = `${model.version}:${onnxSha256.slice(0, 12)}`;
    await runner.load({
      id,
      bytes,
      sha256: onnxSha256,
      expected: {
        inputs: [{ name: 'features', dtype: 'float32', dims: [null, model.featureNames.length] }],
        outputs: [{ name: 'probability', dtype: 'float32', dims: [null] }],
      },
    });
    return new OnnxScorer(runner, id, model);
  }

  /** @throws WAGGLE_RANKING_SHAPE, WAGGLE_RANKING_NAN and the runner's errors */
  async score(
    x: Float32Array,
    nRows: number,
    options: { signal?: AbortSignal } = {},
  ): Promise<Float32Array> {
    const nValues = nRows * this.nFeatures;
    if (x.length < nValues) {
      throw rankingError(
        'WAGGLE_RANKING_SHAPE',
        `${nRows} rows need ${nValues} values, got ${x.length}`,
      );
    }
    if (nRows === 0) return new Float32Array(0);
    const features = tensor('float32', x.subarray(0, nValues), [nRows, this.nFeatures]);
    const { probability } = await this.#runner.run(this.#modelId, { features }, options);
    const p = probability?.data;
    if (!(p instanceof Float32Array) || p.length !== nRows) {
      throw rankingError(
        'WAGGLE_RANKING_SHAPE',
        `${this.version} answered ${p?.length ?? 'no'} rows for ${nRows}`,
      );
    }
    for (let r = 0; r < nRows; r++) {
      if (!Number.isFinite(p[r])) {
        throw rankingError('WAGGLE_RANKING_NAN', `${this.version}: row ${r} has no probability`, {
          details: { row: r },
        });
      }
    }
    return p;
  }
}
