import { stringAt, stringData } from '@waggle/core';
import type { EntityName } from './expression.js';
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
  kind: EntityName,
  o: { readonly tenantId: string; readonly signal?: AbortSignal },
): Promise<EntityVectors> {
  const model = await latestEmbeddingModel(store, o.tenantId, o.signal);
  return queryEntityVectors(store, kind, model, {
    params: { tenant_id: o.tenantId, embedding_model: model },
    settings: QUERY_SETTINGS,
    ...(o.signal === undefined ? {} : { signal: o.signal }),
  });
}

/** The same by the model that the query's parameter `embedding_model` names. */
export async function queryEntityVectors(
  store: FeatureStore,
  kind: EntityName,
  model: string,
  query: Parameters<FeatureStore['queryColumns']>[1],
): Promise<EntityVectors> {
  const table = await store.queryColumns(
    `SELECT entity_id, vector FROM ${embeddingsOf(kind)}`,
    query,
  );
  const column = table.columns['vector'];
  if (table.nRows === 0 || column?.kind !== 'numeric') {
    return { model, dim: 0, rowOf: new Map(), vectors: new Float32Array(0) };
  }
  const dim = column.width;
  const ids = stringData(table, 'entity_id');
  const from = Array.from({ length: table.nRows }, (_, i) => i).sort((a, b) =>
    stringAt(ids, a) < stringAt(ids, b) ? -1 : 1,
  );
  const vectors = new Float32Array(table.nRows * dim);
  const values = column.data as Float32Array;
  from.forEach((row, i) => {
    vectors.set(values.subarray(row * dim, (row + 1) * dim), i * dim);
  });
  const rowOf = new Map(from.map((row, i) => [stringAt(ids, row), i]));
  return { model, dim, rowOf, vectors };
}
