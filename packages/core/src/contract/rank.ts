import { type Static, type TInteger, type TOptional, Type } from 'typebox';
import { ID_PATTERN } from '../ids.js';
import { Pricing, TimestampPattern } from './events.js';

/** Limits of `POST /v1/rank`, stated here once and served in the OpenAPI document. */
export const RANK_LIMITS = {
  bodyBytes: 262_144,
  maxK: 100,
  maxCandidates: 5_000,
  maxExclusions: 1_000,
  maxSlots: 16,
  minDeadlineMs: 1,
  maxDeadlineMs: 10_000,
  defaultDeadlineMs: 80,
} as const;

const strict = { additionalProperties: false } as const;
const Id = Type.String({ pattern: ID_PATTERN });
const Timestamp = Type.String({ pattern: TimestampPattern });
const Micros = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });
const Category = Type.String({ minLength: 1, maxLength: 64 });

export const RankSlot = Type.Object(
  {
    id: Id,
    kind: Type.Optional(Type.Union([Type.Literal('primary'), Type.Literal('secondary')])),
    position: Type.Optional(Type.Integer({ minimum: 1, maximum: 16 })),
    /** Least expected payout the publisher accepts for the slot, micros. */
    floor_micros: Type.Optional(Micros),
    /** Delivered emails expected for the send; the publication's list size when absent. */
    n_forecast: Type.Optional(Type.Integer({ minimum: 1, maximum: 4_294_967_295 })),
  },
  strict,
);

export const RankRequest = Type.Object(
  {
    /** The caller's name for this request; also seeds exploration, so a repeat explores the same way. */
    request_id: Type.Optional(Type.String({ minLength: 1, maxLength: 128 })),
    tenant_id: Type.Optional(Id),
    mode: Type.Union([Type.Literal('offers'), Type.Literal('fill')]),
    /** Test requests are ranked and logged as tests; they reserve nothing. */
    test: Type.Optional(Type.Boolean()),
    publication_id: Id,
    post_id: Type.Optional(Id),
    slots: Type.Optional(
      Type.Array(RankSlot, {
        minItems: 1,
        maxItems: RANK_LIMITS.maxSlots,
        description:
          '`fill` needs one slot or more, each with an id of its own and filled by a different campaign; `offers` takes at most one.',
      }),
    ),
    context: Type.Optional(
      Type.Object(
        {
          planned_at: Type.Optional(Timestamp),
          language: Type.Optional(Type.String({ pattern: '^[a-z]{2}$' })),
          n_ads: Type.Optional(
            Type.Integer({
              minimum: 1,
              maximum: RANK_LIMITS.maxSlots,
              description:
                'How many ads the send will carry, the slots asked about and what stands there already included; their sum when absent.',
            }),
          ),
          already_placed: Type.Optional(
            Type.Array(Id, {
              maxItems: RANK_LIMITS.maxSlots,
              description:
                'Campaigns whose ads stand in the send already, one entry per ad. None of them is chosen again, and they ' +
                'count for separation and for the limit of ads per advertiser. A fill knows its own slots and these, not ' +
                'those of another fill for the same post_id.',
            }),
          ),
        },
        strict,
      ),
    ),
    constraints: Type.Optional(
      Type.Object(
        {
          /** Blocked categories and advertisers (OpenRTB names), on top of the publication's own. */
          bcat: Type.Optional(Type.Array(Category, { maxItems: RANK_LIMITS.maxExclusions })),
          badv: Type.Optional(Type.Array(Id, { maxItems: RANK_LIMITS.maxExclusions })),
          exclude_campaigns: Type.Optional(Type.Array(Id, { maxItems: RANK_LIMITS.maxExclusions })),
          /** Rank only these. */
          candidates: Type.Optional(
            Type.Array(Id, { minItems: 1, maxItems: RANK_LIMITS.maxCandidates }),
          ),
          max_per_advertiser: Type.Optional(Type.Integer({ minimum: 1, maximum: 100 })),
          /** Keep advertisers of one competitor group apart. Default true. */
          separation: Type.Optional(Type.Boolean()),
        },
        strict,
      ),
    ),
    /** How many items to return; `fill` returns one per slot. */
    k: Type.Optional(Type.Integer({ minimum: 1, maximum: RANK_LIMITS.maxK })),
    deadline_ms: Type.Optional(
      Type.Integer({ minimum: RANK_LIMITS.minDeadlineMs, maximum: RANK_LIMITS.maxDeadlineMs }),
    ),
    pin: Type.Optional(
      Type.Object({ release: Type.Optional(Type.String({ maxLength: 128 })) }, strict),
    ),
    explain: Type.Optional(
      Type.Union([Type.Literal('none'), Type.Literal('summary'), Type.Literal('full')]),
    ),
  },
  strict,
);

