import { type RankBatchInput, rankBatch, Trees } from '@waggle/native';
import { writeRaw } from '../data/files.js';
import {
  EMBEDDING_DIM,
  ITEM_FEATURES,
  K,
  MAX_PER_GROUP,
  type RankingProblem,
  REQUEST_FEATURES,
  rankingProblem,
  WEIGHTS,
} from '../data/ranking-problem.js';
import { type Handlers, timed } from './protocol.js';

/** The whole decision in one call. */
export function rankHandlers(): Handlers {
  let trees: Trees | undefined;
  let make: (requests: number) => RankingProblem = () => {
    throw new Error('nothing is open');
  };
  return {
    rankOpen: async (o: { trees: string; candidates: number; seed: number }) => {
      trees = await Trees.load(o.trees);
      const problems = new Map<number, RankingProblem>();
      make = (requests) => {
        const problem = problems.get(requests) ?? rankingProblem(requests, o.candidates, o.seed);
        problems.set(requests, problem);
        return problem;
      };
    },
    rank: async (o: { requests: number; save?: string }) => {
      const input = inputOf(make(o.requests), trees!);
      const { ms, value } = await timed(() => rankBatch(input));
      if (o.save !== undefined) writeRaw(o.save, value.items);
      return { ms };
    },
  };
}

function inputOf(problem: RankingProblem, model: Trees): RankBatchInput {
  const { price, payoutShare, advertiser, mu } = problem;
  return {
    nRequests: problem.nRequests,
    nItems: problem.nItems,
    k: K,
    eligiblePerRequest: problem.eligible,
    similarity: {
      queries: problem.queries,
      embeddings: problem.embeddings,
      dim: EMBEDDING_DIM,
      metric: 'ip',
      isFeature: true,
    },
    itemFeatures: problem.itemFeatures,
    nItemFeatures: ITEM_FEATURES,
    requestFeatures: problem.requestFeatures,
    nRequestFeatures: REQUEST_FEATURES,
    model,
    columns: { price, payoutShare, advertiser, mu },
    volume: problem.volume,
    weights: WEIGHTS,
    group: problem.group,
    maxPerGroup: MAX_PER_GROUP,
  };
}
