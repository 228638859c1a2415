import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parameterText } from '../src/engine/parameter-text.js';
import {
  firstWord,
  parseInsert,
  quoteIdentifier,
  quoteLiteral,
  splitStatements,
} from '../src/engine/statement.js';

describe('finding the rows of an INSERT', () => {
  test.each([
    ['INSERT INTO t FORMAT CSV\n1,2', 'INSERT INTO t', '', 'CSV', '1,2'],
    ['insert into t format JSONEachRow {"a":1}', 'insert into t', '', 'JSONEachRow', '{"a":1}'],
    ['INSERT INTO t (a, `b)`) VALUES (1)', 'INSERT INTO t (a, `b)`)', '', 'Values', ' (1)'],
    [
      "INSERT INTO t SETTINGS s = 'FORMAT x' FORMAT TSV\n1",
      'INSERT INTO t',
      "SETTINGS s = 'FORMAT x'",
      'TSV',
      '1',
    ],
    ['/* c */ -- d\n INSERT INTO db.t FORMAT Parquet', 'INSERT INTO db.t', '', 'Parquet', ''],
    ['INSERT INTO t FORMAT CSV\n\nx', 'INSERT INTO t', '', 'CSV', '\nx'],
  ])('%s', (sql, head, settings, format, data) => {
    const found = parseInsert(sql)!;
    expect({ ...found, data: sql.slice(found.dataStart) }).toMatchObject({
      head,
      settings,
      format,
      data,
    });
  });

  test.each([
    'SELECT 1 FORMAT CSV',
    'INSERT INTO t SELECT 1',
    'INSERT INTO t WITH 1 AS x SELECT x',
    "INSERT INTO t FROM INFILE 'x' FORMAT CSV",
    'INSERT INTO t',
    'INSERT',
    '',
  ])('leaves alone: %s', (sql) => {
    expect(parseInsert(sql)).toBeUndefined();
  });

  test('ends for any text and never reads past it', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 200 }), (text) => {
        for (const sql of [text, `INSERT INTO t ${text}`]) {
          const found = parseInsert(sql);
          if (found !== undefined) expect(found.dataStart).toBeLessThanOrEqual(sql.length);
          firstWord(sql);
          splitStatements(sql);
        }
      }),
    );
  });

  test('data never changes what comes before it', () => {
    fc.assert(
      fc.property(fc.string(), (data) => {
        const sql = `INSERT INTO t (a) FORMAT TSV\n${data}`;
        expect(sql.slice(parseInsert(sql)!.dataStart)).toBe(data);
      }),
    );
  });
});

test('splits at semicolons that end a line', () => {
  expect(splitStatements("-- a; b\nCREATE x (s DEFAULT ';');\n\nDROP y;\n-- end\n")).toEqual([
    "CREATE x (s DEFAULT ';')",
    'DROP y',
  ]);
});

test('quotes literals and identifiers', () => {
  expect(quoteLiteral("it's \\ x")).toBe("'it\\'s \\\\ x'");
  expect(quoteIdentifier('db.t`x')).toBe('`db`.`t\\`x`');
});

test('writes parameters as the HTTP interface expects them', () => {
  expect(parameterText("a'b\t\\")).toBe("a\\'b\\t\\\\");
  expect(parameterText([1, "x'", null, true, ['y']])).toBe("[1,'x\\'',NULL,TRUE,['y']]");
  expect(parameterText(null)).toBe('\\N');
  expect(parameterText(Float32Array.of(1.5, 2))).toBe('[1.5,2]');
  expect(parameterText(new Date(1500))).toBe('0000000001.500');
  expect(parameterText({ a: 1 })).toBe("{'a':1}");
  expect(parameterText(Number.NaN)).toBe('nan');
});
