import { FastRandom, gaussianRows } from './vectors.js';

export const ITEM_FEATURES = 24;
export const REQUEST_FEATURES = 15;
/** The similarity is the model's last column. */
export const FEATURES = ITEM_FEATURES + REQUEST_FEATURES + 1;
export const EMBEDDING_DIM = 384;
export const K = 10;
export const MAX_PER_GROUP = 2;
export const WEIGHTS = {
  margin: 0.3,
  fit: 2_000,
  advertiser: 500,
  payout: 0.05,
  explore: 0,
} as const;

/** A batch of requests, each with bitmaps that leave exactly `nCandidates` of twice as many items. */
export interface RankingProblem {
  readonly nRequests: number;
  readonly nItems: number;
  readonly nCandidates: number;
  /** Bit i of byte i >> 3, [nRequests × ceil(nItems / 8)]. */
  readonly eligible: Uint8Array;
  readonly queries: Float32Array;
  readonly embeddings: Float32Array;
  readonly itemFeatures: Float32Array;
  readonly requestFeatures: Float32Array;
  readonly price: Float32Array;
  readonly payoutShare: Float32Array;
  readonly advertiser: Float32Array;
  readonly mu: Float32Array;
  readonly volume: Float32Array;
  readonly group: Int32Array;
}

/** The same numbers in every process that asks with the same seed. */
export function rankingProblem(
  nRequests: number,
  nCandidates: number,
  seed: number,
): RankingProblem {
  const nItems = 2 * nCandidates;
  const rng = new FastRandom(seed, 0x72616e6b);
  const uniform = (): number => rng.uint32() / 2 ** 32;
  const normals = (n: number) => Float32Array.from({ length: n }, () => rng.normal());
  const between = (n: number, low: number, high: number) =>
    Float32Array.from({ length: n }, () => low + (high - low) * uniform());
  const stride = Math.ceil(nItems / 8);
  const eligible = new Uint8Array(nRequests * stride);
  const order = Int32Array.from({ length: nItems }, (_, i) => i);
  for (let r = 0; r < nRequests; r++) {
    // The first part of a shuffle: a random choice of exactly so many.
    for (let i = 0; i < nCandidates; i++) {
      const j = i + Math.floor(uniform() * (nItems - i));
      const item = order[j]!;
      order[j] = order[i]!;
      order[i] = item;
      eligible[r * stride + (item >> 3)]! |= 1 << (item & 7);
    }
  }
  return {
    nRequests,
    nItems,
    nCandidates,
    eligible,
    queries: gaussianRows(nRequests, EMBEDDING_DIM, seed, 11),
    embeddings: gaussianRows(nItems, EMBEDDING_DIM, seed, 12),
    itemFeatures: normals(nItems * ITEM_FEATURES),
    requestFeatures: normals(nRequests * REQUEST_FEATURES),
    price: between(nItems, 200_000, 3_000_000),
    payoutShare: between(nItems, 0.5, 0.8),
    advertiser: between(nItems, 0, 1),
    mu: between(nItems, 0, 0.2),
    volume: between(nRequests, 10, 1_000),
    group: Int32Array.from({ length: nItems }, () => Math.floor(uniform() * 200)),
  };
}
