import { createHash } from 'node:crypto';
import { canonicalJson } from '@waggle/core';
import { Trees } from '@waggle/native';
import { type Calibration, calibrationFault, sliceOfCalibration } from './calibration.js';
import { rankingError } from './errors.js';
import {
  type LinearModel,
  type LinearModelName,
  parseLinearModel,
  sealLinearModel,
} from './linear-model.js';
import { type SelectionCalibration, selectionFault } from './selection-calibration.js';
import { TreesScorer } from './trees-scorer.js';

/**
 * A tree ensemble on the raw features of a set: logit = score + x[offset], then calibration. The ensemble is a file of its
 * own, named by its hash.
 */
export interface TreesModel {
  readonly kind: 'trees_logistic';
  readonly name: LinearModelName;
  /** `<name>@<first 12 hex of the SHA-256 of everything else>`. */
  readonly version: string;
  readonly featureNames: readonly string[];
  readonly featureSetFingerprint: string;
  /** Feature that is added to the logit: the prior that the trees were fitted around. */
  readonly offsetFeature: string;
  readonly calibration: Calibration;
  /** Applied to the candidates of a slot after calibration. */
  readonly selection?: SelectionCalibration;
  /** A prior alone is a linear model. */
  readonly priorOnly: false;
  /** SHA-256 of the ensemble, `Trees.toBytes`. */
  readonly treesSha256: string;
  readonly dataRange: Readonly<Record<string, unknown>>;
  readonly metrics: Readonly<Record<string, unknown>>;
  /** SHA-256 of its ONNX twin, when one was exported. */
  readonly onnxSha256?: string;
}

/** What a release may serve as the model of a decision. */
export type HeadModel = LinearModel | TreesModel;

function versionOf(model: Omit<TreesModel, 'version'>): string {
  const { version: _, ...content } = model as TreesModel;
  return `${model.name}@${createHash('sha256').update(canonicalJson(content)).digest('hex').slice(0, 12)}`;
}

/** Adds the version to a finished model. */
export function sealTreesModel(model: Omit<TreesModel, 'version'>): TreesModel {
  return { ...model, version: versionOf(model) };
}

/** The same model with a correction for selection, under the version that this makes of it. */
export function withSelection(model: HeadModel, selection: SelectionCalibration): HeadModel {
  const { version: _, ...content } = model;
  return content.kind === 'trees_logistic'
    ? sealTreesModel({ ...content, selection })
    : sealLinearModel({ ...content, selection });
}

/**
 * Checks an untrusted model file of either kind.
 * @throws WAGGLE_RANKING_MODEL_INVALID naming what is wrong
 */
export function parseHeadModel(value: unknown): HeadModel {
  const kind = (value as { kind?: unknown } | null)?.kind;
  if (kind !== 'trees_logistic') return parseLinearModel(value);
  const fail = (why: string) => rankingError('WAGGLE_RANKING_MODEL_INVALID', `model file: ${why}`);
  const m = value as Record<string, unknown>;
  const names = m['featureNames'];
  if (!Array.isArray(names) || !names.every((name) => typeof name === 'string')) {
    throw fail('featureNames is not a list of strings');
  }
  if (new Set(names).size !== names.length) throw fail('featureNames repeat');
  if (!(names as unknown[]).includes(m['offsetFeature'])) {
    throw fail(`the offset ${String(m['offsetFeature'])} is not one of the features`);
  }
  for (const key of ['name', 'featureSetFingerprint', 'treesSha256']) {
    if (typeof m[key] !== 'string') throw fail(`${key} is missing`);
  }
  const fault = calibrationFault(m['calibration']);
  if (fault !== undefined) throw fail(`calibration ${fault}`);
  if (sliceOfCalibration(m['calibration'] as Calibration) !== undefined) {
    throw fail('trees cannot be calibrated by slice');
  }
  const crooked = selectionFault(m['selection']);
  if (crooked !== undefined) throw fail(`selection ${crooked}`);
  if (m['priorOnly'] !== false) throw fail('priorOnly must be false');
  for (const key of ['dataRange', 'metrics']) {
    if (typeof m[key] !== 'object' || m[key] === null) throw fail(`${key} is missing`);
  }
  const model = m as unknown as TreesModel;
  const expected = versionOf(model);
  if (m['version'] !== expected) {
    throw fail(`version ${String(m['version'])} does not name its content (${expected})`);
  }
  return model;
}

/**
 * Opens the ensemble of a model, off the event loop.
 * @param bytes what `Trees.toBytes` wrote; its hash must be the one that the model names
 * @throws WAGGLE_RANKING_MODEL_INVALID, WAGGLE_NATIVE_MODEL, WAGGLE_MODEL_CONTRACT_MISMATCH
 */
export async function openTreesModel(model: TreesModel, bytes: Uint8Array): Promise<TreesScorer> {
  const found = createHash('sha256').update(bytes).digest('hex');
  if (found !== model.treesSha256) {
    throw rankingError(
      'WAGGLE_RANKING_MODEL_INVALID',
      `the trees of ${model.version} have SHA-256 ${found}, the model names ${model.treesSha256}`,
      { details: { expected: model.treesSha256, found } },
    );
  }
  const trees = await Trees.load(bytes, { format: 'waggle' });
  try {
    return new TreesScorer(trees, {
      version: model.version,
      featureNames: model.featureNames,
      offsetFeature: model.offsetFeature,
      calibration: model.calibration,
      nanIsMissing: false,
    });
  } catch (error) {
    await trees.close();
    throw error;
  }
}
