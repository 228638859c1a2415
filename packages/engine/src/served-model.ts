import { createHash } from 'node:crypto';
import type { FeatureContext, FeatureSet, OnlineFeatures } from '@waggle/features';
import { FOREIGN_FILES, type ForeignContract, parseContract } from '@waggle/models';
import {
  type HeadModel,
  LinearScorer,
  openTreesModel,
  parseHeadModel,
  TreesScorer,
} from '@waggle/ranking';
import type { Release } from '@waggle/releases';
import { engineError } from './errors.js';

/** A model with the features it reads, ready for the hot path. */
export interface ServedModel {
  readonly model: HeadModel;
  /** A tree ensemble of another tool, which answers in place of the model. */
  readonly imported: TreesScorer | undefined;
  readonly features: OnlineFeatures;
  /**
   * Probabilities of the candidates of one request, on the calling thread. A linear model sums what it weighs, most of it kept
   * from earlier requests; trees look at every feature of every candidate, O(n · (features + trees · depth)).
   * @param out [≥ n], receives p
   * @throws WAGGLE_FEATURES_SHAPE, WAGGLE_RANKING_NAN
   */
  probabilities(
    context: FeatureContext,
    campaignRows: Int32Array,
    creativeRows: Int32Array,
    out: Float32Array | Float64Array,
  ): void;
  /** Probabilities of feature rows. @param x float32 [nRows × nFeatures] */
  scoreRows(x: Float32Array, nRows: number): Float64Array;
}

/** A model of another tool with what its maker declared of it. */
export interface ImportedModel {
  readonly version: string;
  readonly contract: ForeignContract;
  readonly bytes: Uint8Array;
}

type ModelName = HeadModel['name'];

const contractFile = (name: ModelName): string => `${name}.contract.json`;
const modelFile = (name: ModelName, { format }: ForeignContract): string =>
  `${name}.${FOREIGN_FILES[format]}`;

/** The files of an imported model in the section `models`. */
export function importedFiles(
  name: ModelName,
  imported: ImportedModel,
): Readonly<Record<string, Uint8Array>> {
  const { version, contract, bytes } = imported;
  return {
    [contractFile(name)]: new TextEncoder().encode(JSON.stringify({ version, contract })),
    [modelFile(name, contract)]: bytes,
  };
}

/**
 * Refuses what the request's own thread cannot run, and what is no probability.
 * @throws WAGGLE_RELEASE_UNSERVABLE
 */
export function checkServable(version: string, contract: ForeignContract): void {
  const why =
    contract.tensors !== undefined
      ? 'is a network of tensors, and requests are answered by tree ensembles and linear models alone'
      : contract.output.meaning !== 'probability'
        ? `answers with a ${contract.output.meaning}, not with a probability`
        : undefined;
  if (why === undefined) return;
  throw engineError('WAGGLE_RELEASE_UNSERVABLE', `${version} ${why}`, {
    details: { model: version },
    remedy:
      'Release a tree ensemble that answers with probabilities, or the models that were trained here.',
  });
}

/**
 * Opens a release's imported model of this name; undefined where it has none.
 * @throws what `checkServable` and `TreesScorer.open` throw, the latter for another feature set among others
 */
export async function openImported(
  release: Release,
  name: ModelName,
  set: FeatureSet,
): Promise<TreesScorer | undefined> {
  if (!release.has('models', contractFile(name))) return undefined;
  const found = release.json<{ version: string; contract: unknown }>('models', contractFile(name));
  const version = String(found.version);
  const contract = parseContract(found.contract, `contract of ${version}`);
  checkServable(version, contract);
  const bytes = release.read('models', modelFile(name, contract));
  return TreesScorer.open(
    { version, contract, bytes },
    { names: set.names, fingerprint: set.fingerprint },
  );
}

/** What a release holds of a model. */
export interface ServedSource {
  readonly json: unknown;
  readonly imported: TreesScorer | undefined;
  /** The ensemble's file; read when the model names one. */
  readonly trees: () => Uint8Array;
  readonly online: () => OnlineFeatures;
}

/**
 * Opens a model of a release, linear or trees, and checks that it was made for the feature set.
 * @param unservable makes the error for what cannot be served
 * @throws what `unservable` makes, WAGGLE_RANKING_MODEL_INVALID, WAGGLE_NATIVE_MODEL
 */
export async function openServedModel(
  source: ServedSource,
  file: string,
  name: HeadModel['name'],
  set: FeatureSet,
  unservable: (why: string) => Error,
): Promise<ServedModel> {
  const model = parseHeadModel(source.json);
  if (model.name !== name) throw unservable(`models/${file} is a model of ${model.name}`);
  if (model.featureSetFingerprint !== set.fingerprint) {
    throw unservable(
      `${model.version} reads features ${model.featureSetFingerprint}, this build declares ${set.fingerprint}`,
    );
  }
  if (model.featureNames.join() !== set.names.join()) {
    throw unservable(`${model.version} names other features than ${set.fingerprint}`);
  }
  const { imported } = source;
  if (imported !== undefined) return { ...servedTrees(model, imported, source.online()), imported };
  if (model.kind === 'trees_logistic') {
    return servedTrees(model, await openTreesModel(model, source.trees()), source.online());
  }
  const scorer = new LinearScorer(model);
  if (scorer.slicedBy !== undefined) {
    throw unservable(
      `${model.version} is calibrated by ${scorer.slicedBy}, which requests do not carry`,
    );
  }
  return servedLinear(model, scorer, source.online());
}

function servedLinear(
  model: HeadModel,
  scorer: LinearScorer,
  features: OnlineFeatures,
): ServedModel {
  let sums = new Float64Array(0);
  return {
    model,
    imported: undefined,
    features,
    probabilities(context, campaignRows, creativeRows, out) {
      const n = campaignRows.length;
      // In place where the sums fit into what is asked for.
      if (!(out instanceof Float64Array) && sums.length < n) sums = new Float64Array(n);
      const own = out instanceof Float64Array ? out : sums;
      features.evaluateSums(context, campaignRows, creativeRows, scorer.weights, own);
      scorer.scoreSums(own, n, out);
    },
    scoreRows: (x, nRows) => scorer.scoreInto(x, nRows, new Float64Array(nRows)),
  };
}

function servedTrees(model: HeadModel, scorer: TreesScorer, features: OnlineFeatures): ServedModel {
  let x = new Float32Array(0);
  return {
    model,
    imported: undefined,
    features,
    probabilities(context, campaignRows, creativeRows, out) {
      const n = campaignRows.length;
      if (x.length < n * features.nFeatures) x = new Float32Array(n * features.nFeatures);
      features.evaluate(context, campaignRows, creativeRows, x);
      scorer.scoreInto(x, n, out);
    },
    scoreRows: (rows, nRows) => scorer.scoreInto(rows, nRows, new Float64Array(nRows)),
  };
}

export const sha256Hex = (bytes: Uint8Array): string =>
  createHash('sha256').update(bytes).digest('hex');
