import { parseTimestampMs, throwIfAborted } from '@waggle/core';
import { RANK_LIMITS, type RankRequestBody, type RankSlotBody } from '@waggle/core/contract';
import type { DiversityRules } from './choice.js';
import { engineError } from './errors.js';
import { decisionSeed } from './exploration.js';
import type { RankingRelease } from './ranking-release.js';

/** A request made definite: defaults applied, ids resolved, times in milliseconds. */
export interface RequestContext {
  readonly request: RankRequestBody;
  readonly requestId: string;
  readonly publicationRow: number;
  readonly nowMs: number;
  /** When the ad would run: the planned time, but not before now. */
  readonly atMs: number;
  /** `atMs` rounded down to the policy's step: the time that features see. */
  readonly featureTsMs: number;
  readonly language: string;
  readonly slots: readonly SlotContext[];
  readonly nAds: number;
  /** Campaign rows of the ads that stand in the send already, as far as the release knows them. */
  readonly placed: readonly number[];
  /** How many of the slots may be filled under the publication's limit of ads per send. */
  readonly capacity: number;
  readonly k: number;
  readonly diversity: DiversityRules;
  /** Ads of one advertiser in the send. */
  readonly maxPerSend: number;
  readonly explain: 'none' | 'summary' | 'full';
  readonly seed: number;
}

export interface SlotContext {
  readonly id: string | undefined;
  readonly position: number;
  readonly delivered: number;
  readonly floorMicros: number;
}

/**
 * @throws WAGGLE_UNKNOWN_PUBLICATION, WAGGLE_RANK_INVALID
 */
export function readContext(
  release: RankingRelease,
  request: RankRequestBody,
  o: { requestId: string; nowMs: number; seed?: number },
): RequestContext {
  const { publications, policy } = release;
  const publicationRow = publications.rowOf.get(request.publication_id);
  if (publicationRow === undefined) {
    throw engineError(
      'WAGGLE_UNKNOWN_PUBLICATION',
      `release ${release.id} does not know publication ${request.publication_id}`,
      { details: { publication_id: request.publication_id, release: release.id } },
    );
  }
  const slots = readSlots(release, publicationRow, request);
  const { planned_at: plannedAt, language, already_placed: placed = [] } = request.context ?? {};
  let atMs = o.nowMs;
  if (plannedAt !== undefined) {
    const plannedMs = parseTimestampMs(plannedAt);
    if (plannedMs === undefined) {
      throw invalid('context.planned_at', `${plannedAt} is not a date on the calendar`);
    }
    if (plannedMs > atMs) atMs = plannedMs;
  }
  const nAds = readAds(request, slots.length, placed.length);
  const { constraints } = request;
  const isFill = request.mode === 'fill';
  const maxPerAdvertiser =
    constraints?.max_per_advertiser ??
    (isFill ? policy.max_per_advertiser_per_send : policy.max_per_advertiser);
  return {
    request,
    requestId: o.requestId,
    publicationRow,
    nowMs: o.nowMs,
    atMs,
    featureTsMs: atMs - (atMs % policy.feature_time_step_ms),
    language: language ?? publications.language[publicationRow]!,
    slots,
    nAds,
    placed: placed.flatMap((id) => release.eligibility.rowOf(id) ?? []),
    capacity: Math.max(
      0,
      Math.min(slots.length, publications.maxAdsPerSend[publicationRow]! - (nAds - slots.length)),
    ),
    k: isFill ? 1 : (request.k ?? policy.default_k),
    diversity: { separation: constraints?.separation ?? true, maxPerAdvertiser },
    // In `offers` the request's own limit is one of the menu.
    maxPerSend: (isFill ? maxPerAdvertiser : undefined) ?? policy.max_per_advertiser_per_send,
    explain: request.explain ?? 'none',
    seed: o.seed ?? decisionSeed(o.requestId, release.id),
  };
}

const ONE_SLOT: readonly RankSlotBody[] = [{ id: '' } as RankSlotBody];

