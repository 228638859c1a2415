import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parquetWriteBuffer } from 'hyparquet-writer';
import { afterAll, describe, expect, it } from 'vitest';
import { checkParquet } from '../src/ingest-files.js';

const home = mkdtempSync(join(tmpdir(), 'waggle-parquet-'));
afterAll(() => rmSync(home, { recursive: true, force: true }));

type Column = Parameters<typeof parquetWriteBuffer>[0]['columnData'][number];

const text = (name: string): Column => ({ name, data: ['a', 'b'], type: 'STRING' });
const whole = (name: string, data: number[] = [3, 5]): Column => ({
  name,
  data: Int32Array.from(data),
  type: 'INT32',
});
const SENDS: readonly Column[] = [
  ...['tenant_id', 'event_id', 'type', 'post_id', 'publication_id'].map(text),
  { name: 'ts', data: [new Date(0), new Date(1)], type: 'TIMESTAMP' },
  ...['recipients', 'delivered', 'unsubscribes', 'n_slots', 'n_ads'].map((name) => whole(name)),
];

/** What is said of a file of sends with these columns, others of their name taken away. */
function check(...changed: readonly Column[]): Promise<void> {
  const names = changed.map(({ name }) => name);
  return checkColumns([...SENDS.filter(({ name }) => !names.includes(name)), ...changed]);
}
function checkColumns(columnData: readonly Column[]): Promise<void> {
  const path = join(home, 'sends.parquet');
  writeFileSync(path, Buffer.from(parquetWriteBuffer({ columnData: [...columnData] })));
  return checkParquet({ path, table: 'sends', format: 'parquet' });
}

describe('columns of a Parquet file', () => {
  it('may be the contract’s', async () => {
    await check();
    await check({ name: 'delivered', data: [3n, 4_294_967_295n], type: 'INT64' });
  });

  it('are refused by name where one is missing, unknown, of decimals or out of range', async () => {
    const without = checkColumns(SENDS.filter(({ name }) => name !== 'delivered'));
    await expect(without).rejects.toMatchObject({
      code: 'WAGGLE_INGEST_INVALID',
      message: expect.stringContaining('column delivered is missing') as string,
      remedy: expect.stringContaining('recipients, delivered') as string,
    });
    const refused: readonly [Column, RegExp][] = [
      [whole('deliveredd'), /column deliveredd is none of table sends/],
      [{ name: 'delivered', data: [3, Number.NaN], type: 'DOUBLE' }, /delivered holds decimals/],
      [whole('delivered', [3, -3]), /delivered holds -3, allowed is 0 … 4294967295/],
      [{ name: 'delivered', data: [3n, 1n << 32n], type: 'INT64' }, /delivered holds 4294967296/],
      [whole('n_ads', [17, 1]), /n_ads holds 17, allowed is 0 … 16/],
    ];
    for (const [column, why] of refused) {
      await expect(check(column), column.name).rejects.toThrowError(why);
    }
  });

  it('that cannot be read are left to the store, which refuses them', async () => {
    const path = join(home, 'clicks.parquet');
    writeFileSync(path, 'PAR1 and nothing else PAR1');
    await checkParquet({ path, table: 'clicks', format: 'parquet' });
  });
});
