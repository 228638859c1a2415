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

/**
 * Unit rows after taking away a mean vector, in double precision. A row of zeros is no vector and stays so, as does one that is the mean.
 * @param rows float32 [n × dim]
 * @param mean [dim]
 */
export function centredRows(rows: Float32Array, mean: Float64Array): Float32Array {
  const dim = mean.length;
  const out = new Float32Array(rows.length);
  const difference = new Float64Array(dim);
  for (let from = 0; from < rows.length; from += dim) {
    let present = false;
    let square = 0;
    for (let d = 0; d < dim; d++) {
      const x = rows[from + d]!;
      if (x !== 0) present = true;
      const y = x - mean[d]!;
      difference[d] = y;
      square += y * y;
    }
    const norm = Math.sqrt(square);
    if (!present || norm === 0) continue;
    for (let d = 0; d < dim; d++) out[from + d] = difference[d]! / norm;
  }
  return out;
}
