import { coreErrors } from '@waggle/core';
import { engineErrors } from '@waggle/engine';
import { releaseErrors } from '@waggle/releases';
import { storeErrors } from '@waggle/store';
import { describe, expect, test, vi } from 'vitest';
import { gatewayErrors, STATUS_BY_CODE, statusOf } from '../src/errors.js';
import { PATIENCE } from './patience.js';
import { OFFERS, rankResponse, testGateway } from './rank-fixture.js';

describe('load', () => {
  test('beyond the limit of requests in flight is refused at once, and taken again afterwards', async () => {
    let finish: () => void = () => {};
    const gate = new Promise<void>((resolve) => {
      finish = resolve;
    });
    let started = 0;
    const { app } = testGateway({
      config: { maxInFlight: 1 },
      engine: {
        async rank(request, context) {
          started++;
          await gate;
          return rankResponse(request, context);
        },
      },
    });
    const rank = async () =>
      app.inject({ method: 'POST', url: '/v1/rank', payload: OFFERS }).then((r) => r);
    const first = rank();
    await vi.waitUntil(() => started === 1, PATIENCE);
    const second = await rank();
    expect([second.statusCode, second.json().error.code]).toEqual([503, 'WAGGLE_OVERLOADED']);
    expect(second.headers['retry-after']).toBe('1');
    expect((await app.inject('/healthz')).statusCode).toBe(200);
    finish();
    expect((await first).statusCode).toBe(200);
    expect((await rank()).statusCode).toBe(200);
    expect((await app.inject('/metrics')).body).toMatch(
      /^waggle_http_refused_total\{reason="in_flight"\} 1$/m,
    );
    await app.close();
  });

  test('that blocks the event loop all the time is refused until it ends', async () => {
    const { app } = testGateway({ config: { maxEventLoopDelayMs: 40 } });
    await app.ready();
    const status = async () =>
      (await app.inject({ method: 'POST', url: '/v1/rank', payload: OFFERS })).statusCode;
    const hog = setInterval(() => {
      for (const until = performance.now() + 100; performance.now() < until; );
    }, 1);
    await vi.waitUntil(async () => (await status()) === 503, { ...PATIENCE, interval: 20 });
    clearInterval(hog);
    await vi.waitUntil(async () => (await status()) === 200, { ...PATIENCE, interval: 20 });
    await app.close();
  });
});

describe('statuses', () => {
  test('exist for codes that exist, and for nothing else', () => {
    const known = {
      ...coreErrors,
      ...gatewayErrors,
      ...engineErrors,
      ...releaseErrors,
      ...storeErrors,
    };
    for (const code of Object.keys(STATUS_BY_CODE)) expect(Object.keys(known)).toContain(code);
  });

  test('are given to everything that a request can cause', () => {
    const startOnly = ['WAGGLE_PORT_IN_USE', 'WAGGLE_BIND_FAILED', 'WAGGLE_BIND_REFUSED'];
    // Raised while building, swapping or replaying, never while ranking.
    const offline = [
      'WAGGLE_TENANT_CHANGED',
      'WAGGLE_RELEASE_UNSERVABLE',
      'WAGGLE_RELEASE_TWIN_MISMATCH',
      'WAGGLE_CATALOG_EMPTY',
      'WAGGLE_REPLAY_MISMATCH',
    ];
    const causable = Object.keys({ ...gatewayErrors, ...engineErrors }).filter(
      (code) => !startOnly.includes(code) && !offline.includes(code),
    );
    for (const code of causable)
      expect([code, Object.hasOwn(STATUS_BY_CODE, code)]).toEqual([code, true]);
  });

  test('of unknown codes are 500', () => {
    expect(statusOf('WAGGLE_SOMETHING_NEW')).toBe(500);
    expect(statusOf('constructor' as never)).toBe(500);
  });
});
