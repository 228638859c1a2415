import { RANK_LIMITS } from '@waggle/core/contract';
import { afterAll, describe, expect, test } from 'vitest';
import { isErrorShape } from './error-shape.js';
import { CLICK, OFFER_SHOWN, OFFERS, testGateway } from './rank-fixture.js';

const gateway = testGateway();
afterAll(() => gateway.app.close());

const JSON_HEADERS = { 'content-type': 'application/json' };
interface Case {
  readonly title: string;
  readonly method?: 'GET' | 'POST' | 'PUT' | 'DELETE' | 'PATCH';
  readonly url?: string;
  readonly headers?: Record<string, string>;
  readonly body?: unknown;
  readonly status: number;
  readonly code: string;
  readonly says?: RegExp;
}

const rank = (fields: object) => ({ ...OFFERS, ...fields });

const RANK: Case[] = [
  { title: 'no body', body: undefined, status: 400, code: 'WAGGLE_REQUEST_INVALID' },
  {
    title: 'an empty body',
    body: '',
    status: 400,
    code: 'WAGGLE_REQUEST_MALFORMED',
    says: /empty/,
  },
  { title: 'half a document', body: '{"mode":"off', status: 400, code: 'WAGGLE_REQUEST_MALFORMED' },
  { title: 'two documents', body: '{}{}', status: 400, code: 'WAGGLE_REQUEST_MALFORMED' },
  {
    title: 'NaN',
    body: '{"mode":"offers","publication_id":"pub_1","k":NaN}',
    status: 400,
    code: 'WAGGLE_REQUEST_MALFORMED',
  },
  {
    title: 'Infinity by overflow',
    body: '{"mode":"offers","publication_id":"pub_1","k":1e999}',
    status: 400,
    code: 'WAGGLE_REQUEST_INVALID',
    says: /body\/k/,
  },
  { title: 'a JSON array', body: [], status: 400, code: 'WAGGLE_REQUEST_INVALID', says: /object/ },
  { title: 'JSON null', body: 'null', status: 400, code: 'WAGGLE_REQUEST_INVALID' },
  {
    title: '__proto__',
    body: '{"mode":"offers","publication_id":"pub_1","__proto__":{"k":1}}',
    status: 400,
    code: 'WAGGLE_REQUEST_MALFORMED',
  },
  {
    title: 'constructor.prototype',
    body: '{"mode":"offers","constructor":{"prototype":{"k":1}}}',
    status: 400,
    code: 'WAGGLE_REQUEST_MALFORMED',
  },
  {
    title: 'an escaped __proto__',
    body: '{"mode":"offers","\\u005f_proto__":{"k":1}}',
    status: 400,
    code: 'WAGGLE_REQUEST_MALFORMED',
  },
  {
    title: 'an unknown field',
    body: rank({ kk: 1 }),
    status: 400,
    code: 'WAGGLE_REQUEST_INVALID',
    says: /unknown field "kk"/,
  },
  {
    title: 'an unknown nested field',
    body: rank({ constraints: { bcats: [] } }),
    status: 400,
    code: 'WAGGLE_REQUEST_INVALID',
    says: /body\/constraints .*bcats/,
  },
  {
    title: 'a missing field',
    body: { mode: 'offers' },
    status: 400,
    code: 'WAGGLE_REQUEST_INVALID',
    says: /publication_id/,
  },
  {
    title: 'an unknown mode',
    body: rank({ mode: 'open' }),
    status: 400,
    code: 'WAGGLE_REQUEST_INVALID',
    says: /body\/mode/,
  },
  {
    title: 'a number as text',
    body: rank({ k: '5' }),
    status: 400,
    code: 'WAGGLE_REQUEST_INVALID',
    says: /body\/k/,
  },
  {
    title: 'text as a number',
    body: rank({ publication_id: 5 }),
    status: 400,
    code: 'WAGGLE_REQUEST_INVALID',
  },
  {
    title: 'a boolean as text',
    body: rank({ test: 'true' }),
    status: 400,
    code: 'WAGGLE_REQUEST_INVALID',
  },
  {
    title: 'null for a field',
    body: rank({ post_id: null }),
    status: 400,
    code: 'WAGGLE_REQUEST_INVALID',
  },
  {
    title: 'k = 0',
    body: rank({ k: 0 }),
    status: 400,
    code: 'WAGGLE_REQUEST_INVALID',
    says: />= 1/,
  },
  { title: 'k = -1', body: rank({ k: -1 }), status: 400, code: 'WAGGLE_REQUEST_INVALID' },
  { title: 'k = 1.5', body: rank({ k: 1.5 }), status: 400, code: 'WAGGLE_REQUEST_INVALID' },
  {
    title: 'a huge k',
    body: rank({ k: 1e15 }),
    status: 400,
    code: 'WAGGLE_REQUEST_INVALID',
    says: /<= 100/,
  },
  {
    title: 'a deadline of zero',
    body: rank({ deadline_ms: 0 }),
    status: 400,
    code: 'WAGGLE_REQUEST_INVALID',
  },
  {
    title: 'a deadline in the past',
    body: rank({ deadline_ms: -5 }),
    status: 400,
    code: 'WAGGLE_REQUEST_INVALID',
  },
  {
    title: 'an id with spaces',
    body: rank({ publication_id: 'pub 1' }),
    status: 400,
    code: 'WAGGLE_REQUEST_INVALID',
    says: /pattern/,
  },
  {
    title: 'an id of 65 characters',
    body: rank({ publication_id: 'p'.repeat(65) }),
    status: 400,
    code: 'WAGGLE_REQUEST_INVALID',
  },
  {
    title: 'an id with a NUL',
    body: rank({ publication_id: 'pub\u0000' }),
    status: 400,
    code: 'WAGGLE_REQUEST_INVALID',
  },
  {
    title: 'no slots in the list',
    body: rank({ slots: [] }),
    status: 400,
    code: 'WAGGLE_REQUEST_INVALID',
    says: /slots/,
  },
  {
    title: 'too many slots',
    body: rank({ slots: Array.from({ length: 17 }, (_, i) => ({ id: `s${i}` })) }),
    status: 400,
    code: 'WAGGLE_REQUEST_INVALID',
  },
  {
    title: 'a slot position of 99',
    body: rank({ slots: [{ id: 's', position: 99 }] }),
    status: 400,
    code: 'WAGGLE_REQUEST_INVALID',
    says: /body\/slots\/0\/position/,
  },
  {
    title: 'a floor beyond exact numbers',
    body: rank({ slots: [{ id: 's', floor_micros: 2 ** 60 }] }),
    status: 400,
    code: 'WAGGLE_REQUEST_INVALID',
  },
  {
    title: 'an empty candidate list',
    body: rank({ constraints: { candidates: [] } }),
    status: 400,
    code: 'WAGGLE_REQUEST_INVALID',
  },
  {
    title: 'too many candidates',
    body: rank({
      constraints: {
        candidates: Array.from({ length: RANK_LIMITS.maxCandidates + 1 }, (_, i) => `c${i}`),
      },
    }),
    status: 400,
    code: 'WAGGLE_REQUEST_INVALID',
  },
  {
    title: 'a body over the limit',
    body: JSON.stringify(rank({})) + ' '.repeat(RANK_LIMITS.bodyBytes),
    status: 413,
    code: 'WAGGLE_REQUEST_TOO_LARGE',
  },
  {
    title: 'deep nesting',
    body: `${'['.repeat(50_000)}${']'.repeat(50_000)}`,
    status: 400,
    code: 'WAGGLE_REQUEST_INVALID',
  },
  {
    title: 'invalid UTF-8',
    body: Buffer.concat([
      Buffer.from('{"mode":"offers","publication_id":"pub_1","request_id":"'),
      Buffer.from([0xff, 0xfe]),
      Buffer.from('"}'),
    ]),
    status: 400,
    code: 'WAGGLE_REQUEST_ENCODING',
  },
  {
    title: 'truncated UTF-8',
    body: Buffer.from([0x7b, 0x22, 0xe2, 0x82]),
    status: 400,
    code: 'WAGGLE_REQUEST_ENCODING',
  },
  {
    title: 'an unpaired surrogate escape',
    body: '{"mode":"offers","publication_id":"pub_1","request_id":"\\ud800"}',
    status: 400,
    code: 'WAGGLE_REQUEST_ENCODING',
  },
  {
    title: 'UTF-16',
    body: Buffer.from('{"mode":"offers"}', 'utf16le'),
    status: 400,
    code: 'WAGGLE_REQUEST_MALFORMED',
  },
  {
    title: 'text/plain',
    headers: { 'content-type': 'text/plain' },
    body: '{}',
    status: 415,
    code: 'WAGGLE_MEDIA_TYPE_UNSUPPORTED',
  },
  {
    title: 'a form',
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    body: 'k=1',
    status: 415,
    code: 'WAGGLE_MEDIA_TYPE_UNSUPPORTED',
  },
  {
    title: 'NDJSON on rank',
    headers: { 'content-type': 'application/x-ndjson' },
    body: '{}',
    status: 415,
    code: 'WAGGLE_MEDIA_TYPE_UNSUPPORTED',
  },
  {
    title: 'another charset',
    headers: { 'content-type': 'application/json; charset=latin1' },
    body: '{}',
    status: 415,
    code: 'WAGGLE_MEDIA_TYPE_UNSUPPORTED',
    says: /latin1/,
  },
  {
    title: 'a compressed body',
    headers: { ...JSON_HEADERS, 'content-encoding': 'gzip' },
    body: '{}',
    status: 415,
    code: 'WAGGLE_MEDIA_TYPE_UNSUPPORTED',
  },
  {
    title: 'no content type',
    headers: { 'content-type': '' },
    body: 'x',
    status: 415,
    code: 'WAGGLE_MEDIA_TYPE_UNSUPPORTED',
  },
  {
    title: 'another tenant',
    body: rank({ tenant_id: 'ten_other' }),
    status: 403,
    code: 'WAGGLE_TENANT_FORBIDDEN',
  },
  {
    title: 'an unusable Idempotency-Key',
    headers: { ...JSON_HEADERS, 'idempotency-key': 'x'.repeat(256) },
    body: OFFERS,
    status: 400,
    code: 'WAGGLE_IDEMPOTENCY_KEY_INVALID',
  },
  {
    title: 'an unknown route',
    url: '/v2/rank',
    body: OFFERS,
    status: 404,
    code: 'WAGGLE_ROUTE_UNKNOWN',
  },
  {
    title: 'an unknown route with a strange body',
    url: '/nope',
    headers: { 'content-type': 'image/png' },
    body: 'x',
    status: 404,
    code: 'WAGGLE_ROUTE_UNKNOWN',
  },
  {
    title: 'a broken URL',
    method: 'GET',
    url: '/v1/%zz',
    status: 404,
    code: 'WAGGLE_ROUTE_UNKNOWN',
  },
  { title: 'GET on rank', method: 'GET', status: 405, code: 'WAGGLE_METHOD_NOT_ALLOWED' },
  { title: 'DELETE on rank', method: 'DELETE', status: 405, code: 'WAGGLE_METHOD_NOT_ALLOWED' },
  {
    title: 'POST on healthz',
    url: '/healthz?x=1',
    body: {},
    status: 405,
    code: 'WAGGLE_METHOD_NOT_ALLOWED',
  },
];

