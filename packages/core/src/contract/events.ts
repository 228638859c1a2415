import { type Static, Type } from 'typebox';
import { ID_PATTERN } from '../ids.js';

/**
 * The vocabulary of entities and events: one schema per store table, in the table's own column names, so
 * that a row means the same in NDJSON, in `POST /v1/events`, in Parquet and in ClickHouse. Every row carries
 * an id made by its producer; loading it twice changes nothing. Money is in micros of the tenant's currency,
 * times are RFC 3339 in UTC with milliseconds. Missing optional fields take the stated default. A `status` is any word of the
 * platform's; the words named beside it are served, entities with any other are kept and learned from.
 */

const Id = Type.String({ pattern: ID_PATTERN });
const OptionalId = Type.String({ pattern: `^$|${ID_PATTERN}`, default: '' });
export const TimestampPattern =
  '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,3})?Z$';
const Timestamp = Type.String({ pattern: TimestampPattern });
const Text = (maxLength: number) => Type.String({ maxLength });
const Word = Type.String({ maxLength: 64 });
const Words = Type.Array(Type.String({ minLength: 1, maxLength: 64 }), {
  maxItems: 64,
  default: [],
});
/** Counts fit unsigned 32 bits. */
const Count = Type.Integer({ minimum: 0, maximum: 4_294_967_295 });
/** Micros stay below 2^53 so that JSON numbers carry them exactly. */
const Micros = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });
const SignedMicros = Type.Integer({
  minimum: -Number.MAX_SAFE_INTEGER,
  maximum: Number.MAX_SAFE_INTEGER,
});
const Probability = Type.Number({ minimum: 0, maximum: 1 });
const strict = { additionalProperties: false } as const;

const entityHead = {
  tenant_id: Id,
  /** Grows with every change; the highest version is the current one, older ones are kept. */
  version: Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER }),
  /** When this version became true. */
  updated_at: Timestamp,
  created_at: Timestamp,
};

export const Publisher = Type.Object(
  {
    ...entityHead,
    publisher_id: Id,
    name: Text(256),
    /** Decides nothing: what is served is the publication's to say. */
    status: Word,
    fraud_tier: Word,
  },
  strict,
);

export const Publication = Type.Object(
  {
    ...entityHead,
    publication_id: Id,
    publisher_id: Id,
    name: Text(256),
    description: Text(4000),
    language: Type.String({ pattern: '^[a-z]{2}$' }),
    /** At most three, chosen by the publisher. */
    tags: Type.Array(Type.String({ minLength: 1, maxLength: 64 }), { maxItems: 3, default: [] }),
    category: Word,
    /** `consumer` or `b2b`: B2B mailboxes sit behind link scanners far more often. */
    audience: Type.Union([Type.Literal('consumer'), Type.Literal('b2b')]),
    country: Type.String({ pattern: '^[A-Z]{2}$' }),
    timezone: Word,
    cadence_per_week: Type.Number({ minimum: 0, maximum: 200 }),
    active_subscribers: Count,
    allowed_categories: Words,
    blocked_categories: Words,
    blocked_advertisers: Type.Array(Id, { maxItems: 1000, default: [] }),
    max_ads_per_send: Type.Integer({ minimum: 0, maximum: 16 }),
    min_payout_micros: Micros,
    auto_accept: Type.Boolean(),
    /** `eligible` or `active`: gets ads. */
    status: Word,
  },
  strict,
);

export const Advertiser = Type.Object(
  {
    ...entityHead,
    advertiser_id: Id,
    name: Text(256),
    domain: Text(256),
    category: Word,
    /** Advertisers of one group never share a send; '' when it has no competitors. */
    competitor_group: Type.String({ maxLength: 64, default: '' }),
    /** `active`: its campaigns may run. */
    status: Word,
  },
  strict,
);

export const PRICING_MODELS = ['cpc', 'cpm', 'flat'] as const;
export const Pricing = Type.Union([Type.Literal('cpc'), Type.Literal('cpm'), Type.Literal('flat')]);

