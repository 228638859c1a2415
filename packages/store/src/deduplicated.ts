import { ENTITY_TABLES, EVENT_TABLES } from '@waggle/core/contract';
import { quoteIdentifier } from './engine/statement.js';
import { storeError } from './errors.js';

const KEYS = new Map<string, string>([
  ...Object.values(EVENT_TABLES).map(({ table }): [string, string] => [
    table,
    'tenant_id, type, toDate(ts), event_id',
  ]),
  ...Object.values(ENTITY_TABLES).map(({ table, idColumn }): [string, string] => [
    table,
    `tenant_id, ${idColumn}, version`,
  ]),
  ['embeddings', 'tenant_id, model, entity_kind, entity_id'],
]);

const IDS = new Map<string, string>(
  Object.values(ENTITY_TABLES).map(({ table, idColumn }) => [table, idColumn]),
);

/**
 * A subquery with every row once, however often and however long ago it was loaded: ReplacingMergeTree removes
 * doubles only when parts merge, so every aggregate must read through this (or say FINAL itself).
 * `SELECT count() FROM ${deduplicated('clicks')} WHERE …`: ClickHouse pushes the condition into the subquery.
 * @param table an event or entity table, or `embeddings`
 */
export function deduplicated(table: string): string {
  if (!KEYS.has(table)) {
    throw storeError('WAGGLE_STORE_UNKNOWN_TABLE', `${table} is not a table of events or entities`);
  }
  return `(SELECT * FROM ${quoteIdentifier(table)} FINAL)`;
}

/** A subquery with the current version of every entity: the highest version of each id. */
export function current(table: string, options: { asOf?: string } = {}): string {
  const id = IDS.get(table);
  if (id === undefined) {
    throw storeError('WAGGLE_STORE_UNKNOWN_TABLE', `${table} is not a table of entities`);
  }
  const where = options.asOf === undefined ? '' : ` WHERE updated_at <= ${options.asOf}`;
  return `(SELECT * FROM ${quoteIdentifier(table)}${where} ORDER BY version DESC LIMIT 1 BY tenant_id, ${id})`;
}

/** The columns that make a row of the table unique. */
export function deduplicationKey(table: string): string {
  const key = KEYS.get(table);
  if (key === undefined)
    throw storeError('WAGGLE_STORE_UNKNOWN_TABLE', `${table} has no deduplication key`);
  return key;
}
