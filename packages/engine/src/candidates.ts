import type { FilterName } from '@waggle/core/contract';
import {
  BitSet,
  explainFilters,
  type FilterCounts,
  type FilterPasses,
  type PublicationFilters,
  preselect,
} from '@waggle/retrieval';
import type { BudgetState } from './budget-view.js';
import { askBestCreatives, fillBestCreatives } from './creative-choice.js';
import { engineError } from './errors.js';
import { KEPT_DRAW_CELLS } from './kept-draw.js';
import { type ClickRelease, priorClickRate } from './ranking-release.js';
import { encodeRows, type RowList } from './row-list.js';
import type { ScorableSet, ScoredBlock, ScoringContext } from './scored-block.js';
import type { ScoringScratch } from './scoring-scratch.js';

/**
 * The campaigns that may run in a publication during one stretch of time in one language, with everything
 * about them that requests share. Budgets and the request's own exclusions are applied on top, per request.
 */
export interface CandidateSet extends ScorableSet {
  readonly language: string;
  readonly segment: number;
  /** BudgetState.passVersion it was cut with; −1 when it was small enough not to be cut. */
  readonly cutWith: number;
  /** Cosine of the texts, float32 [n]. */
  readonly fit: Float32Array;
  readonly advertiser: Int32Array;
  readonly competitorGroup: Int32Array;
  readonly mu: Float32Array | undefined;
  /** Filters by name, budget and request excluded; candidates are what passes them all (or a cut of it). */
  readonly passes: FilterPasses;
  /** Everything that passes, before any cut. */
  readonly eligible: BitSet;
  /** The candidates as campaign rows: `eligible`, or what the cut left of it. */
  readonly chosen: BitSet;
  /** Counts without exclusions, kept for the budget state they were made in. */
  counts:
    | {
        readonly budgetVersion: number;
        readonly filtered: FilterCounts;
        readonly remaining: number;
        readonly broke: RowList;
      }
    | undefined;
  /** Recently scored contexts, latest first. */
  readonly blocks: ScoredBlock[];
  /** Contexts that networks are being asked about: the clicks, or the acceptances on a menu of so many offers. */
  readonly asked: {
    readonly context: ScoringContext;
    readonly menu: number | undefined;
    readonly done: Promise<void>;
  }[];
  /** Exploration blocks by diversity rules, made when first needed. */
  readonly diversityBlocks: Map<number, { blocks: Int32Array; nBlocks: number; sizes: Int32Array }>;
  /** Scratch of the request at hand: which candidates are in play. */
  readonly mask: BitSet;
  /** The mask as native code reads it. */
  readonly maskBytes: Uint8Array;
}

/** Candidates with the contexts in which they were scored, and are being scored. */
export type AskedSet = ScorableSet & Pick<CandidateSet, 'blocks' | 'asked'>;

/** Candidates of one draw where restrictions leave campaigns that the cut did not; kept no longer than the draw. */
export interface OwnSet {
  readonly set: CandidateSet;
  /** Those of them that the shared set lacks. */
  readonly added: AskedSet;
  /** Where each stands, int32 [set.n]: candidate of the shared set, or −1 − candidate of `added`. */
  readonly source: Int32Array;
}

/** What stays true of a publication while its release is served, by campaign row. */
interface PublicationPlan {
  readonly filters: PublicationFilters;
  /** Cosine of the texts, float32 [nCampaigns]; NaN = not computed. */
  readonly fit: Float32Array;
  /** Best creative, int32 [nCampaigns]; −1 = not computed. */
  readonly bestCreative: Int32Array;
  /** Expected spend before any feature, float64 [nCampaigns]; undefined until a set is cut. */
  prior: Float64Array | undefined;
  readonly sets: CandidateSet[];
  cells: number;
}

const SETS_PER_PUBLICATION = 8;
/** Candidate rows that all cached sets and blocks of a release may hold, some 50 bytes each. */
const MAX_CACHED_CELLS = 2_000_000;
/** Campaigns whose texts are compared in one step of `prepare`. */
const PREPARED_AT_ONCE = 128;

/** Candidate sets by publication, kept while they are used. One per release and engine. */
export class CandidateCache {
  readonly #release: ClickRelease;
  readonly #scratch: ScoringScratch;
  readonly #plans = new Map<number, PublicationPlan>();
  #cells = 0;

