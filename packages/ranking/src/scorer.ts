import {
  checkServed,
  type ForeignContract,
  modelsError,
  type Runner,
  type ServedFeatures,
  tensor,
} from '@waggle/models';
import { type Calibration, calibrateLogit, sigmoid } from './calibration.js';
import { rankingError } from './errors.js';

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

/** What a model, linear or trees, says of its ONNX twin. */
interface Twinned {
  readonly version: string;
  readonly featureNames: readonly string[];
  readonly onnxSha256?: string;
}

/** How an ONNX file is fed and read. */
interface OnnxUse {
  readonly modelId: string;
  readonly version: string;
  readonly nFeatures: number;
  readonly input: string;
  readonly output: string;
  /** Of several outputs per row; undefined where the output is one number per row, [N] or [N, 1]. */
  readonly column: number | undefined;
  readonly nanIsMissing: boolean;
  readonly isProbability: boolean;
  /** Set where the output is a logit: what it is added to, and what follows. */
  readonly logit?: { readonly offset: number; readonly calibration: Calibration } | undefined;
}

/** Examples that a graph is asked for alone and in company. */
const COMPANY_ROWS = 64;

/**
 * An ONNX file, run by a model runner: the twin of a linear model, with the same probabilities to float32 precision, or
 * a model of another tool under its contract.
 */
export class OnnxScorer implements Scorer {
  readonly version: string;
  readonly nFeatures: number;
  /** What follows the graph; a calibration within it is not seen from here. */
  readonly calibration: Calibration;
  readonly #runner: Runner;
  readonly #use: OnnxUse;

  private constructor(runner: Runner, use: OnnxUse) {
    this.#runner = runner;
    this.#use = use;
    this.version = use.version;
    this.nFeatures = use.nFeatures;
    this.calibration = use.logit?.calibration ?? { kind: 'identity' };
  }

  /**
   * Loads the twin: input `features` float32 [N, F], output `probability` float32 [N], calibration included.
   * @param bytes the ONNX file; its SHA-256 must be the one that the model names
   * @throws WAGGLE_RANKING_MODEL_INVALID when the model names no twin; WAGGLE_MODEL_CORRUPT, WAGGLE_MODEL_INVALID,
   *   WAGGLE_MODEL_INPUT_MISMATCH
   */
  static async open(runner: Runner, model: Twinned, bytes: Uint8Array): Promise<OnnxScorer> {
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
    return new OnnxScorer(runner, {
      modelId: id,
      version: model.version,
      nFeatures: model.featureNames.length,
      input: 'features',
      output: 'probability',
      column: undefined,
      // A twin passes on what is not a number, and the answer's check names the row.
      nanIsMissing: true,
      isProbability: false,
    });
  }

