import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type ColumnTable,
  decodeColumns,
  encodeColumns,
  numericColumn,
  numericData,
  stringAt,
  stringColumn,
  stringData,
  stringListColumn,
  stringListData,
  stringsAt,
} from '../src/index.js';

const table = (ids: string[], tags: string[][], values: number[]): ColumnTable => ({
  nRows: ids.length,
  columns: {
    id: stringColumn(ids),
    tags: stringListColumn(tags),
    value: numericColumn('f64', Float64Array.from(values)),
    pair: numericColumn('f32', Float32Array.from(values.flatMap((v) => [v, -v])), 2),
    big: numericColumn('i64', BigInt64Array.from(values.map((_, i) => BigInt(i) << 40n))),
  },
  meta: { as_of: '2026-03-02T00:00:00Z' },
});

describe('column files', () => {
  it('return exactly what was written', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.string(), fc.array(fc.string(), { maxLength: 4 }), fc.double())),
        (rows) => {
          const ids = rows.map((r) => r[0]);
          const tags = rows.map((r) => r[1]);
          const values = rows.map((r) => r[2]);
          const back = decodeColumns(encodeColumns(table(ids, tags, values)));
          expect(back.nRows).toBe(rows.length);
          expect(ids.map((_, i) => stringAt(stringData(back, 'id'), i))).toEqual(ids);
          expect(tags.map((_, i) => stringsAt(stringListData(back, 'tags'), i))).toEqual(tags);
          expect([...numericData(back, 'value', 'f64')]).toEqual(values);
          expect(numericData(back, 'pair', 'f32').length).toBe(2 * rows.length);
          expect(back.meta).toEqual({ as_of: '2026-03-02T00:00:00Z' });
        },
      ),
    );
  });

  it('are byte-stable whatever the order in which columns were added', () => {
    const a = table(['x', 'y'], [['t'], []], [1, 2]);
    const b = { ...a, columns: Object.fromEntries(Object.entries(a.columns).reverse()) };
    expect(Buffer.from(encodeColumns(b))).toEqual(Buffer.from(encodeColumns(a)));
  });

  it('refuse every truncation', () => {
    const bytes = encodeColumns(table(['x', 'y', 'z'], [['t'], [], ['u', 'v']], [1, 2, 3]));
    for (let length = 0; length < bytes.length; length++) {
      expect(() => decodeColumns(bytes.subarray(0, length))).toThrow(
        expect.objectContaining({ code: 'WAGGLE_COLUMNS_CORRUPT' }),
      );
    }
  });

  it('never crash on altered bytes: they decode or say WAGGLE_COLUMNS_CORRUPT', () => {
    const bytes = encodeColumns(table(['x', 'y'], [['t'], ['u', 'v']], [1, 2]));
    fc.assert(
      fc.property(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
        const copy = bytes.slice();
        copy[at] = copy[at]! ^ flip;
        try {
          decodeColumns(copy);
        } catch (error) {
          expect(error).toMatchObject({ code: 'WAGGLE_COLUMNS_CORRUPT' });
        }
      }),
      { numRuns: 2000 },
    );
  });

  it('refuse a missing column and a wrong dtype', () => {
    const t = table(['x'], [[]], [1]);
    expect(() => numericData(t, 'value', 'f32')).toThrow(/value/);
    expect(() => stringData(t, 'nope')).toThrow(/nope/);
  });

  it('reads a file from a pooled Buffer without touching its neighbours', () => {
    const bytes = encodeColumns({
      nRows: 2,
      columns: { x: numericColumn('f64', Float64Array.of(1.5, -2)) },
      meta: {},
    });
    const pooled = Buffer.concat([Buffer.from('seven b'), bytes, Buffer.from('after')]);
    const inside = pooled.subarray(7, 7 + bytes.length);
    const { data } = decodeColumns(inside).columns['x'] as { data: Float64Array };
    expect([...data]).toEqual([1.5, -2]);
    pooled.fill(0);
    expect([...data]).toEqual([1.5, -2]);
  });

  it('refuses a dtype that is none, and data of another', () => {
    for (const [dtype, data] of [
      ['float64', new Float64Array(1)],
      ['f32', new Float64Array(1)],
      ['f64', [1, 2]],
    ] as const) {
      expect(() => numericColumn(dtype as 'f64', data as Float64Array)).toThrow(
        expect.objectContaining({ code: 'WAGGLE_INVALID_ARGUMENT' }),
      );
    }
  });
});
