import { describe, expect, test } from 'vitest';
import { parseApiKeys } from '../src/auth.js';
import { gatewayConfig, gatewayConfigFromEnv } from '../src/config.js';
import { CLICK, OFFERS, servedRelease, testGateway } from './rank-fixture.js';

const KEY_A = 'key-of-tenant-a-000';
const KEY_B = 'key-of-tenant-b-000';
const KEYS = `${KEY_A}:ten_a,${KEY_B}:ten_b`;

const code = (work: () => unknown): string | undefined => {
  try {
    work();
  } catch (error) {
    return (error as { code: string }).code;
  }
  return undefined;
};

describe('binding', () => {
  test.each(['127.0.0.1', '127.8.8.8', '::1', 'localhost'])('loopback %s needs no keys', (host) => {
    expect(gatewayConfig({ host }).host).toBe(host);
  });

  test.each(['0.0.0.0', '::', '10.0.0.5', 'example.com', '127.0.0.1.example.com'])(
    '%s is refused without keys',
    (host) => {
      expect(code(() => gatewayConfig({ host }))).toBe('WAGGLE_BIND_REFUSED');
      expect(gatewayConfig({ host, apiKeys: KEYS }).host).toBe(host);
    },
  );
});

describe('environment', () => {
  test('names map to options and are converted', () => {
    const config = gatewayConfigFromEnv({
      WAGGLE_PORT: '9000',
      WAGGLE_HOST: '',
      WAGGLE_GATEWAY_REQUEST_TIMEOUT_MS: '1234',
      WAGGLE_API_KEYS: KEYS,
      WAGGLE_BACKEND: 'cpu',
      PATH: '/bin',
    });
    expect(config).toMatchObject({
      port: 9000,
      requestTimeoutMs: 1234,
      apiKeys: KEYS,
      host: '127.0.0.1',
    });
  });

  test.each([
    ['an unknown name', { WAGGLE_GATEWAY_PROT: '1' }],
    ['a port that is text', { WAGGLE_PORT: 'http' }],
    ['a port out of range', { WAGGLE_PORT: '70000' }],
    ['the port under a second name', { WAGGLE_GATEWAY_PORT: '80' }],
    ['an unknown clock', { WAGGLE_CLOCK: 'sundial' }],
    ['keys under a second name', { WAGGLE_GATEWAY_API_KEYS: KEYS }],
  ])('%s is refused', (_title, env) => {
    expect(code(() => gatewayConfigFromEnv(env))).toBe('WAGGLE_CONFIG_INVALID');
  });

  test.each([
    ['WAGGLE_PORT', 'tcp://10.96.0.1:80', 'must be integer'],
    ['WAGGLE_PORT', '80.5', 'must be integer'],
    ['WAGGLE_GATEWAY_MAX_IN_FLIGHT', '0', 'must be >= 1'],
    ['WAGGLE_GATEWAY_PROT', '1', 'is not known'],
    ['WAGGLE_GATEWAY_PORT', '1', 'is not known'],
    ['WAGGLE_CLOCK', 'sundial', 'must be one of auto, system, data'],
    ['WAGGLE_CLICKHOUSE_URL', 'localhost:8123', 'must match pattern "^https?://"'],
  ])('%s=%s is refused under its own name', (name, value, problem) => {
    expect(() => gatewayConfigFromEnv({ [name]: value })).toThrow(
      expect.objectContaining({ message: `environment: ${name}: ${problem}` }),
    );
  });

  test('flags win over the environment', () => {
    expect(gatewayConfigFromEnv({ WAGGLE_PORT: '9000' }, { port: 1 }).port).toBe(1);
  });
});

