import {
  checkServed,
  type ForeignContract,
  modelsError,
  type ServedFeatures,
} from '@waggle/models';
import { TREES_SYNC_MAX_WORK, Trees, type TreesFormat, type TreesTransform } from '@waggle/native';
import { type Calibration, calibrateLogit, sigmoid } from './calibration.js';
import { rankingError } from './errors.js';
import type { Scorer } from './scorer.js';

export interface TreesScorerOptions {
  /** Names the model and its calibration. */
  readonly version: string;
  readonly featureNames: readonly string[];
  /** What the numbers are. @default probability */
  readonly meaning?: 'probability' | 'raw' | 'count' | undefined;
  /** Feature that is added to the logit: the logit of the prior that the trees were fitted around. */
  readonly offsetFeature?: string | undefined;
  /** Applied to the logit. @default identity */
  readonly calibration?: Calibration | undefined;
  /** Whether NaN means missing; else a row with NaN is an error. Infinity always is one. @default true */
  readonly nanIsMissing?: boolean | undefined;
  /** Which of several outputs. @default the last: class 1 of two */
  readonly column?: number | undefined;
}

/** Transforms whose outputs are what a meaning promises. */
const MEANINGS: Readonly<Record<'probability' | 'count', readonly TreesTransform[]>> = {
  probability: ['logistic', 'softmax', 'softmax-zero', 'two-logistic', 'complement', 'none'],
  count: ['exp', 'none', 'log1p-exp', 'signed-square'],
};

/**
 * Scores rows by a native tree ensemble: our own, or one of XGBoost, LightGBM or ONNX under a contract. With an offset
 * or a calibration p = σ(calibration(score + x[offset])) in float64, as `LinearScorer` has it; without, exactly what
 * `Trees.predict` says. The ensemble belongs to the scorer: `close` gives it back.
 */
export class TreesScorer implements Scorer {
  readonly version: string;
  readonly nFeatures: number;
  readonly featureNames: readonly string[];
  /** `probability` except where a contract says otherwise. */
  readonly meaning: 'probability' | 'raw' | 'count';
  readonly trees: Trees;
  readonly #column: number;
  readonly #nanIsMissing: boolean;
  /** Column of the offset, −1 without. */
  readonly #offset: number;
  readonly calibration: Calibration;
  /** Whether the logit is needed; else outputs are taken as they are. */
  readonly #fromLogit: boolean;
  readonly #steepness: number;

  /**
   * @throws WAGGLE_MODEL_CONTRACT_MISMATCH when the ensemble cannot be scored so: another number of features or outputs,
   *   a meaning that its transform does not give, an offset without a logit
   */
  constructor(trees: Trees, o: TreesScorerOptions) {
    const fail = (why: string): Error =>
      modelsError('WAGGLE_MODEL_CONTRACT_MISMATCH', `${o.version}: ${why}`, {
        details: { model: o.version },
      });
    this.trees = trees;
    this.version = o.version;
    this.featureNames = o.featureNames;
    this.nFeatures = trees.nFeatures;
    this.meaning = o.meaning ?? 'probability';
    this.#nanIsMissing = o.nanIsMissing ?? true;
    this.#offset = o.offsetFeature === undefined ? -1 : o.featureNames.indexOf(o.offsetFeature);
    this.calibration = o.calibration ?? { kind: 'identity' };
    this.#fromLogit =
      o.offsetFeature !== undefined || (o.calibration?.kind ?? 'identity') !== 'identity';
    if (o.featureNames.length !== trees.nFeatures) {
      throw fail(`the trees take ${trees.nFeatures} features, not ${o.featureNames.length}`);
    }
    if (o.offsetFeature !== undefined && this.#offset < 0) {
      throw fail(`the offset ${o.offsetFeature} is not one of the features`);
    }
    const { transform, transformParameter } = trees.dump();
    this.#steepness = transformParameter;
    const { meaning } = this;
    if (meaning !== 'raw' && !MEANINGS[meaning].includes(transform)) {
      throw fail(`output "${meaning}" cannot come from a model whose transform is ${transform}`);
    }
    if (this.#fromLogit && (meaning !== 'probability' || transform !== 'logistic')) {
      throw fail(
        `an offset or a calibration needs probabilities of a logistic model; this one is ${transform}`,
      );
    }
    const nOutputs = meaning === 'raw' || this.#fromLogit ? trees.nTargets : trees.nOutputs;
    if (o.column === undefined && nOutputs > 2) {
      throw fail(`the model has ${nOutputs} outputs: say which column is meant`);
    }
    this.#column = o.column ?? nOutputs - 1;
    if (this.#column >= nOutputs) {
      throw fail(`column ${this.#column} of ${nOutputs} outputs`);
    }
  }

  /**
   * Opens a model of another tool as its contract says, and holds the contract's examples against it.
   * @param served the feature set that will feed it; refused when the model was not made for it
   * @throws WAGGLE_NATIVE_MODEL, WAGGLE_MODEL_CONTRACT_MISMATCH, WAGGLE_RANKING_EXAMPLES
   */
  static async open(
    model: {
      readonly version: string;
      readonly contract: ForeignContract;
      readonly bytes: Uint8Array;
    },
    served?: ServedFeatures,
  ): Promise<TreesScorer> {
    const { contract, version, bytes } = model;
    if (served !== undefined) checkServed(contract, served);
    const trees = await Trees.load(bytes, { format: contract.format satisfies TreesFormat });
    try {
      const scorer = new TreesScorer(trees, {
        version,
        featureNames: contract.features.map((f) => f.name),
        meaning: contract.output.meaning,
        column: contract.output.column,
        offsetFeature: contract.offsetFeature,
        calibration:
          contract.calibration === undefined
            ? undefined
            : { kind: 'platt', ...contract.calibration },
        nanIsMissing: contract.missing === 'nan',
      });
      await checkExamples(scorer, contract);
      return scorer;
    } catch (error) {
      await trees.close();
      throw error;
    }
  }

