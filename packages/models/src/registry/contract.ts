import { parseConfig, parseTimestampMs } from '@waggle/core';
import { type Static, Type } from 'typebox';
import { modelsError } from '../errors.js';
import { Lineage } from './manifest.js';

const strict = { additionalProperties: false } as const;
const Name = Type.String({ minLength: 1, maxLength: 256 });

/** Files of other tools that are known, and what each is stored as. */
export const FOREIGN_FILES = {
  'xgboost-json': 'model.xgboost.json',
  'xgboost-ubj': 'model.xgboost.ubj',
  lightgbm: 'model.lightgbm.txt',
  onnx: 'model.onnx',
  waggle: 'model.trees',
} as const;

export type ForeignFormat = keyof typeof FOREIGN_FILES;

const Feature = Type.Object(
  {
    name: Name,
    /** `category`: whole numbers from 0; both travel as float32. */
    dtype: Type.Union([Type.Literal('float32'), Type.Literal('category')]),
  },
  strict,
);

/**
 * What whoever trained a model elsewhere declares about it: how to feed it and what its answer means. Written by hand
 * or by the training script, kept beside the model, and held against every use.
 */
export const ModelContract = Type.Object(
  {
    contractVersion: Type.Literal(1),
    name: Type.String({ pattern: '^[a-z][a-z0-9_-]{0,63}$' }),
    format: Type.Union([
      Type.Literal('xgboost-json'),
      Type.Literal('xgboost-ubj'),
      Type.Literal('lightgbm'),
      Type.Literal('onnx'),
      Type.Literal('waggle'),
    ]),
    /** In the order of the model's columns. */
    features: Type.Array(Feature, { minItems: 1, maxItems: 65_536 }),
    /** Of the feature set that the rows came from. */
    featureSetFingerprint: Name,
    /** Parameters of that feature set that the rows were made with; a release computes its features with the same. */
    featureParams: Type.Optional(Type.Record(Name, Type.Number())),
    /** `nan`: NaN means missing and the model knows what to do; `refuse`: a row with NaN is an error. */
    missing: Type.Union([Type.Literal('nan'), Type.Literal('refuse')]),
    output: Type.Object(
      {
        /** `raw`: the score before the transform; `count`: an expected number. */
        meaning: Type.Union([
          Type.Literal('probability'),
          Type.Literal('raw'),
          Type.Literal('count'),
        ]),
        /** Which of several outputs, the last one by default: class 1 of two. */
        column: Type.Optional(Type.Integer({ minimum: 0, maximum: 65_535 })),
      },
      strict,
    ),
    /** Column that is added to the logit: the logit of a prior that the model was trained around. */
    offsetFeature: Type.Optional(Name),
    /** Applied to the logit: p = σ(a·logit + b). */
    calibration: Type.Optional(Type.Object({ a: Type.Number(), b: Type.Number() }, strict)),
    /**
     * Of an ONNX file: its tensors, float32 [N, features] and [N] or [N, outputs]. With an offset or a calibration the output is the
     * logit that they are applied to.
     */
    tensors: Type.Optional(Type.Object({ input: Name, output: Name }, strict)),
    /** Rows (null = missing) and what the library that trained the model answers for them; checked at the import. */
    examples: Type.Optional(
      Type.Object(
        {
          rows: Type.Array(Type.Array(Type.Union([Type.Number(), Type.Null()])), {
            minItems: 1,
            maxItems: 10_000,
          }),
          outputs: Type.Array(Type.Number()),
          tolerance: Type.Number({ minimum: 0, default: 1e-5 }),
        },
        strict,
      ),
    ),
    /** Tool and version that trained it. */
    producer: Name,
    dataRange: Lineage.properties.dataRange,
    metrics: Type.Optional(Lineage.properties.metrics),
  },
  strict,
);

export type ForeignContract = Readonly<Static<typeof ModelContract>>;

/** What the side that serves has: a feature set. */
export interface ServedFeatures {
  readonly names: readonly string[];
  readonly fingerprint: string;
}

const mismatch = (message: string, details: Record<string, unknown> = {}) =>
  modelsError('WAGGLE_MODEL_CONTRACT_MISMATCH', message, { details });

/**
 * Checks an untrusted contract: shape, and that its parts agree with each other.
 * @throws WAGGLE_CONFIG_INVALID naming every wrong key, WAGGLE_MODEL_CONTRACT_MISMATCH
 */
export function parseContract(input: unknown, source: string): ForeignContract {
  const contract = parseConfig(ModelContract, input, source);
  const names = contract.features.map((f) => f.name);
  const repeated = names.find((name, i) => names.indexOf(name) !== i);
  if (repeated !== undefined) throw mismatch(`${source}: feature ${repeated} is listed twice`);
  const { offsetFeature, calibration, output, tensors, format, examples, dataRange } = contract;
  const [fromMs, toMs] = [parseTimestampMs(dataRange.from), parseTimestampMs(dataRange.to)];
  if (fromMs === undefined || toMs === undefined || fromMs > toMs) {
    throw mismatch(
      `${source}: dataRange ${dataRange.from} … ${dataRange.to} is not two times of the calendar, the earlier one first`,
    );
  }
  if (offsetFeature !== undefined && !names.includes(offsetFeature)) {
    throw mismatch(`${source}: the offset ${offsetFeature} is not one of the features`);
  }
  if (
    (offsetFeature !== undefined || calibration !== undefined) &&
    output.meaning !== 'probability'
  ) {
    throw mismatch(`${source}: an offset and a calibration need output.meaning "probability"`);
  }
  if (tensors !== undefined && format !== 'onnx') {
    throw mismatch(`${source}: tensors belong to onnx files, not to ${format}`);
  }
  if (examples !== undefined) {
    if (examples.outputs.length !== examples.rows.length) {
      throw mismatch(
        `${source}: ${examples.rows.length} example rows and ${examples.outputs.length} outputs`,
      );
    }
    const odd = examples.rows.findIndex((row) => row.length !== names.length);
    if (odd >= 0) {
      throw mismatch(
        `${source}: example row ${odd} has ${examples.rows[odd]!.length} values for ${names.length} features`,
      );
    }
  }
  return contract;
}

/**
 * Refuses to feed a model what it was not made for.
 * @throws WAGGLE_MODEL_CONTRACT_MISMATCH naming the first difference
 */
export function checkServed(contract: ForeignContract, served: ServedFeatures): void {
  const { name, features, featureSetFingerprint } = contract;
  if (features.length !== served.names.length) {
    throw mismatch(
      `${name} takes ${features.length} features; the feature set has ${served.names.length}`,
      { model: name },
    );
  }
  const at = features.findIndex((f, i) => f.name !== served.names[i]);
  if (at >= 0) {
    throw mismatch(
      `${name} takes ${features[at]!.name} in column ${at}; the feature set has ${served.names[at]} there`,
      { model: name, column: at },
    );
  }
  if (featureSetFingerprint !== served.fingerprint) {
    throw mismatch(
      `${name} was trained on feature set ${featureSetFingerprint}; this one is ${served.fingerprint}`,
      { model: name, expected: featureSetFingerprint, found: served.fingerprint },
    );
  }
}
