import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { Worker } from 'node:worker_threads';
import { silentLogger } from '@waggle/core';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { gatewayConfig } from '../src/config.js';
import { connectionLimit, listen, shutDown } from '../src/server.js';
import { isErrorShape } from './error-shape.js';
import { PATIENCE } from './patience.js';
import { OFFERS, rankResponse, testGateway } from './rank-fixture.js';

const config = gatewayConfig({ port: 0 });

/** Everything that comes back for these bytes until the connection is closed. */
async function answerTo(url: string, bytes: string): Promise<string> {
  const socket = connect(Number(new URL(url).port), '127.0.0.1');
  socket.write(bytes);
  let text = '';
  socket.on('data', (chunk) => {
    text += chunk;
  });
  await once(socket, 'close');
  return text;
}
const closers: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

const rank = (url: string) =>
  fetch(`${url}/v1/rank`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(OFFERS),
  });

/** Opens 16 connections, uses each once, then writes to all of them when told and says what each one got. */
const CLIENTS_WITH_OPEN_CONNECTIONS = `
const { parentPort, workerData: { port, body } } = require('node:worker_threads');
const { connect } = require('node:net');
const request = 'POST /v1/rank HTTP/1.1\\r\\nhost: a\\r\\ncontent-type: application/json\\r\\ncontent-length: ' +
  Buffer.byteLength(body) + '\\r\\n\\r\\n' + body;
const firstLine = (socket) => new Promise((settle) => {
  const end = (outcome) => { socket.removeAllListeners(); socket.on('error', () => {}); settle(outcome); };
  socket.once('data', (bytes) => end(String(bytes).split('\\r\\n', 1)[0]));
  socket.once('error', (error) => end(error.code));
  socket.once('close', () => end('closed'));
});
const sockets = Array.from({ length: 16 }, () => connect({ port, host: '127.0.0.1', noDelay: true }));
Promise.all(sockets.map((socket) => { socket.write(request); return firstLine(socket); }))
  .then(() => parentPort.postMessage('connected'));
parentPort.once('message', (sent) => {
  const answers = sockets.map(firstLine);
  Promise.all(sockets.map((socket) => new Promise((written) => socket.write(request, written)))).then(() => {
    Atomics.store(sent, 0, 1);
    Atomics.notify(sent, 0);
  });
  Promise.all(answers).then((lines) => parentPort.postMessage(lines));
});
`;

function gate() {
  let open: () => void = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open };
}

describe('shutdown', () => {
  test('answers what was accepted, then runs its steps in order', async () => {
    const { opened, open } = gate();
    let started = 0;
    const { app } = testGateway({
      engine: {
        async rank(request, context) {
          started++;
          await opened;
          return rankResponse(request, context);
        },
      },
    });
    const url = await listen(app, config);
    const answers = Array.from({ length: 10 }, () => rank(url));
    while (started < 10) await new Promise((resolve) => setImmediate(resolve));
    const order: string[] = [];
    const closed = shutDown(
      app,
      [
        { name: 'journal', run: () => order.push('journal') },
        { name: 'ledger', run: () => order.push('ledger') },
      ],
      { timeoutMs: 10_000, logger: silentLogger },
    );
    expect(order).toEqual([]);
    await vi.waitUntil(() => !app.server.listening, PATIENCE);
    await expect(rank(url)).rejects.toThrow();
    open();
    expect((await Promise.all(answers)).map((a) => a.status)).toEqual(Array(10).fill(200));
    expect(await closed).toBe(true);
    expect(order).toEqual(['journal', 'ledger']);
  });

  test('under load loses no request that it took', async () => {
    const { app, ranked } = testGateway();
    const url = await listen(app, config);
    let answered = 0;
    let refused = 0;
    const clients = Array.from({ length: 16 }, async () => {
      for (;;) {
        try {
          const response = await rank(url);
          expect(response.status).toBe(200);
          await response.json();
          answered++;
        } catch (error) {
          // Only a connection that was never accepted, or closed between two requests, may fail.
          expect((error as { cause?: { code?: string } }).cause?.code).toMatch(
            /ECONNREFUSED|UND_ERR_SOCKET|ECONNRESET/,
          );
          refused++;
          return;
        }
      }
    });
    while (answered < 200) await new Promise((resolve) => setImmediate(resolve));
    await shutDown(app, [], { timeoutMs: 10_000, logger: silentLogger });
    await Promise.all(clients);
    expect(refused).toBe(16);
    expect(ranked.length).toBe(answered);
  });

  test('drains: serves on for a while, also new connections, and sends its clients elsewhere', async () => {
    let draining = false;
    const { app } = testGateway({ parts: { isDraining: () => draining } });
    const url = await listen(app, config);
    expect((await rank(url)).headers.get('connection')).toBe('keep-alive');
    draining = true;
    const closed = shutDown(app, [], {
      drainMs: 2_000,
      timeoutMs: 10_000,
      logger: silentLogger,
    });
    expect((await fetch(`${url}/readyz`)).status).toBe(503);
    const answer = await rank(url);
    expect([answer.status, answer.headers.get('connection')]).toEqual([200, 'close']);
    expect(await closed).toBe(true);
    await expect(rank(url)).rejects.toThrow();
  });

  test('answers what lies unread on open connections when it begins', async () => {
    const { app } = testGateway();
    const url = await listen(app, config);
    const clients = new Worker(CLIENTS_WITH_OPEN_CONNECTIONS, {
      eval: true,
      workerData: { port: Number(new URL(url).port), body: JSON.stringify(OFFERS) },
    });
    closers.push(() => clients.terminate());
    const sent = new Int32Array(new SharedArrayBuffer(4));
    expect((await once(clients, 'message'))[0]).toBe('connected');
    const outcome = once(clients, 'message');
    clients.postMessage(sent);
    // This thread does nothing else until every client has written: a busy gateway that is told to stop.
    expect(Atomics.wait(sent, 0, 0, 60_000)).not.toBe('timed-out');
    await shutDown(app, [], { timeoutMs: 10_000, logger: silentLogger });
    expect((await outcome)[0]).toEqual(Array(16).fill('HTTP/1.1 200 OK'));
  });

  test('cuts what does not end in time, and still runs every step', async () => {
    const { app } = testGateway({ engine: { rank: () => new Promise(() => {}) } });
    const url = await listen(app, config);
    const hung = rank(url).then(
      () => 'answered',
      () => 'cut',
    );
    await vi.waitUntil(
      async () => /^waggle_http_in_flight 1$/m.test((await app.inject('/metrics')).body),
      PATIENCE,
    );
    const order: string[] = [];
    const clean = await shutDown(
      app,
      [
        { name: 'hangs', run: () => new Promise(() => {}) },
        {
          name: 'fails',
          run: () => {
            throw new Error('no');
          },
        },
        { name: 'works', run: () => order.push('works') },
      ],
      { timeoutMs: 50, logger: silentLogger },
    );
    expect([clean, await hung, order]).toEqual([false, 'cut', ['works']]);
  });
});

