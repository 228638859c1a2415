import {
  clickRelativeVariance,
  logNormalQuantile,
  openRelativeVariance,
  Z80,
} from '@waggle/ranking';
import type { CandidateSet } from './candidates.js';
import { priorClickRate, type RankingRelease } from './ranking-release.js';

/** What the numbers of a block depend on besides its candidates. */
export interface ScoringContext {
  readonly mode: 'offers' | 'fill';
  /** Rounded to the policy's step, UTC ms. */
  readonly tsMs: number;
  readonly position: number;
  readonly nAds: number;
  /** Delivered emails expected. */
  readonly delivered: number;
  /** Offers on the menu; 0 in `fill`. */
  readonly menuSize: number;
  /** Assume prior rates instead of evaluating features: the deadline left no time. */
  readonly priorOnly: boolean;
}

/**
 * Candidates of a set with probabilities and prices in one context. A pure function of release, set and
 * context, so it may be kept and shared by requests.
 */
export interface ScoredBlock {
  readonly context: ScoringContext;
  /** Creative of each candidate, the one most likely to be clicked; int32 [n]. */
  readonly creativeRows: Int32Array;
  /** p(unique verified click | delivered), float64 [n]. */
  readonly pClick: Float64Array;
  /** p(accepted | offered), 1 in `fill`; float32 [n]. */
  readonly q: Float32Array;
  /** e: expected billable spend, micros, float64 and for scoring float32 [n]. */
  readonly spendMicros: Float64Array;
  readonly spend: Float32Array;
  readonly payoutMicros: Float64Array;
  readonly payout: Float32Array;
  /** Var(spend) / spend², float64 [n]. */
  readonly relativeVariance: Float64Array;
  /** What `fill` sets aside: the larger of P80 and mean of the spend, whole micros; float64 [n]. */
  readonly reserveMicros: Float64Array;
  /** Delivered goal units, float32 [n]; undefined where ω is 0. */
  readonly goalUnits: Float32Array | undefined;
  /** Fairness price, float32 [n]; undefined where ρ is 0. */
  readonly rho: Float32Array | undefined;
}

/** Working memory of `scoreBlock`, reused from call to call. */
export class ScoringScratch {
  ctr = new Float32Array(0);
  accept = new Float32Array(0);
  p = new Float64Array(0);
  menuRank = new Float64Array(0);

  reserve(nPairs: number, nCandidates: number, nCtr: number, nAccept: number): void {
    if (this.ctr.length < nPairs * nCtr) this.ctr = new Float32Array(nPairs * nCtr);
    if (this.p.length < nPairs) this.p = new Float64Array(nPairs);
    if (this.accept.length < nCandidates * nAccept) {
      this.accept = new Float32Array(nCandidates * nAccept);
    }
    if (this.menuRank.length < nCandidates) this.menuRank = new Float64Array(nCandidates);
  }
}

/**
 * Expected spend e of a send (domain §2.1): cpc bid·n·p, cpm bid·n·r/1000 with r the share of delivered emails
 * that people open, flat bid.
 * @param pricing code of PRICING_CODES
 */
export function expectedSpend(
  pricing: number,
  bidMicros: number,
  delivered: number,
  pClick: number,
  openRate: number,
): number {
  if (pricing === 0) return bidMicros * delivered * pClick;
  if (pricing === 1) return (bidMicros * delivered * openRate) / 1000;
  return bidMicros;
}

/**
 * Scores all candidates of a set in one context. O(pairs · features).
 * @throws WAGGLE_RANKING_NAN when a feature is not a number
 */
