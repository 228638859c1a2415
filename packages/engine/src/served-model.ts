import type { FeatureContext, FeatureSet, OnlineFeatures } from '@waggle/features';
import { FOREIGN_FILES, type ForeignContract, parseContract } from '@waggle/models';
import { type LinearModel, type LinearScorer, TreesScorer } from '@waggle/ranking';
import type { Release } from '@waggle/releases';
import { engineError } from './errors.js';

/** A model with the features it reads. */
export interface ServedModel {
  readonly model: LinearModel;
  readonly scorer: LinearScorer;
  readonly features: OnlineFeatures;
  /** A tree ensemble of another tool, which answers in place of the linear model. */
  readonly imported: TreesScorer | undefined;
}

/** A model of another tool with what its maker declared of it. */
export interface ImportedModel {
  readonly version: string;
  readonly contract: ForeignContract;
  readonly bytes: Uint8Array;
}

type ModelName = LinearModel['name'];

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

/**
 * Probabilities of candidates.
 * @param candidates campaigns and creatives int32 [n], as `OnlineFeatures.evaluate` takes them
 * @param sums float64 [≥ n], working memory; may be `out`
 * @param out [≥ n], receives p
 * @throws WAGGLE_RANKING_NAN when a feature is not a number; O(n · request features), O(n · (features + trees)) where an
 *   imported model answers
 */
export function fillProbabilities(
  { features, scorer, imported }: ServedModel,
  candidates: {
    readonly at: FeatureContext;
    readonly campaignRows: Int32Array;
    readonly creativeRows: Int32Array;
  },
  sums: Float64Array,
  out: Float32Array | Float64Array,
): void {
  const { at, campaignRows, creativeRows } = candidates;
  const n = campaignRows.length;
  if (imported === undefined) {
    features.evaluateSums(at, campaignRows, creativeRows, scorer.weights, sums);
    scorer.scoreSums(sums, n, out);
    return;
  }
  const x = new Float32Array(n * features.nFeatures);
  features.evaluate(at, campaignRows, creativeRows, x);
  imported.scoreInto(x, n, out);
}
