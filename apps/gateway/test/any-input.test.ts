import { parseTimestampMs } from '@waggle/core';
import { RankResponse } from '@waggle/core/contract';
import fc from 'fast-check';
import { Compile } from 'typebox/compile';
import { afterAll, expect, test } from 'vitest';
import { POSTABLE_TYPES } from '../src/event-contract.js';
import { isErrorShape } from './error-shape.js';
import { CLICK, testGateway } from './rank-fixture.js';

const { app } = testGateway();
afterAll(() => app.close());
const response200 = Compile(RankResponse);

const send = async (url: string, payload: string | Buffer, type = 'application/json') => {
  const response = await app.inject({
    method: 'POST',
    url,
    payload,
    headers: { 'content-type': type },
  });
  return { status: response.statusCode, body: JSON.parse(response.body) as unknown };
};

/** Values near the contract, so that many requests come close to being valid. */
const scalar = fc.oneof(
  fc.string(),
  fc.string({ unit: 'binary' }),
  fc.integer(),
  fc.double(),
  fc.boolean(),
  fc.constant(null),
  fc.constantFrom('offers', 'fill', 'pub_1', 'none', 'full', '2026-03-02T00:00:00Z'),
);
const nearRank = fc.record(
  {
    mode: fc.constantFrom('offers', 'fill', 'offers', 7),
    publication_id: fc.constantFrom('pub_1', 'x', 'y', 1),
    k: fc.oneof({ arbitrary: fc.integer({ min: 0, max: 110 }), weight: 9 }, fc.double()),
    request_id: fc.oneof(fc.string({ minLength: 1 }), fc.string({ unit: 'binary' })),
    slots: fc.oneof(
      {
        arbitrary: fc.array(fc.record({ id: fc.constantFrom('s1', 's2') }), {
          minLength: 1,
          maxLength: 3,
        }),
        weight: 4,
      },
      scalar,
    ),
    constraints: fc.oneof(
      { arbitrary: fc.constant({}), weight: 4 },
      fc.dictionary(
        fc.constantFrom('bcat', 'badv', 'separation'),
        fc.oneof(scalar, fc.array(fc.string())),
      ),
      scalar,
    ),
    explain: fc.constantFrom('none', 'summary', 'full', null),
  },
  { requiredKeys: ['mode', 'publication_id'] },
);

test('any JSON gets a ranking or an error of the contract', async () => {
  let ranked = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.oneof(
        fc.json(),
        nearRank.map((body) => JSON.stringify(body)),
      ),
      async (text) => {
        const { status, body } = await send('/v1/rank', text);
        if (status === 200) {
          ranked++;
          expect(response200.Check(body)).toBe(true);
        } else {
          expect([status, isErrorShape(body)]).toEqual([400, true]);
        }
      },
    ),
    { numRuns: 600 },
  );
  expect(ranked).toBeGreaterThan(20);
});

test('any bytes get an error of the contract', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.uint8Array({ maxLength: 200 }),
      fc.constantFrom('/v1/rank', '/v1/events'),
      fc.constantFrom(
        'application/json',
        'application/x-ndjson',
        'text/html',
        'application/json;charset=utf-8',
      ),
      async (bytes, url, type) => {
        const { status, body } = await send(url, Buffer.from(bytes), type);
        expect(isErrorShape(body)).toBe(true);
        expect([400, 415]).toContain(status);
      },
    ),
    { numRuns: 400 },
  );
});

test('any event gets 202 or an error of the contract', async () => {
  const event = fc.oneof(
    fc.record({
      type: fc.constantFrom(...POSTABLE_TYPES, 'x'),
      event_id: fc.string(),
      ts: fc.string(),
    }),
    fc
      .dictionary(fc.constantFrom(...Object.keys(CLICK)), scalar)
      .map((fields) => ({ ...CLICK, ...fields })),
    fc.jsonValue(),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(event, { maxLength: 4 }), fc.boolean(), async (events, lines) => {
      const { status, body } = lines
        ? await send(
            '/v1/events',
            events.map((e) => JSON.stringify(e)).join('\n'),
            'application/x-ndjson',
          )
        : await send('/v1/events', JSON.stringify({ events }));
      if (status !== 202) expect([isErrorShape(body), status < 500]).toEqual([true, true]);
    }),
    { numRuns: 500 },
  );
});

test('times are read as the calendar has them', () => {
  fc.assert(
    fc.property(
      fc.date({ min: new Date(0), max: new Date('2199-12-31T23:59:59Z'), noInvalidDate: true }),
      (date) => {
        expect(parseTimestampMs(date.toISOString())).toBe(date.getTime());
      },
    ),
  );
  for (const text of [
    '2026-02-29T00:00:00Z',
    '2026-04-31T00:00:00Z',
    '2026-00-10T00:00:00Z',
    '2026-01-01T24:00:00Z',
    '2026-01-01T23:60:00Z',
    '2026-01-01T23:59:60Z',
  ]) {
    expect(parseTimestampMs(text)).toBeUndefined();
  }
  expect(parseTimestampMs('2024-02-29T12:00:00.5Z')).toBe(Date.UTC(2024, 1, 29, 12, 0, 0, 500));
});
