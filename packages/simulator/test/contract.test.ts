import { ENTITY_TABLES, EVENT_TABLES } from '@waggle/core/contract';
import { Compile } from 'typebox/compile';
import { describe, expect, test } from 'vitest';
import { TABLES, tinyWorld } from '../src/index.js';

const world = tinyWorld(5);
const contracts = [...Object.values(ENTITY_TABLES), ...Object.values(EVENT_TABLES)];

describe('contract', () => {
  test.each(contracts.map((contract) => [contract.table, contract] as const))(
    'every row of %s is what the contract describes',
    (table, contract) => {
      const check = Compile(contract.schema);
      let rows = 0;
      for (const row of world.tables[table]!.rows()) {
        if (!check.Check(row)) {
          expect.fail(`${JSON.stringify(row)}: ${JSON.stringify(check.Errors(row)[0])}`);
        }
        rows++;
      }
      expect(rows).toBe(world.tables[table]!.nRows);
      // Waggle's own records, and what only a network that posts its events tells.
      if (!['decisions', 'settlements'].includes(table)) expect(rows).toBeGreaterThan(0);
    },
  );

  test('tables have the contract’s columns in the contract’s order', () => {
    for (const { table, schema } of contracts) {
      expect(TABLES[table]!.columns.map(([name]) => name)).toEqual(Object.keys(schema.properties));
    }
  });

  test('no column of the tables tells the hidden truth', () => {
    const hidden = /truth|oracle|latent|effect|noise|verdict|fraud_ring|cause|human$/;
    for (const spec of Object.values(TABLES)) {
      for (const [name] of spec.columns) expect(name).not.toMatch(hidden);
    }
  });
});