describe('keys', () => {
  test.each([
    'short:ten_a',
    KEY_A,
    `${KEY_A}:`,
    `${KEY_A}:ten a`,
    `${KEYS},`,
    `${KEY_A}:t,${KEY_A}:u`,
    `schlüssel-mit-umlaut:t`,
  ])('the list %s is refused without repeating the key', (text) => {
    let message = '';
    try {
      parseApiKeys(text);
    } catch (error) {
      message = (error as Error).message;
    }
    expect(message).toMatch(/^WAGGLE_API_KEYS: entry \d+/);
    expect(message).not.toContain(KEY_A);
  });

  const rank = async (
    headers: Record<string, string>,
    body: object = OFFERS,
    release = servedRelease('rel_a', 'ten_a'),
  ) => {
    const { app, ranked } = testGateway({ config: { apiKeys: KEYS }, release });
    const response = await app.inject({ method: 'POST', url: '/v1/rank', headers, payload: body });
    await app.close();
    return {
      status: response.statusCode,
      code: response.json().error?.code,
      tenant: ranked[0]?.context.tenantId,
      headers: response.headers,
    };
  };
  const bearer = (key: string) => ({ authorization: `Bearer ${key}` });

  test.each([
    ['no header', {}],
    ['an empty bearer', bearer('')],
    ['a wrong key', bearer('key-of-tenant-c-000')],
    ['a prefix of a key', bearer(KEY_A.slice(0, -1))],
    ['a key with more behind it', bearer(`${KEY_A}0`)],
    ['another scheme', { authorization: `Basic ${KEY_A}` }],
    ['the bare key', { authorization: KEY_A }],
    ['the digest of nothing', bearer('undefined')],
  ])('%s gets 401', async (_title, headers) => {
    const answer = await rank(headers as Record<string, string>);
    expect(answer).toMatchObject({ status: 401, code: 'WAGGLE_UNAUTHORIZED', tenant: undefined });
    expect(answer.headers['www-authenticate']).toMatch(/^Bearer/);
  });

  test('the tenant comes from the key', async () => {
    expect(await rank(bearer(KEY_A))).toMatchObject({ status: 200, tenant: 'ten_a' });
    expect(await rank(bearer(KEY_B), OFFERS, servedRelease('rel_a', 'ten_b'))).toMatchObject({
      status: 200,
      tenant: 'ten_b',
    });
    expect(await rank({ authorization: `bearer ${KEY_A}` })).toMatchObject({ status: 200 });
  });

  test('a body may name its own tenant and no other', async () => {
    expect(await rank(bearer(KEY_A), { ...OFFERS, tenant_id: 'ten_a' })).toMatchObject({
      status: 200,
    });
    expect(await rank(bearer(KEY_A), { ...OFFERS, tenant_id: 'ten_b' })).toMatchObject({
      status: 403,
      code: 'WAGGLE_TENANT_FORBIDDEN',
    });
  });

  test("another tenant's key gets nothing from this tenant's release", async () => {
    expect(await rank(bearer(KEY_B))).toMatchObject({
      status: 403,
      code: 'WAGGLE_TENANT_FORBIDDEN',
      tenant: undefined,
    });
  });

  test('events, metrics and the release need a key; health and the document do not', async () => {
    const { app } = testGateway({ config: { apiKeys: KEYS } });
    const status = async (method: 'GET' | 'POST', url: string) =>
      (
        await app.inject({
          method,
          url,
          ...(method === 'POST' ? { payload: { events: [CLICK] } } : {}),
        })
      ).statusCode;
    expect(await status('POST', '/v1/events')).toBe(401);
    expect(await status('GET', '/metrics')).toBe(401);
    expect(await status('GET', '/v1/release')).toBe(401);
    expect(await status('GET', '/v1/budgets?campaign_id=cmp_1')).toBe(401);
    expect(await status('GET', '/healthz')).toBe(200);
    expect(await status('GET', '/readyz')).toBe(200);
    expect(await status('GET', '/openapi.json')).toBe(200);
    await app.close();
  });

  test('the release and why one was refused are for keys of its tenant; probes learn that it is ready', async () => {
    const rejected = {
      ...{ release: 'rel_b', code: 'WAGGLE_RELEASE_CORRUPT' },
      ...{ message: 'broken', remedy: 'Build it again.' },
    };
    const gateway = (serves: boolean) =>
      testGateway({
        config: { apiKeys: KEYS },
        parts: {
          releases: {
            current: () => (serves ? servedRelease('rel_a', 'ten_a') : undefined),
            status: () => ({
              ...{ release: serves ? 'rel_a' : undefined, loadedAtMs: 0, swaps: 1 },
              rejected,
            }),
          },
        },
      }).app;
    const app = gateway(true);
    const get = (url: string, key?: string) =>
      app.inject({ method: 'GET', url, headers: key === undefined ? {} : bearer(key) });
    expect((await get('/v1/release', KEY_A)).json()).toMatchObject({ release: 'rel_a', rejected });
    const other = await get('/v1/release', KEY_B);
    expect([other.statusCode, other.json().error.code]).toEqual([403, 'WAGGLE_TENANT_FORBIDDEN']);
    for (const key of [undefined, KEY_B, 'no-such-key-00000']) {
      const ready = await get('/readyz', key);
      expect([ready.statusCode, ready.json()]).toEqual([
        200,
        {
          ...{ status: 'ready', clock: 'system' },
          checks: {
            release: { ok: true, required: true },
            ledger: { ok: true, required: true },
            events: { ok: true, required: true },
            forwarder: { ok: true, required: false },
            running: { ok: true, required: true },
            candidate: { ok: false, required: false },
          },
        },
      ]);
      expect(other.body + ready.body).not.toMatch(/rel_|broken|CORRUPT/);
    }
    const known = (await get('/readyz', KEY_A)).json();
    expect(known).toMatchObject({ release: 'rel_a', checks: { release: { detail: 'rel_a' } } });
    expect(known.checks.candidate.detail).toContain('rel_b');
    await app.close();

    const unserved = gateway(false);
    const probe = await unserved.inject('/readyz');
    expect([probe.statusCode, probe.json().checks.release]).toEqual([
      503,
      { ok: false, required: true },
    ]);
    expect(probe.body).not.toMatch(/rel_|broken|CORRUPT/);
    const asked = await unserved.inject({ url: '/readyz', headers: bearer(KEY_B) });
    expect(asked.json().checks.release.detail).toContain('Build it again.');
    await unserved.close();
  });

  test('a request without a key is refused before its body is read', async () => {
    const { app } = testGateway({ config: { apiKeys: KEYS } });
    const response = await app.inject({
      method: 'POST',
      url: '/v1/rank',
      headers: { 'content-type': 'image/png' },
      payload: 'x',
    });
    expect(response.statusCode).toBe(401);
    await app.close();
  });
});
