import { type ColumnTable, stringAt, stringData } from '@waggle/core';
import { engineError } from './errors.js';
import type { EmbeddingTable } from './release-files.js';

/** The part of a `Store` (@waggle/store) that vectors are read through. */
export interface EmbeddingStore {
  queryColumns(
    sql: string,
    options?: { params?: Record<string, unknown>; signal?: AbortSignal },
  ): Promise<ColumnTable>;
}

/**
 * Reads the vectors of one kind of entity from the store, aligned with the given ids; an id without a vector
 * gets a row of zeros. O(ids · dim).
 * @throws WAGGLE_RELEASE_UNSERVABLE when vectors are not rows of one length
 */
export async function readEmbeddings(
  store: EmbeddingStore,
  request: {
    tenantId: string;
    kind: 'publication' | 'campaign' | 'creative';
    model: string;
    ids: readonly string[];
    /** Length of the vectors when the store holds none. */
    dim: number;
    signal?: AbortSignal;
  },
): Promise<EmbeddingTable & { readonly missing: number }> {
  const result = await store.queryColumns(
    `SELECT entity_id, vector FROM embeddings
     WHERE tenant_id = {tenant:String} AND model = {model:String} AND entity_kind = {kind:String}
     ORDER BY entity_id, updated_at DESC LIMIT 1 BY entity_id`,
    {
      params: { tenant: request.tenantId, model: request.model, kind: request.kind },
      ...(request.signal === undefined ? {} : { signal: request.signal }),
    },
  );
  if (result.nRows === 0) {
    const { dim } = request;
    return {
      vectors: new Float32Array(request.ids.length * dim),
      dim,
      missing: request.ids.length,
    };
  }
  const column = result.columns['vector'];
  if (column?.kind !== 'numeric' || column.dtype !== 'f32') {
    throw engineError(
      'WAGGLE_RELEASE_UNSERVABLE',
      `the ${request.kind} embeddings of ${request.model} are not rows of one length`,
      { remedy: 'Embed again: `waggle embed --force`.' },
    );
  }
  const dim = column.width;
  const from = column.data as Float32Array;
  const ids = stringData(result, 'entity_id');
  const rowOf = new Map(request.ids.map((id, row) => [id, row]));
  const vectors = new Float32Array(request.ids.length * dim);
  let found = 0;
  for (let i = 0; i < result.nRows; i++) {
    const row = rowOf.get(stringAt(ids, i));
    if (row === undefined) continue;
    vectors.set(from.subarray(i * dim, (i + 1) * dim), row * dim);
    found++;
  }
  return { vectors, dim, missing: request.ids.length - found };
}
