import { type ColumnTable, encodeColumns, numericColumn } from '@waggle/core';
import { encodeSnapshot, type FeatureSnapshot } from '@waggle/features';
import type { HeadModel } from '@waggle/ranking';
import type { ReleaseInput } from '@waggle/releases';
import type { Catalog } from './catalog.js';
import type { Duals } from './duals.js';
import type { EnginePolicy } from './policy.js';
import { type ImportedModel, importedFiles } from './served-model.js';

/** Unit vectors of one kind of entity, rows aligned with the catalog; an all-zero row has no embedding. */
export interface EmbeddingTable {
  /** float32 [nRows × dim], row-major. */
  readonly vectors: Float32Array;
  readonly dim: number;
}

/** Everything a ranking release holds. */
export interface RankingReleaseInput {
  readonly catalog: Catalog;
  readonly snapshot: FeatureSnapshot;
  readonly embeddings: {
    readonly publication: EmbeddingTable;
    readonly campaign: EmbeddingTable;
    readonly creative: EmbeddingTable;
    /** Model that made them, such as `all-MiniLM-L6-v2-int8`. */
    readonly model: string;
    /** Set when a stand-in made them. */
    readonly degraded?: 'hashed_embedder';
  };
  readonly models: {
    readonly pctr: HeadModel;
    readonly accept: HeadModel;
    /** The ensembles of models that are trees. */
    readonly pctrTrees?: Uint8Array;
    readonly acceptTrees?: Uint8Array;
    readonly pctrOnnx?: Uint8Array;
    readonly acceptOnnx?: Uint8Array;
    /** Models of other tools that answer in place of these. */
    readonly imported?:
      | Readonly<Partial<Record<'pctr' | 'accept', ImportedModel | undefined>>>
      | undefined;
  };
  readonly duals: Duals;
  readonly policy: EnginePolicy;
  /** What each model was gated on. */
  readonly gate: unknown;
  readonly lineage: Readonly<Record<string, unknown>>;
}

/** What a release holds that is asked about clicks alone, see `loadClickRelease`. */
export interface ClickReleaseInput extends Omit<RankingReleaseInput, 'models'> {
  readonly models: Pick<RankingReleaseInput['models'], 'pctr'> &
    Partial<RankingReleaseInput['models']>;
}

const json = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));

/**
 * The sections and files of a ranking release; `loadRankingRelease` reads exactly these, `loadClickRelease` those that have nothing
 * to do with p(accept). O(bytes).
 */
export function rankingReleaseFiles(input: RankingReleaseInput | ClickReleaseInput): ReleaseInput {
  const { catalog, embeddings, models } = input;
  const vectors = (kind: 'publication' | 'campaign' | 'creative'): Uint8Array => {
    const { vectors: data, dim } = embeddings[kind];
    const table: ColumnTable = {
      nRows: data.length / dim,
      columns: { vector: numericColumn('f32', data, dim) },
      meta: {
        model: embeddings.model,
        ...(embeddings.degraded === undefined ? {} : { degraded: embeddings.degraded }),
      },
    };
    return encodeColumns(table);
  };
  return {
    sections: {
      catalog: {
        'publications.col': encodeColumns(catalog.publications),
        'campaigns.col': encodeColumns(catalog.campaigns),
        'creatives.col': encodeColumns(catalog.creatives),
        'advertisers.col': encodeColumns(catalog.advertisers),
      },
      features: encodeSnapshot(input.snapshot),
      embeddings: {
        'publication.col': vectors('publication'),
        'campaign.col': vectors('campaign'),
        'creative.col': vectors('creative'),
      },
      models: {
        'pctr.json': json(models.pctr),
        ...(models.accept === undefined ? {} : { 'accept.json': json(models.accept) }),
        ...(models.pctrTrees === undefined ? {} : { 'pctr.trees': models.pctrTrees }),
        ...(models.acceptTrees === undefined ? {} : { 'accept.trees': models.acceptTrees }),
        ...(models.pctrOnnx === undefined ? {} : { 'pctr.onnx': models.pctrOnnx }),
        ...(models.acceptOnnx === undefined ? {} : { 'accept.onnx': models.acceptOnnx }),
        ...(models.imported?.pctr && importedFiles('pctr', models.imported.pctr)),
        ...(models.imported?.accept && importedFiles('accept', models.imported.accept)),
      },
      gate: { 'report.json': json(input.gate ?? null) },
      duals: { 'duals.json': json(input.duals) },
      engine: { 'policy.json': json(input.policy) },
    },
    lineage: input.lineage,
  };
}
