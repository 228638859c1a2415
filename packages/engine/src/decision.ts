import type {
  DecisionRow,
  Degradation,
  RankExplainBody,
  RankItemBody,
  RankResponseBody,
} from '@waggle/core/contract';
import { logNormalInterval, termsOf } from '@waggle/ranking';
import type { FilterCounts } from '@waggle/retrieval';
import { SharedAnswer } from './answer.js';
import type { CandidateSet } from './candidates.js';
import type { Choice } from './choice.js';
import type { KeptAnswer, KeptItems, LoggedTexts } from './kept-answer.js';
import { PRICING_NAMES, type RankingRelease } from './ranking-release.js';
import type { RequestContext, SlotContext } from './request-context.js';
import type { RowList } from './row-list.js';
import type { ScoredBlock } from './scored-block.js';
import { isoTime, quoted } from './text.js';

/** One chosen candidate and where it was chosen from. */
export interface ChosenItem {
  readonly set: CandidateSet;
  readonly block: ScoredBlock;
  readonly choice: Choice;
  /** Index within the choice. */
  readonly index: number;
  readonly slot: SlotContext;
  /** 1-based place in the answer. */
  readonly rank: number;
  readonly placementId?: string;
  readonly reservedMicros?: number;
}

/** Which campaigns lacked money at one draw, so that a replay sees the ledger as it was then. */
export interface DrawMoney {
  /** Campaign rows with nothing left. */
  readonly broke: RowList;
  /** Campaign rows with less than the send would set aside. */
  readonly short: readonly number[];
  /** Prior rates stood in for scores. */
  readonly prior?: true;
  /** What came of the reservation: absent when none was asked for. */
  readonly reserve?: 'held' | 'refused' | 'failed';
}

/** The `items` column of the decision log, column by column; short because every request writes one. */
export interface LoggedItems {
  readonly v: 1;
  readonly campaign_id: readonly string[];
  readonly creative_id: readonly string[];
  readonly slot_id: readonly string[];
  readonly score: readonly number[];
  readonly propensity: readonly number[];
  readonly p_click: readonly number[];
  readonly p_accept: readonly number[];
  readonly e_spend: readonly number[];
  readonly price_micros: readonly number[];
  /** `fill` only. */
  readonly placement_id?: readonly string[];
  readonly reserved_micros?: readonly number[];
  readonly explored: boolean;
  readonly draws: readonly DrawMoney[];
}

/** Nine decimals are more than a probability is known to, and short to write. */
const probability = (p: number): number => Math.round(p * 1e9) / 1e9;
const cosine = (c: number): number => Math.round(c * 1e6) / 1e6;

export function itemBody(
  release: RankingRelease,
  context: RequestContext,
  item: ChosenItem,
): RankItemBody {
  const { campaigns, creativeIds } = release;
  const { set, block, choice, index, slot } = item;
  const row = choice.rows[index]!;
  const campaign = set.campaignRows[row]!;
  const payout = logNormalInterval(block.payoutMicros[row]!, block.relativeVariance[row]!);
  const body: RankItemBody = {
    campaign_id: campaigns.ids[campaign]!,
    creative_id: creativeIds[block.creativeRows[row]!]!,
    rank: item.rank,
    score: choice.scores[index]!,
    propensity: choice.propensities[index]!,
    pricing: PRICING_NAMES[campaigns.pricing[campaign]!]!,
    price_micros: campaigns.bidMicros[campaign]!,
    est_payout: {
      p20_micros: Math.round(payout.p20),
      p50_micros: Math.round(payout.p50),
      p80_micros: Math.round(payout.p80),
    },
  };
  if (slot.id !== undefined) body.slot_id = slot.id;
  if (item.reservedMicros !== undefined) body.reserved_micros = item.reservedMicros;
  if (item.placementId !== undefined) body.placement_id = item.placementId;
  if (context.explain !== 'none') body.explain = explain(release, context, item, row);
  return body;
}

