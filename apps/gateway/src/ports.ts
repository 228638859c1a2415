import type {
  EventKind,
  EventsResponse,
  RankRequestBody,
  RankResponseBody,
} from '@waggle/core/contract';
import type { Balances } from '@waggle/store/ledger';
import type { Static } from 'typebox';

/** What the HTTP layer needs of the rooms below. `startGateway` fills these with the real parts. */

export interface RankContext {
  readonly tenantId: string;
  readonly requestId: string;
  /** Monotonic milliseconds of the gateway's clock when the request's head arrived. */
  readonly receivedAtMs: number;
  readonly signal?: AbortSignal;
}

export interface EnginePort {
  rank(
    request: RankRequestBody,
    context: RankContext,
  ): RankResponseBody | Promise<RankResponseBody>;
}

export type CatalogKind = 'publication' | 'campaign' | 'creative';

/** The release being served, as far as HTTP needs to know it. */
export interface ServedRelease {
  readonly id: string;
  readonly tenantId: string | undefined;
  knows(kind: CatalogKind, id: string): boolean;
  /** Manifest facts for `GET /v1/release`. */
  summary(): Readonly<Record<string, unknown>>;
}

/** `data`: the clock started at the end of the release's data. */
export type ClockSource = 'system' | 'data';

export interface ReleaseStatus {
  readonly release: string | undefined;
  readonly loadedAtMs: number | undefined;
  readonly swaps: number;
  /** What could not be loaded, while it is still what is asked for. */
  readonly rejected?: RejectedRelease;
}

export interface RejectedRelease {
  /** Absent where the active pointer could not be read, so that nobody knows which one is wanted. */
  readonly release?: string;
  readonly code: string;
  readonly message: string;
  readonly remedy: string;
}

export interface ReleasesPort {
  current(): ServedRelease | undefined;
  status(): ReleaseStatus;
}

export interface PostedEvent {
  readonly kind: EventKind;
  readonly row: object;
}

export interface ForwarderStatus {
  readonly ok: boolean;
  /** Events and decisions that are durable here and not yet in the store. */
  readonly backlog: number;
  readonly lagMs: number;
  /** Decisions that could not be kept since the start. */
  readonly dropped: number;
  readonly detail?: string;
}

/** Whether a log takes what is written to it; `detail` says why it does not. */
export interface LogStatus {
  readonly ok: boolean;
  readonly detail?: string;
}

export interface JournalPort {
  /** Durable before it resolves; twice is once. */
  append(events: readonly PostedEvent[]): Promise<Static<typeof EventsResponse>>;
  forwarder(): ForwarderStatus;
  /** Of everything that is kept on disk before it is answered, by name. */
  logs(): Readonly<Record<string, LogStatus>>;
}

/** What a posted event says about a placement's money. */
export interface PlacementReport {
  readonly type: string;
  readonly placementId: string;
  readonly campaignId: string;
  readonly tenantId: string;
  /** Reserved, or charged where it is settled. */
  readonly amountMicros: number;
  readonly decisionId: string;
  /** When it happened, UTC ms. */
  readonly atMs: number;
}

/** What is known of other gateways' money. */
export interface PeersStatus {
  /** Other ledgers heard of. */
  readonly peers: number;
  /** Since they were last heard; 0 where nobody listens. */
  readonly ageMs: number;
}

/** A campaign's money by now: `availableMicros` is what may still be held, the day's budget considered, and never below 0. */
export interface CampaignAccount extends Balances {
  /** Held and charged on the UTC day, other ledgers' included. */
  readonly todayMicros: number;
}

export interface LedgerPort {
  peers(): PeersStatus;
  /** undefined for a campaign without a budget here. O(1). */
  account(campaignId: string, nowMs: number): CampaignAccount | undefined;
  /**
   * Lets money follow what became of placements, durably: what is committed is held, whatever the budget says; what is
   * settled is spent; what will not run is given back. Twice is once.
   */
  follow(reports: readonly PlacementReport[]): Promise<void>;
}

/** An answer as it is kept across restarts. */
export interface AnswerRecord {
  /** Tenant, route and key. */
  readonly scope: string;
  readonly digest: string;
  readonly status: number;
  readonly body: string;
  readonly storedAtMs: number;
}

/** Keeps `fill` answers across restarts. */
export interface IdempotencyJournal {
  /** Durable before it resolves. @returns the record's place; places rise */
  append(record: AnswerRecord): Promise<number>;
  /** The record, or undefined when it has expired and is gone. */
  read(place: number): Promise<AnswerRecord | undefined>;
  /** Everything before this place has expired. */
  readonly firstPlace: number;
}
