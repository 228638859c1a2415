import { type StringColumn, type StringListColumn, stringAt, stringsAt } from '@waggle/core';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { decodeNative } from '../src/index.js';
import { type TemporaryStore, temporaryStore } from '../src/testing/index.js';

let subject: TemporaryStore;
beforeAll(async () => {
  subject = await temporaryStore({ migrate: false });
});
afterAll(() => subject.dispose());

test('columns hold what rows hold, for any values', async () => {
  const { store } = subject;
  await store.command(
    `CREATE TABLE law (i UInt32, s String, l LowCardinality(String), n Nullable(Int32), ln LowCardinality(Nullable(String)),
       a Array(LowCardinality(String)), v Array(Float32), f Float64, e Enum8('on' = 1, 'o\\'ff' = -2), x FixedString(4),
       d Date, t DateTime64(6, 'UTC'), m Decimal(12, 3), b Bool, w Int64)
     ENGINE = MergeTree ORDER BY i`,
  );
  const text = fc.string({ unit: 'grapheme', maxLength: 12 });
  const row = fc.record({
    s: text,
    l: fc.constantFrom('', 'a', 'bé', 'ccc'),
    n: fc.option(fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 })),
    ln: fc.option(text),
    a: fc.array(fc.constantFrom('p', 'q', 'r'), { maxLength: 3 }),
    v: fc.tuple(
      fc.float({ noNaN: true, noDefaultInfinity: true }),
      fc.float({ noNaN: true, noDefaultInfinity: true }),
    ),
    f: fc.double({ noNaN: true, noDefaultInfinity: true }),
    e: fc.constantFrom('on', "o'ff"),
    x: fc.constantFrom('', 'ab', 'abcd'),
    d: fc.constantFrom('1970-01-01', '2026-03-02', '2149-06-06'),
    t: fc.constantFrom('1969-12-31 23:59:59.250000', '2026-03-02 01:02:03.456000'),
    m: fc.integer({ min: -(10 ** 8), max: 10 ** 8 }).map((k) => k / 1000),
    b: fc.boolean(),
    w: fc.maxSafeInteger(),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(row, { maxLength: 30 }), async (rows) => {
      await store.command('TRUNCATE TABLE law');
      // Two parts, hence at least two blocks.
      const half = rows.length >> 1;
      const numbered = rows.map((r, i) => ({ i, ...r }));
      await store.insert('law', numbered.slice(0, half));
      await store.insert('law', numbered.slice(half));
      const { nRows, columns } = await store.queryColumns('SELECT * FROM law ORDER BY i');
      expect(nRows).toBe(rows.length);
      if (rows.length === 0) return;
      const number = (name: string, at: number) =>
        (columns[name] as { data: ArrayLike<number> }).data[at];
      const string = (name: string, at: number) => stringAt(columns[name] as StringColumn, at);
      for (const [at, r] of rows.entries()) {
        expect(number('i', at)).toBe(at);
        expect(string('s', at)).toBe(r.s);
        expect(string('l', at)).toBe(r.l);
        expect(number('n', at)).toBe(r.n ?? Number.NaN);
        expect(string('ln', at)).toBe(r.ln ?? '');
        expect(stringsAt(columns['a'] as StringListColumn, at)).toEqual(r.a);
        // JSON has no negative zero.
        expect(number('v', at * 2)! + 0).toBe(r.v[0] + 0);
        expect(number('v', at * 2 + 1)! + 0).toBe(r.v[1] + 0);
        expect(number('f', at)! + 0).toBe(r.f + 0);
        expect(string('e', at)).toBe(r.e);
        expect(string('x', at)).toBe(r.x);
        expect(number('d', at)).toBe(Date.parse(r.d));
        expect(number('t', at)).toBe(Date.parse(`${r.t.replace(' ', 'T')}Z`));
        expect(number('m', at)).toBeCloseTo(r.m, 9);
        expect(number('b', at)).toBe(Number(r.b));
        expect(number('w', at)).toBe(r.w);
      }
    }),
    { numRuns: 20 },
  );
});

describe('results without a column form', () => {
  test.each([
    ["SELECT map('a', 1) AS m", 'm'],
    ['SELECT arrayJoin([[1], [1, 2]]) AS ragged', 'ragged'],
    ["SELECT tuple(1, 'a') AS t", 't'],
  ])('%s', async (sql, column) => {
    await expect(subject.store.queryColumns(sql)).rejects.toMatchObject({
      code: 'WAGGLE_STORE_RESULT',
      details: { column },
      remedy: expect.any(String),
    });
  });
});

test('cut or foreign bytes are an error or fewer blocks, never a hang or wrong lengths', async () => {
  // One block: c UInt32 = [1, 2], s String = ['ab', 'c'].
  const block = Buffer.concat([
    Buffer.from([2, 2, 1, 0x63, 6]),
    Buffer.from('UInt32'),
    Buffer.from(Uint32Array.of(1, 2).buffer),
    Buffer.from([1, 0x73, 6]),
    Buffer.from('String'),
    Buffer.from([2, 0x61, 0x62, 1, 0x63]),
  ]);
  expect(decodeNative(block).nRows).toBe(2);
  expect(decodeNative(Buffer.concat([block, block])).nRows).toBe(4);
  for (let cut = 1; cut < block.length; cut++) {
    expect(() => decodeNative(block.subarray(0, cut))).toThrow(
      expect.objectContaining({ code: 'WAGGLE_STORE_RESULT' }),
    );
  }
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), (noise) => {
      try {
        const { nRows, columns } = decodeNative(noise);
        for (const column of Object.values(columns)) {
          if (column.kind === 'numeric') expect(column.data.length).toBe(nRows * column.width);
        }
      } catch (err) {
        expect(err).toMatchObject({ code: expect.stringMatching(/^WAGGLE_/) });
      }
    }),
  );
});
