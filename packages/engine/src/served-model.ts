import { createHash } from 'node:crypto';
import type { FeatureContext, FeatureSet, OnlineFeatures } from '@waggle/features';
import { FOREIGN_FILES, type ForeignContract, parseContract } from '@waggle/models';
import {
  checkExamples,
  type HeadModel,
  LinearScorer,
  OnnxScorer,
  openTreesModel,
  parseHeadModel,
  type SelectionCalibration,
  selectionFault,
  TreesScorer,
} from '@waggle/ranking';
import type { Release } from '@waggle/releases';
import { engineError } from './errors.js';
import type { Networks } from './networks.js';

interface Served {
  readonly model: HeadModel;
  readonly features: OnlineFeatures;
  /** For all candidates of a slot, once each has its probability. */
  readonly selection: SelectionCalibration | undefined;
}

/** A model with the features it reads, which answers on the calling thread. */
export interface ServedHead extends Served {
  /** A tree ensemble of another tool, which answers in place of the model. */
  readonly imported: TreesScorer | undefined;
  readonly network?: undefined;
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

/** A network of tensors of another tool with the features it reads, which answers from another thread. */
export interface ServedNetwork extends Served {
  readonly imported: OnnxScorer;
  readonly network: OnnxScorer;
  /**
   * Probabilities of the candidates of one request, float32 [n]. Features are evaluated at once, on the calling thread, from what
   * `context` says then.
   * @throws as `OnnxScorer.score`
   */
  ask(
    context: FeatureContext,
    campaignRows: Int32Array,
    creativeRows: Int32Array,
  ): Promise<Float32Array>;
}

/** A model of a release, whichever way it answers. */
export type ServedModel = ServedHead | ServedNetwork;

/** A model that must answer here and now. @throws WAGGLE_RELEASE_UNSERVABLE for a network */
export function onThread(served: ServedModel): ServedHead {
  if (served.network === undefined) return served;
  throw engineError(
    'WAGGLE_RELEASE_UNSERVABLE',
    `${served.network.version} is a network, which does not answer on the calling thread`,
  );
}

/** What the model and its calibration are called in answers. */
export function namesOf({ model, imported, selection }: ServedModel) {
  const { kind } = (imported ?? model).calibration;
  return {
    version: imported?.version ?? model.version,
    calibration: selection === undefined ? kind : `${kind},selection`,
  };
}

/** A model of another tool with what its maker declared of it. */
export interface ImportedModel {
  readonly version: string;
  readonly contract: ForeignContract;
  readonly bytes: Uint8Array;
  /** Whether it has passed its gate; answers of one that has not say so. */
  readonly gated: boolean;
  /** Of a pCTR, fitted when it was gated. */
  readonly selection?: SelectionCalibration | undefined;
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
  const { version, contract, bytes, gated, selection } = imported;
  const about = { version, contract, gated, selection, sha256: sha256Hex(bytes) };
  return {
    [contractFile(name)]: new TextEncoder().encode(JSON.stringify(about)),
    [modelFile(name, contract)]: bytes,
  };
}

/**
 * Refuses what is no probability.
 * @throws WAGGLE_RELEASE_UNSERVABLE
 */
export function checkServable(version: string, contract: ForeignContract): void {
  const { meaning } = contract.output;
  if (meaning === 'probability') return;
  throw engineError(
    'WAGGLE_RELEASE_UNSERVABLE',
    `${version} answers with a ${meaning}, not with a probability`,
    {
      details: { model: version },
      remedy:
        'Release a model that answers with probabilities, or the models that were trained here.',
    },
  );
}

/** An imported model as a release holds it, its file still unread. */
export interface ImportedEntry {
  readonly version: string;
  readonly contract: ForeignContract;
  readonly gated: boolean;
  readonly selection: SelectionCalibration | undefined;
  /** Of the file; releases from before networks do not say. */
  readonly sha256: string | undefined;
}

/**
 * A release's imported model of this name; undefined where it has none.
 * @throws what `checkServable` throws, WAGGLE_CONFIG_INVALID, WAGGLE_MODEL_CONTRACT_MISMATCH, WAGGLE_RELEASE_UNSERVABLE
 */
export function importedEntry(release: Release, name: ModelName): ImportedEntry | undefined {
  if (!release.has('models', contractFile(name))) return undefined;
  const found = release.json<Record<string, unknown>>('models', contractFile(name));
  const version = String(found['version']);
  const contract = parseContract(found['contract'], `contract of ${version}`);
  checkServable(version, contract);
  const { selection } = found;
  const crooked = selectionFault(selection);
  if (crooked !== undefined) {
    throw engineError('WAGGLE_RELEASE_UNSERVABLE', `selection of ${version} ${crooked}`);
  }
  return {
    version,
    contract,
    gated: found['gated'] === true,
    selection: selection as SelectionCalibration | undefined,
    sha256: found['sha256'] === undefined ? undefined : String(found['sha256']),
  };
}

/**
 * Opens an imported model: checks it against the feature set and holds the contract's examples against it. A network's session is
 * made, and has answered, when this resolves.
 * @throws what `TreesScorer.open`, `OnnxScorer.openForeign` and `checkExamples` throw, for another feature set among others
 */
export async function openImported(
  release: Release,
  name: ModelName,
  entry: ImportedEntry,
  set: FeatureSet,
  networks: Networks | undefined,
): Promise<TreesScorer | OnnxScorer> {
  const { version, contract } = entry;
  const bytes = release.read('models', modelFile(name, contract));
  const features = { names: set.names, fingerprint: set.fingerprint };
  if (contract.tensors === undefined) {
    return TreesScorer.open({ version, contract, bytes }, features);
  }
  if (networks === undefined) {
    throw engineError(
      'WAGGLE_RELEASE_UNSERVABLE',
      `${version} is a network, and nothing here runs networks`,
    );
  }
  const sha256 = entry.sha256 ?? sha256Hex(bytes);
  const scorer = await OnnxScorer.openForeign(
    networks.runner,
    { version, contract, bytes, sha256 },
    features,
  );
  await checkExamples(scorer, contract);
  return scorer;
}

/** What a release holds of a model. */
export interface ServedSource {
  readonly json: unknown;
  readonly imported:
    | (Pick<ImportedEntry, 'selection'> & { readonly scorer: TreesScorer | OnnxScorer })
    | undefined;
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
  if (source.imported !== undefined) {
    const { scorer, selection } = source.imported;
    const served =
      scorer instanceof OnnxScorer
        ? servedNetwork(model, scorer, source.online())
        : { ...servedTrees(model, scorer, source.online()), imported: scorer };
    return { ...served, selection };
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
): ServedHead {
  let sums = new Float64Array(0);
  return {
    model,
    imported: undefined,
    selection: model.selection,
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

function servedTrees(model: HeadModel, scorer: TreesScorer, features: OnlineFeatures): ServedHead {
  let x = new Float32Array(0);
  return {
    model,
    imported: undefined,
    selection: model.selection,
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

function servedNetwork(
  model: HeadModel,
  network: OnnxScorer,
  features: OnlineFeatures,
): ServedNetwork {
  return {
    model,
    imported: network,
    network,
    selection: undefined,
    features,
    async ask(context, campaignRows, creativeRows) {
      const n = campaignRows.length;
      const x = new Float32Array(n * features.nFeatures);
      features.evaluate(context, campaignRows, creativeRows, x);
      return network.score(x, n);
    },
  };
}

export const sha256Hex = (bytes: Uint8Array): string =>
  createHash('sha256').update(bytes).digest('hex');
