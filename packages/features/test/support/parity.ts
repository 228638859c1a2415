import { Rng } from '@waggle/core';
import type { Store } from '@waggle/store';
import {
  buildSnapshot,
  type EmbeddingMatrices,
  evaluateOffline,
  type FeatureSet,
  type HypotheticalDecision,
  OnlineFeatures,
  type SnapshotIds,
} from '../../src/index.js';

/**
 * Both sides compute in double precision and round to float32 once; logarithms and exponentials of ClickHouse
 * and V8 differ in the last bits, which rounding can turn into one float32 step (6e-8 relative).
 */
export const RELATIVE_TOLERANCE = 1e-6;
export const ABSOLUTE_TOLERANCE = 1e-6;
/** ClickHouse adds the products of two float32 vectors in float32, the online side in double: 384 terms of at most 1. */
export const SIMILARITY_TOLERANCE = 2e-6;

export interface ParityCase {
  readonly publicationRow: number;
  readonly campaignRows: Int32Array;
  readonly creativeRows: Int32Array;
  readonly tsMs: number;
  readonly position: number;
  readonly nAds: number;
  readonly menuSize: number;
  readonly leadMs: number;
  readonly priceMicros: Float64Array;
  readonly estPayoutMicros: Float64Array;
  readonly rank: Float64Array;
}

/** Requests over every publication and an unknown one, each with some or all creatives, none, and an unknown campaign. */
export function parityCases(
  o: {
    nPublications: number;
    campaignOfCreative: Int32Array;
    asOfMs: number;
    perPublication: number;
  },
  seed: number,
): ParityCase[] {
  const rng = new Rng(seed);
  const cases: ParityCase[] = [];
  const nCreatives = o.campaignOfCreative.length;
  for (let publicationRow = -1; publicationRow < o.nPublications; publicationRow++) {
    const creatives =
      o.perPublication >= nCreatives
        ? Array.from({ length: nCreatives }, (_, i) => i)
        : Array.from({ length: o.perPublication }, () => rng.integer(nCreatives));
    const creativeRows = Int32Array.from([...creatives, -1, -1]);
    const campaignRows = Int32Array.from(creativeRows, (k) =>
      k >= 0 ? o.campaignOfCreative[k]! : -1,
    );
    campaignRows[campaignRows.length - 1] = rng.integer(Math.max(...o.campaignOfCreative) + 1);
    const n = campaignRows.length;
    const column = (draw: () => number) => Float64Array.from({ length: n }, draw);
    cases.push({
      publicationRow,
      campaignRows,
      creativeRows,
      tsMs: o.asOfMs + rng.integer(36 * 3_600_000),
      position: 1 + rng.integer(4),
      nAds: 1 + rng.integer(4),
      menuSize: 1 + rng.integer(12),
      leadMs: rng.bernoulli(0.3) ? Number.NaN : rng.integer(9 * 86_400_000),
      priceMicros: column(() =>
        rng.bernoulli(0.1) ? Number.NaN : 500_000 + rng.integer(3_000_000),
      ),
      estPayoutMicros: column(() => (rng.bernoulli(0.1) ? Number.NaN : rng.integer(90_000_000))),
      rank: column(() => 1 + rng.integer(12)),
    });
  }
  return cases;
}

export interface Mismatch {
  readonly feature: string;
  readonly decision: HypotheticalDecision;
  readonly offline: number;
  readonly online: number;
}

/** Evaluates the cases both ways and returns every value that differs by more than its tolerance. */
export async function compareOfflineOnline(
  store: Store,
  set: FeatureSet,
  o: {
    tenantId: string;
    asOfMs: number;
    ids: SnapshotIds;
    embeddings: EmbeddingMatrices;
    cases: readonly ParityCase[];
    online: OnlineFeatures;
  },
): Promise<{
  compared: number;
  mismatches: Mismatch[];
  worst: number;
  distinct: Map<string, number>;
}> {
  const decisions: HypotheticalDecision[] = [];
  const online: Float32Array[] = [];
  for (const c of o.cases) {
    const out = new Float32Array(c.campaignRows.length * set.names.length);
    o.online.evaluate(c, c.campaignRows, c.creativeRows, out);
    // A second time: now from the cache.
    const again = new Float32Array(out.length);
    o.online.evaluate(c, c.campaignRows, c.creativeRows, again);
    for (let i = 0; i < out.length; i++) {
      if (!Object.is(out[i], again[i]))
        throw new Error(`cached value differs: ${out[i]} then ${again[i]}`);
    }
    online.push(out);
    for (let i = 0; i < c.campaignRows.length; i++) {
      decisions.push({
        publicationId: c.publicationRow < 0 ? 'pub_unknown' : o.ids.publications[c.publicationRow]!,
        campaignId: c.campaignRows[i]! < 0 ? 'cmp_unknown' : o.ids.campaigns[c.campaignRows[i]!]!,
        creativeId: c.creativeRows[i]! < 0 ? '' : o.ids.creatives[c.creativeRows[i]!]!,
        tsMs: c.tsMs,
        position: c.position,
        nAds: c.nAds,
        menuSize: c.menuSize,
        leadMs: c.leadMs,
        priceMicros: c.priceMicros[i]!,
        estPayoutMicros: c.estPayoutMicros[i]!,
        rank: c.rank[i]!,
      });
    }
  }
  const offline = await evaluateOffline(store, set, decisions, o);
  const usesSimilarity = set.features.map((f) => JSON.stringify(f.value).includes('"similarity"'));
  const mismatches: Mismatch[] = [];
  const seen = set.names.map(() => new Set<number>());
  let worst = 0;
  let at = 0;
  for (const values of online) {
    for (let i = 0; i < values.length; i++, at++) {
      const f = at % set.names.length;
      const a = offline[at]!;
      const b = values[i]!;
      seen[f]!.add(b);
      const allowed =
        ABSOLUTE_TOLERANCE +
        RELATIVE_TOLERANCE * Math.abs(a) +
        (usesSimilarity[f] ? SIMILARITY_TOLERANCE * (1 + 5) : 0);
      const difference = Math.abs(a - b);
      if (difference > worst) worst = difference;
      if (!(difference <= allowed)) {
        mismatches.push({
          feature: set.names[f]!,
          decision: decisions[Math.floor(at / set.names.length)]!,
          offline: a,
          online: b,
        });
      }
    }
  }
  return {
    compared: at,
    mismatches,
    worst,
    distinct: new Map(set.names.map((name, f) => [name, seen[f]!.size])),
  };
}

export async function openOnline(
  store: Store,
  sets: readonly FeatureSet[],
  o: { tenantId: string; asOfMs: number; ids: SnapshotIds; embeddings: EmbeddingMatrices },
): Promise<Map<string, OnlineFeatures>> {
  const snapshot = await buildSnapshot(store, sets, o);
  return new Map(sets.map((set) => [set.name, new OnlineFeatures(set, snapshot, o.embeddings)]));
}
