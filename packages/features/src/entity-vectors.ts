import { stringAt, stringData } from '@waggle/core';
import {
  embeddingsOf,
  type FeatureStore,
  latestEmbeddingModel,
  QUERY_SETTINGS,
} from './feature-store.js';

/** Unit vectors of publications, campaigns or creatives, by id. */
export interface EntityVectors {
  readonly model: string;
  readonly dim: number;
  readonly rowOf: ReadonlyMap<string, number>;
  /** float32 [n × dim], row-major. */
  readonly vectors: Float32Array;
}

/** Vectors of every entity of a kind that has one, by the model that wrote last. One statement; none are no error. */
export async function readEntityVectors(
  store: FeatureStore,
  kind: 'publication' | 'campaign' | 'creative',
  o: { readonly tenantId: string; readonly signal?: AbortSignal },
): Promise<EntityVectors> {
  const model = await latestEmbeddingModel(store, o.tenantId, o.signal);
  const table = await store.queryColumns(
    `SELECT entity_id, vector FROM ${embeddingsOf(kind)} ORDER BY entity_id`,
    {
      params: { tenant_id: o.tenantId, embedding_model: model },
      settings: QUERY_SETTINGS,
      ...(o.signal === undefined ? {} : { signal: o.signal }),
    },
  );
  const column = table.columns['vector'];
  if (table.nRows === 0 || column?.kind !== 'numeric') {
    return { model, dim: 0, rowOf: new Map(), vectors: new Float32Array(0) };
  }
  const ids = stringData(table, 'entity_id');
  return {
    model,
    dim: column.width,
    rowOf: new Map(Array.from({ length: table.nRows }, (_, i) => [stringAt(ids, i), i])),
    vectors: Float32Array.from(column.data as ArrayLike<number>),
  };
}
