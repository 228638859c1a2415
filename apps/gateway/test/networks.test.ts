import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { silentLogger } from '@waggle/core';
import { RankResponse, type RankResponseBody, SCORE_TERMS } from '@waggle/core/contract';
import type { ImportedModel } from '@waggle/engine';
import { Compile } from 'typebox/compile';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { networkFor } from '../../../packages/engine/test/support/network.js';
import { gatewayConfig } from '../src/config.js';
import { type RunningGateway, startGateway } from '../src/main.js';
import { PATIENCE } from './patience.js';
import { type SampleNetwork, sampleNetwork } from './sample-network.js';

const contract = Compile(RankResponse);
let sample: SampleNetwork;
let pctr: ImportedModel;
let workerName: string | undefined;
const running: RunningGateway[] = [];

beforeAll(async () => {
  workerName = await nameOfWorkers();
  sample = await sampleNetwork();
  pctr = await networkFor();
});
afterEach(async () => {
  for (const gateway of running.splice(0)) await gateway.close();
});
afterAll(() => sample.close());

/** A gateway on a release: real engine, ONNX sessions in real threads, ledger and logs. */
async function start(releaseId: string): Promise<RunningGateway> {
  await sample.releases.activate(releaseId);
  const gateway = await startGateway({
    config: gatewayConfig({ dir: sample.dir, port: 0, maxEventLoopDelayMs: 0 }),
    logger: silentLogger,
    store: sample.store,
  });
  running.push(gateway);
  return gateway;
}

async function rank(
  gateway: RunningGateway,
  fields: object = {},
): Promise<{ status: number; body: RankResponseBody; tookMs: number }> {
  const startedMs = performance.now();
  const response = await fetch(`${gateway.url}/v1/rank`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      mode: 'offers',
      publication_id: sample.ids.publications[0],
      deadline_ms: 10_000,
      explain: 'summary',
      ...fields,
    }),
  });
  const body = (await response.json()) as RankResponseBody;
  return { status: response.status, body, tookMs: performance.now() - startedMs };
}

const activated = async (gateway: RunningGateway, id: string): Promise<void> => {
  await sample.releases.activate(id);
  await vi.waitUntil(() => gateway.releaseId === id, PATIENCE);
};

interface Ready {
  readonly status: string;
  readonly release: string;
  readonly checks: { readonly candidate?: { readonly detail: string } };
}

/** The threads of this process with their names, where the system tells. */
function namedThreads(): Map<string, string> {
  const tasks = '/proc/self/task';
  const named = new Map<string, string>();
  for (const id of existsSync(tasks) ? readdirSync(tasks) : []) {
    try {
      named.set(id, readFileSync(`${tasks}/${id}/comm`, 'utf8').trim());
    } catch {
      // It ended between the two looks.
    }
  }
  return named;
}

/** What threads of workers are called. The local store's own come and go under other names. */
async function nameOfWorkers(): Promise<string | undefined> {
  const before = namedThreads();
  const worker = new Worker('setInterval(() => {}, 1_000)', { eval: true });
  await once(worker, 'online');
  const added = [...namedThreads()].find(([id]) => !before.has(id));
  await worker.terminate();
  return added?.[1];
}

/** Threads of workers, and those that they start for their sessions. */
const threads = (): number | undefined =>
  workerName === undefined
    ? undefined
    : [...namedThreads().values()].filter((name) => name === workerName).length;

