import {
  clickRelativeVariance,
  correctSelected,
  logNormalQuantile,
  meanLogit,
  openRelativeVariance,
  Z80,
} from '@waggle/ranking';
import { firstCreatives } from './creative-choice.js';
import type { KeptDraw } from './kept-draw.js';
import { priorClickRate, type RankingRelease } from './ranking-release.js';
import { ScoringScratch } from './scoring-scratch.js';
import { onThread, type ServedModel } from './served-model.js';

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
  /** Mean logit that a correction for selection counts from; undefined without one. */
  readonly meanLogit: number | undefined;
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
 * Scores all candidates of a set in one context, by models that answer on the calling thread or from prior rates. O(n · features).
 * @param beside the slot's candidates, where the set is not they but some to be added to them
 * @throws WAGGLE_RANKING_NAN when a feature is not a number, WAGGLE_RELEASE_UNSERVABLE for a network
 */
export function scoreBlock(
  release: RankingRelease,
  set: ScorableSet,
  context: ScoringContext,
  scratch: ScoringScratch,
  beside?: ScoredBlock,
): ScoredBlock {
  const { campaigns, pctr, policy } = release;
  const { n, campaignRows } = set;
  let creativeRows = set.bestCreatives;
  const pClick = new Float64Array(n);
  let mean: number | undefined;
  if (context.priorOnly) {
    // What a network would choose is known from some time on only: decisions without it must not depend on when.
    if (pctr.network !== undefined) creativeRows = firstCreatives(release, campaignRows);
    for (let i = 0; i < n; i++) pClick[i] = priorClickRate(campaigns, campaignRows[i]!);
  } else {
    const head = onThread(pctr);
    head.probabilities(clickContext(set, context), campaignRows, creativeRows, pClick);
    mean = corrected(head, pClick, n, beside);
  }
  const money = moneyOf(release, set, context, pClick);
  const q = new Float32Array(n);
  if (context.mode === 'fill') {
    q.fill(1);
  } else if (context.priorOnly) {
    q.fill(policy.prior_accept);
  } else if (n > 0) {
    const at = offerContext(release, set, context, money.payoutMicros, scratch);
    onThread(release.accept).probabilities(at, campaignRows, creativeRows, q);
  }
  return blockOf(release, set, context, { creativeRows, pClick, meanLogit: mean, q, money });
}

/** As `scoreBlock`, where models may answer from another thread. @throws what they reject with */
export async function askBlock(
  release: RankingRelease,
  set: ScorableSet,
  context: ScoringContext,
  beside?: ScoredBlock,
): Promise<ScoredBlock> {
  const { n, campaignRows, bestCreatives: creativeRows } = set;
  const ask = async <T extends Float32Array | Float64Array>(
    served: ServedModel,
    at: ClickContext,
    out: T,
  ): Promise<T> => {
    if (n === 0) return out;
    if (served.network === undefined) {
      served.probabilities(at, campaignRows, creativeRows, out);
    } else {
      out.set(await served.ask(at, campaignRows, creativeRows));
    }
    return out;
  };
  const pClick = await ask(release.pctr, clickContext(set, context), new Float64Array(n));
  const mean = corrected(release.pctr, pClick, n, beside);
  const money = moneyOf(release, set, context, pClick);
  let q = new Float32Array(n).fill(1);
  if (context.mode === 'offers') {
    const at = offerContext(release, set, context, money.payoutMicros, new ScoringScratch());
    q = await ask(release.accept, at, q);
  }
  return blockOf(release, set, context, { creativeRows, pClick, meanLogit: mean, q, money });
}

/** Corrects for selection where the model says how. @returns the mean logit that was counted from */
function corrected(
  { selection }: Pick<ServedModel, 'selection'>,
  pClick: Float64Array,
  n: number,
  beside: ScoredBlock | undefined,
): number | undefined {
  if (selection === undefined) return undefined;
  const mean = beside?.meanLogit ?? meanLogit(pClick, n);
  correctSelected(selection, pClick, n, mean);
  return mean;
}

type ClickContext = Pick<ScoringContext, 'tsMs' | 'position' | 'nAds'> & { publicationRow: number };

