import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Logger, silentLogger } from '@waggle/core';
import { STAGING_PREFIX } from './client-store.js';
import { quoteIdentifier, splitStatements } from './engine/statement.js';
import { storeError } from './errors.js';
import type { Store } from './store.js';

export interface Migration {
  readonly version: number;
  readonly name: string;
  readonly sql: string;
  /** SHA-256 of the statements, comments and line ends aside. */
  readonly checksum: string;
}

export interface MigrateOptions {
  readonly logger?: Logger;
  /** @default the migrations of this package */
  readonly migrations?: readonly Migration[];
}

const DIRECTORY = fileURLToPath(new URL('../migrations/', import.meta.url));

/** Migrations of a folder: files `NNNN_name.sql`, in order of their number. */
export async function readMigrations(directory = DIRECTORY): Promise<Migration[]> {
  const files = (await readdir(directory)).filter((name) => /^\d{4}_.+\.sql$/.test(name)).sort();
  return Promise.all(
    files.map(async (file) => makeMigration(file, await readFile(join(directory, file), 'utf8'))),
  );
}

export function makeMigration(file: string, sql: string): Migration {
  const statements = splitStatements(sql);
  return {
    version: Number(file.slice(0, 4)),
    name: file.replace(/\.sql$/, ''),
    sql,
    checksum: createHash('sha256').update(statements.join(';\n')).digest('hex'),
  };
}

/**
 * Brings the schema up to date. Every statement is `IF NOT EXISTS`, and a migration is recorded after its last
 * statement, so that one cut short is simply run again; two processes may migrate at once.
 * @throws WAGGLE_STORE_SCHEMA_NEWER, WAGGLE_STORE_MIGRATION_CHANGED
 */
export async function migrate(
  store: Store,
  options: MigrateOptions = {},
): Promise<{ applied: string[]; schemaVersion: number }> {
  const logger = options.logger ?? silentLogger;
  const migrations = options.migrations ?? (await readMigrations());
  await store.command(
    `CREATE TABLE IF NOT EXISTS waggle_migrations (
       version UInt32, name String, checksum String, applied_at DateTime64(3, 'UTC')
     ) ENGINE = ReplacingMergeTree(applied_at) ORDER BY version`,
  );
  const done = await store.query<{ version: number; name: string; checksum: string }>(
    'SELECT version, name, checksum FROM waggle_migrations FINAL ORDER BY version',
  );
  const known = new Map(migrations.map((m) => [m.version, m]));
  for (const row of done) {
    const migration = known.get(row.version);
    if (migration === undefined) {
      throw storeError(
        'WAGGLE_STORE_SCHEMA_NEWER',
        `the database has migration ${row.name}, this Waggle knows up to ${migrations.at(-1)?.name ?? 'none'}`,
        { details: { version: row.version, name: row.name } },
      );
    }
    if (migration.checksum !== row.checksum) {
      throw storeError(
        'WAGGLE_STORE_MIGRATION_CHANGED',
        `migration ${row.name} was changed after it ran`,
        {
          details: { version: row.version, applied: row.checksum, found: migration.checksum },
        },
      );
    }
  }
  const applied: string[] = [];
  const have = new Set(done.map((row) => row.version));
  for (const migration of migrations) {
    if (have.has(migration.version)) continue;
    for (const statement of splitStatements(migration.sql)) await store.command(statement);
    await store.command(
      'INSERT INTO waggle_migrations SELECT {version:UInt32}, {name:String}, {checksum:String}, now64(3)',
      {
        params: { version: migration.version, name: migration.name, checksum: migration.checksum },
      },
    );
    logger.info({ migration: migration.name }, 'schema migrated');
    applied.push(migration.name);
  }
  await dropAbandonedLoads(store);
  return { applied, schemaVersion: migrations.at(-1)?.version ?? 0 };
}

/** Staging tables whose load was cut short by a crash. */
async function dropAbandonedLoads(store: Store): Promise<void> {
  const tables = await store.query<{ name: string }>(
    `SELECT name FROM system.tables WHERE database = currentDatabase() AND startsWith(name, {prefix:String})
     AND metadata_modification_time < now() - INTERVAL 1 DAY`,
    { params: { prefix: STAGING_PREFIX } },
  );
  for (const { name } of tables)
    await store.command(`DROP TABLE IF EXISTS ${quoteIdentifier(name)}`);
}