export function scoreBlock(
  release: RankingRelease,
  set: CandidateSet,
  context: ScoringContext,
  scratch: ScoringScratch,
): ScoredBlock {
  const { campaigns, publications, pctr, accept, policy } = release;
  const { n, campaignRows, pairOffsets, publicationRow } = set;
  const { delivered } = context;
  const openRate = publications.eligibleOpenRate[publicationRow]!;
  const nPairs = pairOffsets[n]!;
  scratch.reserve(nPairs, n, pctr.features.nFeatures, accept.features.nFeatures);

  const creativeRows = new Int32Array(n);
  const pClick = new Float64Array(n);
  if (context.priorOnly) {
    for (let i = 0; i < n; i++) {
      creativeRows[i] = set.pairCreatives[pairOffsets[i]!]!;
      pClick[i] = priorClickRate(campaigns, campaignRows[i]!);
    }
  } else {
    const p = scratch.p;
    pctr.features.evaluate(
      { publicationRow, tsMs: context.tsMs, position: context.position, nAds: context.nAds },
      set.pairCampaigns,
      set.pairCreatives,
      scratch.ctr,
    );
    pctr.scorer.scoreInto(scratch.ctr, nPairs, p);
    for (let i = 0; i < n; i++) {
      let best = pairOffsets[i]!;
      for (let j = best + 1; j < pairOffsets[i + 1]!; j++) if (p[j]! > p[best]!) best = j;
      creativeRows[i] = set.pairCreatives[best]!;
      pClick[i] = p[best]!;
    }
  }

  const spendMicros = new Float64Array(n);
  const payoutMicros = new Float64Array(n);
  const relativeVariance = new Float64Array(n);
  const reserveMicros = new Float64Array(n);
  const openVariance = openRelativeVariance(policy.open_sigma);
  for (let i = 0; i < n; i++) {
    const c = campaignRows[i]!;
    const pricing = campaigns.pricing[c]!;
    const spend = expectedSpend(pricing, campaigns.bidMicros[c]!, delivered, pClick[i]!, openRate);
    const variance =
      pricing === 0
        ? clickRelativeVariance(delivered * pClick[i]!, policy.click_sigma)
        : pricing === 1
          ? openVariance
          : 0;
    spendMicros[i] = spend;
    payoutMicros[i] = (1 - policy.take_rate) * spend;
    relativeVariance[i] = variance;
    reserveMicros[i] = Math.max(
      1,
      Math.ceil(Math.max(spend, logNormalQuantile(spend, variance, Z80))),
    );
  }

  const q = new Float32Array(n);
  if (context.mode === 'fill') {
    q.fill(1);
  } else if (context.priorOnly) {
    q.fill(policy.prior_accept);
  } else if (n > 0) {
    // The menu is not made yet: every candidate is judged at its middle.
    const menuRank = scratch.menuRank.subarray(0, n).fill((context.menuSize + 1) / 2);
    accept.features.evaluate(
      {
        publicationRow,
        tsMs: context.tsMs,
        position: context.position,
        nAds: context.nAds,
        menuSize: context.menuSize,
        priceMicros: Float64Array.from(campaignRows, (c) => campaigns.bidMicros[c]!),
        estPayoutMicros: payoutMicros,
        rank: menuRank,
      },
      campaignRows,
      creativeRows,
      scratch.accept,
    );
    accept.scorer.scoreInto(scratch.accept, n, q);
  }

  let goalUnits: Float32Array | undefined;
  if (set.omega !== undefined) {
    goalUnits = new Float32Array(n);
    for (let i = 0; i < n; i++) {
      goalUnits[i] =
        delivered * (campaigns.goalOpens[campaignRows[i]!] === 1 ? openRate : pClick[i]!);
    }
  }
  const rho = publications.rho?.[publicationRow] ?? 0;
  return {
    context,
    creativeRows,
    pClick,
    q,
    spendMicros,
    spend: Float32Array.from(spendMicros),
    payoutMicros,
    payout: Float32Array.from(payoutMicros),
    relativeVariance,
    reserveMicros,
    goalUnits,
    rho: rho === 0 ? undefined : new Float32Array(n).fill(rho),
  };
}

export function sameContext(a: ScoringContext, b: ScoringContext): boolean {
  return (
    a.tsMs === b.tsMs &&
    a.mode === b.mode &&
    a.position === b.position &&
    a.nAds === b.nAds &&
    a.delivered === b.delivered &&
    a.menuSize === b.menuSize &&
    a.priorOnly === b.priorOnly
  );
}