/**
 * The parts of a score, micros per send; their sum is the score. Names follow
 * `score = q·(margin + fit + advertiser + payout + budget + delivery + fairness + explore) + frequency`.
 */
export const SCORE_TERMS = [
  'margin',
  'fit',
  'advertiser',
  'payout',
  'budget',
  'delivery',
  'fairness',
  'explore',
  'frequency',
] as const;
export type ScoreTerm = (typeof SCORE_TERMS)[number];

export const RankExplain = Type.Object({
  /** Probability that a delivered email yields a unique verified click. */
  p_click: Type.Number(),
  /** Probability that the publisher accepts the offer (1 in `fill`). */
  p_accept: Type.Number(),
  /** Expected billable spend if it runs, micros. */
  e_spend: Type.Number(),
  /** Cosine of publication and campaign texts. */
  fit: Type.Number(),
  terms: Type.Object(
    Object.fromEntries(SCORE_TERMS.map((t) => [t, Type.Number()])) as Record<
      ScoreTerm,
      ReturnType<typeof Type.Number>
    >,
  ),
  /** `full` only: the model's features by name. */
  features: Type.Optional(Type.Record(Type.String(), Type.Number())),
});

export const RankItem = Type.Object({
  campaign_id: Type.String(),
  creative_id: Type.String(),
  slot_id: Type.Optional(Type.String()),
  rank: Type.Integer(),
  score: Type.Number(),
  /** Probability that the policy puts this item at this rank. */
  propensity: Type.Number(),
  pricing: Pricing,
  price_micros: Type.Integer(),
  est_payout: Type.Object({
    p20_micros: Type.Integer(),
    p50_micros: Type.Integer(),
    p80_micros: Type.Integer(),
  }),
  /** `fill` only: money set aside for it, and the placement that holds it. */
  reserved_micros: Type.Optional(Type.Integer()),
  placement_id: Type.Optional(Type.String()),
  explain: Type.Optional(RankExplain),
});

/**
 * Why candidates were left out; each candidate is counted once, under the first filter that hit it. `capacity`: the send carries
 * all the ads that its publisher wants (`max_ads_per_send`).
 */
export const FILTER_NAMES = [
  'status',
  'flight',
  'budget',
  'language',
  'target',
  'blocked_category',
  'blocked_advertiser',
  'excluded',
  'floor',
  'creative',
  'capacity',
] as const;
export type FilterName = (typeof FILTER_NAMES)[number];

export const DEGRADATIONS = [
  'prior_only_model',
  'ungated_model',
  'hashed_embedder',
  'stale_features',
  'unknown_publication',
  'deadline_prior',
  'onnx_unavailable',
  'ledger_unavailable',
  'partial_fill',
] as const;
export type Degradation = (typeof DEGRADATIONS)[number];

export const RankResponse = Type.Object({
  decision_id: Type.String(),
  request_id: Type.String(),
  mode: Type.Union([Type.Literal('offers'), Type.Literal('fill')]),
  items: Type.Array(RankItem),
  /** Campaigns that pass everything; the release's policy says how many of them are scored (`max_scored`). */
  n_eligible: Type.Integer(),
  filtered: Type.Object(
    Object.fromEntries(
      FILTER_NAMES.map((f) => [f, Type.Optional(Type.Integer())]),
    ) as unknown as Record<FilterName, TOptional<TInteger>>,
  ),
  versions: Type.Object({
    release: Type.String(),
    model: Type.String(),
    calibration: Type.String(),
    duals: Type.String(),
    features_asof: Type.String(),
  }),
  degraded: Type.Array(Type.String()),
  expires_at: Type.String(),
  latency_ms: Type.Number(),
});

/** The body of every error answer. */
export const ErrorResponse = Type.Object({
  error: Type.Object({
    code: Type.String(),
    message: Type.String(),
    remedy: Type.Optional(Type.String()),
    details: Type.Optional(Type.Unknown()),
    request_id: Type.Optional(Type.String()),
  }),
});

export const EVENTS_LIMITS = { bodyBytes: 4_194_304, maxEvents: 5_000 } as const;

export const EventsResponse = Type.Object({
  accepted: Type.Integer(),
  /** Already known by id with the same content. */
  duplicates: Type.Integer(),
});

export type RankRequestBody = Static<typeof RankRequest>;
export type RankResponseBody = Static<typeof RankResponse>;
export type RankItemBody = Static<typeof RankItem>;
export type RankExplainBody = Static<typeof RankExplain>;
export type RankSlotBody = Static<typeof RankSlot>;
export type ErrorResponseBody = Static<typeof ErrorResponse>;
