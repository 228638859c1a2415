import { readFileSync } from 'node:fs';
import { silentLogger } from '@waggle/core';
import { collectDefaultMetrics } from 'prom-client';
import * as Schema from 'typebox/schema';
import { describe, expect, test } from 'vitest';
import { GatewayConfigSchema } from '../src/config.js';
import { POSTABLE_TYPES } from '../src/event-contract.js';
import { VERSION } from '../src/version.js';
import { CLICK, NOW_MS, OFFER_SHOWN, OFFERS, servedRelease, testGateway } from './rank-fixture.js';

describe('metrics', () => {
  const series = (text: string) =>
    new Map(
      text
        .split('\n')
        .filter((line) => line !== '' && !line.startsWith('#'))
        .map((line) => [
          line.slice(0, line.lastIndexOf(' ')),
          Number(line.slice(line.lastIndexOf(' ') + 1)),
        ]),
    );

  test('that documents, alerts and READMEs name exist, and each has a help text and a type', async () => {
    const { app } = testGateway();
    collectDefaultMetrics({ register: app.gatewayMetrics.registry });
    await app.inject({ method: 'POST', url: '/v1/rank', payload: OFFERS });
    const { body } = await app.inject({ method: 'GET', url: '/metrics' });
    const exposed = new Set(Array.from(body.matchAll(/^([a-z_]+)(?:\{.*\})? /gm), (m) => m[1]!));
    const described = new Set(Array.from(body.matchAll(/^# TYPE ([a-z_]+) /gm), (m) => m[1]!));
    expect(described).toEqual(
      new Set(Array.from(body.matchAll(/^# HELP ([a-z_]+) \S/gm), (m) => m[1]!)),
    );
    for (const name of exposed) {
      expect(
        [...described].some((d) => [d, `${d}_bucket`, `${d}_sum`, `${d}_count`].includes(name)),
        name,
      ).toBe(true);
    }
    for (const path of ['docs/operations.md', 'README.md', 'apps/gateway/README.md']) {
      const text = readFileSync(new URL(`../../../${path}`, import.meta.url), 'utf8');
      const named =
        text.match(/\b(?:waggle|process|nodejs)_[a-z]+_[a-z_]+\b|\bwaggle_ready\b/g) ?? [];
      for (const name of named)
        expect(exposed.has(name) || described.has(name), `${path}: ${name}`).toBe(true);
    }
  });

  test('settings stand in docs/operations.md with their defaults', () => {
    const text = readFileSync(new URL('../../../docs/operations.md', import.meta.url), 'utf8');
    const listed = Array.from(text.matchAll(/^\| `WAGGLE_GATEWAY_(\w+)` \| (\d+) \|/gm), (m) => [
      m[1]!,
      Number(m[2]),
    ]);
    const numbers = Object.entries(GatewayConfigSchema.properties).flatMap(([key, schema]) =>
      'type' in schema && schema.type === 'integer' && key !== 'port'
        ? [
            [
              key.replaceAll(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase(),
              (schema as unknown as { default: number }).default,
            ],
          ]
        : [],
    );
    expect(new Map(listed as [string, number][])).toEqual(new Map(numbers as [string, number][]));
  });

  test('count requests, errors and durations by route, and what was decided', async () => {
    const { app, clock } = testGateway();
    await app.inject({ method: 'POST', url: '/v1/rank', payload: OFFERS });
    await app.inject({ method: 'POST', url: '/v1/rank', payload: { ...OFFERS, k: 1 } });
    await app.inject({ method: 'POST', url: '/v1/rank', payload: { mode: 'nope' } });
    await app.inject({ method: 'POST', url: '/v1/events', payload: { events: [CLICK, CLICK] } });
    await app.inject({ method: 'GET', url: '/nope' });
    clock.advance(1000);
    const response = await app.inject({ method: 'GET', url: '/metrics' });
    expect(response.headers['content-type']).toMatch(/^text\/plain/);
    const values = series(response.body);
    const expected: Record<string, number> = {
      'waggle_http_requests_total{method="POST",route="/v1/rank",status="200"}': 2,
      'waggle_http_requests_total{method="POST",route="/v1/rank",status="400"}': 1,
      'waggle_http_requests_total{method="POST",route="/v1/events",status="202"}': 1,
      'waggle_http_requests_total{method="*",route="(unknown)",status="404"}': 1,
      'waggle_http_request_duration_seconds_count{method="POST",route="/v1/rank"}': 3,
      'waggle_http_request_duration_seconds_bucket{le="+Inf",method="POST",route="/v1/rank"}': 3,
      'waggle_rank_requests_total{mode="offers"}': 2,
      'waggle_rank_items_total{mode="offers"}': 4,
      'waggle_rank_filtered_total{filter="budget"}': 4,
      'waggle_rank_filtered_total{filter="language"}': 0,
      'waggle_rank_degraded_total{reason="prior_only_model"}': 2,
      'waggle_events_total{outcome="accepted"}': 1,
      'waggle_events_total{outcome="duplicate"}': 1,
      'waggle_release_info{release="rel_a"}': 1,
      waggle_release_swaps_total: 1,
      waggle_ready: 1,
      waggle_http_in_flight: 0,
      waggle_forwarder_up: 1,
      waggle_forwarder_backlog: 0,
      waggle_decisions_dropped_total: 0,
    };
    for (const [name, value] of Object.entries(expected))
      expect([name, values.get(name)]).toEqual([name, value]);
    expect(values.has('waggle_event_loop_lag_seconds{stat="p99"}')).toBe(true);
    await app.close();
  });

  test('are the same however often they are read', async () => {
    const { app } = testGateway();
    await app.inject({ method: 'POST', url: '/v1/rank', payload: OFFERS });
    const read = async () =>
      series((await app.inject('/metrics')).body).get('waggle_rank_items_total{mode="offers"}');
    expect(await read()).toBe(3);
    expect(await read()).toBe(3);
    await app.close();
  });
});

describe('readiness', () => {
  test('needs a release; ranking and events answer 503 until then', async () => {
    const { app } = testGateway({ release: undefined });
    expect((await app.inject('/healthz')).statusCode).toBe(200);
    const ready = await app.inject('/readyz');
    expect([ready.statusCode, ready.json().status]).toEqual([503, 'not_ready']);
    for (const [url, payload] of [
      ['/v1/rank', OFFERS],
      ['/v1/events', { events: [CLICK] }],
    ] as const) {
      const response = await app.inject({ method: 'POST', url, payload });
      expect([response.statusCode, response.json().error.code]).toEqual([503, 'WAGGLE_NOT_READY']);
      expect(response.headers['retry-after']).toBe('1');
    }
    expect((await app.inject('/v1/release')).statusCode).toBe(503);
    await app.close();
  });

  test('ends when shutdown begins, while work is still answered', async () => {
    const { app } = testGateway({ parts: { isDraining: () => true } });
    expect((await app.inject('/readyz')).statusCode).toBe(503);
    expect(
      (await app.inject({ method: 'POST', url: '/v1/rank', payload: OFFERS })).statusCode,
    ).toBe(200);
    await app.close();
  });

  test('does not depend on the store, and says when it is behind', async () => {
    const { app, journal } = testGateway();
    journal.forwarder = () => ({ ok: false, backlog: 7, lagMs: 61_000, dropped: 0 });
    const body = (await app.inject('/readyz')).json();
    expect(body.status).toBe('ready');
    expect(body.checks.forwarder).toEqual({
      ok: false,
      required: false,
      detail: '7 waiting, oldest 61000 ms',
    });
    await app.close();
  });

  test('depends on every log', async () => {
    const { app, journal } = testGateway();
    journal.logs = () => ({ ledger: { ok: true }, events: { ok: false, detail: 'disk full' } });
    const { statusCode, body } = await app.inject('/readyz');
    expect([statusCode, JSON.parse(body).checks]).toMatchObject([
      503,
      { ledger: { ok: true }, events: { ok: false, required: true, detail: 'disk full' } },
    ]);
    await app.close();
  });

  test.each([
    ['rel_b', 'rel_b was refused (WAGGLE_RELEASE_CORRUPT: broken)'],
    [undefined, 'the active release was refused (WAGGLE_RELEASE_CORRUPT: broken)'],
  ])('says why nothing is served when %s was refused, and what to do', async (release, why) => {
    const remedy = 'Build it again.';
    const status = () => ({
      ...{ release: undefined, loadedAtMs: undefined, swaps: 0 },
      rejected: {
        ...(release !== undefined && { release }),
        ...{ code: 'WAGGLE_RELEASE_CORRUPT', message: 'broken', remedy },
      },
    });
    const { app } = testGateway({ parts: { releases: { current: () => undefined, status } } });
    const ready = await app.inject('/readyz');
    expect([ready.statusCode, ready.json().checks.release.detail]).toEqual([
      503,
      `${why}; ${remedy}`,
    ]);
    expect(ready.json().checks).not.toHaveProperty('candidate');
    for (const answer of [
      await app.inject({ method: 'POST', url: '/v1/rank', payload: OFFERS }),
      await app.inject({ method: 'POST', url: '/v1/events', payload: { events: [CLICK] } }),
      await app.inject('/v1/release'),
    ]) {
      const { code, message, remedy: advice } = answer.json().error;
      expect([code, message, advice]).toEqual(['WAGGLE_NOT_READY', why, remedy]);
    }
    await app.close();
  });

  test('names the candidate release that was refused', async () => {
    const status = () => ({
      release: 'rel_a',
      loadedAtMs: 0,
      swaps: 1,
      rejected: {
        ...{ release: 'rel_b', code: 'WAGGLE_RELEASE_CORRUPT', message: 'broken' },
        remedy: 'Build it again.',
      },
    });
    const { app } = testGateway({
      parts: { releases: { current: () => servedRelease(), status } },
    });
    const body = (await app.inject('/readyz')).json();
    expect(body.status).toBe('ready');
    expect(body.checks.candidate.detail).toMatch(/rel_b.*WAGGLE_RELEASE_CORRUPT/);
    expect((await app.inject('/v1/release')).json()).toMatchObject({
      release: 'rel_a',
      rejected: { release: 'rel_b' },
    });
    expect((await app.inject('/metrics')).body).toMatch(/^waggle_release_rejected 1$/m);
    await app.close();
  });
});

describe('budgets', () => {
  const path = '/v1/budgets';

  test('are answered for one campaign and for several, in the order asked for', async () => {
    const { app } = testGateway();
    const budget = {
      campaign_id: 'cmp_1',
      ...{ budget_micros: 1_000, daily_budget_micros: 300, available_micros: 120 },
      ...{ held_micros: 200, spent_micros: 30, outside_micros: 50, today_micros: 180 },
    };
    const one = await app.inject(`${path}?campaign_id=cmp_1`);
    expect([one.statusCode, one.json()]).toEqual([
      200,
      { release: 'rel_a', as_of: new Date(NOW_MS).toISOString(), budgets: [budget] },
    ]);
    const two = await app.inject(`${path}?campaign_id=cmp_1&campaign_id=cmp_1`);
    expect(two.json().budgets).toEqual([budget, budget]);
    await app.close();
  });

  test.each([
    ['', 400, 'WAGGLE_REQUEST_INVALID'],
    ['?campaign_id=', 400, 'WAGGLE_REQUEST_INVALID'],
    ['?campaign=cmp_1', 400, 'WAGGLE_REQUEST_INVALID'],
    ['?campaign_id=cmp_1&limit=3', 400, 'WAGGLE_REQUEST_INVALID'],
    [`?${'campaign_id=cmp_1&'.repeat(101)}`, 400, 'WAGGLE_REQUEST_INVALID'],
    ['?campaign_id=cmp_1&campaign_id=cmp_9', 422, 'WAGGLE_UNKNOWN_CAMPAIGN'],
    ['?campaign_id=__proto__', 400, 'WAGGLE_REQUEST_INVALID'],
  ])('refuse %s', async (query, status, code) => {
    const { app } = testGateway();
    const answer = await app.inject(`${path}${query}`);
    expect([answer.statusCode, answer.json().error.code]).toEqual([status, code]);
    expect(answer.json().error.remedy).toBeTruthy();
    await app.close();
  });

  test('need a release, and are of its tenant', async () => {
    const none = testGateway({ release: undefined });
    expect((await none.app.inject(`${path}?campaign_id=cmp_1`)).statusCode).toBe(503);
    await none.app.close();
    const other = testGateway({ release: servedRelease('rel_b', 'ten_other') });
    const answer = await other.app.inject(`${path}?campaign_id=cmp_1`);
    expect([answer.statusCode, answer.json().error.code]).toEqual([403, 'WAGGLE_TENANT_FORBIDDEN']);
    await other.app.close();
  });
});

describe('the OpenAPI document', () => {
  type Operation = {
    operationId: string;
    security?: unknown;
    parameters?: { in: string; name: string; required?: boolean }[];
    requestBody?: { content: Record<string, { schema: { properties: Record<string, unknown> } }> };
    responses: Record<string, { content?: Record<string, { schema: object }> }>;
  };
  type Document = {
    openapi: string;
    info: { version: string };
    paths: Record<string, Record<string, Operation>>;
  };

  test('covers every route with its answers', async () => {
    const { app } = testGateway();
    await app.ready();
    const document = (await app.inject('/openapi.json')).json() as Document;
    expect(document.openapi).toMatch(/^3\.1\./);
    expect(document.info.version).toBe(VERSION);
    const described = Object.entries(document.paths).flatMap(([path, operations]) =>
      Object.keys(operations).map((method) => `${method.toUpperCase()} ${path}`),
    );
    expect(described.sort()).toEqual([
      'GET /healthz',
      'GET /metrics',
      'GET /readyz',
      'GET /v1/budgets',
      'GET /v1/release',
      'POST /v1/events',
      'POST /v1/rank',
    ]);
    for (const route of described) {
      const [method, url] = route.split(' ') as ['GET' | 'POST', string];
      expect(app.hasRoute({ method, url })).toBe(true);
    }
    const ids = Object.values(document.paths).flatMap((p) =>
      Object.values(p).map((o) => o.operationId),
    );
    expect(new Set(ids).size).toBe(ids.length);
    for (const operations of Object.values(document.paths)) {
      for (const operation of Object.values(operations)) {
        const codes = Object.keys(operation.responses);
        expect(codes.some((c) => c.startsWith('20'))).toBe(true);
        expect(codes).toContain('default');
        for (const answer of Object.values(operation.responses))
          expect(Object.keys(answer.content ?? {})).not.toHaveLength(0);
      }
    }
    expect(document.paths['/v1/rank']?.['post']?.security).toEqual([{ apiKey: [] }]);
    await app.close();
  });

  test('holds the schemas that requests are validated with, and no dangling reference', async () => {
    const { app } = testGateway();
    const text = (await app.inject('/openapi.json')).body;
    const document = JSON.parse(text) as Document;
    expect(text).not.toContain('$ref');
    const rank =
      document.paths['/v1/rank']!['post']!.requestBody!.content['application/json']!.schema;
    expect(Object.keys(rank.properties)).toContain('publication_id');
    const events = document.paths['/v1/events']!['post']!.requestBody!.content;
    expect(Object.keys(events)).toEqual(['application/json', 'application/x-ndjson']);
    // What is sent there is lines of text, and not the object that they become.
    expect(events['application/x-ndjson']!.schema).toMatchObject({ type: 'string' });
    for (const type of POSTABLE_TYPES)
      expect(JSON.stringify(events)).toContain(`"enum":["${type}"]`);
    await app.close();
  });

  test('says of every answer, errors too, in what form it comes', async () => {
    const { app } = testGateway({ config: { apiKeys: 'key_of_sixteen_chars:ten_sample' } });
    const document = (await app.inject('/openapi.json')).json() as Document;
    for (const authorization of ['Bearer key_of_sixteen_chars', 'Bearer none']) {
      for (const [path, operations] of Object.entries(document.paths)) {
        for (const [method, { responses }] of Object.entries(operations)) {
          const answer = await app.inject({
            method: method.toUpperCase() as 'GET' | 'POST',
            url: path === '/v1/budgets' ? `${path}?campaign_id=cmp_1` : path,
            headers: { authorization },
            ...(method === 'post' && {
              payload: path === '/v1/rank' ? OFFERS : { events: [CLICK] },
            }),
          });
          const { content = {} } = responses[answer.statusCode] ?? responses['default']!;
          const type = (answer.headers['content-type'] as string).split(';', 1)[0]!;
          expect(Object.keys(content), `${authorization}: ${path}`).toEqual([type]);
          if (type !== 'application/json') continue;
          expect(Schema.Compile(content[type]!.schema).Check(answer.json()), path).toBe(true);
        }
      }
    }
    await app.close();
  });

  test('declares the Idempotency-Key where it is taken, and requires no field that has a default', async () => {
    const { app } = testGateway();
    const document = (await app.inject('/openapi.json')).json() as Document;
    for (const [path, operations] of Object.entries(document.paths)) {
      for (const [method, { parameters = [] }] of Object.entries(operations)) {
        const names = parameters.map((p) => [p.in, p.name, p.required ?? false]);
        const query = path === '/v1/budgets' ? [['query', 'campaign_id', true]] : [];
        expect(names, path).toEqual(
          method === 'post' ? [['header', 'Idempotency-Key', false]] : query,
        );
      }
    }
    const content = document.paths['/v1/events']!['post']!.requestBody!.content;
    const { events } = content['application/json']!.schema.properties as {
      events: { items: { oneOf: Branch[] } };
    };
    type Branch = {
      required: string[];
      properties: Record<string, { default?: unknown; enum?: string[] }>;
    };
    for (const { required, properties } of events.items.oneOf) {
      const optional = Object.keys(properties).filter((name) => !required.includes(name));
      const defaulted = Object.keys(properties).filter((name) => 'default' in properties[name]!);
      expect(optional.sort(), properties['type']!.enum![0]).toEqual(
        ['tenant_id', ...defaulted].sort(),
      );
      if (properties['type']!.enum![0] === 'offer.shown') {
        for (const name of ['creative_id', 'post_id', 'slot_id', 'decision_id', 'reason'])
          expect(optional).toContain(name);
      }
    }
    await app.close();
  });

  test('carries the version of the package', () => {
    const manifest = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));
    expect(VERSION).toBe(manifest.version);
  });
});

describe('events', () => {
  test('are stored once, with the contract’s defaults and the tenant of the caller', async () => {
    const { app, journal } = testGateway();
    const first = await app.inject({
      method: 'POST',
      url: '/v1/events',
      payload: { events: [CLICK, OFFER_SHOWN] },
    });
    expect([first.statusCode, first.json()]).toEqual([202, { accepted: 2, duplicates: 0 }]);
    const lines = [CLICK, { ...CLICK, event_id: 'evt_9' }]
      .map((e) => JSON.stringify(e))
      .join('\r\n');
    const second = await app.inject({
      method: 'POST',
      url: '/v1/events',
      headers: { 'content-type': 'application/x-ndjson; charset=utf-8' },
      payload: `${lines}\n`,
    });
    expect([second.statusCode, second.json()]).toEqual([202, { accepted: 1, duplicates: 1 }]);
    const offer = journal.rows.get('ten_sample/offer.shown/evt_2');
    expect(offer).toMatchObject({
      kind: 'offers',
      row: { tenant_id: 'ten_sample', creative_id: '', reason: '', decision_id: '' },
    });
    expect(journal.rows.get('ten_sample/click/evt_1')?.kind).toBe('clicks');
    await app.close();
  });

  test('are not acknowledged when they could not be made durable', async () => {
    const { app, journal } = testGateway();
    journal.append = () => Promise.reject(new Error('disk full'));
    const response = await app.inject({
      method: 'POST',
      url: '/v1/events',
      payload: { events: [CLICK] },
    });
    expect([response.statusCode, response.json().error.code]).toEqual([500, 'WAGGLE_INTERNAL']);
    expect(response.body).not.toContain('disk full');
    await app.close();
  });
});

describe('answers', () => {
  test('echo a valid traceparent and drop an invalid one', async () => {
    const { app } = testGateway();
    const trace = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
    const ask = (traceparent: string) =>
      app.inject({ method: 'POST', url: '/v1/rank', payload: OFFERS, headers: { traceparent } });
    expect((await ask(trace)).headers['traceparent']).toBe(trace);
    expect((await ask('nonsense')).headers['traceparent']).toBeUndefined();
    await app.close();
  });

  test('name the request by the caller’s id where there is one', async () => {
    const { app } = testGateway();
    const own = await app.inject({
      method: 'POST',
      url: '/v1/rank',
      payload: { ...OFFERS, request_id: 'mine' },
    });
    expect(own.json().request_id).toBe('mine');
    const made = await app.inject({ method: 'POST', url: '/v1/rank', payload: OFFERS });
    expect(made.json().request_id).toMatch(/^req_[0-9A-Z]{26}$/);
    const refused = await app.inject({
      method: 'POST',
      url: '/v1/rank',
      payload: { request_id: 'mine' },
    });
    expect(refused.json().error.request_id).toBe('mine');
    await app.close();
  });

  test('tell nothing of what broke inside, and log all of it', async () => {
    const logged: object[] = [];
    const logger = {
      ...silentLogger,
      isLevelEnabled: () => true,
      error: (fields: object) => logged.push(fields),
    };
    const { app } = testGateway({
      engine: {
        rank() {
          throw new Error('secret path /var/lib');
        },
      },
      parts: { logger },
    });
    const response = await app.inject({ method: 'POST', url: '/v1/rank', payload: OFFERS });
    expect([response.statusCode, response.json().error.code]).toEqual([500, 'WAGGLE_INTERNAL']);
    expect(response.body).not.toContain('secret');
    expect(logged).toHaveLength(1);
    expect(logged[0]).toMatchObject({
      code: 'WAGGLE_INTERNAL',
      err: { message: 'secret path /var/lib' },
    });
    await app.close();
  });

  test('serialise to the document that the contract’s own serialiser would make', async () => {
    const { app } = testGateway();
    const { rankResponse } = await import('./rank-fixture.js');
    const { RankResponse } = await import('@waggle/core/contract');
    const { Compile } = await import('typebox/compile');
    const response = await app.inject({
      method: 'POST',
      url: '/v1/rank',
      payload: { ...OFFERS, request_id: 'r' },
    });
    expect(Compile(RankResponse).Check(response.json())).toBe(true);
    expect(response.json()).toEqual(
      rankResponse(OFFERS, { requestId: 'r', tenantId: 't', receivedAtMs: 0 }),
    );
    await app.close();
  });
});
