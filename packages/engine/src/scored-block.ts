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
import { onThread, type ServedModel, type ServedNetwork } from './served-model.js';

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
  /** Acceptances by length of the menu, newest first. */
  readonly menus: Menu[];
  /** Greedy draws made from this block, newest first. */
  readonly draws: KeptDraw[];
}

/** What the candidates of a block would be told on a menu of some length. */
export interface Menu {
  /** Offers on it. */
  readonly size: number;
  /** p(accepted | offered), float32 [n]. */
  readonly q: Float32Array;
}

/** Lengths of menus that a block keeps the acceptances of. */
const MENUS_PER_BLOCK = 4;
/** Acceptances that nobody reads: no candidate competes. */
const NO_OFFERS = new Float32Array(0);

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
 * What the candidates of a set bring in one context, by models that answer on the calling thread or from prior rates. O(n · features).
 * @param beside the slot's candidates, where the set is not they but some to be added to them
 * @throws WAGGLE_RANKING_NAN when a feature is not a number, WAGGLE_RELEASE_UNSERVABLE for a network
 */
export function scoreBlock(
  release: RankingRelease,
  set: ScorableSet,
  context: ScoringContext,
  beside?: ScoredBlock,
): ScoredBlock {
  const { campaigns, pctr } = release;
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
  return blockOf(release, set, context, { creativeRows, pClick, meanLogit: mean });
}

/** As `scoreBlock`, where the click model may answer from another thread. @throws what it rejects with */
export async function askBlock(
  release: RankingRelease,
  set: ScorableSet,
  context: ScoringContext,
  beside?: ScoredBlock,
): Promise<ScoredBlock> {
  const { network } = release.pctr;
  if (network === undefined) return scoreBlock(release, set, context, beside);
  const { n, campaignRows, bestCreatives: creativeRows } = set;
  const pClick = new Float64Array(n);
  if (n > 0) {
    pClick.set(await release.pctr.ask(clickContext(set, context), campaignRows, creativeRows));
  }
  const mean = corrected(release.pctr, pClick, n, beside);
  return blockOf(release, set, context, { creativeRows, pClick, meanLogit: mean });
}

/** Acceptances on a menu of so many offers, where they need no model or are kept. */
export function knownAcceptances(
  { policy }: RankingRelease,
  { context, menus, pClick }: ScoredBlock,
  menuSize: number,
): Float32Array | undefined {
  const certain = context.mode === 'fill';
  if (!certain && !context.priorOnly) {
    return menuSize === 0 ? NO_OFFERS : menus.find(({ size }) => size === menuSize)?.q;
  }
  // The same on every menu.
  if (menus.length === 0) {
    const q = new Float32Array(pClick.length).fill(certain ? 1 : policy.prior_accept);
    menus.push({ size: menuSize, q });
  }
  return menus[0]!.q;
}

/**
 * p(accepted | offered) of a block's candidates on a menu of so many offers, kept with it; 1 in `fill`. O(n · features).
 * @throws WAGGLE_RANKING_NAN when a feature is not a number, WAGGLE_RELEASE_UNSERVABLE for a network
 */
export function acceptances(
  release: RankingRelease,
  set: ScorableSet,
  block: ScoredBlock,
  menuSize: number,
  scratch: ScoringScratch,
): Float32Array {
  const known = knownAcceptances(release, block, menuSize);
  if (known !== undefined) return known;
  const q = new Float32Array(set.n);
  const at = offerContext(release, set, block, menuSize, scratch);
  onThread(release.accept).probabilities(at, set.campaignRows, block.creativeRows, q);
  keepMenu(block, { size: menuSize, q });
  return q;
}

/** As `acceptances`, of a network. @throws what it rejects with */
export async function askAcceptances(
  release: RankingRelease,
  accept: ServedNetwork,
  set: ScorableSet,
  block: ScoredBlock,
  menuSize: number,
): Promise<void> {
  const at = offerContext(release, set, block, menuSize, new ScoringScratch());
  const q = await accept.ask(at, set.campaignRows, block.creativeRows);
  keepMenu(block, { size: menuSize, q });
}

function keepMenu({ menus }: ScoredBlock, menu: Menu): void {
  menus.unshift(menu);
  if (menus.length > MENUS_PER_BLOCK) menus.pop();
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
  { context, payoutMicros: estPayoutMicros }: ScoredBlock,
  menuSize: number,
  scratch: ScoringScratch,
) {
  const { n, campaignRows } = set;
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
  release: RankingRelease,
  set: ScorableSet,
  context: ScoringContext,
  o: Pick<ScoredBlock, 'creativeRows' | 'pClick' | 'meanLogit'>,
): ScoredBlock {
  const { campaigns, publications } = release;
  const { n, campaignRows, publicationRow, omega } = set;
  const { creativeRows, pClick } = o;
  const money = moneyOf(release, set, context, pClick);
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
    spendMicros: money.spendMicros,
    spend: Float32Array.from(money.spendMicros),
    payoutMicros: money.payoutMicros,
    payout: Float32Array.from(money.payoutMicros),
    relativeVariance: money.relativeVariance,
    reserveMicros: money.reserveMicros,
    goalUnits,
    rho: rho === 0 ? undefined : new Float32Array(n).fill(rho),
    menus: [],
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
    a.priorOnly === b.priorOnly
  );
}

/**
 * Puts together a column of candidates, some of them in each of two blocks. O(n).
 * @param source int32 [n]: candidate of `kept`, or −1 − candidate of `added`
 */
export function joinColumns<T extends Int32Array | Float32Array | Float64Array>(
  out: T,
  kept: T,
  added: T,
  source: Int32Array,
): T {
  for (let i = 0; i < source.length; i++) {
    const at = source[i]!;
    out[i] = at < 0 ? added[-1 - at]! : kept[at]!;
  }
  return out;
}

/** Puts together the block of candidates that are scored already, as `joinColumns` does its columns; without menus. O(n). */
export function joinBlocks(kept: ScoredBlock, added: ScoredBlock, source: Int32Array): ScoredBlock {
  const n = source.length;
  const pick = <T extends Int32Array | Float32Array | Float64Array>(out: T, a: T, b: T): T =>
    joinColumns(out, a, b, source);
  const { goalUnits } = kept;
  return {
    context: kept.context,
    creativeRows: pick(new Int32Array(n), kept.creativeRows, added.creativeRows),
    pClick: pick(new Float64Array(n), kept.pClick, added.pClick),
    meanLogit: kept.meanLogit,
    spendMicros: pick(new Float64Array(n), kept.spendMicros, added.spendMicros),
    spend: pick(new Float32Array(n), kept.spend, added.spend),
    payoutMicros: pick(new Float64Array(n), kept.payoutMicros, added.payoutMicros),
    payout: pick(new Float32Array(n), kept.payout, added.payout),
    relativeVariance: pick(new Float64Array(n), kept.relativeVariance, added.relativeVariance),
    reserveMicros: pick(new Float64Array(n), kept.reserveMicros, added.reserveMicros),
    goalUnits: goalUnits && pick(new Float32Array(n), goalUnits, added.goalUnits!),
    rho: kept.rho && pick(new Float32Array(n), kept.rho, added.rho!),
    menus: [],
    draws: [],
  };
}