function explain(
  release: RankingRelease,
  context: RequestContext,
  item: ChosenItem,
  row: number,
): RankExplainBody {
  const { set, block, choice } = item;
  const body: RankExplainBody = {
    p_click: probability(block.pClick[row]!),
    p_accept: probability(choice.q[item.index]!),
    e_spend: Math.round(block.spendMicros[row]!),
    fit: cosine(set.fit[row]!),
    terms: termsOf(choice, item.index),
  };
  if (context.explain === 'full') body.features = features(release, item, row);
  return body;
}

/** The click model's inputs by name, evaluated again for the one item. */
function features(release: RankingRelease, item: ChosenItem, row: number): Record<string, number> {
  const { pctr } = release;
  const { set, block } = item;
  const x = new Float32Array(pctr.features.nFeatures);
  const { tsMs, position, nAds } = block.context;
  pctr.features.evaluate(
    { publicationRow: set.publicationRow, tsMs, position, nAds },
    set.campaignRows.subarray(row, row + 1),
    block.creativeRows.subarray(row, row + 1),
    x,
  );
  return Object.fromEntries(pctr.features.names.map((name, f) => [name, x[f]!]));
}

export interface DecisionParts {
  readonly decisionId: string;
  readonly items: readonly ChosenItem[];
  readonly draws: readonly DrawMoney[];
  readonly nEligible: number;
  readonly filtered: FilterCounts;
  readonly degraded: readonly Degradation[];
  readonly latencyMs: number;
  readonly explored: boolean;
  /** Where the same parts were answered before, what they came to. */
  readonly kept?: KeptAnswer | undefined;
}

/** Items by level of explanation; `full` is rare and large, and is made each time. */
function keptItems(
  release: RankingRelease,
  context: RequestContext,
  parts: DecisionParts,
): KeptItems | undefined {
  const { kept } = parts;
  const { explain } = context;
  if (kept === undefined || explain === 'full') return undefined;
  let known = kept.items[explain];
  if (known === undefined) {
    const items = parts.items.map((item) => itemBody(release, context, item));
    known = {
      items: deepFreeze(items),
      json: JSON.stringify(items),
      filtered: Object.freeze(parts.filtered),
      filteredJson: JSON.stringify(parts.filtered),
      versions: Object.freeze(release.versions),
      versionsJson: JSON.stringify(release.versions),
    };
    kept.items[explain] = known;
  }
  return known;
}

function deepFreeze<T extends object>(value: T): T {
  for (const part of Object.values(value)) {
    if (typeof part === 'object' && part !== null) deepFreeze(part);
  }
  return Object.freeze(value);
}

/** Items of `offers` answers may be shared with other answers, and are frozen then. */
export function responseBody(
  release: RankingRelease,
  context: RequestContext,
  parts: DecisionParts,
): RankResponseBody {
  const { policy } = release;
  const { mode } = context.request;
  const ttlMs = mode === 'fill' ? policy.fill_ttl_ms : policy.offer_ttl_ms;
  const head = {
    decision_id: parts.decisionId,
    request_id: context.requestId,
    mode,
    items: NO_ITEMS,
    n_eligible: parts.nEligible,
    filtered: parts.filtered,
    versions: release.versions,
    degraded: parts.degraded as Degradation[],
    expires_at: isoTime(context.nowMs + ttlMs),
    latency_ms: Math.round(parts.latencyMs * 1000) / 1000,
  };
  const shared = keptItems(release, context, parts);
  if (shared !== undefined) return new SharedAnswer(head, shared);
  head.items = parts.items.map((item) => itemBody(release, context, item));
  return head;
}

const NO_ITEMS: RankItemBody[] = [];

function loggedTexts(
  release: RankingRelease,
  context: RequestContext,
  parts: DecisionParts,
): LoggedTexts {
  const items = JSON.stringify(loggedItems(release, context, parts));
  const filtered = JSON.stringify(parts.filtered);
  return {
    items,
    itemsQuoted: JSON.stringify(items),
    filtered,
    filteredQuoted: JSON.stringify(filtered),
  };
}

