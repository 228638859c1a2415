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
import { type Choice, choose, compete, type Field } from './choice.js';
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
  acceptances,
  askAcceptances,
  askBlock,
  joinBlocks,
  joinColumns,
  knownAcceptances,
  type ScorableSet,
  type ScoredBlock,
  type ScoringContext,
  sameContext,
  scoreBlock,
} from './scored-block.js';
import type { ScoringScratch } from './scoring-scratch.js';
import type { ServedNetwork } from './served-model.js';

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
/** Networks are asked so often for one draw, clicks and acceptances apart, when money that moves meanwhile changes its candidates. */
const MAX_QUESTIONS = 8;
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

function moneyAt({ broke, short, priorOnly }: Drawn): DrawMoney {
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
  /** Campaign rows that have money, but less than this send would set aside. */
  readonly short: readonly number[];
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
    const unknown = unknownOf(run, question, budget, candidates);
    if (unknown === undefined) {
      const drawn = draw(run, question, budget, candidates);
      return { drawn, stale, unscored: drawn.priorOnly ? 'deadline_prior' : undefined };
    }
    if (unscored === undefined && (questions === MAX_QUESTIONS || run.waitMs() <= 0)) {
      unscored = 'deadline_prior';
    }
    if (unscored !== undefined) {
      return { drawn: draw(run, question, budget, candidates, 'prior'), stale, unscored };
    }
    unscored = await scoresOf(run, networks, unknown);
    run.check();
  }
}

/** What is not known yet of candidates in a context: their clicks, or their acceptances on a menu. */
interface Unknown {
  readonly set: AskedSet;
  readonly wanted: ScoringContext;
  /** The block that their clicks are to be added to; undefined for the set that requests share. */
  readonly beside?: ScoredBlock | undefined;
  readonly menu?: {
    readonly accept: ServedNetwork;
    readonly block: ScoredBlock;
    readonly size: number;
  };
}

/** The next that networks must be asked before a draw. Uses the set's mask. */
function unknownOf(
  run: Run,
  question: OneQuestion,
  budget: BudgetState,
  candidates: Candidates,
): Unknown | undefined {
  const { release } = run;
  const { shared, own } = candidates;
  const wanted = scoringContext(run, question.slot);
  const block = find(shared.blocks, wanted);
  if (block === undefined) return { set: shared, wanted };
  const rest = own && find(own.added.blocks, wanted);
  if (own !== undefined && rest === undefined) return { set: own.added, wanted, beside: block };
  const { accept } = release;
  if (accept.network === undefined || wanted.mode === 'fill') return undefined;
  const numbers = numbersOf(candidates, block, rest);
  const { field } = competitors(run, question, budget, numbers);
  const size = menuSize(run, field);
  for (const [set, each] of [
    [shared, block],
    [own?.added, rest],
  ] as const) {
    if (set === undefined || each === undefined) continue;
    if (knownAcceptances(release, each, size) === undefined) {
      return { set, wanted, menu: { accept, block: each, size } };
    }
  }
  return undefined;
}