  /**
   * @param x float32 [nRows × nFeatures], row-major, NaN = missing where the model allows it; borrowed until settled
   * @returns float32 [nRows] of what `meaning` says
   * @throws WAGGLE_RANKING_SHAPE, WAGGLE_RANKING_NAN (also for Infinity, and for a "probability" outside [0, 1]),
   *   WAGGLE_NATIVE_CLOSED, WAGGLE_ABORTED
   */
  async score(
    x: Float32Array,
    nRows: number,
    options: { signal?: AbortSignal } = {},
  ): Promise<Float32Array> {
    this.#check(x, nRows);
    const { trees, meaning } = this;
    const raw = meaning === 'raw' || this.#fromLogit;
    const found = await trees.predict({ x, nRows, raw, signal: options.signal });
    const nOutputs = raw ? trees.nTargets : trees.nOutputs;
    return this.#finish(
      x,
      nRows,
      found,
      nOutputs,
      nOutputs === 1 ? found : new Float32Array(nRows),
    );
  }

  /**
   * As `score`, on the calling thread and into `out`: for the candidates of one request.
   * @param x float32 [nRows × nFeatures], row-major; borrowed
   * @param out [≥ nRows]
   * @throws as `score`; O(nRows · trees · depth)
   */
  scoreInto<T extends Float32Array | Float64Array>(x: Float32Array, nRows: number, out: T): T {
    if (out.length < nRows) {
      throw rankingError(
        'WAGGLE_RANKING_SHAPE',
        `${nRows} rows need as many outputs, got ${out.length}`,
      );
    }
    this.#check(x, nRows);
    const { trees, meaning, nFeatures } = this;
    const raw = meaning === 'raw' || this.#fromLogit;
    const nOutputs = raw ? trees.nTargets : trees.nOutputs;
    const most = Math.max(1, Math.floor(TREES_SYNC_MAX_WORK / Math.max(trees.nTrees, 1)));
    for (let from = 0; from < nRows; from += most) {
      const n = Math.min(most, nRows - from);
      const part = x.subarray(from * nFeatures, (from + n) * nFeatures);
      const found = trees.predictSync({ x: part, nRows: n, raw });
      this.#finish(part, n, found, nOutputs, out.subarray(from, from + n) as T);
    }
    return out;
  }

  /** Gives the ensemble's memory back, after what runs. */
  close(): Promise<void> {
    return this.trees.close();
  }

  #check(x: Float32Array, nRows: number): void {
    const { nFeatures } = this;
    const nValues = nRows * nFeatures;
    if (x.length < nValues) {
      throw rankingError(
        'WAGGLE_RANKING_SHAPE',
        `${nRows} rows need ${nValues} values, got ${x.length}`,
      );
    }
    for (let i = 0; i < nValues; i++) {
      if (Number.isFinite(x[i]) || (this.#nanIsMissing && Number.isNaN(x[i]))) continue;
      throw this.#nan(
        Math.floor(i / nFeatures),
        `feature ${this.featureNames[i % nFeatures]} = ${x[i]}`,
      );
    }
    if (this.#offset < 0) return;
    // A prior that is missing is no prior.
    for (let r = 0; r < nRows; r++) {
      const prior = x[r * nFeatures + this.#offset];
      if (Number.isNaN(prior))
        throw this.#nan(r, `offset ${this.featureNames[this.#offset]} = NaN`);
    }
  }

  #finish<T extends Float32Array | Float64Array>(
    x: Float32Array,
    nRows: number,
    found: Float32Array,
    nOutputs: number,
    out: T,
  ): T {
    const isProbability = this.meaning === 'probability';
    for (let r = 0; r < nRows; r++) {
      let value = found[r * nOutputs + this.#column]!;
      if (this.#fromLogit) {
        const prior = this.#offset < 0 ? 0 : x[r * this.nFeatures + this.#offset]!;
        value = sigmoid(calibrateLogit(this.calibration, this.#steepness * value + prior));
      }
      if (isProbability && !(value >= 0 && value <= 1)) {
        throw this.#nan(r, `${value} is no probability`);
      }
      out[r] = value;
    }
    return out;
  }

  #nan(row: number, what: string): Error {
    return rankingError('WAGGLE_RANKING_NAN', `${this.version}: row ${row}, ${what}`, {
      details: { row },
    });
  }
}

/**
 * Holds the contract's examples against a scorer, whatever runs the model: columns in another order, another output or
 * a transform left out would show.
 * @throws WAGGLE_RANKING_EXAMPLES naming the row that is furthest off
 */
export async function checkExamples(scorer: Scorer, contract: ForeignContract): Promise<void> {
  const { examples } = contract;
  if (examples === undefined) return;
  const x = Float32Array.from(examples.rows.flat(), (v) => v ?? Number.NaN);
  const found = await scorer.score(x, examples.rows.length);
  let worst = { row: -1, off: 0 };
  for (const [row, expected] of examples.outputs.entries()) {
    const off = Math.abs(found[row]! - expected);
    if (off > worst.off) worst = { row, off };
  }
  if (worst.off <= examples.tolerance) return;
  const { row, off } = worst;
  throw rankingError(
    'WAGGLE_RANKING_EXAMPLES',
    `${scorer.version}: example row ${row} should give ${examples.outputs[row]} and gives ${found[row]}`,
    { details: { row, difference: off, tolerance: examples.tolerance } },
  );
}
