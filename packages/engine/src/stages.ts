import type { Degradation } from '@waggle/core/contract';
import { BitSet } from '@waggle/retrieval';
import type { BudgetState } from './budget-view.js';
import {
  type AskedSet,
  applyFilters,
  type CandidateCache,
  type CandidateSet,
  type OwnSet,
  type Restrictions,
  readRestrictions,
  restrict,
} from './candidates.js';
import { type Choice, choose } from './choice.js';
import type { ChosenItem, DecisionParts, DrawMoney } from './decision.js';
import { type ExplorationDraw, explorationDraw } from './exploration.js';
import type { KeptAnswer } from './kept-answer.js';
import {
  type DrawQuestion,
  findDraw,
  KEPT_DRAW_CELLS,
  type KeptDraw,
  keepDraw,
  MAX_KEPT_K,
} from './kept-draw.js';
import type { Money } from './money.js';
import { type Networks, within } from './networks.js';
import type { RankingRelease } from './ranking-release.js';
import type { RequestContext, SlotContext } from './request-context.js';
import type { RowList } from './row-list.js';
import {
  askBlock,
  joinBlocks,
  type ScoredBlock,
  type ScoringContext,
  sameContext,
  scoreBlock,
} from './scored-block.js';
import type { ScoringScratch } from './scoring-scratch.js';

/** Everything the stages of one decision work with. */
export interface Run {
  readonly release: RankingRelease;
  readonly cache: CandidateCache;
  readonly scratch: ScoringScratch;
  readonly money: Money;
  readonly context: RequestContext;
  /** True once optional work must be skipped. */
  late(): boolean;
  /** How long scores may be waited for; 0 or less when not at all. */
  waitMs(): number;
  /** @throws WAGGLE_ABORTED when nobody waits for the answer any more */
  check(): void;
}

export type StagesResult = Pick<
  DecisionParts,
  'items' | 'draws' | 'nEligible' | 'filtered' | 'explored' | 'kept'
> & { readonly degraded: readonly Degradation[] };

/** Why prior rates stand in for scores: no time, or a network that is overloaded or fails. */
type Unscored = Extract<Degradation, 'deadline_prior' | 'onnx_unavailable'>;

const BLOCKS_PER_SET = 8;
/** Networks are asked so often for one draw when money that moves meanwhile changes its candidates. */
const MAX_QUESTIONS = 4;
/** Ledger refusals that one slot puts up with before it stays empty. */
const MAX_REFUSALS = 16;
/** No advertiser's code. */
const NOBODY = -1;
const NONE: readonly Degradation[] = [];
const NOTHING: readonly Unscored[] = [];

/** What stands in the send already and what the last draws of a decision have taken, in campaign rows. */
interface Taken {
  readonly campaigns: Set<number>;
  readonly perAdvertiser: Map<number, number>;
  /** Advertiser that holds each competitor group, NOBODY where several do. */
  readonly groups: Map<number, number>;
}

/** Stage by stage, `offers`: nothing is reserved, so nothing waits. */
export function runOffers(run: Run): StagesResult {
  const { context } = run;
  const restrictions = restrictionsOf(run);
  return offered(run, drawNow(run, { slot: context.slots[0]!, restrictions, nth: 0 }));
}

/** As `runOffers`, of a release with networks: their scores are waited for. */
export async function runOffersAsking(run: Run, networks: Networks): Promise<StagesResult> {
  const { context } = run;
  const restrictions = restrictionsOf(run);
  const question = { slot: context.slots[0]!, restrictions, nth: 0 };
  return offered(run, await drawAsking(run, networks, question));
}

function offered(run: Run, { drawn, stale, unscored }: OneDraw): StagesResult {
  const slot = run.context.slots[0]!;
  const { choice } = drawn;
  const degraded = degradations(unscored === undefined ? NOTHING : [unscored], stale, false);
  const rest = {
    nEligible: drawn.nEligible,
    filtered: drawn.filtered,
    explored: choice.explored,
    degraded,
  };
  // A named slot stands in the items, so they are this request's own.
  const kept = slot.id === undefined ? drawn.kept : undefined;
  if (kept === undefined) return { ...chosen(drawn, slot), ...rest };
  if (kept.chosen === undefined) kept.chosen = chosen(drawn, slot);
  const { items, draws } = kept.chosen;
  return { items, draws, ...rest, kept };
}