export const Campaign = Type.Object(
  {
    ...entityHead,
    campaign_id: Id,
    advertiser_id: Id,
    name: Text(256),
    description: Text(4000),
    category: Word,
    goal: Type.Union([Type.Literal('clicks'), Type.Literal('opens'), Type.Literal('conversions')]),
    pricing: Pricing,
    /** Per verified click (cpc), per thousand eligible opens (cpm) or per placement (flat). */
    bid_micros: Micros,
    budget_micros: Micros,
    /** 0 = no daily limit. */
    daily_budget_micros: Micros,
    flight_start: Timestamp,
    flight_end: Timestamp,
    /** Empty = any. */
    target_languages: Words,
    target_categories: Words,
    /** 0 = no guarantee. */
    guaranteed_units: Count,
    /** `live`, `scheduled` or `active`: runs from `flight_start` to `flight_end`. */
    status: Word,
  },
  strict,
);

export const Creative = Type.Object(
  {
    ...entityHead,
    creative_id: Id,
    campaign_id: Id,
    kind: Word,
    headline: Text(512),
    body: Text(4000),
    landing_url: Text(2048),
    /** `active`: may be shown. */
    status: Word,
  },
  strict,
);

export const Post = Type.Object(
  {
    ...entityHead,
    post_id: Id,
    publication_id: Id,
    title: Text(512),
    planned_at: Timestamp,
    status: Word,
  },
  strict,
);

export const SLOT_MODES = ['on_demand', 'programmatic', 'direct'] as const;
export const SlotMode = Type.Union([
  Type.Literal('on_demand'),
  Type.Literal('programmatic'),
  Type.Literal('direct'),
]);

export const Slot = Type.Object(
  {
    ...entityHead,
    slot_id: Id,
    post_id: Id,
    publication_id: Id,
    kind: Type.Union([Type.Literal('primary'), Type.Literal('secondary')]),
    /** 1 = top of the email. */
    position: Type.Integer({ minimum: 1, maximum: 16 }),
    mode: SlotMode,
    /** Least expected payout of the slot, micros per send. */
    floor_micros: Micros,
  },
  strict,
);

const eventHead = {
  tenant_id: Id,
  event_id: Id,
  ts: Timestamp,
};

export const SendEvent = Type.Object(
  {
    ...eventHead,
    type: Type.Literal('send.sent'),
    post_id: Id,
    publication_id: Id,
    recipients: Count,
    delivered: Count,
    unsubscribes: Count,
    n_slots: Type.Integer({ minimum: 0, maximum: 16 }),
    n_ads: Type.Integer({ minimum: 0, maximum: 16 }),
  },
  strict,
);

/**
 * Says what became of an offer. The first answer is the publisher's choice and stays it: `offer.accepted` is said when the publisher
 * says yes, and where no money can be reserved for it, `offer.withdrawn` follows with a later `ts` and no placement does.
 */
export const OfferEvent = Type.Object(
  {
    ...eventHead,
    type: Type.Union([
      Type.Literal('offer.shown'),
      Type.Literal('offer.accepted'),
      Type.Literal('offer.declined'),
      Type.Literal('offer.downvoted'),
      Type.Literal('offer.expired'),
      Type.Literal('offer.withdrawn'),
    ]),
    offer_id: Id,
    publication_id: Id,
    campaign_id: Id,
    /** Recommended creative when shown, the publisher's choice when accepted. */
    creative_id: OptionalId,
    post_id: OptionalId,
    slot_id: OptionalId,
    pricing: Pricing,
    price_micros: Micros,
    est_payout_micros: Micros,
    /** How many offers the menu held, and this one's place in it (1 = first). */
    menu_size: Type.Integer({ minimum: 1, maximum: 65_535 }),
    rank: Type.Integer({ minimum: 1, maximum: 65_535 }),
    propensity: Probability,
    decision_id: OptionalId,
    reason: Type.String({ maxLength: 256, default: '' }),
    expires_at: Timestamp,
  },
  strict,
);

