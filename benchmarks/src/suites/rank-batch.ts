import { writeFileSync } from 'node:fs';
import { BenchContext, bestLevel, levels } from '../bench-context.js';
import type { Contender } from '../contenders/protocol.js';
import { randomEnsemble } from '../data/ensemble.js';
import { readInto } from '../data/files.js';
import { EMBEDDING_DIM, FEATURES, K } from '../data/ranking-problem.js';
import { type InterleaveOptions, interleave, type Run } from '../interleave.js';
import { similarityGraph, treesGraph } from '../peers/onnx-models.js';
import { type Measurement, Recorder, type SuiteOptions, wanted } from '../record.js';
import { recall } from '../statistics.js';
import { placeOf, timeRecord } from './measurement.js';

const CANDIDATES = 1_000;
const TREES = { nTrees: 200, depth: 6, nFeatures: FEATURES } as const;
/** What the target names, and one request alone. */
const REQUESTS = [64, 1] as const;
/** Scores in float32 and in another order may swap two items that are all but equal. */
const LEAST_AGREEMENT = 0.99;

/**
 * `rank-batch/64x1000`: the whole decision for 64 requests of 1,000 eligible candidates and 40 features, 200 trees of
 * depth 6, in one call; beside it the same stage by stage with onnxruntime-node and JavaScript.
 */
export async function rankBatchSuite(options: SuiteOptions): Promise<Measurement[]> {
  const context = new BenchContext();
  try {
    return await run(context, options);
  } finally {
    await context.close();
  }
}

async function run(context: BenchContext, options: SuiteOptions): Promise<Measurement[]> {
  const { quick, seed } = options;
  const records = new Recorder(options);
  const trees = context.file('trees.onnx');
  writeFileSync(trees, treesGraph(randomEnsemble(TREES, seed)));
  const similarity = context.file('similarity.onnx');
  writeFileSync(similarity, similarityGraph(EMBEDDING_DIM));
  const prepare = (contender: Contender) =>
    contender.call('rankOpen', { trees, similarity, candidates: CANDIDATES, seed });
  const rounds: InterleaveOptions = {
    ...{ warmups: 2, minRounds: 5, budgetMs: 20_000, pauseMs: 50 },
    maxRounds: quick ? 9 : 21,
  };
  const rank = (contender: Contender, requests: number, more: object = {}): Run => {
    return () => contender.time('rank', { requests, ...more });
  };

  for (const level of quick ? [bestLevel()] : [bestLevel(), ...levels()]) {
    const isBest = level === bestLevel();
    const suffix = isBest ? '' : `/${level}`;
    const ids = REQUESTS.map((n) => `${n}x${CANDIDATES}${suffix}`);
    if (!ids.some((id) => wanted(options, id))) continue;
    if (isBest && records.records.length > 0) continue;
    const ours = await context.ours(level);
    await prepare(ours);
    const peer = isBest ? await context.peer('onnxruntime') : undefined;
    if (peer !== undefined) await prepare(peer);
    for (const [i, requests] of REQUESTS.entries()) {
      const id = ids[i]!;
      if (!wanted(options, id)) continue;
      const runs: Record<string, Run> = { ours: rank(ours, requests) };
      if (peer !== undefined) {
        const answers: Int32Array[] = [];
        for (const contender of [ours, peer]) {
          const save = context.file('items.i32');
          await rank(contender, requests, { save })();
          answers.push(readInto(save, new Int32Array(requests * K)));
        }
        const same = recall(answers[1]!, answers[0]!, K);
        if (!(same >= LEAST_AGREEMENT)) {
          throw new Error(`stage by stage only ${same} of the items are those of rankBatch`);
        }
        runs['peer'] = rank(peer, requests);
      }
      const times = await interleave(runs, rounds);
      records.push(
        timeRecord({
          suite: 'rank-batch',
          case: id,
          seed,
          ours: times['ours']!,
          peer:
            peer === undefined
              ? undefined
              : { name: peer.hello.name, version: peer.hello.version, times: times['peer']! },
          ...(isBest ? {} : { on: placeOf(ours) }),
        }),
      );
    }
    await context.end(ours, peer);
  }
  return records.records;
}
