import type { Degradation } from '@waggle/core/contract';
import type { BudgetState } from './budget-view.js';
import {
  applyFilters,
  type CandidateCache,
  type CandidateSet,
  type Restrictions,
  readRestrictions,
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
import type { RankingRelease } from './ranking-release.js';
import type { RequestContext, SlotContext } from './request-context.js';
import type { RowList } from './row-list.js';
import { type ScoredBlock, type ScoringContext, sameContext, scoreBlock } from './scored-block.js';
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
  /** @throws WAGGLE_ABORTED when nobody waits for the answer any more */
  check(): void;
}

export type StagesResult = Pick<
  DecisionParts,
  'items' | 'draws' | 'nEligible' | 'filtered' | 'explored' | 'kept'
> & { readonly degraded: readonly Degradation[] };

const BLOCKS_PER_SET = 8;
/** Ledger refusals that one slot puts up with before it stays empty. */
const MAX_REFUSALS = 16;
const NONE: readonly Degradation[] = [];

/** What the last draws of a decision have taken, in campaign rows. */
interface Taken {
  readonly campaigns: Set<number>;
  readonly perAdvertiser: Map<number, number>;
  /** Advertiser that holds each competitor group. */
  readonly groups: Map<number, number>;
}

/** Stage by stage, `offers`: nothing is reserved, so nothing waits. */
export function runOffers(run: Run): StagesResult {
  const { release, context } = run;
  const slot = context.slots[0]!;
  const restrictions = readRestrictions(release, context.request.constraints);
  const { budget, stale } = run.money.draw(context.nowMs);
  const drawn = draw(run, slot, budget, restrictions, undefined, 0);
  const { choice } = drawn;
  const degraded = degradations(drawn.priorOnly, stale, false);
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
  const { set, block, choice, broke } = drawn;
  const items: ChosenItem[] = new Array(choice.rows.length);
  for (let i = 0; i < items.length; i++) {
    items[i] = { set, block, choice, index: i, slot, rank: i + 1 };
  }
  return { items, draws: [{ broke, short: choice.unaffordable }] };
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
  const restrictions = readRestrictions(release, context.request.constraints);
  const taken: Taken = { campaigns: new Set(), perAdvertiser: new Map(), groups: new Map() };
  const items: ChosenItem[] = [];
  const draws: DrawMoney[] = [];
  let first: Drawn | undefined;
  let stale = false;
  let priorOnly = false;
  let explored = false;
  let stream = 0;

  slots: for (let s = 0; s < context.capacity; s++) {
    const slot = context.slots[s]!;
    for (let refusals = 0; refusals <= MAX_REFUSALS; refusals++) {
      let drawn: Drawn;
      try {
        const state = run.money.draw(context.nowMs);
        stale ||= state.stale;
        drawn = draw(run, slot, state.budget, restrictions, taken, stream++);
      } catch (cause) {
        // Money that is already held must be answered for.
        if (items.length === 0) throw cause;
        onError(cause);
        break slots;
      }
      first ??= drawn;
      priorOnly ||= drawn.priorOnly;
      const { choice, set, block } = drawn;
      const money = { broke: drawn.broke, short: choice.unaffordable };
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
    filtered: first?.filtered ?? {},
    explored,
    degraded: degradations(priorOnly, stale, items.length < context.slots.length),
  };
}

function degradations(
  priorOnly: boolean,
  stale: boolean,
  partial: boolean,
): readonly Degradation[] {
  if (!priorOnly && !stale && !partial) return NONE;
  const out: Degradation[] = [];
  if (priorOnly) out.push('deadline_prior');
  if (stale) out.push('ledger_unavailable');
  if (partial) out.push('partial_fill');
  return out;
}

function take(release: RankingRelease, taken: Taken, campaign: number): void {
  const advertiser = release.campaigns.advertiser[campaign]!;
  const group = release.campaigns.competitorGroup[campaign]!;
  taken.campaigns.add(campaign);
  taken.perAdvertiser.set(advertiser, (taken.perAdvertiser.get(advertiser) ?? 0) + 1);
  if (group >= 0) taken.groups.set(group, advertiser);
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

/** Candidates → scores → prices → choice, for one slot. Synchronous, so that scratch memory is its own. */
function draw(
  run: Run,
  slot: SlotContext,
  budget: BudgetState,
  restrictions: Restrictions | undefined,
  taken: Taken | undefined,
  stream: number,
): Drawn {
  const { release, cache, context } = run;
  const set = cache.get(context.publicationRow, context.language, context.atMs, budget);
  run.check();
  const { block, priorOnly } = scored(run, set, slot);
  run.check();
  const exploration = explorationDraw(context.seed, stream, release.policy.epsilon);
  const base = { run, slot, budget, restrictions, taken, set, block, priorOnly, exploration };
  const shared =
    !exploration.explore &&
    restrictions === undefined &&
    taken === undefined &&
    context.capacity > 0 &&
    context.k <= MAX_KEPT_K;
  if (!shared) return drawAmong(base);
  const question: DrawQuestion = {
    budget,
    version: budget.version,
    k: context.k,
    floorMicros: slot.floorMicros,
    separation: context.diversity.separation,
    maxPerAdvertiser: context.diversity.maxPerAdvertiser,
  };
  // Only this function fills the list.
  const draws = block.draws as KeptDraw<Drawn>[];
  const known = findDraw(draws, question);
  if (known !== undefined) return known;
  const drawn: Drawn = { ...drawAmong(base), kept: { items: {} } };
  keepDraw(draws, question, drawn);
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
  else if (taken !== undefined && taken.campaigns.size > 0) excludeTaken(set, taken, context);
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
    if (remaining > 0) counts.status = (counts.status ?? 0) + remaining;
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

/** The set's numbers in the slot's context, kept or computed; from priors when the deadline has passed. */
function scored(
  run: Run,
  set: CandidateSet,
  slot: SlotContext,
): { block: ScoredBlock; priorOnly: boolean } {
  const { release, context, cache, scratch } = run;
  const wanted: ScoringContext = {
    mode: context.request.mode,
    tsMs: context.featureTsMs,
    position: slot.position,
    nAds: context.nAds,
    delivered: slot.delivered,
    menuSize: context.request.mode === 'fill' ? 0 : context.k,
    priorOnly: false,
  };
  const kept = find(set.blocks, wanted);
  if (kept !== undefined) return { block: kept, priorOnly: false };
  const priorOnly = run.late();
  const asked = priorOnly ? { ...wanted, priorOnly } : wanted;
  const known = priorOnly ? find(set.blocks, asked) : undefined;
  if (known !== undefined) return { block: known, priorOnly };
  const block = scoreBlock(release, set, asked, scratch);
  set.blocks.unshift(block);
  if (set.blocks.length > BLOCKS_PER_SET) set.blocks.pop();
  else cache.charge(set, set.n + KEPT_DRAW_CELLS);
  return { block, priorOnly };
}

function find(blocks: readonly ScoredBlock[], wanted: ScoringContext): ScoredBlock | undefined {
  for (const block of blocks) if (sameContext(block.context, wanted)) return block;
  return undefined;
}

/** Takes out of play what the decision's earlier slots rule out. */
function excludeTaken(set: CandidateSet, taken: Taken, context: RequestContext): void {
  const { separation, maxPerAdvertiser } = context.diversity;
  for (let i = 0; i < set.n; i++) {
    const advertiser = set.advertiser[i]!;
    const group = set.competitorGroup[i]!;
    const holder = separation && group >= 0 ? taken.groups.get(group) : undefined;
    if (
      taken.campaigns.has(set.campaignRows[i]!) ||
      (holder !== undefined && holder !== advertiser) ||
      (maxPerAdvertiser !== undefined &&
        (taken.perAdvertiser.get(advertiser) ?? 0) >= maxPerAdvertiser)
    ) {
      set.mask.delete(i);
    }
  }
}
