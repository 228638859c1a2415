import { readFileSync } from 'node:fs';
import ort from 'onnxruntime-node';
import { writeRaw } from '../data/files.js';
import { type RankingProblem, rankingProblem } from '../data/ranking-problem.js';
import { rankInStages } from './onnx-stages.js';
import { type Handlers, timed } from './protocol.js';
import { Arrays, type LoadRequest } from './state.js';

/** onnxruntime-node with as many threads as ours has. Inputs and outputs stay typed arrays, as its users pass them. */
export function onnxHandlers(threads: number): Handlers {
  const arrays = new Arrays();
  let session: ort.InferenceSession | undefined;
  const current = (): ort.InferenceSession => {
    if (session === undefined) throw new Error('no model is open');
    return session;
  };
  const tensor = (name: string): ort.Tensor => {
    const { data, rows, cols } = arrays.f32(name);
    return new ort.Tensor('float32', data, [rows, cols]);
  };
  const create = (path: string): Promise<ort.InferenceSession> =>
    ort.InferenceSession.create(readFileSync(path), {
      intraOpNumThreads: threads,
      interOpNumThreads: 1,
      executionProviders: ['cpu'],
      graphOptimizationLevel: 'all',
    });
  let stages: { trees: ort.InferenceSession; similarity: ort.InferenceSession } | undefined;
  let problemOf: (requests: number) => RankingProblem = () => {
    throw new Error('nothing is open');
  };
  return {
    load: (o: LoadRequest) => arrays.load(o),
    open: async (o: { path: string }) => {
      await session?.release();
      session = await create(o.path);
    },
    topk: async (o: {
      queries: string;
      matrix: string;
      /** Queries per call: the product of all queries and rows would not fit in memory. */
      batch: number;
      k: number;
      save?: string;
    }) => {
      const queries = arrays.f32(o.queries);
      const matrix = tensor(o.matrix);
      const rows = new Int32Array(queries.rows * o.k);
      const { ms } = await timed(async () => {
        for (let from = 0; from < queries.rows; from += o.batch) {
          const n = Math.min(o.batch, queries.rows - from);
          const part = queries.data.subarray(from * queries.cols, (from + n) * queries.cols);
          const answer = await current().run({
            queries: new ort.Tensor('float32', part, [n, queries.cols]),
            matrix,
          });
          const found = answer['rows']!.data as BigInt64Array;
          for (let i = 0; i < found.length; i++) rows[from * o.k + i] = Number(found[i]);
        }
      });
      if (o.save !== undefined) writeRaw(`${o.save}.rows`, rows);
      return { ms };
    },
    rankOpen: async (o: {
      trees: string;
      similarity: string;
      candidates: number;
      seed: number;
    }) => {
      stages = { trees: await create(o.trees), similarity: await create(o.similarity) };
      const problems = new Map<number, RankingProblem>();
      problemOf = (requests) => {
        const problem = problems.get(requests) ?? rankingProblem(requests, o.candidates, o.seed);
        problems.set(requests, problem);
        return problem;
      };
    },
    rank: async (o: { requests: number; save?: string }) => {
      if (stages === undefined) throw new Error('nothing is open');
      const { similarity, trees } = stages;
      const problem = problemOf(o.requests);
      const { ms, value } = await timed(() => rankInStages(problem, similarity, trees));
      if (o.save !== undefined) writeRaw(o.save, value);
      return { ms };
    },
    trees: async (o: { x: string; save?: string }) => {
      const x = tensor(o.x);
      const { ms, value } = await timed(() => current().run({ x }));
      if (o.save !== undefined) writeRaw(o.save, value['y']!.data as Float32Array);
      return { ms };
    },
  };
}