function chosen(drawn: Drawn, slot: SlotContext): Pick<StagesResult, 'items' | 'draws'> {
  const { set, block, choice } = drawn;
  const items: ChosenItem[] = new Array(choice.rows.length);
  for (let i = 0; i < items.length; i++) {
    items[i] = { set, block, choice, index: i, slot, rank: i + 1 };
  }
  return { items, draws: [moneyAt(drawn)] };
}

function moneyAt({ broke, choice, priorOnly }: Drawn): DrawMoney {
  const { unaffordable: short } = choice;
  return priorOnly ? { broke, short, prior: true } : { broke, short };
}

/**
 * Stage by stage, `fill`: each slot is a draw of its own among what the slots before left, and counts only
 * once its money is held durably. A slot that finds none stays empty; slots already filled stay filled.
 */
export async function runFill(
  run: Run,
  ids: { decisionId: string; placementId: () => string },
  onError: (cause: unknown) => void,
): Promise<StagesResult> {
  const { release, context } = run;
  const test = context.request.test === true;
  const taken = placedIn(run);
  const restrictions = restrictionsOf(run, taken);
  const items: ChosenItem[] = [];
  const draws: DrawMoney[] = [];
  let first: Drawn | undefined;
  let stale = false;
  const reasons = new Set<Unscored>();
  let explored = false;
  let stream = 0;

  slots: for (let s = 0; s < context.capacity; s++) {
    const slot = context.slots[s]!;
    for (let refusals = 0; refusals <= MAX_REFUSALS; refusals++) {
      let drawn: Drawn;
      try {
        const { networks } = release;
        const question = { slot, restrictions, taken, nth: stream++ };
        const one =
          networks === undefined
            ? drawNow(run, question)
            : await drawAsking(run, networks, question);
        ({ drawn } = one);
        stale ||= one.stale;
        if (one.unscored !== undefined) reasons.add(one.unscored);
      } catch (cause) {
        // Money that is already held must be answered for.
        if (items.length === 0) throw cause;
        onError(cause);
        break slots;
      }
      first ??= drawn;
      const { choice, set, block } = drawn;
      const money = moneyAt(drawn);
      if (choice.rows.length === 0) {
        draws.push(money);
        break;
      }
      const row = choice.rows[0]!;
      const campaign = set.campaignRows[row]!;
      const item = { set, block, choice, index: 0, slot, rank: items.length + 1 };
      if (test) {
        draws.push(money);
        items.push({ ...item, reservedMicros: 0 });
      } else {
        const placementId = ids.placementId();
        const reservedMicros = block.reserveMicros[row]!;
        let held: boolean;
        try {
          const outcome = await run.money.reserve({
            campaignId: release.campaigns.ids[campaign]!,
            referenceId: placementId,
            amountMicros: reservedMicros,
            decisionId: ids.decisionId,
            nowMs: context.nowMs,
            tenantId: release.tenantId,
          });
          held = outcome.ok;
        } catch (cause) {
          draws.push({ ...money, reserve: 'failed' });
          onError(cause);
          stale = true;
          break slots;
        }
        if (!held) {
          draws.push({ ...money, reserve: 'refused' });
          taken.campaigns.add(campaign);
          continue;
        }
        draws.push({ ...money, reserve: 'held' });
        items.push({ ...item, placementId, reservedMicros });
      }
      explored ||= choice.explored;
      take(release, taken, campaign);
      break;
    }
  }
  return {
    items,
    draws,
    nEligible: first?.nEligible ?? 0,
    filtered: first?.filtered ?? { capacity: nAskedAbout(run) },
    explored,
    degraded: degradations([...reasons], stale, items.length < context.slots.length),
  };
}

function degradations(
  unscored: readonly Unscored[],
  stale: boolean,
  partial: boolean,
): readonly Degradation[] {
  if (unscored.length === 0 && !stale && !partial) return NONE;
  const out: Degradation[] = [...unscored];
  if (stale) out.push('ledger_unavailable');
  if (partial) out.push('partial_fill');
  return out;
}

function take(release: RankingRelease, taken: Taken, campaign: number): void {
  const advertiser = release.campaigns.advertiser[campaign]!;
  const group = release.campaigns.competitorGroup[campaign]!;
  taken.campaigns.add(campaign);
  taken.perAdvertiser.set(advertiser, (taken.perAdvertiser.get(advertiser) ?? 0) + 1);
  if (group < 0) return;
  const holder = taken.groups.get(group) ?? advertiser;
  taken.groups.set(group, holder === advertiser ? advertiser : NOBODY);
}

