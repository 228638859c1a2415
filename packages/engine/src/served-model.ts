import { createHash } from 'node:crypto';
import type { FeatureContext, FeatureSet, OnlineFeatures } from '@waggle/features';
import {
  type HeadModel,
  LinearScorer,
  openTreesModel,
  parseHeadModel,
  type TreesScorer,
} from '@waggle/ranking';

/** A model with the features it reads, ready for the hot path. */
export interface ServedModel {
  readonly model: HeadModel;
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

/** What a release holds of a model. */
export interface ServedSource {
  readonly json: unknown;
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
