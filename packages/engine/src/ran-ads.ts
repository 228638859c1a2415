import { boundedLogit, meanLogit } from '@waggle/ranking';
import { BitSet } from '@waggle/retrieval';
import type { BudgetState } from './budget-view.js';
import { CandidateCache } from './candidates.js';
import type { ClickRelease } from './ranking-release.js';
import { ScoringScratch } from './scoring-scratch.js';

/** An ad that ran in a slot. */
export interface RanAd {
  readonly publicationId: string;
  readonly campaignId: string;
  readonly creativeId: string;
  /** When it was sent, UTC ms. */
  readonly tsMs: number;
  readonly position: number;
  readonly nAds: number;
}

/** [n] each; NaN where the release does not know publication, campaign or creative. */
export interface ScoredAds {
  /** Calibrated logit of a click, before any correction for selection. */
  readonly logits: Float64Array;
  /** Logit minus the mean logit of the candidates that the release has for the slot, whatever their budgets. */
  readonly advantage: Float64Array;
}

/**
 * What a release would have said of ads that ran, each beside the candidates of its slot: what a correction for selection is fitted
 * on when the release was made before all of them. O(ads · candidates · features).
 * @throws what a network rejects with
 */
export async function scoreRanAds(
  release: ClickRelease,
  ads: readonly RanAd[],
): Promise<ScoredAds> {
  const { campaigns, publications, eligibility, policy, pctr } = release;
  const cache = new CandidateCache(release, new ScoringScratch());
  const budget: BudgetState = {
    available: new Float64Array(campaigns.n).fill(Number.POSITIVE_INFINITY),
    pass: BitSet.full(campaigns.n),
    passVersion: 0,
    version: 0,
  };
  const creativeRowOf = new Map(release.creativeIds.map((id, row) => [id, row]));
  const logits = new Float64Array(ads.length).fill(Number.NaN);
  const advantage = new Float64Array(ads.length).fill(Number.NaN);
  for (const [i, ad] of ads.entries()) {
    const publicationRow = publications.rowOf.get(ad.publicationId);
    const campaignRow = eligibility.rowOf(ad.campaignId);
    const creativeRow = creativeRowOf.get(ad.creativeId);
    if (publicationRow === undefined || campaignRow === undefined || creativeRow === undefined) {
      continue;
    }
    const set = cache.get(publicationRow, publications.language[publicationRow]!, ad.tsMs, budget);
    const at = {
      publicationRow,
      tsMs: ad.tsMs - (ad.tsMs % policy.feature_time_step_ms),
      position: ad.position,
      nAds: ad.nAds,
    };
    const campaignRows = withLast(set.campaignRows, campaignRow);
    const p = new Float64Array(set.n + 1);
    if (pctr.network === undefined) {
      pctr.probabilities(at, campaignRows, withLast(set.bestCreatives, creativeRow), p);
    } else {
      const creatives = await cache.askCreatives(publicationRow, set.campaignRows);
      p.set(await pctr.ask(at, campaignRows, withLast(creatives, creativeRow)));
    }
    const z = boundedLogit(p[set.n]!);
    logits[i] = z;
    advantage[i] = z - (set.n === 0 ? z : meanLogit(p, set.n));
  }
  return { logits, advantage };
}

function withLast(rows: Int32Array, last: number): Int32Array {
  const out = new Int32Array(rows.length + 1);
  out.set(rows);
  out[rows.length] = last;
  return out;
}
