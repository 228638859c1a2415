import { readdir, readFile } from 'node:fs/promises';
import { ENTITY_TABLES, EVENT_TABLES } from '@waggle/core/contract';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { makeMigration, migrate, readMigrations } from '../src/index.js';
import { type TemporaryStore, temporaryStore } from '../src/testing/index.js';

let subject: TemporaryStore;
beforeAll(async () => {
  subject = await temporaryStore({ migrate: false });
});
afterAll(() => subject.dispose());

const extra = makeMigration(
  '0100_extra.sql',
  "-- a comment; with a semicolon\nCREATE TABLE IF NOT EXISTS extra (s String DEFAULT ';') ENGINE = Memory;\nINSERT INTO extra VALUES ('a');\n",
);

test('each migration has the number after the one before', async () => {
  const all = await readMigrations();
  expect(all.map(({ version }) => version)).toEqual(all.map((_, i) => i + 1));
});

test('applies every migration once and knows its version', async () => {
  const all = await readMigrations();
  expect(await migrate(subject.store)).toEqual({
    applied: all.map((m) => m.name),
    schemaVersion: all.at(-1)!.version,
  });
  expect(await migrate(subject.store)).toEqual({ applied: [], schemaVersion: all.at(-1)!.version });
});

test('runs a migration that was cut short again', async () => {
  const all = await readMigrations();
  await subject.store.command('TRUNCATE TABLE waggle_migrations');
  await subject.store.command('DROP TABLE clicks');
  expect((await migrate(subject.store)).applied).toEqual(all.map((m) => m.name));
  expect(await subject.store.query('SELECT count() AS n FROM clicks')).toEqual([{ n: 0 }]);
});

test('may run twice at once', async () => {
  const migrations = [...(await readMigrations()), extra];
  const results = await Promise.all([
    migrate(subject.store, { migrations }),
    migrate(subject.store, { migrations }),
  ]);
  expect(results.map((r) => r.schemaVersion)).toEqual([100, 100]);
});

test('refuses a database that a newer version has migrated', async () => {
  await expect(migrate(subject.store)).rejects.toMatchObject({
    code: 'WAGGLE_STORE_SCHEMA_NEWER',
    details: { version: 100 },
  });
});

test('refuses a migration that was changed after it ran, but not its comments', async () => {
  const all = await readMigrations();
  const commented = makeMigration('0100_extra.sql', `-- another comment\n${extra.sql}`);
  expect(commented.checksum).toBe(makeMigration('0100_extra.sql', extra.sql).checksum);
  await migrate(subject.store, { migrations: [...all, commented] });
  const changed = makeMigration('0100_extra.sql', extra.sql.replace('Memory', 'Null'));
  await expect(migrate(subject.store, { migrations: [...all, changed] })).rejects.toMatchObject({
    code: 'WAGGLE_STORE_MIGRATION_CHANGED',
  });
});

test('every statement may be repeated', async () => {
  for (const { sql } of await readMigrations()) {
    for (const line of sql.split('\n').filter((l) => /^(CREATE|ALTER|DROP)\b/.test(l))) {
      expect(line).toMatch(/IF (NOT )?EXISTS/);
    }
  }
  const directory = new URL('../migrations/', import.meta.url);
  for (const name of await readdir(directory)) {
    expect(name).toMatch(/^\d{4}_[a-z0-9_]+\.sql$/);
    expect(await readFile(new URL(name, directory), 'utf8')).toMatch(/;\n$/);
  }
});

test('tables have the columns of the contract, and remember inserted blocks', async () => {
  for (const { table, schema } of [
    ...Object.values(ENTITY_TABLES),
    ...Object.values(EVENT_TABLES),
  ]) {
    const columns = await subject.store.query<{ name: string }>(
      'SELECT name FROM system.columns WHERE database = currentDatabase() AND table = {table:String}',
      { params: { table } },
    );
    expect(columns.map((c) => c.name).sort(), table).toEqual(Object.keys(schema.properties).sort());
    const [engine] = await subject.store.query<{ engine: string; full: string }>(
      `SELECT engine, engine_full AS full FROM system.tables
       WHERE database = currentDatabase() AND name = {table:String}`,
      { params: { table } },
    );
    expect(engine!.engine, table).toBe('ReplacingMergeTree');
    expect(engine!.full, table).toContain('non_replicated_deduplication_window');
  }
});