const events = (...list: object[]) => ({ events: list });
const click = (fields: object) => ({ ...CLICK, ...fields });
const ndjson = { 'content-type': 'application/x-ndjson' };
const EVENTS: Case[] = (
  [
    {
      title: 'no events',
      body: events(),
      status: 400,
      code: 'WAGGLE_REQUEST_INVALID',
      says: /events/,
    },
    { title: 'a bare array', body: [CLICK], status: 400, code: 'WAGGLE_REQUEST_INVALID' },
    {
      title: 'an unknown type',
      body: events({ ...CLICK, type: 'clack' }),
      status: 400,
      code: 'WAGGLE_REQUEST_INVALID',
      says: /events\/0.*type.*clack/,
    },
    {
      title: 'a type that is a number',
      body: events({ ...CLICK, type: 7 }),
      status: 400,
      code: 'WAGGLE_REQUEST_INVALID',
    },
    {
      title: 'an event without a type',
      body: events({ event_id: 'e' }),
      status: 400,
      code: 'WAGGLE_REQUEST_INVALID',
      says: /type/,
    },
    {
      title: 'a ledger entry',
      body: events({ ...CLICK, type: 'ledger.charge' }),
      status: 400,
      code: 'WAGGLE_REQUEST_INVALID',
      says: /ledger\.charge/,
    },
    {
      title: 'a decision',
      body: events({ ...CLICK, type: 'decision.fill' }),
      status: 400,
      code: 'WAGGLE_REQUEST_INVALID',
    },
    {
      title: 'an unknown field',
      body: events(CLICK, click({ event_id: 'e2', extra: 1 })),
      status: 400,
      code: 'WAGGLE_REQUEST_INVALID',
      says: /events\/1 .*extra/,
    },
    {
      title: 'a missing field',
      body: events(click({ placement_id: undefined })),
      status: 400,
      code: 'WAGGLE_REQUEST_INVALID',
      says: /placement_id/,
    },
    {
      title: 'a wrong type',
      body: events(click({ honeypot: 'no' })),
      status: 400,
      code: 'WAGGLE_REQUEST_INVALID',
      says: /events\/0\/honeypot/,
    },
    {
      title: 'a field of another type of event',
      body: events(click({ offer_id: 'ofr_1' })),
      status: 400,
      code: 'WAGGLE_REQUEST_INVALID',
      says: /offer_id/,
    },
    {
      title: 'an infinite number',
      body: JSON.stringify(events(click({ ms_since_delivery: 12345678 }))).replace(
        '12345678',
        '1e999',
      ),
      status: 400,
      code: 'WAGGLE_REQUEST_INVALID',
      says: /ms_since_delivery/,
    },
    {
      title: 'a timestamp without a zone',
      body: events(click({ ts: '2026-03-01T10:00:00' })),
      status: 400,
      code: 'WAGGLE_REQUEST_INVALID',
      says: /events\/0\/ts/,
    },
    {
      title: 'February 30',
      body: events(click({ ts: '2026-02-30T10:00:00Z' })),
      status: 422,
      code: 'WAGGLE_EVENT_TIME_INVALID',
      says: /calendar/,
    },
    {
      title: 'month 13',
      body: events(click({ ts: '2026-13-01T10:00:00Z' })),
      status: 422,
      code: 'WAGGLE_EVENT_TIME_INVALID',
    },
    {
      title: 'a time in the future',
      body: events(click({ ts: '2026-03-04T00:00:00Z' })),
      status: 422,
      code: 'WAGGLE_EVENT_TIME_INVALID',
      says: /future/,
    },
    {
      title: 'a time before 2000',
      body: events(click({ ts: '1999-12-31T00:00:00Z' })),
      status: 422,
      code: 'WAGGLE_EVENT_TIME_INVALID',
    },
    {
      title: 'an impossible expiry',
      body: events({ ...OFFER_SHOWN, expires_at: '2026-02-30T00:00:00Z' }),
      status: 422,
      code: 'WAGGLE_EVENT_TIME_INVALID',
      says: /expires_at/,
    },
    {
      title: 'an unknown publication',
      body: events(CLICK, click({ event_id: 'e2', publication_id: 'pub_x' })),
      status: 422,
      code: 'WAGGLE_EVENT_ENTITY_UNKNOWN',
      says: /events\/1\/publication_id/,
    },
    {
      title: 'an unknown campaign',
      body: events(click({ campaign_id: 'cmp_x' })),
      status: 422,
      code: 'WAGGLE_EVENT_ENTITY_UNKNOWN',
    },
    {
      title: 'an unknown creative',
      body: events(click({ creative_id: 'crv_x' })),
      status: 422,
      code: 'WAGGLE_EVENT_ENTITY_UNKNOWN',
    },
    {
      title: 'one id for two different events',
      body: events(CLICK, click({ device: 'desktop' })),
      status: 409,
      code: 'WAGGLE_EVENT_CONFLICT',
      says: /events\/1/,
    },
    {
      title: 'another tenant',
      body: events(click({ tenant_id: 'ten_other' })),
      status: 403,
      code: 'WAGGLE_TENANT_FORBIDDEN',
    },
    {
      title: 'too many events',
      body: events(...Array.from({ length: 5_001 }, (_, i) => ({ type: 'x', i }))),
      status: 400,
      code: 'WAGGLE_REQUEST_INVALID',
      says: /5000/,
    },
    {
      title: 'a body over the limit',
      body: `{"events":[]}${' '.repeat(4_194_304)}`,
      status: 413,
      code: 'WAGGLE_REQUEST_TOO_LARGE',
    },
    {
      title: 'empty NDJSON',
      headers: ndjson,
      body: '\n\n',
      status: 400,
      code: 'WAGGLE_REQUEST_INVALID',
    },
    {
      title: 'a broken NDJSON line',
      headers: ndjson,
      body: `${JSON.stringify(CLICK)}\n{"type":`,
      status: 400,
      code: 'WAGGLE_REQUEST_MALFORMED',
      says: /line 2/,
    },
    {
      title: 'too many NDJSON lines',
      headers: ndjson,
      body: '{}\n'.repeat(5_001),
      status: 413,
      code: 'WAGGLE_REQUEST_TOO_LARGE',
    },
    {
      title: 'a poisoned NDJSON line',
      headers: ndjson,
      body: '{"__proto__":{}}',
      status: 400,
      code: 'WAGGLE_REQUEST_MALFORMED',
    },
    {
      title: 'invalid UTF-8 in NDJSON',
      headers: ndjson,
      body: Buffer.from([0x7b, 0xff]),
      status: 400,
      code: 'WAGGLE_REQUEST_ENCODING',
    },
  ] satisfies Case[]
).map((c) => ({ url: '/v1/events', ...c }));

