import { createHash } from 'node:crypto';
import { canonicalJson } from '@waggle/core';
import {
  type Calibration,
  calibrate,
  calibrationFault,
  calibrationLine,
  sigmoid,
  sliceOfCalibration,
} from './calibration.js';
import { rankingError } from './errors.js';
import { type SelectionCalibration, selectionFault } from './selection-calibration.js';

/** A logistic model on raw features: logit = intercept + Σ coefficients[i]·x[i], then calibration. */
export interface LinearModel {
  readonly kind: 'linear_logistic';
  readonly name: LinearModelName;
  /** `<name>@<first 12 hex of the SHA-256 of everything else>`. */
  readonly version: string;
  readonly featureNames: readonly string[];
  /** Fingerprint of the feature set it was fitted on; a release with another one is refused. */
  readonly featureSetFingerprint: string;
  readonly coefficients: readonly number[];
  readonly intercept: number;
  readonly calibration: Calibration;
  /** Applied to the candidates of a slot after calibration. */
  readonly selection?: SelectionCalibration;
  /** True for the fallback that repeats the hierarchical prior. */
  readonly priorOnly: boolean;
  /** What it learned from: times in RFC 3339, row counts. Empty for a prior-only model. */
  readonly dataRange: Readonly<Record<string, unknown>>;
  /** The numbers it was gated on. */
  readonly metrics: Readonly<Record<string, unknown>>;
  /** SHA-256 of its ONNX twin, when one was exported. */
  readonly onnxSha256?: string;
}
export type LinearModelName = 'pctr' | 'accept' | 'sent';

/** What ranking needs to know of a feature set; `FeatureSet` of @waggle/features is one. */
export interface FeatureSetShape {
  /** `ctr`, `accept` or `sent`. */
  readonly name: string;
  readonly names: readonly string[];
  readonly fingerprint: string;
}

/** The feature that carries the empirical-Bayes prior as a logit, per feature set. */
export const PRIOR_FEATURE = {
  ctr: 'prior_logit_ctr',
  accept: 'prior_logit_accept',
  sent: 'prior_logit_sent',
} as const;
export const MODEL_OF_SET = { ctr: 'pctr', accept: 'accept', sent: 'sent' } as const;
export const SET_OF_MODEL = { pctr: 'ctr', accept: 'accept', sent: 'sent' } as const;

const isSetName = (name: string): name is keyof typeof MODEL_OF_SET =>
  Object.hasOwn(MODEL_OF_SET, name);
const MODEL_NAMES: readonly unknown[] = Object.values(MODEL_OF_SET);

/** The version string of a model: its name and the first 12 hex digits of its content's SHA-256. */
export function linearModelVersion(model: Omit<LinearModel, 'version'>): string {
  const { version: _, ...content } = model as LinearModel;
  return `${model.name}@${createHash('sha256').update(canonicalJson(content)).digest('hex').slice(0, 12)}`;
}

/** Adds the version to a finished model. */
export function sealLinearModel(model: Omit<LinearModel, 'version'>): LinearModel {
  return { ...model, version: linearModelVersion(model) };
}

/**
 * The model that repeats the prior: coefficient 1 on the set's prior logit, 0 elsewhere. Served until a
 * trained model passes its gate; answers carry `prior_only_model`.
 * @throws WAGGLE_RANKING_MODEL_INVALID when the set has no prior feature
 */
export function priorOnlyModel(set: FeatureSetShape): LinearModel {
  if (!isSetName(set.name)) {
    throw rankingError('WAGGLE_RANKING_MODEL_INVALID', `no model reads feature set ${set.name}`);
  }
  const index = set.names.indexOf(PRIOR_FEATURE[set.name]);
  if (index < 0) {
    throw rankingError(
      'WAGGLE_RANKING_MODEL_INVALID',
      `feature set ${set.name} has no feature ${PRIOR_FEATURE[set.name]}`,
    );
  }
  return sealLinearModel({
    kind: 'linear_logistic',
    name: MODEL_OF_SET[set.name],
    featureNames: [...set.names],
    featureSetFingerprint: set.fingerprint,
    coefficients: set.names.map((_, i) => (i === index ? 1 : 0)),
    intercept: 0,
    calibration: { kind: 'identity' },
    priorOnly: true,
    dataRange: {},
    metrics: {},
  });
}

