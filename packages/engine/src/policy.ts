import { parseConfig } from '@waggle/core';
import { type Static, Type } from 'typebox';

const strict = { additionalProperties: false } as const;
const Share = (value: number) => Type.Number({ minimum: 0, maximum: 1, default: value });
const Weight = (value: number) => Type.Number({ minimum: 0, maximum: 1e12, default: value });
const Milliseconds = (value: number) =>
  Type.Integer({ minimum: 1, maximum: 31_536_000_000, default: value });

/**
 * What the operator decides, kept in the release as `engine/policy.json`. The score of a candidate is
 * `q·(m·e + λ_fit·fit + λ_adv·adv + λ_pub·payout − e·μ + g·ω + payout·ρ + β·explore) − ν`, micros per send.
 */
export const EnginePolicySchema = Type.Object(
  {
    /** m: the network's share of what the advertiser pays; the publisher's payout is (1 − m)·e. */
    take_rate: Share(0.3),
    weights: Type.Object(
      {
        /** λ_fit: what full similarity of texts is worth, micros per thousand delivered emails. */
        fit_per_mille: Weight(200_000),
        /** λ_adv on the advertiser's surplus; 0 until conversions are modelled. */
        advertiser: Weight(0),
        /** λ_pub on the publisher's payout, beyond what it does for acceptance. */
        payout: Weight(0),
      },
      { ...strict, default: {} },
    ),
    /** Probability that a decision is explored instead of greedy. */
    epsilon: Share(0.02),
    /** Offers of one advertiser in one menu, when the request does not say. Absent = no limit. */
    max_per_advertiser: Type.Optional(Type.Integer({ minimum: 1, maximum: 100 })),
    /** Ads of one advertiser in one send, when the request does not say. */
    max_per_advertiser_per_send: Type.Integer({ minimum: 1, maximum: 16, default: 1 }),
    /** Items of an `offers` answer when the request does not say. */
    default_k: Type.Integer({ minimum: 1, maximum: 100, default: 10 }),
    /** More campaigns than this that a draw may choose from are cut by similarity and prior value before they are scored. */
    max_scored: Type.Integer({ minimum: 10, maximum: 5_000, default: 1_000 }),
    /** Log-scale standard deviations of realised against predicted clicks and opens of one send. */
    click_sigma: Type.Number({ minimum: 0, maximum: 3, default: 0.5 }),
    open_sigma: Type.Number({ minimum: 0, maximum: 3, default: 0.15 }),
    /** Last rung before not answering: rates assumed when the deadline leaves no time for features. */
    prior_ctr: Share(0.002),
    prior_accept: Share(0.3),
    /** Request time is rounded down to this step before features are evaluated, so that answers can be shared. */
    feature_time_step_ms: Milliseconds(60_000),
    /** Features older than this are reported as `stale_features`. */
    stale_features_ms: Milliseconds(172_800_000),
    /** How long an offer, and a filled slot's hold, stay valid. */
    offer_ttl_ms: Milliseconds(3_600_000),
    fill_ttl_ms: Milliseconds(86_400_000),
  },
  strict,
);
export type EnginePolicy = Static<typeof EnginePolicySchema>;

/** Checks a policy file and fills in the defaults. @throws WAGGLE_CONFIG_INVALID naming every wrong key */
export function parsePolicy(
  value: unknown = {},
  source = 'engine/policy.json',
): Readonly<EnginePolicy> {
  return parseConfig(EnginePolicySchema, value, source, { convert: false });
}