export const PlacementEvent = Type.Object(
  {
    ...eventHead,
    type: Type.Union([
      Type.Literal('placement.reserved'),
      Type.Literal('placement.sent'),
      Type.Literal('placement.no_show'),
      Type.Literal('placement.cancelled'),
    ]),
    placement_id: Id,
    offer_id: OptionalId,
    publication_id: Id,
    campaign_id: Id,
    creative_id: Id,
    recommended_creative_id: OptionalId,
    post_id: OptionalId,
    slot_id: OptionalId,
    position: Type.Integer({ minimum: 1, maximum: 16 }),
    n_ads: Type.Integer({ minimum: 1, maximum: 16 }),
    mode: SlotMode,
    pricing: Pricing,
    price_micros: Micros,
    reserved_micros: Micros,
    /** Delivered emails; 0 until `placement.sent`. */
    delivered: Count,
    decision_id: OptionalId,
  },
  strict,
);

/** What a placement was charged in the end: its money is spent, and what was reserved beyond goes back to the campaign. */
export const SettlementEvent = Type.Object(
  {
    ...eventHead,
    type: Type.Literal('placement.settled'),
    placement_id: Id,
    campaign_id: Id,
    charged_micros: Micros,
    decision_id: OptionalId,
  },
  strict,
);

/** Opens are kept as hourly counts of unique opens; `ts` is the start of the hour. */
export const OpenHourEvent = Type.Object(
  {
    ...eventHead,
    type: Type.Literal('open.hour'),
    post_id: Id,
    publication_id: Id,
    human_opens: Count,
    /** Apple Mail Privacy Protection prefetches. */
    mpp_opens: Count,
    /** Other image proxies and scanners. */
    proxy_opens: Count,
  },
  strict,
);

export const ClickEvent = Type.Object(
  {
    ...eventHead,
    type: Type.Literal('click'),
    /** Which ad link of which send: the attribution key. */
    placement_id: Id,
    post_id: Id,
    publication_id: Id,
    campaign_id: Id,
    creative_id: Id,
    /** Pseudonymous and stable within the tenant. */
    subscriber_key: Id,
    device: Word,
    ua_class: Word,
    /** Network part of the address, a /24 or /48 in text. */
    ip_prefix: Word,
    /** Milliseconds between delivery to this subscriber and the click. */
    ms_since_delivery: Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }),
    /** Distinct links of the same email that this subscriber followed within ten seconds of this click. */
    links_within_10s: Type.Integer({ minimum: 1, maximum: 255 }),
    /** The subscriber also followed the hidden link that people cannot see. */
    honeypot: Type.Boolean(),
  },
  strict,
);

export const ConversionEvent = Type.Object(
  {
    ...eventHead,
    type: Type.Union([Type.Literal('conversion'), Type.Literal('conversion.reversed')]),
    click_id: Id,
    campaign_id: Id,
    publication_id: Id,
    kind: Word,
    value_micros: Micros,
    source: Type.Union([Type.Literal('pixel'), Type.Literal('s2s')]),
  },
  strict,
);

export const LedgerEvent = Type.Object(
  {
    ...eventHead,
    type: Type.Union([
      Type.Literal('ledger.reserve'),
      Type.Literal('ledger.release'),
      Type.Literal('ledger.charge'),
      Type.Literal('ledger.adjust'),
    ]),
    campaign_id: Id,
    /** What the money is for: a placement or a fill decision. */
    reference_id: Id,
    amount_micros: SignedMicros,
    decision_id: OptionalId,
  },
  strict,
);

/** One served decision: enough to replay it exactly from the release it names. */
export const DecisionEvent = Type.Object(
  {
    ...eventHead,
    type: Type.Union([Type.Literal('decision.offers'), Type.Literal('decision.fill')]),
    decision_id: Id,
    request_id: Text(128),
    publication_id: Id,
    post_id: OptionalId,
    release_id: Text(128),
    /** Seed of the exploration draw. */
    seed: Count,
    /** The request as received, JSON. */
    request: Text(1_000_000),
    /** Chosen terms per item, JSON. */
    items: Text(1_000_000),
    /** Rejected candidates by filter, JSON. */
    filtered: Text(10_000),
    degraded: Type.Array(Word, { maxItems: 32, default: [] }),
    latency_us: Count,
    test: Type.Boolean(),
  },
  strict,
);

export interface TableContract {
  /** ClickHouse table. */
  readonly table: string;
  /** Column that names the row within its tenant. */
  readonly idColumn: string;
  readonly schema: ReturnType<typeof Type.Object>;
}