describe('a gateway on a release with a network', () => {
  test('offers and fills by it, within the contract', async () => {
    const gateway = await start(await sample.withPctr(pctr));
    let items = 0;
    for (const publication_id of sample.ids.publications) {
      for (const mode of ['offers', 'fill'] as const) {
        const slots = mode === 'fill' ? { slots: [{ id: 'a' }, { id: 'b' }] } : {};
        const { status, body } = await rank(gateway, { publication_id, mode, ...slots });
        expect(status).toBe(200);
        expect(contract.Check(body)).toBe(true);
        expect(body.versions.model.split('+')[0]).toBe(pctr.version);
        expect(body.degraded).not.toContain('onnx_unavailable');
        expect(body.degraded).not.toContain('deadline_prior');
        for (const item of body.items) {
          const sum = SCORE_TERMS.reduce((total, t) => total + item.explain!.terms[t], 0);
          expect(sum).toBe(item.score);
          items++;
        }
      }
    }
    expect(items).toBeGreaterThan(0);
  });

  test('answers by its deadline when the network thinks for longer, and counts it', async () => {
    // Some ten times two Gflop at each run: far beyond 50 ms anywhere, and loaded within ten seconds.
    const gateway = await start(
      await sample.withPctr(await networkFor(undefined, { products: 12 })),
    );
    for (const publication_id of sample.ids.publications.slice(0, 3)) {
      const { status, body } = await rank(gateway, { publication_id, deadline_ms: 200 });
      expect(status).toBe(200);
      expect(body.degraded).toContain('deadline_prior');
      // The margin is for machines that do other things besides.
      expect(body.latency_ms).toBeLessThan(2_000);
    }
    const metrics = await (await fetch(`${gateway.url}/metrics`)).text();
    expect(metrics).toMatch(/waggle_rank_degraded_total\{reason="deadline_prior"\} [1-9]/);
    // Shutting down waits for no run that nobody waits for, but ends its thread.
    expect(await gateway.close()).toBe(true);
  });

  test('swaps under load without a failed request, and keeps the threads of two releases at most', async () => {
    const ids = [
      await sample.withPctr(pctr, 100),
      await sample.withPctr(await networkFor(undefined, { logit: true }), 200),
      sample.releaseIds[0],
      await sample.withPctr(pctr, 300),
    ];
    const gateway = await start(ids[0]!);
    const seen = new Map<string, number>();
    let going = true;
    const clients = Array.from({ length: 4 }, async (_, client) => {
      for (let i = 0; going; i++) {
        const publication_id =
          sample.ids.publications[(client + i) % sample.ids.publications.length]!;
        const fill = i % 4 === 3 && { mode: 'fill', test: true, slots: [{ id: 'a' }, { id: 'b' }] };
        const { status, body } = await rank(gateway, { publication_id, k: 1 + (i % 9), ...fill });
        expect(status).toBe(200);
        expect(body.degraded).not.toContain('onnx_unavailable');
        expect(body.degraded).not.toContain('deadline_prior');
        seen.set(body.versions.release, (seen.get(body.versions.release) ?? 0) + 1);
      }
    });
    const swap = async (rounds: number): Promise<void> => {
      for (let i = 1; i <= rounds; i++) await activated(gateway, ids[i % ids.length]!);
    };
    await swap(4);
    const before = threads();
    await swap(12);
    going = false;
    await Promise.all(clients);
    expect([...seen.keys()].sort()).toEqual([...ids].sort());
    if (before !== undefined) {
      // Nine of the twelve loaded a network: a thread each, and as many as its session has of its own.
      await vi.waitUntil(() => threads()! <= before + 4, PATIENCE);
    }
    const beforeClosing = threads();
    expect(await gateway.close()).toBe(true);
    if (beforeClosing !== undefined) {
      await vi.waitUntil(() => threads()! < beforeClosing, PATIENCE);
    }
  });

  test('keeps serving the former release when a session cannot be made', async () => {
    const good = await sample.withPctr(pctr);
    const gateway = await start(good);
    // It reads like an ONNX file and is none.
    const bytes = pctr.bytes.slice();
    bytes.fill(0xff, 20, bytes.length - 20);
    const bad = await sample.withPctr({ ...pctr, bytes }, 7);
    await sample.releases.activate(bad);
    const ready = await vi.waitUntil(async () => {
      const answer = (await (await fetch(`${gateway.url}/readyz`)).json()) as Ready;
      return answer.checks.candidate === undefined ? undefined : answer;
    }, PATIENCE);
    expect(ready).toMatchObject({ status: 'ready', release: good });
    expect(ready.checks.candidate?.detail).toMatch(/WAGGLE_RELEASE_UNSERVABLE/);
    const { status, body } = await rank(gateway);
    expect([status, body.versions.release]).toEqual([200, good]);
    expect(body.degraded).not.toContain('onnx_unavailable');
  });
});
