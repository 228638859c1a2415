import {
  clickRelativeVariance,
  logNormalQuantile,
  openRelativeVariance,
  Z80,
} from '@waggle/ranking';
import type { KeptDraw } from './kept-draw.js';
import { priorClickRate, type RankingRelease } from './ranking-release.js';
import type { ScoringScratch } from './scoring-scratch.js';
import { fillProbabilities } from './served-model.js';

/** The candidates of a block and what is known of them before a context; `CandidateSet` is one. */
export interface ScorableSet {
  readonly publicationRow: number;
  readonly n: number;
  /** Campaign of each candidate, int32 [n], ascending. */
  readonly campaignRows: Int32Array;
  /** The creative most likely to be clicked here, see `fillBestCreatives`; int32 [n]. */
  readonly bestCreatives: Int32Array;
  /** Shadow price of delivery, float32 [n]; undefined where all are 0. */
  readonly omega: Float32Array | undefined;
}

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
  /** Creative of each candidate, int32 [n]. */
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
  /** Greedy draws made from this block, newest first. */
  readonly draws: KeptDraw[];
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
 * Scores all candidates of a set in one context. O(n · features).
 * @throws WAGGLE_RANKING_NAN when a feature is not a number
 */
export function scoreBlock(
  release: RankingRelease,
  set: ScorableSet,
  context: ScoringContext,
  scratch: ScoringScratch,
): ScoredBlock {
  const { campaigns, publications, pctr, accept, policy } = release;
  const { n, campaignRows, publicationRow } = set;
  const { delivered, tsMs, position, nAds } = context;
  const openRate = publications.eligibleOpenRate[publicationRow]!;

  const creativeRows = set.bestCreatives;
  const pClick = new Float64Array(n);
  if (context.priorOnly) {
    for (let i = 0; i < n; i++) pClick[i] = priorClickRate(campaigns, campaignRows[i]!);
  } else {
    const at = { publicationRow, tsMs, position, nAds };
    fillProbabilities(pctr, { at, campaignRows, creativeRows }, pClick, pClick);
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
    const rank = scratch.p(n).fill((context.menuSize + 1) / 2, 0, n);
    const priceMicros = scratch.column(n);
    for (let i = 0; i < n; i++) priceMicros[i] = campaigns.bidMicros[campaignRows[i]!]!;
    const { menuSize } = context;
    const at = {
      ...{ publicationRow, tsMs, position, nAds, menuSize },
      ...{ priceMicros, estPayoutMicros: payoutMicros, rank },
    };
    fillProbabilities(accept, { at, campaignRows, creativeRows }, scratch.sums(n), q);
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
    draws: [],
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
