import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Rng } from '@waggle/core';
import type { RankRequestBody } from '@waggle/core/contract';
import { ctrFeatures } from '@waggle/features';
import { type ForeignContract, InlineRunner } from '@waggle/models';
import { OnnxScorer } from '@waggle/ranking';
import { runLoad } from '../load.js';
import type { LoadResult } from '../load-contract.js';
import { perceptronGraph } from '../peers/onnx-models.js';
import { CONNECTIONS, MOST_PER_S, rank, UniqueBodies, untilServed } from '../rank-server.js';
import { type Measurement, type SuiteOptions, summarize } from '../record.js';

/** What a network of this size costs, not what it knows: its weights are small and anybody's. */
const HIDDEN = [64, 32];
const EXAMPLES = 12;
/** Every answer is the network's: with the usual deadline some would be prior rates, which cost nothing. */
const DEADLINE_MS = 5_000;

interface ServedNetwork {
  /** The gateway's folder and address. */
  readonly dir: string;
  readonly url: string;
  readonly cli: (...args: string[]) => Promise<{ readonly stdout: string }>;
  /** A release that is scored on the calling thread, being served. */
  readonly plainId: string;
  readonly bodies: readonly string[];
  /** Publications with as many candidates as those of `bodies`, or more. */
  readonly near: readonly string[];
  readonly asOfMs: number;
}

/** A perceptron around the prior, as another tool would hand it over: the answer is a logit, examples are beside. */
async function perceptron(seed: number): Promise<{ bytes: Uint8Array; contract: ForeignContract }> {
  const { names, fingerprint } = ctrFeatures;
  const rng = new Rng(seed);
  const widths = [names.length, ...HIDDEN];
  const bytes = perceptronGraph(widths, (layer) => (0.2 * rng.normal()) / widths[layer]!);
  const contract: ForeignContract = {
    ...{ contractVersion: 1, name: 'bench_network', format: 'onnx', missing: 'refuse' },
    features: names.map((name) => ({ name, dtype: 'float32' })),
    featureSetFingerprint: fingerprint,
    output: { meaning: 'probability' },
    tensors: { input: 'x', output: 'y' },
    offsetFeature: 'prior_logit_ctr',
    producer: 'waggle-benchmarks',
    dataRange: { from: '2026-01-01T00:00:00Z', to: '2026-02-01T00:00:00Z' },
  };
  const rows = Array.from({ length: EXAMPLES }, () => names.map(() => Math.fround(rng.normal())));
  const runner = new InlineRunner();
  try {
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    const model = { version: 'bench_network@0', contract, bytes, sha256 };
    const scorer = await OnnxScorer.openForeign(runner, model);
    const outputs = Array.from(await scorer.score(Float32Array.from(rows.flat()), rows.length));
    return { bytes, contract: { ...contract, examples: { rows, outputs, tolerance: 1e-5 } } };
  } finally {
    await runner.close();
  }
}

/** How many answers were not the network's so far. */
async function standIns(url: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  const lines = text.matchAll(
    /^waggle_rank_degraded_total\{reason="(?:deadline_prior|onnx_unavailable)"\} (\d+)$/gm,
  );
  return [...lines].reduce((sum, [, n]) => sum + Number(n), 0);
}

/**
 * `rank/network`: what serving by a network costs. One gateway serves, in turn, a release that is scored on the calling thread and
 * the same one with a perceptron for pCTR, which is waited for; the same questions go to both. `c32` repeats its questions, so that
 * most are answered from scores that are kept for a minute; in `unique` and `single` each is a new one.
 */
export async function measureNetwork(
  { quick, seed }: Pick<SuiteOptions, 'quick' | 'seed'>,
  { dir, url, cli, plainId, bodies, near, asOfMs }: ServedNetwork,
): Promise<readonly Measurement[]> {
  const { bytes, contract } = await perceptron(seed);
  writeFileSync(join(dir, 'bench.onnx'), bytes);
  writeFileSync(join(dir, 'bench.contract.json'), JSON.stringify(contract));
  await cli(
    'models',
    'import',
    join(dir, 'bench.onnx'),
    '--contract',
    join(dir, 'bench.contract.json'),
  );
  const made = ['release', '--prior-only', '--pctr', contract.name, '--ungated', '--json'];
  const networkId = (JSON.parse((await cli(...made)).stdout) as { id: string }).id;

  const patient = (list: readonly string[]) =>
    list.map((text) => JSON.stringify({ ...JSON.parse(text), deadline_ms: DEADLINE_MS }));
  const repeated = patient(bodies);
  const minutes = new UniqueBodies(near, asOfMs);
  const seconds = quick ? 2 : 3;
  const rounds = quick ? 2 : 3;
  const run = async (list: readonly string[], connections = CONNECTIONS): Promise<LoadResult> => {
    const result = await runLoad({ url, bodies: list, connections, seconds });
    if (result.failures > 0) throw new Error(`${result.failures} requests failed under load`);
    return result;
  };
  const serve = async (id: string): Promise<void> => {
    await cli('release', 'activate', id);
    await untilServed(url, id);
    // Candidates and creatives are chosen once for a release, and the questions that repeat are asked.
    for (const text of repeated) await rank(url, JSON.parse(text) as RankRequestBody);
    await run(repeated);
  };
  const by = { plain: plainId, network: networkId };
  type Who = keyof typeof by;
  const results = {
    plain: { c32: [], unique: [], single: [] } as Record<string, LoadResult[]>,
    network: { c32: [], unique: [], single: [] } as Record<string, LoadResult[]>,
  };
  for (let round = 0; round < rounds; round++) {
    const unique = patient(minutes.take(MOST_PER_S * seconds));
    const single = patient(minutes.take((MOST_PER_S * seconds) / 4));
    for (const who of ['plain', 'network'] satisfies Who[]) {
      await serve(by[who]);
      const before = await standIns(url);
      results[who]['c32']!.push(await run(repeated));
      results[who]['unique']!.push(await run(unique));
      results[who]['single']!.push(await run(single, 1));
      const late = (await standIns(url)) - before;
      if (late > 0) throw new Error(`${late} answers of the network were prior rates`);
    }
  }
  await cli('release', 'activate', plainId);
  await untilServed(url, plainId);

  const shape = [ctrFeatures.names.length, ...HIDDEN, 1].join('×');
  const measurement = (
    name: string,
    metric: string,
    unit: string,
    of: (result: LoadResult) => number,
  ): Measurement => {
    const better = metric === 'req_per_s' ? 'higher' : 'lower';
    const [plain, network] = [results.plain[name]!, results.network[name]!].map((r) => r.map(of));
    const share = (i: number) =>
      better === 'higher' ? network![i]! / plain![i]! : plain![i]! / network![i]!;
    return {
      ...{ suite: 'rank', seed, case: `network/${name}`, metric, unit, better },
      ...summarize(network!),
      limit: {
        name: `the same release without the network (${shape}), on the calling thread`,
        value: summarize(plain!).value,
      },
      fractionOfLimit: summarize(plain!.map((_, i) => share(i))).value,
    };
  };
  const { generator } = results.network['c32']![0]!;
  return [
    measurement('c32', 'req_per_s', `req/s (${generator})`, (r) => r.reqPerS),
    measurement('unique', 'req_per_s', `req/s (${generator})`, (r) => r.reqPerS),
    measurement('single', 'p50_ms', 'ms', (r) => r.p50Ms),
    measurement('single', 'p99_ms', 'ms', (r) => r.p99Ms),
  ];
}
