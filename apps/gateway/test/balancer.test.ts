import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { silentLogger } from '@waggle/core';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { gatewayConfig } from '../src/config.js';
import { type RunningGateway, startGateway } from '../src/main.js';
import { PATIENCE } from './patience.js';
import { type SampleNetwork, sampleNetwork } from './sample-network.js';

const EXAMPLE = new URL('../../../docs/examples/nginx.conf', import.meta.url);
const hasNginx = spawnSync('nginx', ['-v']).error === undefined;
if (!hasNginx) console.warn('skipped: nginx is not installed (Debian: nginx-light)');

let network: SampleNetwork;
let dir: string;
let nginx: ChildProcess | undefined;
const gateways: RunningGateway[] = [];

beforeAll(async () => {
  if (!hasNginx) return;
  network = await sampleNetwork();
  dir = await mkdtemp(join(tmpdir(), 'waggle-balancer-'));
  await cp(join(network.dir, 'releases'), join(dir, 'second', 'releases'), { recursive: true });
  for (const folder of [network.dir, join(dir, 'second')]) {
    const config = gatewayConfig({ dir: folder, port: 0 });
    gateways.push(await startGateway({ config, logger: silentLogger, store: network.store }));
  }
});
afterAll(async () => {
  if (!hasNginx) return;
  nginx?.kill();
  for (const gateway of gateways) await gateway.close();
  await network.close();
  await rm(dir, { recursive: true, force: true });
});

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  await new Promise((done) => server.close(done));
  return port;
}

test.skipIf(!hasNginx)(
  'the example for nginx spreads requests and sends repeats to the gateway that answered first',
  async () => {
    const port = await freePort();
    const [first, second] = gateways.map(({ url }) => new URL(url).host);
    const example = (await readFile(EXAMPLE, 'utf8'))
      .replace('127.0.0.1:8081', first!)
      .replace('127.0.0.1:8082', second!)
      .replace('listen 8080', `listen 127.0.0.1:${port}`);
    expect(example).toContain(`server ${first};`);
    expect(example).toContain(`server ${second};`);
    await writeFile(join(dir, 'example.conf'), example);
    const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
      .map((name) => `${name}_temp_path ${dir}/${name};`)
      .join(' ');
    await writeFile(
      join(dir, 'nginx.conf'),
      `daemon off; pid ${dir}/nginx.pid; events {} http { access_log off; ${temporary} include ${dir}/example.conf; }`,
    );
    nginx = spawn('nginx', ['-p', dir, '-c', 'nginx.conf', '-e', 'error.log'], { stdio: 'ignore' });
    const url = `http://127.0.0.1:${port}`;
    await vi.waitUntil(
      async () => (await fetch(`${url}/healthz`).catch(() => undefined))?.ok,
      PATIENCE,
    );
    const ask = async (key: string | undefined, mode: 'fill' | 'offers') => {
      const answer = await fetch(`${url}/v1/rank`, {
        method: 'POST',
        headers: {
          'content-type': 'application/json',
          ...(key === undefined ? {} : { 'idempotency-key': key }),
        },
        body: JSON.stringify({
          mode,
          publication_id: network.ids.publications[0],
          ...(mode === 'fill' ? { slots: [{ id: 's', n_forecast: 1 }] } : {}),
          deadline_ms: 10_000,
        }),
      });
      expect(answer.status).toBe(200);
      return { text: await answer.text(), replayed: answer.headers.get('idempotent-replayed') };
    };
    for (let i = 0; i < 40; i++) {
      const answer = await ask(`balanced-${i}`, 'fill');
      expect(answer.replayed).toBeNull();
      expect(await ask(`balanced-${i}`, 'fill')).toEqual({ ...answer, replayed: 'true' });
      await ask(undefined, 'offers');
    }
    for (const gateway of gateways) {
      const metrics = await (await fetch(`${gateway.url}/metrics`)).text();
      for (const mode of ['fill', 'offers']) {
        const asked = new RegExp(`^waggle_rank_requests_total\\{mode="${mode}"\\} ([0-9]+)$`, 'm');
        expect(Number(asked.exec(metrics)?.[1])).toBeGreaterThan(0);
      }
    }
  },
);