function placedIn({ release, context }: Run): Taken {
  const taken: Taken = { campaigns: new Set(), perAdvertiser: new Map(), groups: new Map() };
  for (const campaign of context.placed) take(release, taken, campaign);
  return taken;
}

/** What the request says, and what the ads that stand in the send already rule out. */
function restrictionsOf(run: Run, standing?: Taken): Restrictions | undefined {
  const { release, context } = run;
  const restrictions = readRestrictions(release, context.request.constraints);
  if (context.placed.length === 0) return restrictions;
  const placed = standing ?? placedIn(run);
  const excluded = restrictions?.passes.excluded ?? BitSet.full(release.campaigns.n);
  for (let row = 0; row < release.campaigns.n; row++) {
    if (isTaken(run, placed, row)) excluded.delete(row);
  }
  return { universe: restrictions?.universe, passes: { ...restrictions?.passes, excluded } };
}

export interface Drawn {
  readonly set: CandidateSet;
  readonly block: ScoredBlock;
  readonly choice: Choice;
  readonly nEligible: number;
  readonly filtered: StagesResult['filtered'];
  readonly broke: RowList;
  readonly priorOnly: boolean;
  /** What answers are made of, kept with a draw that other requests will meet again. */
  readonly kept?: KeptAnswer<Pick<StagesResult, 'items' | 'draws'>>;
}

/** A draw with what it had to do without. */
interface OneDraw {
  readonly drawn: Drawn;
  /** The ledger did not answer. */
  readonly stale: boolean;
  readonly unscored: Unscored | undefined;
}

/** What one draw is asked for. */
interface OneQuestion {
  readonly slot: SlotContext;
  readonly restrictions: Restrictions | undefined;
  /** By earlier draws; undefined in `offers`. */
  readonly taken?: Taken;
  /** The decision's draws are numbered from 0. */
  readonly nth: number;
}

/** Whom a draw chooses among: the set that requests share, or one of its own that is scored with its help. */
interface Candidates {
  readonly shared: CandidateSet;
  readonly own: OwnSet | undefined;
}

/** Restrictions come before the cut: where the cut left out what a restricted draw may choose, it gets a set of its own. */
function candidatesOf(run: Run, question: OneQuestion, budget: BudgetState): Candidates {
  const { cache, context } = run;
  const shared = cache.get(context.publicationRow, context.language, context.atMs, budget);
  const { restrictions, taken } = question;
  const narrowed = restrictions !== undefined || (taken !== undefined && taken.campaigns.size > 0);
  if (shared.cutWith === -1 || !narrowed) return { shared, own: undefined };
  const left = shared.eligible.clone().and(budget.pass);
  if (restrictions !== undefined) restrict(left, restrictions);
  if (taken !== undefined && taken.campaigns.size > 0) {
    for (const row of left.toRows()) if (isTaken(run, taken, row)) left.delete(row);
  }
  return { shared, own: cache.choose(shared, left) };
}

function drawNow(run: Run, question: OneQuestion): OneDraw {
  const { budget, stale } = run.money.draw(run.context.nowMs, question.nth);
  const drawn = draw(run, question, budget, candidatesOf(run, question, budget));
  return { drawn, stale, unscored: drawn.priorOnly ? 'deadline_prior' : undefined };
}

/**
 * Waits until a draw finds its scores kept, then draws. Money is asked for and filters are applied in the turn of the draw, after
 * the waiting: what ran out of money meanwhile is not chosen. Where networks do not answer in time, or not at all, prior rates
 * stand in.
 */
async function drawAsking(run: Run, networks: Networks, question: OneQuestion): Promise<OneDraw> {
  const { context } = run;
  let unscored: Unscored | undefined;
  let candidates: Candidates | undefined;
  for (let questions = 0; ; questions++) {
    const { budget, stale } = run.money.draw(context.nowMs, question.nth);
    const now = run.cache.get(context.publicationRow, context.language, context.atMs, budget);
    // A set that was cut is another one when the money is.
    if (candidates?.shared !== now) candidates = candidatesOf(run, question, budget);
    const { shared, own } = candidates;
    const wanted = scoringContext(run, question.slot, shared);
    const block = find(shared.blocks, wanted);
    if (block !== undefined && isScored(own, wanted)) {
      return { drawn: draw(run, question, budget, candidates), stale, unscored: undefined };
    }
    if (unscored === undefined && (questions === MAX_QUESTIONS || run.waitMs() <= 0)) {
      unscored = 'deadline_prior';
    }
    if (unscored !== undefined) {
      return { drawn: draw(run, question, budget, candidates, true), stale, unscored };
    }
    unscored = await scoresOf(run, networks, {
      set: block === undefined ? shared : own!.added,
      wanted,
      beside: block,
    });
    run.check();
  }
}