  /**
   * Loads a model of another tool as its contract says: `tensors` names its input, float32 [N, features], and its
   * output, float32 [N] or [N, outputs]. With an offset or a calibration that output is a logit, and the answer
   * σ(calibration(output + x[offset])). Requests share a run only where the contract's examples show that a row's answer
   * is the same to the bit alone and in company: not with rows that are summed over, nor with dynamic quantisation.
   * @param served the feature set that will feed it; refused when the model was not made for it
   * @throws WAGGLE_MODEL_CONTRACT_MISMATCH, WAGGLE_MODEL_CORRUPT, WAGGLE_MODEL_INVALID, WAGGLE_MODEL_INPUT_MISMATCH
   */
  static async openForeign(
    runner: Runner,
    model: {
      readonly version: string;
      readonly contract: ForeignContract;
      readonly bytes: Uint8Array;
      readonly sha256: string;
    },
    served?: ServedFeatures,
  ): Promise<OnnxScorer> {
    const { contract, version, bytes, sha256 } = model;
    const fail = (why: string) =>
      modelsError('WAGGLE_MODEL_CONTRACT_MISMATCH', `${version}: ${why}`, {
        details: { model: version },
      });
    if (served !== undefined) checkServed(contract, served);
    const { tensors, output } = contract;
    if (tensors === undefined) throw fail('the contract of an ONNX file names its tensors');
    const { offsetFeature, calibration } = contract;
    const nFeatures = contract.features.length;
    const load = (modelId: string, batch: boolean) =>
      runner.load({
        id: modelId,
        bytes,
        sha256,
        batch,
        expected: { inputs: [{ name: tensors.input, dtype: 'float32', dims: [null, nFeatures] }] },
      });
    const id = `${version}:${sha256.slice(0, 12)}`;
    const signature = await load(id, false);
    const found = signature.outputs.find((each) => each.name === tensors.output);
    if (found === undefined) throw fail(`the file has no output ${tensors.output}`);
    const nOutputs = found.dims.length > 1 ? found.dims[1] : 1;
    if (found.dtype !== 'float32' || found.dims.length > 2 || typeof nOutputs !== 'number') {
      throw fail(
        `output ${tensors.output} is ${found.dtype} [${found.dims.join(', ')}], not float32 [N] or [N, outputs]`,
      );
    }
    const column = output.column ?? nOutputs - 1;
    if (column >= nOutputs || (output.column === undefined && nOutputs > 2)) {
      throw fail(`${nOutputs} outputs: output.column must say which one is meant`);
    }
    const use: OnnxUse = {
      modelId: id,
      version,
      nFeatures,
      input: tensors.input,
      output: tensors.output,
      column: nOutputs > 1 ? column : undefined,
      nanIsMissing: contract.missing === 'nan',
      isProbability: output.meaning === 'probability',
      logit:
        offsetFeature === undefined && calibration === undefined
          ? undefined
          : {
              offset: contract.features.findIndex(({ name }) => name === offsetFeature),
              calibration:
                calibration === undefined
                  ? { kind: 'identity' }
                  : { kind: 'platt', ...calibration },
            },
    };
    const alone = new OnnxScorer(runner, use);
    const rows = contract.examples?.rows.slice(0, COMPANY_ROWS) ?? [];
    const x = Float32Array.from(rows.flat(), (v) => v ?? Number.NaN);
    if (!(await alone.#mindsNoCompany(x, rows.length))) return alone;
    const modelId = `${id}:shared`;
    await load(modelId, true);
    return new OnnxScorer(runner, { ...use, modelId });
  }

  /** Whether rows get the same bits together, one alone, and the others among themselves. */
  async #mindsNoCompany(x: Float32Array, nRows: number): Promise<boolean> {
    if (nRows < 2) return false;
    const part = (from: number, to: number) =>
      this.score(x.subarray(from * this.nFeatures, to * this.nFeatures), to - from);
    const all = await part(0, nRows);
    const parts = [await part(0, 1), await part(1, nRows)];
    return parts.flatMap((p) => [...p]).every((v, r) => Object.is(v, all[r]));
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
    const { modelId, input, output, column, nanIsMissing, isProbability, logit } = this.#use;
    if (!nanIsMissing) {
      for (let i = 0; i < nValues; i++) {
        if (Number.isFinite(x[i])) continue;
        const row = Math.floor(i / this.nFeatures);
        throw this.#nan(row, `feature ${i % this.nFeatures} = ${x[i]}`);
      }
    }
    const features = tensor('float32', x.subarray(0, nValues), [nRows, this.nFeatures]);
    const answer = (await this.#runner.run(modelId, { [input]: features }, options))[output];
    const data = answer?.data;
    const width = column === undefined ? 1 : (answer?.dims[1] ?? 0);
    if (!(data instanceof Float32Array) || data.length !== nRows * width || width === 0) {
      throw rankingError(
        'WAGGLE_RANKING_SHAPE',
        `${this.version} answered ${data?.length ?? 'no'} values for ${nRows} rows`,
      );
    }
    const p =
      column === undefined
        ? data
        : Float32Array.from({ length: nRows }, (_, r) => data[r * width + column]!);
    for (let r = 0; r < nRows; r++) {
      if (logit !== undefined) {
        const prior = logit.offset < 0 ? 0 : x[r * this.nFeatures + logit.offset]!;
        p[r] = sigmoid(calibrateLogit(logit.calibration, p[r]! + prior));
      }
      if (!Number.isFinite(p[r])) throw this.#nan(r, 'has no answer');
      if (isProbability && !(p[r]! >= 0 && p[r]! <= 1)) {
        throw this.#nan(r, `${p[r]} is no probability`);
      }
    }
    return p;
  }

  #nan(row: number, what: string): Error {
    return rankingError('WAGGLE_RANKING_NAN', `${this.version}: row ${row}, ${what}`, {
      details: { row },
    });
  }
}