describe('the socket', () => {
  test('a taken port is a coded error with a remedy', async () => {
    const first = testGateway();
    const url = await listen(first.app, config);
    closers.push(() => first.app.close());
    const second = testGateway();
    closers.push(() => second.app.close());
    await expect(
      listen(second.app, gatewayConfig({ port: Number(new URL(url).port) })),
    ).rejects.toMatchObject({
      code: 'WAGGLE_PORT_IN_USE',
      remedy: expect.stringContaining('--port'),
    });
  });

  test('an address of another machine is a coded error', async () => {
    const { app } = testGateway();
    closers.push(() => app.close());
    const foreign = gatewayConfig({
      port: 0,
      host: '192.0.2.1',
      apiKeys: 'key-of-tenant-a-000:ten_a',
    });
    await expect(listen(app, foreign)).rejects.toMatchObject({ code: 'WAGGLE_BIND_FAILED' });
  });

  test.each([
    ['head', 'POST /v1/rank HTTP/1.1\r\nhost: a\r\n'],
    [
      'body',
      'POST /v1/rank HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{',
    ],
  ])(
    'a %s that never ends is cut off within a second of its time',
    async (_part, bytes) => {
      const { app } = testGateway({ config: { requestTimeoutMs: 200 } });
      closers.push(() => app.close());
      const url = await listen(app, config);
      const startedMs = performance.now();
      const text = await answerTo(url, bytes);
      expect(text).toMatch(/^HTTP\/1.1 408 .*"code":"WAGGLE_REQUEST_TIMEOUT"/s);
      // Two looks and a busy machine; a look every 30 s is far beyond.
      expect(performance.now() - startedMs).toBeLessThan(15_000);
    },
    60_000,
  );

  test.each([
    ['1024', 896],
    ['200', 100],
    ['unlimited', undefined],
  ])('of %s files leaves some to the logs', (files, connections) => {
    const limits = `Limit                     Soft Limit           Hard Limit           Units     
Max processes             96486                96486                processes 
Max open files            ${files.padEnd(20)} 524288               files     
`;
    expect(connectionLimit(limits)).toBe(connections);
    expect(connectionLimit('')).toBeUndefined();
  });

  test('closes connections beyond its limit, counts them, and goes on with the others', async () => {
    const { app } = testGateway();
    closers.push(() => app.close());
    const url = await listen(app, config);
    if (process.platform === 'linux') {
      const limits = readFileSync('/proc/self/limits', 'utf8');
      expect(app.server.maxConnections).toBe(connectionLimit(limits));
    }
    app.server.maxConnections = 1;
    const open = connect(Number(new URL(url).port), '127.0.0.1');
    await once(open, 'connect');
    expect(await answerTo(url, '')).toBe('');
    open.write('GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n');
    let text = '';
    for await (const chunk of open) text += chunk;
    expect(text).toMatch(/^waggle_http_refused_total\{reason="connections"\} 1$/m);
  });

  test.each([
    ['something that is not HTTP', 'hello\r\n\r\n', 400, 'WAGGLE_REQUEST_MALFORMED'],
    [
      'endless headers',
      `GET / HTTP/1.1\r\nx: ${'y'.repeat(20_000)}\r\n\r\n`,
      413,
      'WAGGLE_REQUEST_TOO_LARGE',
    ],
    [
      'a wrong length',
      'POST /v1/rank HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n',
      400,
      'WAGGLE_REQUEST_MALFORMED',
    ],
  ])('%s gets our error body', async (_title, bytes, status, code) => {
    const { app } = testGateway();
    closers.push(() => app.close());
    const url = await listen(app, config);
    const text = await answerTo(url, bytes);
    expect(text).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
    const body = JSON.parse(text.slice(text.indexOf('\r\n\r\n') + 4));
    expect(isErrorShape(body)).toBe(true);
    expect(body.error.code).toBe(code);
    expect((await fetch(`${url}/healthz`)).status).toBe(200);
  });
});