  constructor(release: ClickRelease, scratch: ScoringScratch) {
    this.#release = release;
    this.#scratch = scratch;
  }

  /** The candidates at a time in a language. O(1) when kept, O(campaigns / 32 + n·dim) otherwise. */
  get(publicationRow: number, language: string, atMs: number, budget: BudgetState): CandidateSet {
    const { segment } = this.#release.eligibility.flights.at(atMs);
    const plan = this.#plan(publicationRow);
    for (const set of plan.sets) {
      if (
        set.segment === segment &&
        set.language === language &&
        (set.cutWith === -1 || set.cutWith === budget.passVersion)
      ) {
        return set;
      }
    }
    const set = buildSet(this.#release, plan, this.#scratch, {
      publicationRow,
      language,
      atMs,
      budget,
    });
    plan.sets.unshift(set);
    if (plan.sets.length > SETS_PER_PUBLICATION) this.#forget(plan, plan.sets.pop()!);
    this.charge(set, set.n * 2);
    return set;
  }

  /**
   * The candidates of one draw: as many of the campaigns that it may choose from as are scored at once, the most
   * promising. O(campaigns · dim + n) when some of them are not in the set that was cut for everybody.
   * @param left campaigns that pass all filters and restrictions and have money
   * @returns undefined when the shared set holds them all
   */
  choose(shared: CandidateSet, left: BitSet): OwnSet | undefined {
    if (left.clone().andNot(shared.chosen).count() === 0) return undefined;
    const release = this.#release;
    const { publicationRow } = shared;
    const plan = this.#plan(publicationRow);
    const chosen = cut(release, plan, publicationRow, left);
    const set = makeSet(release, plan, this.#scratch, { ...shared, chosen });
    const { campaignRows } = set;
    const source = new Int32Array(set.n);
    const lacking: number[] = [];
    for (let i = 0, at = 0; i < set.n; i++) {
      const row = campaignRows[i]!;
      while (at < shared.n && shared.campaignRows[at]! < row) at++;
      source[i] = shared.campaignRows[at] === row ? at : -1 - (lacking.push(i) - 1);
    }
    const added = {
      publicationRow,
      n: lacking.length,
      campaignRows: Int32Array.from(lacking, (i) => campaignRows[i]!),
      bestCreatives: Int32Array.from(lacking, (i) => set.bestCreatives[i]!),
      omega: set.omega && Float32Array.from(lacking, (i) => set.omega![i]!),
      blocks: [],
      asked: [],
    };
    return { set, added, source };
  }

  /**
   * What `get` would compute for a publication, in steps of about a millisecond with a pause for the caller after each,
   * so that the first request for it finds most of it done. Nothing is done once half of the room is taken.
   * @returns campaigns to be given to `askCreatives` in the pause, where a network chooses
   */
  *prepare(
    publicationRow: number,
    language: string,
    atMs: number,
    budget: BudgetState,
  ): Generator<Int32Array | undefined, void, void> {
    if (this.#cells > MAX_CACHED_CELLS / 2) return;
    const release = this.#release;
    const plan = this.#plan(publicationRow);
    const { chosen } = chooseCampaigns(release, plan, { publicationRow, language, atMs, budget });
    const campaignRows = chosen.toRows();
    yield undefined;
    const byNetwork = release.pctr.network !== undefined;
    for (let from = 0; from < campaignRows.length; from += PREPARED_AT_ONCE) {
      const rows = campaignRows.subarray(from, from + PREPARED_AT_ONCE);
      fillFit(release, publicationRow, rows, plan.fit);
      if (!byNetwork) {
        fillBestCreatives(release, publicationRow, rows, plan.bestCreative, this.#scratch);
      }
      yield byNetwork ? rows : undefined;
    }
  }

  /**
   * Has a network choose the creatives of campaigns that have none yet.
   * @returns the creative of each, int32 [campaignRows]
   */
  async askCreatives(publicationRow: number, campaignRows: Int32Array): Promise<Int32Array> {
    const { pctr } = this.#release;
    const { bestCreative } = this.#plan(publicationRow);
    if (pctr.network !== undefined) {
      await askBestCreatives(this.#release, pctr, publicationRow, campaignRows, bestCreative);
    }
    return campaignRows.map((c) => bestCreative[c]!);
  }

  /** Accounts for rows added to a set; the longest unused publications make room. */
  charge(set: Pick<ScorableSet, 'publicationRow'>, cells: number): void {
    const plan = this.#plans.get(set.publicationRow);
    if (plan === undefined) return;
    plan.cells += cells;
    this.#cells += cells;
    for (const [row, oldest] of this.#plans) {
      if (this.#cells <= MAX_CACHED_CELLS || row === set.publicationRow) break;
      this.#plans.delete(row);
      this.#cells -= oldest.cells;
    }
  }

  #plan(publicationRow: number): PublicationPlan {
    let plan = this.#plans.get(publicationRow);
    if (plan === undefined) {
      const { nCampaigns } = this.#release.eligibility;
      const cells = nCampaigns >> 2;
      plan = {
        fit: new Float32Array(nCampaigns).fill(Number.NaN),
        bestCreative: new Int32Array(nCampaigns).fill(-1),
        prior: undefined,
        filters: this.#release.eligibility.publicationFilters(
          this.#release.publications.rules[publicationRow]!,
        ),
        sets: [],
        cells,
      };
      this.#cells += cells;
      this.#plans.set(publicationRow, plan);
    }
    return plan;
  }

  #forget(plan: PublicationPlan, set: CandidateSet): void {
    const cells = set.n * 2 + set.blocks.length * (set.n + KEPT_DRAW_CELLS);
    plan.cells -= cells;
    this.#cells -= cells;
  }
}

interface SetQuestion {
  readonly publicationRow: number;
  readonly language: string;
  readonly atMs: number;
  readonly budget: BudgetState;
}

type ChosenCampaigns = Pick<CandidateSet, 'segment' | 'passes' | 'eligible' | 'chosen' | 'cutWith'>;

/** Which campaigns compete in a set: all that pass the filters, or the most promising of them. */
function chooseCampaigns(
  release: ClickRelease,
  plan: PublicationPlan,
  { publicationRow, language, atMs, budget }: SetQuestion,
): ChosenCampaigns {
  const { campaigns, eligibility, policy } = release;
  const { filters } = plan;
  const flight = eligibility.flights.at(atMs);
  const passes: FilterPasses = {
    status: filters.status,
    flight: flight.inFlight,
    language: eligibility.language(language),
    target: filters.target,
    blocked_category: filters.blockedCategory,
    blocked_advertiser: filters.blockedAdvertiser,
    creative: eligibility.creative,
  };
  const eligible = BitSet.full(campaigns.n);
  for (const pass of Object.values(passes)) eligible.and(pass);
  const { segment } = flight;
  if (eligible.count() <= policy.max_scored) {
    return { segment, passes, eligible, chosen: eligible, cutWith: -1 };
  }
  // Only campaigns that can pay compete for the places.
  const chosen = cut(release, plan, publicationRow, eligible.clone().and(budget.pass));
  return { segment, passes, eligible, chosen, cutWith: budget.passVersion };
}

/** The most promising of the campaigns, as many as are scored at once. O(campaigns · dim) when there are more. */
function cut(
  release: ClickRelease,
  plan: PublicationPlan,
  publicationRow: number,
  campaigns: BitSet,
): BitSet {
  const { dim, policy, publicationVectors } = release;
  if (campaigns.count() <= policy.max_scored) return campaigns;
  const query = publicationVectors.subarray(publicationRow * dim, (publicationRow + 1) * dim);
  const similar = release.similar.searchSync(query, {
    k: Math.max(1, policy.max_scored >>> 1),
    filter: campaigns,
  });
  plan.prior ??= priorValues(release, publicationRow);
  return preselect({
    eligible: campaigns,
    similar: similar.rows,
    prior: plan.prior,
    limit: policy.max_scored,
  });
}

function buildSet(
  release: ClickRelease,
  plan: PublicationPlan,
  scratch: ScoringScratch,
  question: SetQuestion,
): CandidateSet {
  const { publicationRow, language } = question;
  return makeSet(release, plan, scratch, {
    ...chooseCampaigns(release, plan, question),
    publicationRow,
    language,
    counts: undefined,
  });
}

function makeSet(
  release: ClickRelease,
  plan: PublicationPlan,
  scratch: ScoringScratch,
  of: ChosenCampaigns & Pick<CandidateSet, 'publicationRow' | 'language' | 'counts'>,
): CandidateSet {
  const { campaigns } = release;
  const { publicationRow } = of;
  const campaignRows = of.chosen.toRows();
  const n = campaignRows.length;
  fillFit(release, publicationRow, campaignRows, plan.fit);
  // A network's choice is waited for before its scores are.
  if (release.pctr.network === undefined) {
    fillBestCreatives(release, publicationRow, campaignRows, plan.bestCreative, scratch);
  }
  const mask = new BitSet(n);
  return {
    segment: of.segment,
    passes: of.passes,
    eligible: of.eligible,
    chosen: of.chosen,
    cutWith: of.cutWith,
    publicationRow,
    language: of.language,
    n,
    campaignRows,
    bestCreatives: gather(new Int32Array(n), plan.bestCreative, campaignRows),
    fit: gather(new Float32Array(n), plan.fit, campaignRows),
    advertiser: gather(new Int32Array(n), campaigns.advertiser, campaignRows),
    competitorGroup: gather(new Int32Array(n), campaigns.competitorGroup, campaignRows),
    mu: campaigns.mu && gather(new Float32Array(n), campaigns.mu, campaignRows),
    omega: campaigns.omega && gather(new Float32Array(n), campaigns.omega, campaignRows),
    counts: of.counts,
    blocks: [],
    asked: [],
    diversityBlocks: new Map(),
    mask,
    maskBytes: mask.bytes.subarray(0, (n + 7) >>> 3),
  };
}

/** Written out: `from` with a function walks an iterator, and a cut set may be made for a single request. */
function gather<T extends Int32Array | Float32Array>(out: T, values: T, rows: Int32Array): T {
  for (let i = 0; i < rows.length; i++) out[i] = values[rows[i]!]!;
  return out;
}

/** Inner products of unit vectors, where not known yet; 0 where either side has none. O(new · dim). */
function fillFit(
  release: ClickRelease,
  publicationRow: number,
  campaignRows: Int32Array,
  fit: Float32Array,
): void {
  const { dim, publicationVectors, campaignVectors } = release;
  const p = publicationRow * dim;
  for (let i = 0; i < campaignRows.length; i++) {
    const row = campaignRows[i]!;
    if (!Number.isNaN(fit[row]!)) continue;
    const c = row * dim;
    let sum = 0;
    for (let d = 0; d < dim; d++) sum += publicationVectors[p + d]! * campaignVectors[c + d]!;
    fit[row] = sum;
  }
}

/** Expected spend per send before any feature is evaluated: bid × the campaign's average rate. */
function priorValues(release: ClickRelease, publicationRow: number): Float64Array {
  const { campaigns, publications } = release;
  const delivered = publications.deliveredPerSend[publicationRow]!;
  const openRate = publications.eligibleOpenRate[publicationRow]!;
  return Float64Array.from({ length: campaigns.n }, (_, c) => {
    const bid = campaigns.bidMicros[c]!;
    switch (campaigns.pricing[c]) {
      case 0:
        return bid * delivered * priorClickRate(campaigns, c);
      case 1:
        return (bid * delivered * openRate) / 1000;
      default:
        return bid;
    }
  });
}

/** The request's own restrictions, in campaign rows. */
export interface Restrictions {
  /** Undefined when the request adds none. */
  readonly universe: BitSet | undefined;
  readonly passes: Partial<Record<FilterName, BitSet>>;
}

/** Takes out of a set what a request's restrictions rule out. */
export function restrict(campaigns: BitSet, { universe, passes }: Restrictions): BitSet {
  if (universe !== undefined) campaigns.and(universe);
  for (const pass of Object.values(passes)) campaigns.and(pass);
  return campaigns;
}

export interface RequestConstraints {
  readonly bcat?: readonly string[];
  readonly badv?: readonly string[];
  readonly exclude_campaigns?: readonly string[];
  readonly candidates?: readonly string[];
}

const NAMED_UNKNOWN = 5;

/**
 * Turns a request's constraints into bitmaps; undefined when there are none. Unknown categories, advertisers
 * and excluded campaigns have nothing to exclude; an unknown candidate is a mistake worth knowing.
 * @throws WAGGLE_UNKNOWN_CANDIDATES
 */
export function readRestrictions(
  release: ClickRelease,
  constraints: RequestConstraints | undefined,
): Restrictions | undefined {
  if (constraints === undefined) return undefined;
  const { eligibility } = release;
  const n = eligibility.nCampaigns;
  const { bcat, badv, exclude_campaigns: excluded, candidates } = constraints;
  const passes: Partial<Record<FilterName, BitSet>> = {};
  let universe: BitSet | undefined;
  if (bcat !== undefined && bcat.length > 0) {
    passes.blocked_category = eligibility.withoutCategories(BitSet.full(n), bcat);
  }
  if (badv !== undefined && badv.length > 0) {
    passes.blocked_advertiser = eligibility.withoutAdvertisers(BitSet.full(n), badv);
  }
  if (excluded !== undefined && excluded.length > 0) {
    const pass = BitSet.full(n);
    for (const id of excluded) {
      const row = eligibility.rowOf(id);
      if (row !== undefined) pass.delete(row);
    }
    passes.excluded = pass;
  }
  if (candidates !== undefined) {
    universe = new BitSet(n);
    const unknown: string[] = [];
    for (const id of candidates) {
      const row = eligibility.rowOf(id);
      if (row === undefined) unknown.push(id);
      else universe.add(row);
    }
    if (unknown.length > 0) {
      throw engineError(
        'WAGGLE_UNKNOWN_CANDIDATES',
        `release ${release.id} does not know ${unknown.length} of ${candidates.length} candidates: ${unknown.slice(0, NAMED_UNKNOWN).join(', ')}${unknown.length > NAMED_UNKNOWN ? ', …' : ''}`,
        { details: { unknown: unknown.slice(0, NAMED_UNKNOWN), nUnknown: unknown.length } },
      );
    }
  }
  if (universe === undefined && Object.keys(passes).length === 0) return undefined;
  return { universe, passes };
}

/**
 * Which candidates of a set are in play for a request, before prices are known, and what each filter left out.
 * The set's `mask` holds the answer until the next call.
 * @returns counts by filter, how many campaigns remain (before any cut), and the rows of those that only
 *   lack money, which a replay needs to know
 */
export function applyFilters(
  release: ClickRelease,
  set: CandidateSet,
  budget: BudgetState,
  restrictions: Restrictions | undefined,
): { filtered: FilterCounts; remaining: number; broke: RowList } {
  const { mask, campaignRows, n } = set;
  if (restrictions === undefined) {
    let { counts } = set;
    if (counts === undefined || counts.budgetVersion !== budget.passVersion) {
      const found = explainFilters(BitSet.full(release.campaigns.n), {
        ...set.passes,
        budget: budget.pass,
      });
      counts = {
        budgetVersion: budget.passVersion,
        filtered: found.filtered,
        remaining: found.eligible.count(),
        broke: encodeRows(set.eligible.clone().andNot(budget.pass)),
      };
      set.counts = counts;
    }
    mask.clear();
    const { words } = mask;
    const pass = budget.pass.words;
    for (let i = 0; i < n; i++) {
      const row = campaignRows[i]!;
      words[i >>> 5]! |= ((pass[row >>> 5]! >>> (row & 31)) & 1) << (i & 31);
    }
    return counts;
  }
  const passes: Partial<Record<FilterName, BitSet>> = { ...set.passes, budget: budget.pass };
  for (const [name, pass] of Object.entries(restrictions.passes) as [FilterName, BitSet][]) {
    const own = passes[name];
    passes[name] = own === undefined ? pass : own.clone().and(pass);
  }
  const found = explainFilters(restrictions.universe ?? BitSet.full(release.campaigns.n), passes);
  mask.clear();
  for (let i = 0; i < n; i++) if (found.eligible.has(campaignRows[i]!)) mask.add(i);
  return {
    filtered: found.filtered,
    remaining: found.eligible.count(),
    broke: encodeRows(set.eligible.clone().andNot(budget.pass)),
  };
}