/** Has a set scored and kept; requests with the same question share it. @returns why it is not */
async function scoresOf(
  run: Run,
  networks: Networks,
  unknown: Unknown,
): Promise<Unscored | undefined> {
  const { set, wanted } = unknown;
  const menu = unknown.menu?.size;
  let question = set.asked.find((each) => each.menu === menu && sameContext(each.context, wanted));
  if (question === undefined) {
    // It goes on when those who wait have left: who comes next finds it kept.
    const done = networks
      .during(() => askAndKeep(run, unknown))
      .finally(() => {
        const at = set.asked.findIndex((each) => each.done === done);
        set.asked.splice(at, 1);
      });
    question = { context: wanted, menu, done };
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
  { set, wanted, beside, menu }: Unknown,
): Promise<void> {
  if (menu !== undefined) {
    await askAcceptances(release, menu.accept, set, menu.block, menu.size);
    return;
  }
  if (release.pctr.network !== undefined) {
    set.bestCreatives.set(await cache.askCreatives(set.publicationRow, set.campaignRows));
  }
  const block = await askBlock(release, set, wanted, beside);
  if (beside === undefined) keepBlock(cache, set, block);
  else set.blocks.unshift(block);
}

/** Which numbers a draw may use: kept ones and those that there is time for, or average rates alone. */
type Scores = 'model' | 'prior';

/** Candidates → scores → prices → choice, for one slot. Synchronous, so that scratch memory is its own. */
function draw(
  run: Run,
  question: OneQuestion,
  budget: BudgetState,
  candidates: Candidates,
  scores: Scores = 'model',
): Drawn {
  const { release, context } = run;
  const { slot, restrictions, taken, nth } = question;
  run.check();
  const numbers = scored(run, candidates, slot, scores);
  run.check();
  const exploration = explorationDraw(context.seed, nth, release.policy.epsilon);
  // Without time for the acceptances, average rates stand in for the clicks, too.
  const make = (): Drawn =>
    drawAmong(run, question, budget, numbers, exploration) ??
    draw(run, question, budget, candidates, 'prior');
  const shared =
    !exploration.explore &&
    restrictions === undefined &&
    taken === undefined &&
    context.capacity > 0 &&
    context.k <= MAX_KEPT_K;
  if (!shared) return make();
  const asked: DrawQuestion = {
    budget,
    version: budget.version,
    k: context.k,
    floorMicros: slot.floorMicros,
    separation: context.diversity.separation,
    maxPerAdvertiser: context.diversity.maxPerAdvertiser,
  };
  // Only this function fills the list.
  const draws = numbers.block.draws as KeptDraw<Drawn>[];
  const known = findDraw(draws, asked);
  if (known !== undefined) return known;
  const drawn = make();
  if (drawn.block !== numbers.block) return drawn;
  const kept: Drawn = { ...drawn, kept: { items: {} } };
  keepDraw(draws, asked, kept);
  return kept;
}

/** @returns undefined where the acceptances are not kept and there is no time for them */
function drawAmong(
  run: Run,
  question: OneQuestion,
  budget: BudgetState,
  numbers: Numbers,
  exploration: ExplorationDraw,
): Drawn | undefined {
  const { release, context } = run;
  const { set, block, priorOnly } = numbers;
  const { field, filtered, remaining, broke } = competitors(run, question, budget, numbers);
  const q = acceptancesOf(run, numbers, menuSize(run, field));
  if (q === undefined) return undefined;
  const choice = choose(release, set, block, {
    nEligible: field.nEligible,
    q,
    k: context.k,
    diversity: context.diversity,
    exploration,
  });
  const short = field.unaffordable;
  const drawn = { set, block, choice, nEligible: 0, broke, short, priorOnly };
  if (context.capacity === 0) {
    // The send carries all the ads its publisher wants.
    const counts = { ...filtered };
    if (remaining > 0) counts.capacity = remaining;
    return { ...drawn, filtered: counts };
  }
  const nShort = short.length;
  if (nShort === 0 && field.belowFloor === 0) return { ...drawn, nEligible: remaining, filtered };
  const counts = { ...filtered };
  if (nShort > 0) counts.budget = (counts.budget ?? 0) + nShort;
  if (field.belowFloor > 0) counts.floor = (counts.floor ?? 0) + field.belowFloor;
  return { ...drawn, nEligible: remaining - nShort - field.belowFloor, filtered: counts };
}

/** Who competes in a draw; the set's mask holds them until the next call. */
function competitors(
  run: Run,
  { slot, restrictions, taken }: OneQuestion,
  budget: BudgetState,
  { set, block }: Numbers,
): ReturnType<typeof applyFilters> & { readonly field: Field } {
  const filters = applyFilters(run.release, set, budget, restrictions);
  if (run.context.capacity === 0) set.mask.clear();
  else if (taken !== undefined && taken.campaigns.size > 0) excludeTaken(run, set, taken);
  return { ...filters, field: compete(set, block, budget, slot.floorMicros) };
}

/** A publisher sees no more offers together than compete, however many were asked for; only the diversity rules may leave fewer. */
function menuSize({ context }: Run, { nEligible }: Field): number {
  return Math.min(context.k, nEligible);
}

/** How many campaigns a request is about. */
function nAskedAbout({ release, context }: Run): number {
  const named = context.request.constraints?.candidates;
  return named === undefined ? release.campaigns.n : new Set(named).size;
}

/** The numbers of whom a draw chooses among. */
interface Numbers extends Pick<Drawn, 'set' | 'block' | 'priorOnly'> {
  /** What they are put together of, each with its candidates; the second where the draw has a set of its own. */
  readonly parts: readonly [Part, rest?: Part];
  readonly source: Int32Array | undefined;
}
type Part = readonly [set: ScorableSet, block: ScoredBlock];

/** The candidates' numbers in the slot's context, kept or computed; from priors when the deadline has passed. */
function scored(run: Run, candidates: Candidates, slot: SlotContext, scores: Scores): Numbers {
  const { release, cache } = run;
  const { shared, own } = candidates;
  const wanted = scoringContext(run, slot);
  let block = scores === 'prior' ? undefined : find(shared.blocks, wanted);
  if (block === undefined || !isScored(own, wanted)) {
    const priorOnly = scores === 'prior' || run.late();
    const asked = priorOnly ? { ...wanted, priorOnly } : wanted;
    block = find(shared.blocks, asked);
    if (block === undefined) {
      block = scoreBlock(release, shared, asked);
      keepBlock(cache, shared, block);
    }
  }
  if (own === undefined) return numbersOf(candidates, block, undefined);
  let rest = find(own.added.blocks, block.context);
  if (rest === undefined) {
    rest = scoreBlock(release, own.added, block.context, block);
    own.added.blocks.unshift(rest);
  }
  return numbersOf(candidates, block, rest);
}

/** Whether candidates beyond the shared set are scored already, or there are none. */
function isScored(own: OwnSet | undefined, wanted: ScoringContext): boolean {
  return own === undefined || find(own.added.blocks, wanted) !== undefined;
}

function numbersOf(
  { shared, own }: Candidates,
  block: ScoredBlock,
  rest: ScoredBlock | undefined,
): Numbers {
  const { priorOnly } = block.context;
  if (own === undefined || rest === undefined) {
    return { set: shared, block, priorOnly, parts: [[shared, block]], source: undefined };
  }
  const { set, added, source } = own;
  const parts: Numbers['parts'] = [
    [shared, block],
    [added, rest],
  ];
  return { set, block: joinBlocks(block, rest, source), priorOnly, parts, source };
}

/** p(accepted | offered) of whom a draw chooses among, float32 [n]; undefined where it is not kept and there is no time. */
function acceptancesOf(
  { release, scratch, late }: Run,
  { parts, source }: Numbers,
  size: number,
): Float32Array | undefined {
  const known = (part: Part) => knownAcceptances(release, part[1], size);
  const [first, rest] = parts;
  if ((known(first) === undefined || (rest !== undefined && known(rest) === undefined)) && late()) {
    return undefined;
  }
  const all = ([set, block]: Part) => acceptances(release, set, block, size, scratch);
  if (rest === undefined || source === undefined) return all(first);
  return joinColumns(new Float32Array(source.length), all(first), all(rest), source);
}

function scoringContext({ context }: Run, slot: SlotContext): ScoringContext {
  const { mode } = context.request;
  return {
    mode,
    tsMs: context.featureTsMs,
    position: slot.position,
    nAds: context.nAds,
    delivered: slot.delivered,
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