describe.each([
  { route: '/v1/rank', cases: RANK },
  { route: '/v1/events', cases: EVENTS },
])('$route refuses', ({ cases }) => {
  test.each(cases)('$title: $status $code', async (c) => {
    const payload =
      c.body === undefined || typeof c.body === 'string' || Buffer.isBuffer(c.body)
        ? c.body
        : JSON.stringify(c.body);
    const headers = c.headers ?? (payload === undefined ? {} : JSON_HEADERS);
    const response = await gateway.app.inject({
      method: c.method ?? 'POST',
      url: c.url ?? '/v1/rank',
      headers,
      ...(payload === undefined ? {} : { payload }),
    });
    expect(response.json()).toSatisfy(isErrorShape);
    const { error } = response.json();
    expect({ status: response.statusCode, code: error.code }).toEqual({
      status: c.status,
      code: c.code,
    });
    if (c.says !== undefined) expect(error.message).toMatch(c.says);
    expect(error.remedy).toBeTruthy();
    expect(gateway.ranked).toHaveLength(0);
    expect(gateway.journal.rows.size).toBe(0);
  });
});

test('405 names the methods that the path takes', async () => {
  const response = await gateway.app.inject({ method: 'PUT', url: '/v1/events' });
  expect(response.headers['allow']).toBe('POST');
});

test('a paired surrogate escape is text like any other', async () => {
  const own = testGateway();
  const response = await own.app.inject({
    method: 'POST',
    url: '/v1/rank',
    headers: JSON_HEADERS,
    payload: '{"mode":"offers","publication_id":"pub_1","request_id":"\\ud83d\\udc1d"}',
  });
  expect(response.statusCode).toBe(200);
  expect(response.json().request_id).toBe('🐝');
  await own.app.close();
});
