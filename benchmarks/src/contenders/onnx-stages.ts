import ort from 'onnxruntime-node';
import {
  EMBEDDING_DIM,
  FEATURES,
  ITEM_FEATURES,
  K,
  MAX_PER_GROUP,
  type RankingProblem,
  REQUEST_FEATURES,
  WEIGHTS,
} from '../data/ranking-problem.js';

/**
 * The same decision as `rankBatch`, stage by stage: JavaScript reads the bitmaps, onnxruntime multiplies the embeddings,
 * JavaScript lays the features out, onnxruntime evaluates the trees for the whole batch at once, JavaScript scores,
 * sorts and chooses. Typed arrays throughout, and one call per stage for all requests: what a careful
 * engineer would write.
 * @returns int32 [nRequests × K], −1 pads
 */
export async function rankInStages(
  problem: RankingProblem,
  similarity: ort.InferenceSession,
  trees: ort.InferenceSession,
): Promise<Int32Array> {
  const { nRequests, nItems, nCandidates, itemFeatures, requestFeatures } = problem;
  const stride = Math.ceil(nItems / 8);
  const candidates = new Int32Array(nRequests * nCandidates);
  for (let r = 0, at = 0; r < nRequests; r++) {
    for (let item = 0; item < nItems; item++) {
      if ((problem.eligible[r * stride + (item >> 3)]! >> (item & 7)) & 1) candidates[at++] = item;
    }
  }
  const products = await similarity.run({
    queries: new ort.Tensor('float32', problem.queries, [nRequests, EMBEDDING_DIM]),
    matrix: new ort.Tensor('float32', problem.embeddings, [nItems, EMBEDDING_DIM]),
  });
  const fit = products['products']!.data as Float32Array;
  const nRows = nRequests * nCandidates;
  const x = new Float32Array(nRows * FEATURES);
  for (let row = 0; row < nRows; row++) {
    const r = Math.floor(row / nCandidates);
    const item = candidates[row]!;
    const at = row * FEATURES;
    for (let f = 0; f < ITEM_FEATURES; f++) x[at + f] = itemFeatures[item * ITEM_FEATURES + f]!;
    for (let f = 0; f < REQUEST_FEATURES; f++) {
      x[at + ITEM_FEATURES + f] = requestFeatures[r * REQUEST_FEATURES + f]!;
    }
    x[at + FEATURES - 1] = fit[r * nItems + item]!;
  }
  const answer = await trees.run({ x: new ort.Tensor('float32', x, [nRows, FEATURES]) });
  const p = answer['y']!.data as Float32Array;
  const chosen = new Int32Array(nRequests * K).fill(-1);
  const scores = new Float64Array(nCandidates);
  for (let r = 0; r < nRequests; r++) {
    const base = r * nCandidates;
    for (let i = 0; i < nCandidates; i++) {
      const item = candidates[base + i]!;
      const spend = p[base + i]! * problem.price[item]! * problem.volume[r]!;
      scores[i] =
        WEIGHTS.margin * spend +
        WEIGHTS.fit * fit[r * nItems + item]! +
        WEIGHTS.advertiser * problem.advertiser[item]! +
        WEIGHTS.payout * spend * problem.payoutShare[item]! -
        spend * problem.mu[item]!;
    }
    const order = Uint32Array.from({ length: nCandidates }, (_, i) => i);
    order.sort((a, b) => scores[b]! - scores[a]! || a - b);
    const perGroup = new Map<number, number>();
    for (let i = 0, n = 0; i < nCandidates && n < K; i++) {
      const item = candidates[base + order[i]!]!;
      const taken = perGroup.get(problem.group[item]!) ?? 0;
      if (taken >= MAX_PER_GROUP) continue;
      perGroup.set(problem.group[item]!, taken + 1);
      chosen[r * K + n++] = item;
    }
  }
  return chosen;
}