/** Candidates whose scores in a context are not known yet. */
interface Unknown {
  readonly set: AskedSet;
  readonly wanted: ScoringContext;
  /** The block that they are to be added to; undefined for the set that requests share. */
  readonly beside: ScoredBlock | undefined;
}

/** Has a set scored and kept; requests with the same question share it. @returns why it is not */
async function scoresOf(
  run: Run,
  networks: Networks,
  unknown: Unknown,
): Promise<Unscored | undefined> {
  const { set, wanted } = unknown;
  let question = set.asked.find(({ context }) => sameContext(context, wanted));
  if (question === undefined) {
    // It goes on when those who wait have left: who comes next finds it kept.
    const done = networks
      .during(() => askAndKeep(run, unknown))
      .finally(() => {
        const at = set.asked.findIndex((each) => each.done === done);
        set.asked.splice(at, 1);
      });
    question = { context: wanted, done };
    set.asked.push(question);
  }
  try {
    const answered = await within(run.waitMs(), question.done);
    if (answered === undefined) {
      question.done.catch((cause) => networks.report(cause));
      return 'deadline_prior';
    }
    networks.report();
    return undefined;
  } catch (cause) {
    networks.report(cause);
    return 'onnx_unavailable';
  }
}

async function askAndKeep(
  { release, cache }: Run,
  { set, wanted, beside }: Unknown,
): Promise<void> {
  if (release.pctr.network !== undefined) {
    set.bestCreatives.set(await cache.askCreatives(set.publicationRow, set.campaignRows));
  }
  const block = await askBlock(release, set, wanted, beside);
  if (beside === undefined) keepBlock(cache, set, block);
  else set.blocks.unshift(block);
}

/** Candidates → scores → prices → choice, for one slot. Synchronous, so that scratch memory is its own. */
function draw(
  run: Run,
  question: OneQuestion,
  budget: BudgetState,
  candidates: Candidates,
  withoutScores = false,
): Drawn {
  const { release, context } = run;
  const { slot, restrictions, taken, nth } = question;
  run.check();
  const { set, block, priorOnly } = scored(run, candidates, slot, withoutScores);
  run.check();
  const exploration = explorationDraw(context.seed, nth, release.policy.epsilon);
  const base = { run, slot, budget, restrictions, taken, set, block, priorOnly, exploration };
  const shared =
    !exploration.explore &&
    restrictions === undefined &&
    taken === undefined &&
    context.capacity > 0 &&
    context.k <= MAX_KEPT_K;
  if (!shared) return drawAmong(base);
  const asked: DrawQuestion = {
    budget,
    version: budget.version,
    k: context.k,
    floorMicros: slot.floorMicros,
    separation: context.diversity.separation,
    maxPerAdvertiser: context.diversity.maxPerAdvertiser,
  };
  // Only this function fills the list.
  const draws = block.draws as KeptDraw<Drawn>[];
  const known = findDraw(draws, asked);
  if (known !== undefined) return known;
  const drawn: Drawn = { ...drawAmong(base), kept: { items: {} } };
  keepDraw(draws, asked, drawn);
  return drawn;
}