function readSlots(
  release: RankingRelease,
  publicationRow: number,
  request: RankRequestBody,
): SlotContext[] {
  const { publications } = release;
  const given = request.slots;
  if (request.mode === 'fill') {
    if (given === undefined || given.length === 0) {
      throw invalid('slots', 'mode fill needs the slots to fill');
    }
    if (given.length > 1 && new Set(given.map((slot) => slot.id)).size !== given.length) {
      throw invalid('slots', 'slot ids repeat');
    }
  } else if (given !== undefined && given.length > 1) {
    throw invalid('slots', 'mode offers takes at most one slot');
  }
  return (given ?? ONE_SLOT).map((slot, i) => ({
    id: given === undefined ? undefined : slot.id,
    position: slot.position ?? i + 1,
    delivered: slot.n_forecast ?? publications.deliveredPerSend[publicationRow]!,
    floorMicros: Math.max(slot.floor_micros ?? 0, publications.minPayoutMicros[publicationRow]!),
  }));
}

/** How many ads the send carries. */
function readAds({ context, mode }: RankRequestBody, nSlots: number, nPlaced: number): number {
  const { n_ads: nAds } = context ?? {};
  const known = nSlots + nPlaced;
  if (nPlaced > 0 && known > RANK_LIMITS.maxSlots) {
    throw invalid(
      'context.already_placed',
      `${nPlaced} ads and ${nSlots} slots are more than the ${RANK_LIMITS.maxSlots} of a send`,
    );
  }
  if (nAds !== undefined && nAds < known && (mode === 'fill' || nPlaced > 0)) {
    const beside = nPlaced === 0 ? '' : ` beside ${nPlaced} ads that stand there`;
    throw invalid('context.n_ads', `${nAds} ads cannot hold ${nSlots} slots${beside}`);
  }
  return nAds ?? known;
}

function invalid(field: string, why: string): Error {
  return engineError('WAGGLE_RANK_INVALID', `${field}: ${why}`, { details: { field } });
}

/** What is left of the deadline for choosing and writing the answer once scores have come. */
const ANSWER_MS = 5;

/** The time a request has left, on the monotonic clock. */
export class Deadline {
  readonly #clock: { monotonicMs(): number };
  readonly #atMs: number;
  readonly #answerMs: number;
  readonly #signal: AbortSignal | undefined;

  /** @throws WAGGLE_DEADLINE_EXCEEDED when it has passed already, WAGGLE_ABORTED */
  constructor(o: {
    clock: { monotonicMs(): number };
    receivedAtMs: number;
    deadlineMs: number | undefined;
    signal: AbortSignal | undefined;
  }) {
    const deadlineMs = o.deadlineMs ?? RANK_LIMITS.defaultDeadlineMs;
    this.#clock = o.clock;
    this.#atMs = o.receivedAtMs + deadlineMs;
    this.#answerMs = Math.min(ANSWER_MS, deadlineMs / 2);
    this.#signal = o.signal;
    throwIfAborted(o.signal);
    const waitedMs = o.clock.monotonicMs() - o.receivedAtMs;
    if (waitedMs >= deadlineMs) {
      throw engineError(
        'WAGGLE_DEADLINE_EXCEEDED',
        `waited ${waitedMs.toFixed(1)} ms of ${deadlineMs} ms before ranking could start`,
        { details: { deadline_ms: deadlineMs, waited_ms: waitedMs } },
      );
    }
  }

  /** Whether stages that can be skipped must be skipped. */
  get passed(): boolean {
    return this.#clock.monotonicMs() >= this.#atMs;
  }

  /** How long scores of other threads may be waited for, so that the answer is out in time. */
  get waitMs(): number {
    return this.#atMs - this.#answerMs - this.#clock.monotonicMs();
  }

  /** Whether nobody waits for the answer any more. @throws WAGGLE_ABORTED */
  check(): void {
    throwIfAborted(this.#signal);
  }
}