/**
 * Checks an untrusted model file: shape, finite numbers, version equal to its content's hash.
 * @throws WAGGLE_RANKING_MODEL_INVALID naming what is wrong
 */
export function parseLinearModel(value: unknown): LinearModel {
  const fail = (why: string) => rankingError('WAGGLE_RANKING_MODEL_INVALID', `model file: ${why}`);
  if (typeof value !== 'object' || value === null) throw fail('not an object');
  const m = value as Record<string, unknown>;
  if (m['kind'] !== 'linear_logistic') throw fail(`unknown kind ${String(m['kind'])}`);
  if (!MODEL_NAMES.includes(m['name'])) throw fail(`unknown name ${String(m['name'])}`);
  if (!isTextArray(m['featureNames'])) throw fail('featureNames is not a list of strings');
  if (new Set(m['featureNames']).size !== m['featureNames'].length) {
    throw fail('featureNames repeat');
  }
  if (typeof m['featureSetFingerprint'] !== 'string')
    throw fail('featureSetFingerprint is missing');
  const coefficients = m['coefficients'];
  if (!Array.isArray(coefficients) || !coefficients.every(Number.isFinite)) {
    throw fail('coefficients are not finite numbers');
  }
  if (coefficients.length !== m['featureNames'].length) {
    throw fail(`${coefficients.length} coefficients for ${m['featureNames'].length} features`);
  }
  if (!Number.isFinite(m['intercept'])) throw fail('intercept is not a finite number');
  const fault = calibrationFault(m['calibration']);
  if (fault !== undefined) throw fail(`calibration ${fault}`);
  const crooked = selectionFault(m['selection']);
  if (crooked !== undefined) throw fail(`selection ${crooked}`);
  if (typeof m['priorOnly'] !== 'boolean') throw fail('priorOnly is missing');
  if (typeof m['dataRange'] !== 'object' || m['dataRange'] === null)
    throw fail('dataRange is missing');
  if (typeof m['metrics'] !== 'object' || m['metrics'] === null) throw fail('metrics are missing');
  const model = m as unknown as LinearModel;
  let expected: string;
  try {
    expected = linearModelVersion(model);
  } catch (cause) {
    throw rankingError('WAGGLE_RANKING_MODEL_INVALID', 'model file: not plain JSON', { cause });
  }
  if (m['version'] !== expected) {
    throw fail(`version ${String(m['version'])} does not name its content (${expected})`);
  }
  return model;
}

function isTextArray(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'string');
}

/**
 * Calibrated probabilities of a linear model, summed in double precision.
 * @param x float32 [nRows × nFeatures], row-major, in the order of `featureNames`; borrowed
 * @param out float32 [≥ nRows]; allocated when absent
 * @returns float32 [nRows] in (0, 1), the same array as `out`; O(nRows·nFeatures)
 * @throws WAGGLE_RANKING_SHAPE, WAGGLE_RANKING_NAN
 */
export function predictLinear(
  model: LinearModel,
  x: Float32Array,
  nRows: number,
  out: Float32Array = new Float32Array(nRows),
): Float32Array {
  return new LinearScorer(model).scoreInto(x, nRows, out);
}

/** A linear model ready to score: coefficients with the calibration folded in. */
export class LinearScorer {
  readonly model: LinearModel;
  readonly version: string;
  readonly nFeatures: number;
  /**
   * Where the calibration is a line it is folded in: a·coefficient per feature and a·intercept + b, so that
   * p = sigmoid(offset + Σ w·x). Where it bends these are the model's own and it follows after the sum.
   */
  readonly weights: Float64Array;
  readonly offset: number;
  /** The calibration when it could not be folded in. */
  readonly #bend: Calibration | undefined;
  /** What slices it shifts by; then every call needs the slice of each row. */
  readonly slicedBy: string | undefined;

  constructor(model: LinearModel) {
    const line = calibrationLine(model.calibration);
    const { a, b } = line ?? { a: 1, b: 0 };
    this.#bend = line === undefined ? model.calibration : undefined;
    this.slicedBy = sliceOfCalibration(model.calibration);
    this.model = model;
    this.version = model.version;
    this.nFeatures = model.featureNames.length;
    this.weights = Float64Array.from(model.coefficients, (c) => a * c);
    this.offset = a * model.intercept + b;
  }