const clickContext = (
  { publicationRow }: ScorableSet,
  { tsMs, position, nAds }: ScoringContext,
): ClickContext => ({ publicationRow, tsMs, position, nAds });

/** The menu is not made yet: every candidate is judged at its middle. */
function offerContext(
  { campaigns }: RankingRelease,
  set: ScorableSet,
  context: ScoringContext,
  estPayoutMicros: Float64Array,
  scratch: ScoringScratch,
) {
  const { n, campaignRows } = set;
  const { menuSize } = context;
  const rank = scratch.p(n).fill((menuSize + 1) / 2, 0, n);
  const priceMicros = scratch.column(n);
  for (let i = 0; i < n; i++) priceMicros[i] = campaigns.bidMicros[campaignRows[i]!]!;
  return { ...clickContext(set, context), menuSize, priceMicros, estPayoutMicros, rank };
}

/** What follows from the click probabilities in money. */
type Money = Pick<
  ScoredBlock,
  'spendMicros' | 'payoutMicros' | 'relativeVariance' | 'reserveMicros'
>;

function moneyOf(
  { campaigns, publications, policy }: RankingRelease,
  { n, campaignRows, publicationRow }: ScorableSet,
  { delivered }: ScoringContext,
  pClick: Float64Array,
): Money {
  const openRate = publications.eligibleOpenRate[publicationRow]!;
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
  return { spendMicros, payoutMicros, relativeVariance, reserveMicros };
}

function blockOf(
  { campaigns, publications }: RankingRelease,
  { n, campaignRows, publicationRow, omega }: ScorableSet,
  context: ScoringContext,
  o: Pick<ScoredBlock, 'creativeRows' | 'pClick' | 'meanLogit' | 'q'> & { readonly money: Money },
): ScoredBlock {
  const { creativeRows, pClick, q, money } = o;
  const { delivered } = context;
  const openRate = publications.eligibleOpenRate[publicationRow]!;
  let goalUnits: Float32Array | undefined;
  if (omega !== undefined) {
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
    meanLogit: o.meanLogit,
    q,
    spendMicros: money.spendMicros,
    spend: Float32Array.from(money.spendMicros),
    payoutMicros: money.payoutMicros,
    payout: Float32Array.from(money.payoutMicros),
    relativeVariance: money.relativeVariance,
    reserveMicros: money.reserveMicros,
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

/**
 * Puts together the block of candidates that are scored already, some of them in each of two blocks. O(n).
 * @param source int32 [n]: candidate of `kept`, or −1 − candidate of `added`
 */
export function joinBlocks(kept: ScoredBlock, added: ScoredBlock, source: Int32Array): ScoredBlock {
  const n = source.length;
  const pick = <T extends Int32Array | Float32Array | Float64Array>(out: T, a: T, b: T): T => {
    for (let i = 0; i < n; i++) {
      const at = source[i]!;
      out[i] = at < 0 ? b[-1 - at]! : a[at]!;
    }
    return out;
  };
  const { goalUnits } = kept;
  return {
    context: kept.context,
    creativeRows: pick(new Int32Array(n), kept.creativeRows, added.creativeRows),
    pClick: pick(new Float64Array(n), kept.pClick, added.pClick),
    meanLogit: kept.meanLogit,
    q: pick(new Float32Array(n), kept.q, added.q),
    spendMicros: pick(new Float64Array(n), kept.spendMicros, added.spendMicros),
    spend: pick(new Float32Array(n), kept.spend, added.spend),
    payoutMicros: pick(new Float64Array(n), kept.payoutMicros, added.payoutMicros),
    payout: pick(new Float32Array(n), kept.payout, added.payout),
    relativeVariance: pick(new Float64Array(n), kept.relativeVariance, added.relativeVariance),
    reserveMicros: pick(new Float64Array(n), kept.reserveMicros, added.reserveMicros),
    goalUnits: goalUnits && pick(new Float32Array(n), goalUnits, added.goalUnits!),
    rho: kept.rho && pick(new Float32Array(n), kept.rho, added.rho!),
    draws: [],
  };
}
