export * from './clickhouse-errors.js';
export * from './connections.js';
export * from './deduplicated.js';
export { quoteIdentifier, quoteLiteral } from './engine/statement.js';
export { storeErrors } from './errors.js';
export * from './local-store.js';
export * from './migrations.js';
export { decodeNative } from './native-format.js';
export * from './store.js';
