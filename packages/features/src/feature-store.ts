import type { ColumnTable } from '@waggle/core';
import type { CompileOptions } from './compile-sql.js';
import type { FeatureSet, TableReader } from './definition.js';
import type { EntityName } from './expression.js';

/** The part of a `Store` (@waggle/store) that features need. */
export interface FeatureStore {
  queryColumns(
    sql: string,
    options?: {
      readonly params?: Record<string, unknown>;
      readonly settings?: Record<string, string | number>;
      readonly signal?: AbortSignal;
      readonly timeoutMs?: number;
    },
  ): Promise<ColumnTable>;
}

/** Small blocks, because a row may carry two embeddings; room for thirty nested window steps. */
export const QUERY_SETTINGS: Record<string, string | number> = {
  max_block_size: 8192,
  max_query_size: 4_194_304,
  max_ast_elements: 1_000_000,
  max_expanded_ast_elements: 5_000_000,
  max_subquery_depth: 1000,
  max_ast_depth: 10_000,
  join_use_nulls: 0,
  // Cosines are taken before rows are sorted, not after: or else the sort would hold the embeddings of every row.
  query_plan_execute_functions_after_sorting: 0,
  // Windows over a network's events sort more than a small machine should hold.
  max_bytes_before_external_sort: 134_217_728,
};

export interface Visibility {
  /** Events after this time do not exist for the query; undefined = all are there. */
  readonly untilMs?: number;
  /** Versions of entities up to here are there, those after `untilMs` as if they had begun then. @default untilMs */
  readonly entitiesUntilMs?: number;
}

/** Reads event tables of the tenant in parameter `tenant_id`, each event once. */
export function tableReader(visibility: Visibility = {}): TableReader {
  const until =
    visibility.untilMs === undefined
      ? ''
      : ` AND toUnixTimestamp64Milli(ts) <= ${visibility.untilMs}`;
  const select = (table: string, condition: string | undefined, final: string) =>
    `(SELECT * FROM ${table}${final} WHERE tenant_id = {tenant_id:String}${until}${condition === undefined ? '' : ` AND (${condition})`})`;
  return {
    events: (table, condition) => select(table, condition, ' FINAL'),
    repeatable: (table, condition) => select(table, condition, ''),
    versions: entityReader(visibility),
  };
}

/** Versions of an entity of the tenant. */
export function entityReader(visibility: Visibility = {}): (table: string) => string {
  const { untilMs, entitiesUntilMs = untilMs } = visibility;
  const until =
    entitiesUntilMs === undefined
      ? ''
      : ` AND toUnixTimestamp64Milli(updated_at) <= ${entitiesUntilMs}`;
  const versions = (table: string) =>
    `(SELECT * FROM ${table} FINAL WHERE tenant_id = {tenant_id:String}${until})`;
  if (untilMs === undefined || entitiesUntilMs === untilMs) return versions;
  const earlier = `least(updated_at, fromUnixTimestamp64Milli(toInt64(${untilMs}), 'UTC'))`;
  return (table) => `(SELECT * REPLACE (${earlier} AS updated_at) FROM ${versions(table)})`;
}

export interface CompileRequest extends Visibility {
  readonly params: Readonly<Record<string, number>>;
  readonly spine: string;
  readonly fromMs: number;
  readonly toMs: number;
  readonly embeddingModel: string;
}

export function compileOptions(set: FeatureSet, request: CompileRequest): CompileOptions {
  return {
    set,
    params: request.params,
    read: tableReader(request),
    entities: entityReader(request),
    spine: request.spine,
    fromMs: request.fromMs,
    toMs: request.toMs,
    embeddingModel: request.embeddingModel,
    embeddings: embeddingsOf,
  };
}

/** Vectors of a kind by the model in parameter `embedding_model`, as a sub-select in brackets. */
export function embeddingsOf(kind: EntityName): string {
  return `(SELECT entity_id, vector FROM embeddings FINAL WHERE tenant_id = {tenant_id:String} AND entity_kind = '${kind}' AND model = {embedding_model:String})`;
}

/** The model of the tenant's most recently written vectors; '' when there are none. */
export async function latestEmbeddingModel(
  store: FeatureStore,
  tenantId: string,
  signal?: AbortSignal,
): Promise<string> {
  const found = await store.queryColumns(
    'SELECT toString(model) AS model FROM embeddings WHERE tenant_id = {tenant_id:String} GROUP BY model ORDER BY max(updated_at) DESC, model LIMIT 1',
    { params: { tenant_id: tenantId }, ...(signal === undefined ? {} : { signal }) },
  );
  const column = found.columns['model'];
  return found.nRows > 0 && column?.kind === 'string' ? column.dictionary[column.codes[0]!]! : '';
}
