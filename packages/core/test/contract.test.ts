import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import {
  ENTITY_TABLES,
  EVENT_TABLES,
  EVENT_TYPE_TO_KIND,
  RankResponse,
  SCORE_TERMS,
} from '../src/contract/index.js';

describe('event contract', () => {
  const migrations = new URL('../../store/migrations/', import.meta.url);
  const sql = readdirSync(migrations)
    .map((name) => readFileSync(new URL(name, migrations), 'utf8'))
    .join('');
  const tables = { ...ENTITY_TABLES, ...EVENT_TABLES };

  it.each(Object.entries(tables))(
    '%s has exactly the columns of its table',
    (_kind, { table, schema }) => {
      const create = sql.match(
        new RegExp(`CREATE TABLE IF NOT EXISTS ${table} \\(\\n([\\s\\S]*?)\\n\\) ENGINE`),
      )?.[1];
      expect(create, `table ${table}`).toBeDefined();
      const columns = create!.split('\n').map((line) => line.trim().split(' ')[0]);
      expect([...columns].sort()).toEqual(Object.keys(schema.properties).sort());
    },
  );

  it('every event type belongs to the table whose schema names it', () => {
    for (const [type, kind] of Object.entries(EVENT_TYPE_TO_KIND)) {
      expect(JSON.stringify(EVENT_TABLES[kind].schema.properties.type)).toContain(`"${type}"`);
    }
  });
});

describe('rank contract', () => {
  it('names every score term in the explanation', () => {
    const json = JSON.stringify(RankResponse);
    for (const term of SCORE_TERMS) expect(json).toContain(`"${term}"`);
  });
});
