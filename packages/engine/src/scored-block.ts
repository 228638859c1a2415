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
}

/** Working memory of scoring, reused from call to call: what one call leaves, the next overwrites. */
export class ScoringScratch {
  #features = new Float32Array(0);
  #p = new Float64Array(0);
  #column = new Float64Array(0);

  features(length: number): Float32Array {
    if (this.#features.length < length) this.#features = new Float32Array(length);
    return this.#features;
  }

  p(length: number): Float64Array {
    if (this.#p.length < length) this.#p = new Float64Array(length);
    return this.#p;
  }

  column(length: number): Float64Array {
    if (this.#column.length < length) this.#column = new Float64Array(length);
    return this.#column;
  }
}

/** Candidate × servable creative: pair p of candidate i lies in [offsets[i], offsets[i + 1]). */
interface Pairs {
  readonly offsets: Int32Array;
  readonly campaigns: Int32Array;
  readonly creatives: Int32Array;
}

function pairsOf(release: RankingRelease, campaignRows: Int32Array): Pairs {
  const { creativeOffsets, creativeRows } = release.campaigns;
  const n = campaignRows.length;
  const offsets = new Int32Array(n + 1);
  for (let i = 0; i < n; i++) {
    const c = campaignRows[i]!;
    offsets[i + 1] = offsets[i]! + creativeOffsets[c + 1]! - creativeOffsets[c]!;
  }
  const campaigns = new Int32Array(offsets[n]!);
  const creatives = new Int32Array(offsets[n]!);
  for (let i = 0; i < n; i++) {
    const c = campaignRows[i]!;
    for (let p = offsets[i]!, from = creativeOffsets[c]!; p < offsets[i + 1]!; p++) {
      campaigns[p] = c;
      creatives[p] = creativeRows[from++]!;
    }
  }
  return { offsets, campaigns, creatives };
}

/**
 * Chooses the creative of each campaign that has none yet: the one most likely to be clicked at the top of a send
 * that carries no other ad, as of the release; ties go to the lower row. One choice per publication and release,
 * so that the same campaign does not change its face with the slot. O(new pairs · features)
 * @param best int32 [nCampaigns], −1 = not chosen
 */
export function fillBestCreatives(
  release: RankingRelease,
  publicationRow: number,
  campaignRows: Int32Array,
  best: Int32Array,
  scratch: ScoringScratch,
): void {
  const missing = campaignRows.filter((row) => best[row]! < 0);
  if (missing.length === 0) return;
  const { features, scorer } = release.pctr;
  const { offsets, campaigns, creatives } = pairsOf(release, missing);
  const x = scratch.features(campaigns.length * features.nFeatures);
  const p = scratch.p(campaigns.length);
  const top = { publicationRow, tsMs: release.asOfMs, position: 1, nAds: 1 };
  features.evaluate(top, campaigns, creatives, x);
  scorer.scoreInto(x, campaigns.length, p);
  for (let i = 0; i < missing.length; i++) {
    let winner = offsets[i]!;
    for (let j = winner + 1; j < offsets[i + 1]!; j++) if (p[j]! > p[winner]!) winner = j;
    best[missing[i]!] = creatives[winner]!;
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
 * Scores all candidates of a set in one context. O(n · features).
 * @throws WAGGLE_RANKING_NAN when a feature is not a number
 */
export function scoreBlock(
  release: RankingRelease,
  set: CandidateSet,
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
    const x = scratch.features(n * pctr.features.nFeatures);
    pctr.features.evaluate({ publicationRow, tsMs, position, nAds }, campaignRows, creativeRows, x);
    pctr.scorer.scoreInto(x, n, pClick);
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
    const x = scratch.features(n * accept.features.nFeatures);
    const { menuSize } = context;
    accept.features.evaluate(
      {
        publicationRow,
        tsMs,
        position,
        nAds,
        menuSize,
        priceMicros,
        estPayoutMicros: payoutMicros,
        rank,
      },
      campaignRows,
      creativeRows,
      x,
    );
    accept.scorer.scoreInto(x, n, q);
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
