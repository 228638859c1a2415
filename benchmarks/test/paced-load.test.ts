import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { runPacedLoad } from '../src/paced-load.js';

let server: Server | undefined;
afterEach(async () => {
  server?.closeAllConnections();
  await new Promise((done) => server?.close(done));
});

async function serve(
  answer: (n: number, body: string) => { status?: number; text: string },
): Promise<string> {
  let n = 0;
  server = createServer((request, response) => {
    let body = '';
    request.setEncoding('utf8').on('data', (chunk: string) => {
      body += chunk;
    });
    request.on('end', () => {
      const { status = 200, text } = answer(n++, body);
      response.statusCode = status;
      response.setHeader('content-length', Buffer.byteLength(text));
      // In two pieces, so that heads and bodies arrive apart.
      response.write(text.slice(0, 3));
      setImmediate(() => response.end(text.slice(3)));
    });
  });
  await new Promise<void>((listening) => server!.listen(0, '127.0.0.1', listening));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

describe('paced load', () => {
  test('sends every body in turn, at the rate it was asked for, and reads large answers', async () => {
    const seen: string[] = [];
    const url = await serve((_, body) => {
      seen.push(body);
      return { text: 'x'.repeat(200_000) };
    });
    const bodies = ['{"a":1}', '{"b":"ü"}', '{}'];
    const result = await runPacedLoad({ url, bodies, connections: 4, seconds: 0.5, rate: 100 });
    expect(seen).toHaveLength(50);
    expect(seen.toSorted()).toEqual(
      Array.from({ length: 50 }, (_, i) => bodies[i % 3]!).toSorted(),
    );
    expect(result.failures).toBe(0);
    // The last request is due after 490 ms: no faster than that, whatever the machine does.
    expect(result.reqPerS).toBeLessThanOrEqual(50 / 0.49);
  });

  test('counts answers other than 200', async () => {
    const url = await serve((n) => ({ status: n % 2 === 0 ? 200 : 503, text: 'some text' }));
    const result = await runPacedLoad({
      url,
      bodies: ['{}'],
      connections: 1,
      seconds: 0.2,
      rate: 50,
    });
    expect(result.failures).toBe(5);
  });

  test('charges a stall to every request that fell due during it', async () => {
    const stallMs = 200;
    const url = await serve((n) => {
      if (n === 10) {
        const end = performance.now() + stallMs;
        while (performance.now() < end);
      }
      return { text: 'done' };
    });
    const result = await runPacedLoad({
      url,
      bodies: ['{}'],
      connections: 2,
      seconds: 1,
      rate: 200,
    });
    expect(result.failures).toBe(0);
    // About 40 of 200 requests were due while the server stood still. A generator that waits for answers before it
    // sends would have met the stall with its two connections, which one in a hundred does not show.
    expect(result.p99Ms).toBeGreaterThan(0.8 * stallMs);
  });
});