/** Entities keep every version: ordered by (tenant_id, id, version). */
export const ENTITY_TABLES = {
  publisher: { table: 'publishers', idColumn: 'publisher_id', schema: Publisher },
  publication: { table: 'publications', idColumn: 'publication_id', schema: Publication },
  advertiser: { table: 'advertisers', idColumn: 'advertiser_id', schema: Advertiser },
  campaign: { table: 'campaigns', idColumn: 'campaign_id', schema: Campaign },
  creative: { table: 'creatives', idColumn: 'creative_id', schema: Creative },
  post: { table: 'posts', idColumn: 'post_id', schema: Post },
  slot: { table: 'slots', idColumn: 'slot_id', schema: Slot },
} as const satisfies Record<string, TableContract>;

/** Events are deduplicated by id: ordered by (tenant_id, type, toDate(ts), event_id). */
export const EVENT_TABLES = {
  sends: { table: 'sends', idColumn: 'event_id', schema: SendEvent },
  offers: { table: 'offers', idColumn: 'event_id', schema: OfferEvent },
  placements: { table: 'placements', idColumn: 'event_id', schema: PlacementEvent },
  settlements: { table: 'settlements', idColumn: 'event_id', schema: SettlementEvent },
  opens: { table: 'opens', idColumn: 'event_id', schema: OpenHourEvent },
  clicks: { table: 'clicks', idColumn: 'event_id', schema: ClickEvent },
  conversions: { table: 'conversions', idColumn: 'event_id', schema: ConversionEvent },
  ledger: { table: 'ledger_entries', idColumn: 'event_id', schema: LedgerEvent },
  decisions: { table: 'decisions', idColumn: 'event_id', schema: DecisionEvent },
} as const satisfies Record<string, TableContract>;

export type EntityKind = keyof typeof ENTITY_TABLES;
export type EventKind = keyof typeof EVENT_TABLES;

export type PublisherRow = Static<typeof Publisher>;
export type PublicationRow = Static<typeof Publication>;
export type AdvertiserRow = Static<typeof Advertiser>;
export type CampaignRow = Static<typeof Campaign>;
export type CreativeRow = Static<typeof Creative>;
export type PostRow = Static<typeof Post>;
export type SlotRow = Static<typeof Slot>;
export type SendRow = Static<typeof SendEvent>;
export type OfferRow = Static<typeof OfferEvent>;
export type PlacementRow = Static<typeof PlacementEvent>;
export type SettlementRow = Static<typeof SettlementEvent>;
export type OpenHourRow = Static<typeof OpenHourEvent>;
export type ClickRow = Static<typeof ClickEvent>;
export type ConversionRow = Static<typeof ConversionEvent>;
export type LedgerRow = Static<typeof LedgerEvent>;
export type DecisionRow = Static<typeof DecisionEvent>;
export type PricingModel = Static<typeof Pricing>;
export type SlotModeName = Static<typeof SlotMode>;

/** Event types that `POST /v1/events` and `waggle ingest` accept, and the table each belongs to. */
export const EVENT_TYPE_TO_KIND: Readonly<Record<string, EventKind>> = {
  'send.sent': 'sends',
  'offer.shown': 'offers',
  'offer.accepted': 'offers',
  'offer.declined': 'offers',
  'offer.downvoted': 'offers',
  'offer.expired': 'offers',
  'offer.withdrawn': 'offers',
  'placement.reserved': 'placements',
  'placement.sent': 'placements',
  'placement.no_show': 'placements',
  'placement.cancelled': 'placements',
  'placement.settled': 'settlements',
  'open.hour': 'opens',
  click: 'clicks',
  conversion: 'conversions',
  'conversion.reversed': 'conversions',
  'ledger.reserve': 'ledger',
  'ledger.release': 'ledger',
  'ledger.charge': 'ledger',
  'ledger.adjust': 'ledger',
  'decision.offers': 'decisions',
  'decision.fill': 'decisions',
};

/** Types a client may post: the ledger and the decision log are written by Waggle alone. */
export const POSTABLE_EVENT_KINDS: readonly EventKind[] = [
  'sends',
  'offers',
  'placements',
  'settlements',
  'opens',
  'clicks',
  'conversions',
];
