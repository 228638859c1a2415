import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { decodeColumns, stringData } from '@waggle/core';
import type { RankRequestBody, RankResponseBody } from '@waggle/core/contract';
import { type LoadResult, runLoad } from '../load.js';
import { measureCommand } from '../process-tree.js';
import { type Measurement, type SuiteOptions, summarize } from '../record.js';

const waggle = fileURLToPath(new URL('../../../apps/pipeline/bin/waggle.mjs', import.meta.url));
const bareMain = fileURLToPath(new URL('../bare-main.js', import.meta.url));

const ELIGIBLE = 200;
const PUBLICATIONS = 16;
const CONNECTIONS = 32;

interface Server {
  readonly url: string;
  readonly child: ChildProcess;
}

/** Starts a server that prints `{"url":…}` as its first line. */
function startServer(args: readonly string[], env: NodeJS.ProcessEnv): Promise<Server> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, args, { env, stdio: ['ignore', 'pipe', 'inherit'] });
    let text = '';
    child.stdout!.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
      const line = text.split('\n')[0];
      if (text.includes('\n') && line !== undefined) {
        resolve({ url: (JSON.parse(line) as { url: string }).url, child });
      }
    });
    child.once('error', reject);
    child.once('exit', (code) => reject(new Error(`server ended with ${code} before it listened`)));
  });
}

async function stopServer({ child }: Server): Promise<void> {
  if (child.exitCode !== null) return;
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  await ended;
}

async function rank(url: string, body: RankRequestBody): Promise<RankResponseBody> {
  const response = await fetch(`${url}/v1/rank`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(`rank answered ${response.status}: ${await response.text()}`);
  return (await response.json()) as RankResponseBody;
}

/**
 * One body per publication, for the publications whose number of eligible campaigns is nearest above 200: the work of a
 * request is that of 200 candidates, never less.
 */
async function requestBodies(
  url: string,
  publicationIds: readonly string[],
): Promise<{ bodies: string[]; nEligible: number[]; answer: RankResponseBody }> {
  const near: { id: string; n: number }[] = [];
  for (const id of publicationIds) {
    const { n_eligible: n } = await rank(url, { mode: 'offers', publication_id: id, k: 1 });
    if (n >= ELIGIBLE) near.push({ id, n });
  }
  if (near.length === 0)
    throw new Error(`no publication of the serving network has ${ELIGIBLE} eligible campaigns`);
  near.sort((a, b) => a.n - b.n);
  const bodies: string[] = [];
  const nEligible: number[] = [];
  let answer: RankResponseBody | undefined;
  for (const { id, n } of near.slice(0, PUBLICATIONS)) {
    const body: RankRequestBody = { mode: 'offers', publication_id: id, k: 10, explain: 'summary' };
    bodies.push(JSON.stringify(body));
    nEligible.push(n);
    answer ??= await rank(url, body);
  }
  return { bodies, nEligible, answer: answer! };
}

/**
 * `/v1/rank` of one gateway process on the `serving` network, beside bare Fastify with the same schemas and the
 * same bodies in and out. The two are loaded in turn, so that a slow spell of the machine meets both.
 */
export async function rankSuite({ quick, seed }: SuiteOptions): Promise<readonly Measurement[]> {
  const dir = mkdtempSync(join(tmpdir(), 'waggle-rank-'));
  const env = { ...process.env, WAGGLE_DIR: dir };
  const cli = (...args: string[]) => measureCommand(process.execPath, [waggle, ...args], { env });
  const servers: Server[] = [];
  try {
    await cli('simulate', '--scale', 'serving', '--seed', String(seed));
    await cli('ingest', join(dir, 'worlds', `serving-${seed}`));
    // Vectors only need to be there: their making is measured by `embed`.
    await cli('embed', '--hashed');
    const built = JSON.parse((await cli('release', '--prior-only', '--json')).stdout) as {
      id: string;
    };
    const gateway = await startServer([waggle, 'serve', '--port', '0', '--json'], env);
    servers.push(gateway);
    const ids = stringData(
      decodeColumns(await readFile(join(dir, 'releases', built.id, 'catalog', 'publications.col'))),
      'publication_id',
    ).dictionary;
    const { bodies, answer } = await requestBodies(gateway.url, ids);
    const answerFile = join(dir, 'answer.json');
    writeFileSync(answerFile, JSON.stringify(answer));
    const bare = await startServer([bareMain, answerFile], env);
    servers.push(bare);

    const seconds = quick ? 2 : 6;
    const rounds = quick ? 3 : 7;
    const open = (url: string, length = seconds) =>
      runLoad({ url, bodies, connections: CONNECTIONS, seconds: length });
    await open(gateway.url);
    await open(bare.url);
    const ours: LoadResult[] = [];
    const limit: LoadResult[] = [];
    for (let round = 0; round < rounds; round++) {
      ours.push(await open(gateway.url));
      limit.push(await open(bare.url));
    }
    const failures = [...ours, ...limit].reduce((n, r) => n + r.failures, 0);
    if (failures > 0) throw new Error(`${failures} requests failed under load`);
    const rate = summarize(ours.map((r) => r.reqPerS));
    const bareRate = summarize(limit.map((r) => r.reqPerS));
    const fractions = summarize(ours.map((r, i) => r.reqPerS / limit[i]!.reqPerS));
    const fastify = (createRequire(import.meta.url)('fastify/package.json') as { version: string })
      .version;

    const paced: LoadResult[] = [];
    const single: LoadResult[] = [];
    for (let round = 0; round < (quick ? 1 : 3); round++) {
      paced.push(
        await runLoad({
          url: gateway.url,
          bodies,
          connections: CONNECTIONS,
          seconds,
          rate: 0.7 * rate.value,
        }),
      );
      single.push(await runLoad({ url: gateway.url, bodies, connections: 1, seconds }));
    }
    const base = { suite: 'rank', seed } as const;
    return [
      {
        ...base,
        case: 'c32',
        metric: 'req_per_s',
        unit: `req/s (${ours[0]!.generator})`,
        better: 'higher',
        ...rate,
        limit: { name: `bare fastify ${fastify}, same schemas and bodies`, value: bareRate.value },
        fractionOfLimit: fractions.value,
      },
      {
        ...base,
        case: 'c32',
        metric: 'p99_ms',
        unit: 'ms at 70 % of the maximum',
        better: 'lower',
        ...summarize(paced.map((r) => r.p99Ms)),
      },
      {
        ...base,
        case: 'single',
        metric: 'p50_ms',
        unit: 'ms',
        better: 'lower',
        ...summarize(single.map((r) => r.p50Ms)),
      },
    ];
  } finally {
    for (const server of servers) await stopServer(server);
    rmSync(dir, { recursive: true, force: true });
  }
}