/**
 * The row of the decision log: enough to replay the answer from the release it names. `json` is the text that
 * `JSON.stringify` makes of it, without quoting the long columns again.
 */
export function decisionRow(
  release: RankingRelease,
  context: RequestContext,
  parts: DecisionParts,
): { row: DecisionRow; json: string } {
  const { request } = context;
  const { kept } = parts;
  const texts = kept?.logged ?? loggedTexts(release, context, parts);
  if (kept !== undefined) kept.logged = texts;
  const { items, filtered } = texts;
  const row: DecisionRow = {
    tenant_id: release.tenantId,
    // One decision, one row: its id names both.
    event_id: `evt_${parts.decisionId.slice(parts.decisionId.indexOf('_') + 1)}`,
    type: request.mode === 'fill' ? ('decision.fill' as const) : ('decision.offers' as const),
    ts: isoTime(context.nowMs),
    decision_id: parts.decisionId,
    request_id: context.requestId,
    publication_id: request.publication_id,
    post_id: request.post_id ?? '',
    release_id: release.id,
    seed: context.seed,
    request: JSON.stringify(request),
    items,
    filtered,
    degraded: parts.degraded as string[],
    latency_us: Math.max(0, Math.min(4_294_967_295, Math.round(parts.latencyMs * 1000))),
    test: request.test ?? false,
  };
  return {
    row,
    json:
      `{"tenant_id":${quoted(row.tenant_id)},"event_id":${quoted(row.event_id)},"type":"${row.type}","ts":"${row.ts}",` +
      `"decision_id":${quoted(row.decision_id)},"request_id":${quoted(row.request_id)},` +
      `"publication_id":${quoted(row.publication_id)},"post_id":${quoted(row.post_id)},"release_id":${quoted(row.release_id)},` +
      `"seed":${row.seed},"request":${JSON.stringify(row.request)},"items":${texts.itemsQuoted},"filtered":${texts.filteredQuoted},` +
      `"degraded":${row.degraded.length === 0 ? '[]' : JSON.stringify(row.degraded)},"latency_us":${row.latency_us},"test":${row.test}}`,
  };
}

export function loggedItems(
  release: RankingRelease,
  context: RequestContext,
  { items, draws, explored }: Pick<DecisionParts, 'items' | 'draws' | 'explored'>,
): LoggedItems {
  const { campaigns, creativeIds } = release;
  const n = items.length;
  const logged = {
    v: 1 as const,
    campaign_id: new Array<string>(n),
    creative_id: new Array<string>(n),
    slot_id: context.slots[0]?.id === undefined ? [] : new Array<string>(n),
    score: new Array<number>(n),
    propensity: new Array<number>(n),
    p_click: new Array<number>(n),
    p_accept: new Array<number>(n),
    e_spend: new Array<number>(n),
    price_micros: new Array<number>(n),
    explored,
    draws,
  };
  for (let i = 0; i < n; i++) {
    const { set, block, choice, index, slot } = items[i]!;
    const row = choice.rows[index]!;
    const campaign = set.campaignRows[row]!;
    logged.campaign_id[i] = campaigns.ids[campaign]!;
    logged.creative_id[i] = creativeIds[block.creativeRows[row]!]!;
    if (slot.id !== undefined) logged.slot_id[i] = slot.id;
    logged.score[i] = choice.scores[index]!;
    logged.propensity[i] = choice.propensities[index]!;
    logged.p_click[i] = probability(block.pClick[row]!);
    logged.p_accept[i] = probability(choice.q[index]!);
    logged.e_spend[i] = Math.round(block.spendMicros[row]!);
    logged.price_micros[i] = campaigns.bidMicros[campaign]!;
  }
  if (context.request.mode !== 'fill') return logged;
  return {
    ...logged,
    placement_id: items.map((item) => item.placementId ?? ''),
    reserved_micros: items.map((item) => item.reservedMicros ?? 0),
  };
}
