import { writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { decodeColumns, stringData } from '@waggle/core';
import type { RankRequestBody, RankResponseBody } from '@waggle/core/contract';
import { runLoad } from '../load.js';
import type { LoadResult } from '../load-contract.js';
import { openStoreOf, waggle } from '../local-store.js';
import { measureCommand } from '../process-tree.js';
import {
  CONNECTIONS,
  MOST_PER_S,
  rank,
  type Server,
  startServer,
  stopServer,
  UniqueBodies,
  untilServed,
} from '../rank-server.js';
import { type Measurement, type SuiteOptions, summarize, touched } from '../record.js';
import { openScratch, removeScratch } from '../scratch.js';
import { measureNetwork } from './rank-network.js';

const bareMain = fileURLToPath(new URL('../bare-main.js', import.meta.url));

const ELIGIBLE = 200;
const PUBLICATIONS = 16;
/** Share of a server's own maximum at which its tail is looked at. */
const PACED_SHARE = 0.7;
/** The same share of the 4,000 requests a second that a gateway has to manage, whatever its maximum. */
const REQUIRED_PACED_PER_S = PACED_SHARE * 4_000;
/**
 * One body per publication, for the publications whose number of eligible campaigns is nearest above 200: the work of a
 * request is that of 200 candidates, never less.
 */
async function requestBodies(
  url: string,
  publicationIds: readonly string[],
): Promise<{ bodies: string[]; near: string[]; answer: RankResponseBody }> {
  const near: { id: string; n: number }[] = [];
  for (const id of publicationIds) {
    const { n_eligible: n } = await rank(url, { mode: 'offers', publication_id: id, k: 1 });
    if (n >= ELIGIBLE) near.push({ id, n });
  }
  if (near.length === 0)
    throw new Error(`no publication of the serving network has ${ELIGIBLE} eligible campaigns`);
  near.sort((a, b) => a.n - b.n);
  const bodies: string[] = [];
  let answer: RankResponseBody | undefined;
  for (const { id } of near.slice(0, PUBLICATIONS)) {
    const body: RankRequestBody = { mode: 'offers', publication_id: id, k: 10, explain: 'summary' };
    bodies.push(JSON.stringify(body));
    answer ??= await rank(url, body);
  }
  return { bodies, near: near.map(({ id }) => id), answer: answer! };
}

/** Offers and fills by turns: every fill sets money aside durably, so the offers before it are of no use after it. */
function movingMoney(bodies: readonly string[]): string[] {
  return bodies.flatMap((text) => {
    const { publication_id } = JSON.parse(text) as RankRequestBody;
    const fill: RankRequestBody = {
      mode: 'fill',
      publication_id,
      explain: 'summary',
      slots: [{ id: 'slot', position: 1 }],
    };
    return [text, JSON.stringify(fill)];
  });
}

/** The network's budgets last for some thousand fills, which is seconds here: the release after this has more to give. */
async function raiseBudgets(dir: string): Promise<void> {
  const store = await openStoreOf(dir);
  try {
    await store.command(
      'ALTER TABLE campaigns UPDATE budget_micros = budget_micros * 100000, daily_budget_micros = 0 WHERE 1',
      { settings: { mutations_sync: 1 } },
    );
  } finally {
    await store.close();
  }
}

/** Maximum and, at 70 % of it, p99 of a kind of traffic; bodies are asked for anew for each run. */
async function measureTraffic(o: {
  url: string;
  bodies: (requests: number) => readonly string[];
  seconds: number;
  rounds: number;
}): Promise<{ rate: LoadResult[]; paced: LoadResult[] }> {
  const { url, seconds, rounds } = o;
  const run = async (rate?: number): Promise<LoadResult> => {
    const bodies = o.bodies(Math.ceil((rate ?? MOST_PER_S) * seconds));
    const result = await runLoad({
      url,
      bodies,
      connections: CONNECTIONS,
      seconds,
      ...(rate === undefined ? {} : { rate }),
    });
    if (result.failures > 0) throw new Error(`${result.failures} requests failed under load`);
    return result;
  };
  await run();
  const rate: LoadResult[] = [];
  for (let round = 0; round < rounds; round++) rate.push(await run());
  const offered = PACED_SHARE * summarize(rate.map((r) => r.reqPerS)).value;
  const paced: LoadResult[] = [];
  for (let round = 0; round < rounds; round++) paced.push(await run(offered));
  return { rate, paced };
}

/**
 * `/v1/rank` of one gateway process on the `serving` network, beside bare Fastify with the same schemas and the
 * same bodies in and out. The two are loaded in turn, so that a slow spell of the machine meets both.
 */
export async function rankSuite(options: SuiteOptions): Promise<readonly Measurement[]> {
  const { quick, seed } = options;
  const dir = openScratch('waggle-rank-');
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
    const { bodies, near, answer } = await requestBodies(gateway.url, ids);
    const network = touched(options, 'network')
      ? await measureNetwork(options, {
          ...{ dir, cli, bodies, near, url: gateway.url, plainId: built.id },
          asOfMs: Date.parse(answer.versions.features_asof),
        })
      : [];
    if (!touched(options, 'c32', 'single', 'unique', 'moving-money')) return network;
    const answerFile = join(dir, 'answer.json');
    writeFileSync(answerFile, JSON.stringify(answer));
    const bare = await startServer([bareMain, answerFile], env);
    servers.push(bare);

    const seconds = quick ? 2 : 4;
    const rounds = quick ? 3 : 5;
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
    const barePaced: LoadResult[] = [];
    const requiredPaced: LoadResult[] = [];
    const single: LoadResult[] = [];
    for (let round = 0; round < (quick ? 1 : 5); round++) {
      const at = (url: string, perS: number) =>
        runLoad({ url, bodies, connections: CONNECTIONS, seconds, rate: perS });
      paced.push(await at(gateway.url, PACED_SHARE * rate.value));
      // What is left of its tail when a server does nothing but answer: the machine's and the generator's share.
      barePaced.push(await at(bare.url, PACED_SHARE * bareRate.value));
      requiredPaced.push(await at(gateway.url, REQUIRED_PACED_PER_S));
      single.push(await runLoad({ url: gateway.url, bodies, connections: 1, seconds }));
    }
    const p99 = summarize(paced.map((r) => r.p99Ms));
    const bareP99 = summarize(barePaced.map((r) => r.p99Ms));
    const lost = [...paced, ...barePaced, ...requiredPaced, ...single].reduce(
      (n, r) => n + r.failures,
      0,
    );
    if (lost > 0) throw new Error(`${lost} requests failed under load`);
    // The bare server takes no part in what follows.
    await stopServer(bare);
    const traffic = { url: gateway.url, seconds, rounds: quick ? 1 : 3 };
    const minutes = new UniqueBodies(near, Date.parse(answer.versions.features_asof));
    const unique = await measureTraffic({ ...traffic, bodies: (n) => minutes.take(n) });
    await raiseBudgets(dir);
    const rich = JSON.parse((await cli('release', '--prior-only', '--json')).stdout) as {
      id: string;
    };
    await untilServed(gateway.url, rich.id);
    const moves = movingMoney(bodies);
    const moving = await measureTraffic({ ...traffic, bodies: () => moves });
    for (const text of moves) {
      const { mode, items } = await rank(gateway.url, JSON.parse(text) as RankRequestBody);
      if (items.length === 0) throw new Error(`no money was left to move: ${mode} is empty`);
    }

    const base = { suite: 'rank', seed } as const;
    const measured = (name: string, { rate, paced }: typeof unique): Measurement[] => [
      {
        ...base,
        case: name,
        metric: 'req_per_s',
        unit: `req/s (${rate[0]!.generator})`,
        better: 'higher',
        ...summarize(rate.map((r) => r.reqPerS)),
      },
      {
        ...base,
        case: name,
        metric: 'p99_ms',
        unit: `ms at 70 % of the maximum (${paced[0]!.generator})`,
        better: 'lower',
        ...summarize(paced.map((r) => r.p99Ms)),
      },
    ];
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
        unit: `ms at 70 % of the maximum (${paced[0]!.generator})`,
        better: 'lower',
        ...p99,
        limit: { name: `bare fastify ${fastify} at 70 % of its own maximum`, value: bareP99.value },
        fractionOfLimit: bareP99.value / p99.value,
      },
      {
        ...base,
        case: 'c32',
        metric: 'p99_at_2800_ms',
        unit: `ms at ${REQUIRED_PACED_PER_S} req/s (${requiredPaced[0]!.generator})`,
        better: 'lower',
        ...summarize(requiredPaced.map((r) => r.p99Ms)),
      },
      {
        ...base,
        case: 'single',
        metric: 'p50_ms',
        unit: 'ms',
        better: 'lower',
        ...summarize(single.map((r) => r.p50Ms)),
      },
      ...measured('unique', unique),
      ...measured('moving-money', moving),
      ...network,
    ];
  } finally {
    for (const server of servers) await stopServer(server);
    removeScratch(dir);
  }
}