function drawAmong(o: {
  run: Run;
  slot: SlotContext;
  budget: BudgetState;
  restrictions: Restrictions | undefined;
  taken: Taken | undefined;
  set: CandidateSet;
  block: ScoredBlock;
  priorOnly: boolean;
  exploration: ExplorationDraw;
}): Drawn {
  const { budget, set, block, priorOnly, taken } = o;
  const { release, context } = o.run;
  const { filtered, remaining, broke } = applyFilters(release, set, budget, o.restrictions);
  if (context.capacity === 0) set.mask.clear();
  else if (taken !== undefined && taken.campaigns.size > 0) excludeTaken(o.run, set, taken);
  const choice = choose(release, set, block, {
    budget,
    k: context.k,
    floorMicros: o.slot.floorMicros,
    diversity: context.diversity,
    exploration: o.exploration,
  });
  if (context.capacity === 0) {
    // The send carries all the ads its publisher wants.
    const counts = { ...filtered };
    if (remaining > 0) counts.capacity = remaining;
    return { set, block, choice, nEligible: 0, filtered: counts, broke, priorOnly };
  }
  const nShort = choice.unaffordable.length;
  if (nShort === 0 && choice.belowFloor === 0) {
    return { set, block, choice, nEligible: remaining, filtered, broke, priorOnly };
  }
  const counts = { ...filtered };
  if (nShort > 0) counts.budget = (counts.budget ?? 0) + nShort;
  if (choice.belowFloor > 0) counts.floor = (counts.floor ?? 0) + choice.belowFloor;
  const nEligible = remaining - nShort - choice.belowFloor;
  return { set, block, choice, nEligible, filtered: counts, broke, priorOnly };
}

/** How many campaigns a request is about. */
function nAskedAbout({ release, context }: Run): number {
  const named = context.request.constraints?.candidates;
  return named === undefined ? release.campaigns.n : new Set(named).size;
}

/** The candidates' numbers in the slot's context, kept or computed; from priors when the deadline has passed. */
function scored(
  run: Run,
  { shared, own }: Candidates,
  slot: SlotContext,
  withoutScores: boolean,
): Pick<Drawn, 'set' | 'block' | 'priorOnly'> {
  const wanted = scoringContext(run, slot, shared);
  let block = find(shared.blocks, wanted);
  let priorOnly = false;
  if (block === undefined || !isScored(own, wanted)) {
    priorOnly = withoutScores || run.late();
    const asked = priorOnly ? { ...wanted, priorOnly } : wanted;
    block = find(shared.blocks, asked);
    if (block === undefined) {
      block = scoreBlock(run.release, shared, asked, run.scratch);
      keepBlock(run.cache, shared, block);
    }
  }
  if (own === undefined) return { set: shared, block, priorOnly };
  const { set, added, source } = own;
  const rest =
    find(added.blocks, block.context) ??
    scoreBlock(run.release, added, block.context, run.scratch, block);
  return { set, block: joinBlocks(block, rest, source), priorOnly };
}

/** Whether candidates beyond the shared set are scored already, or there are none. */
function isScored(own: OwnSet | undefined, wanted: ScoringContext): boolean {
  return own === undefined || find(own.added.blocks, wanted) !== undefined;
}

function scoringContext(
  { context }: Run,
  slot: SlotContext,
  { n }: Pick<CandidateSet, 'n'>,
): ScoringContext {
  const { mode } = context.request;
  return {
    mode,
    tsMs: context.featureTsMs,
    position: slot.position,
    nAds: context.nAds,
    delivered: slot.delivered,
    // However many were asked for, a menu is no longer than there are offers.
    menuSize: mode === 'fill' ? 0 : Math.min(context.k, n),
    priorOnly: false,
  };
}

function keepBlock(cache: CandidateCache, set: AskedSet, block: ScoredBlock): void {
  set.blocks.unshift(block);
  if (set.blocks.length > BLOCKS_PER_SET) set.blocks.pop();
  else cache.charge(set, set.n + KEPT_DRAW_CELLS);
}

function find(blocks: readonly ScoredBlock[], wanted: ScoringContext): ScoredBlock | undefined {
  for (const block of blocks) if (sameContext(block.context, wanted)) return block;
  return undefined;
}

/** Takes out of play what earlier slots, and the ads that stand in the send already, rule out. */
function excludeTaken(run: Run, set: CandidateSet, taken: Taken): void {
  for (let i = 0; i < set.n; i++) {
    if (isTaken(run, taken, set.campaignRows[i]!)) set.mask.delete(i);
  }
}

function isTaken({ release, context }: Run, taken: Taken, campaign: number): boolean {
  const { separation } = context.diversity;
  const advertiser = release.campaigns.advertiser[campaign]!;
  const group = release.campaigns.competitorGroup[campaign]!;
  const holder = separation && group >= 0 ? taken.groups.get(group) : undefined;
  return (
    taken.campaigns.has(campaign) ||
    (holder !== undefined && holder !== advertiser) ||
    (taken.perAdvertiser.get(advertiser) ?? 0) >= context.maxPerSend
  );
}
