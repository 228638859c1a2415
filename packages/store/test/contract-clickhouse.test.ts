import { test } from 'vitest';
import { openServerStore } from '../src/index.js';
import { storeContractSuite } from './support/store-contract.js';

const url = process.env['WAGGLE_CLICKHOUSE_URL'];

if (url === undefined || url === '') {
  console.warn(
    'WAGGLE_CLICKHOUSE_URL is not set: the store contract was not run against a ClickHouse server',
  );
  test.skip('a ClickHouse server keeps the store contract (set WAGGLE_CLICKHOUSE_URL)', () => {});
} else {
  const user = process.env['WAGGLE_CLICKHOUSE_USER'] ?? 'default';
  const password = process.env['WAGGLE_CLICKHOUSE_PASSWORD'] ?? '';
  storeContractSuite('a ClickHouse server', async () => {
    const store = await openServerStore({ url, username: user, password });
    return { store, http: { url, user, password }, dispose: () => store.close() };
  });
}