  /** As `scoreInto`, with the signature that every scorer has. */
  score(x: Float32Array, nRows: number): Promise<Float32Array> {
    try {
      return Promise.resolve(this.scoreInto(x, nRows, new Float32Array(nRows)));
    } catch (thrown) {
      return Promise.reject(thrown);
    }
  }

  /**
   * Calibrated probabilities, synchronously.
   * @param x float32 [nRows × nFeatures], row-major; borrowed
   * @param out float32 [≥ nRows], receives p
   * @param slices [≥ nRows] slice of each row, for a calibration that shifts by slice
   * @throws WAGGLE_RANKING_SHAPE, WAGGLE_RANKING_NAN; O(nRows·nFeatures)
   */
  scoreInto<T extends Float32Array | Float64Array>(
    x: Float32Array,
    nRows: number,
    out: T,
    slices?: readonly string[],
  ): T {
    this.#checkSlices(nRows, slices);
    const { nFeatures, weights, offset } = this;
    if (x.length < nRows * nFeatures || out.length < nRows) {
      throw rankingError(
        'WAGGLE_RANKING_SHAPE',
        `${nRows} rows need ${nRows * nFeatures} features and ${nRows} outputs, got ${x.length} and ${out.length}`,
      );
    }
    for (let r = 0, base = 0; r < nRows; r++, base += nFeatures) {
      let sum = offset;
      for (let f = 0; f < nFeatures; f++) sum += weights[f]! * x[base + f]!;
      if (!Number.isFinite(sum)) throw this.#nan(x, r);
      out[r] = this.#bend === undefined ? sigmoid(sum) : calibrate(this.#bend, sum, slices?.[r]);
    }
    return out;
  }

  /**
   * Probabilities of rows whose Σ weights·x is known already, see `weights`.
   * @param sums float64 [≥ nRows]; borrowed
   * @param out [≥ nRows], receives p; may be `sums`
   * @param slices [≥ nRows] slice of each row, for a calibration that shifts by slice
   * @throws WAGGLE_RANKING_SHAPE, WAGGLE_RANKING_NAN; O(nRows)
   */
  scoreSums<T extends Float32Array | Float64Array>(
    sums: Float64Array,
    nRows: number,
    out: T,
    slices?: readonly string[],
  ): T {
    this.#checkSlices(nRows, slices);
    if (sums.length < nRows || out.length < nRows) {
      throw rankingError(
        'WAGGLE_RANKING_SHAPE',
        `${nRows} rows need as many sums and outputs, got ${sums.length} and ${out.length}`,
      );
    }
    const { offset } = this;
    for (let r = 0; r < nRows; r++) {
      const logit = offset + sums[r]!;
      if (!Number.isFinite(logit)) {
        throw rankingError('WAGGLE_RANKING_NAN', `${this.version}: row ${r} sums to ${logit}`, {
          details: { row: r },
        });
      }
      out[r] =
        this.#bend === undefined ? sigmoid(logit) : calibrate(this.#bend, logit, slices?.[r]);
    }
    return out;
  }

  #checkSlices(nRows: number, slices: readonly string[] | undefined): void {
    if (this.slicedBy !== undefined && (slices === undefined || slices.length < nRows)) {
      throw rankingError(
        'WAGGLE_RANKING_SHAPE',
        `${this.version} shifts by ${this.slicedBy}: ${nRows} rows need as many slices, got ${slices?.length ?? 'none'}`,
      );
    }
  }

  #nan(x: Float32Array, row: number): Error {
    const { nFeatures } = this;
    let feature = 'the sum of the features';
    for (let f = 0; f < nFeatures; f++) {
      if (!Number.isFinite(x[row * nFeatures + f])) {
        feature = `feature ${this.model.featureNames[f]} = ${x[row * nFeatures + f]}`;
        break;
      }
    }
    return rankingError('WAGGLE_RANKING_NAN', `${this.version}: row ${row}, ${feature}`, {
      details: { row },
    });
  }
}
