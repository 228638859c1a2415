import { HOUR_MS } from '@waggle/core';
import type { FactSource, TableReader } from './definition.js';
import { CLICK_WINDOW_MS, clickMaturity, inClickWindowSql, VERIFIED_CLICK_SQL } from './label.js';

/**
 * The facts that Waggle's own features count. The one rule that matters is in `available_ms`: a decision sees
 * a fact only from then on, so an outcome that takes 72 h to mature is invisible for 72 h, or comes in instalments with the share
 * of the exposure that each stands for.
 */

/**
 * Unique clicks per placement within 72 h of sending: `clicks` verified, `raw_clicks` of any verdict. Unique
 * means once per subscriber, so a repeated event cannot change it. The first verified click decides; one dated long before the
 * email is no click of it.
 */
export function clicksPerPlacementSql(read: TableReader): string {
  return `
SELECT k.placement_id AS placement_id,
  toFloat64(countIf(k.n_verified > 0 AND ${inClickWindowSql('k.first_verified_ms', 's.sent_ms')})) AS clicks,
  toFloat64(countIf(${inClickWindowSql('k.first_ms', 's.sent_ms')})) AS raw_clicks
FROM (
  SELECT placement_id, subscriber_key, min(toUnixTimestamp64Milli(ts)) AS first_ms,
    minIf(toUnixTimestamp64Milli(ts), ${VERIFIED_CLICK_SQL}) AS first_verified_ms,
    countIf(${VERIFIED_CLICK_SQL}) AS n_verified
  FROM ${read.repeatable('clicks')}
  GROUP BY placement_id, subscriber_key
) AS k
INNER JOIN (
  SELECT placement_id, toUnixTimestamp64Milli(ts) AS sent_ms FROM ${read.events('placements', "type = 'placement.sent'")}
) AS s ON s.placement_id = k.placement_id
GROUP BY placement_id`;
}

/** Of one moment, what the publisher said counts before what became of the offer: ids never decide. */
const ANSWERS_OF_ONE_MOMENT = [
  'offer.accepted',
  'offer.declined',
  'offer.downvoted',
  'offer.expired',
  'offer.withdrawn',
] as const;

/**
 * The first answer to every offer: `offer_id`, `first_type`, `reason`, `first_ms`. It is the publisher's choice, and nothing that
 * follows takes it back: an offer accepted and then withdrawn, since no money was left to reserve, has been accepted, though no
 * placement follows. Only what was withdrawn before any answer has none.
 */
export function firstAnswersSql(read: TableReader): string {
  const order = `(ts, indexOf([${ANSWERS_OF_ONE_MOMENT.map((t) => `'${t}'`).join(', ')}], toString(type)), event_id)`;
  return `
SELECT offer_id, argMin(toString(type), ${order}) AS first_type, argMin(toString(reason), ${order}) AS reason,
  min(toUnixTimestamp64Milli(ts)) AS first_ms
FROM ${read.repeatable('offers', "type != 'offer.shown'")}
GROUP BY offer_id`;
}

/**
 * Every shown offer with its fate: the first answer given before it ran out, else nothing when it ran out. An
 * answer that comes after expiry changes nothing, so the fate never changes once the offer has run out.
 */
export function offerOutcomesSql(read: TableReader): string {
  return `
SELECT s.*, o.first_ms > 0 AND o.first_ms <= s.expires_ms AS answered,
  answered AND o.first_type = 'offer.accepted' AS accepted,
  answered AND o.first_type = 'offer.downvoted' AS downvoted,
  answered AND o.first_type = 'offer.withdrawn' AS withdrawn
FROM (
  SELECT event_id, offer_id, toUnixTimestamp64Milli(ts) AS shown_ms, toUnixTimestamp64Milli(expires_at) AS expires_ms,
    publication_id, campaign_id, creative_id, toFloat64(price_micros) AS price_micros,
    toFloat64(est_payout_micros) AS est_payout_micros, toFloat64(menu_size) AS menu_size, toFloat64(rank) AS rank
  FROM ${read.events('offers', "type = 'offer.shown'")}
) AS s
LEFT JOIN (${firstAnswersSql(read)}) AS o ON o.offer_id = s.offer_id`;
}

export const placementOutcomes: FactSource = {
  name: 'placement_outcomes',
  keysFrom: 'placement_sends',
  description: 'A sent ad with its unique verified clicks, known 72 h after sending.',
  measures: ['delivered', 'clicks', 'raw_clicks'],
  context: ['n_ads'],
  sql: (read) => `
SELECT toUnixTimestamp64Milli(p.ts) AS event_ms, event_ms + ${CLICK_WINDOW_MS} AS available_ms,
  p.publication_id AS publication_id, p.campaign_id AS campaign_id, p.creative_id AS creative_id, p.position AS position,
  p.n_ads AS n_ads, toFloat64(p.delivered) AS delivered, c.clicks AS clicks, c.raw_clicks AS raw_clicks
FROM ${read.events('placements', "type = 'placement.sent'")} AS p
LEFT JOIN (${clicksPerPlacementSql(read)}) AS c ON c.placement_id = p.placement_id`,
};

/** Ages at which a placement's clicks so far become facts. */
const INSTALMENT_AGES_MS = [1, 3, 6, 12, 24, 36, 48, 72].map((hours) => hours * HOUR_MS);

export const placementProgress: FactSource = {
  name: 'placement_progress',
  keysFrom: 'placement_sends',
  description:
    'A sent ad in instalments: the unique verified clicks since the last one, known at 1, 3, 6, … 72 h, and the share of the delivered emails whose click would have come in that time. A new campaign is no stranger for three days.',
  measures: ['delivered', 'clicks'],
  context: ['n_ads'],
  unit: 'placement_id',
  sql: (read) => `
SELECT p.sent_ms AS event_ms, p.sent_ms + age_ms AS available_ms, p.placement_id AS placement_id,
  p.publication_id AS publication_id, p.campaign_id AS campaign_id, p.creative_id AS creative_id, p.position AS position,
  p.n_ads AS n_ads, p.delivered * share AS delivered, toFloat64(countEqual(c.ages, age_ms)) AS clicks
FROM (
  SELECT placement_id, toUnixTimestamp64Milli(ts) AS sent_ms, publication_id, campaign_id, creative_id, position, n_ads,
    toFloat64(delivered) AS delivered
  FROM ${read.events('placements', "type = 'placement.sent'")}
) AS p
LEFT JOIN (
  SELECT placement_id, groupArray(age) AS ages
  FROM (
    SELECT k.placement_id AS placement_id, arrayFirst(a -> k.first_ms <= s.sent_ms + a, [${INSTALMENT_AGES_MS.join(', ')}]) AS age
    FROM (
      SELECT placement_id, subscriber_key, min(toUnixTimestamp64Milli(ts)) AS first_ms
      FROM ${read.repeatable('clicks', VERIFIED_CLICK_SQL)}
      GROUP BY placement_id, subscriber_key
    ) AS k
    INNER JOIN (
      SELECT placement_id, toUnixTimestamp64Milli(ts) AS sent_ms FROM ${read.events('placements', "type = 'placement.sent'")}
    ) AS s ON s.placement_id = k.placement_id
    WHERE ${inClickWindowSql('k.first_ms', 's.sent_ms')}
  )
  GROUP BY placement_id
) AS c ON c.placement_id = p.placement_id
ARRAY JOIN [${INSTALMENT_AGES_MS.join(', ')}] AS age_ms,
  [${INSTALMENT_AGES_MS.map((age, i) => clickMaturity(age) - (i === 0 ? 0 : clickMaturity(INSTALMENT_AGES_MS[i - 1]!))).join(', ')}] AS share`,
};

export const placementSends: FactSource = {
  name: 'placement_sends',
  description: 'A sent ad, known as soon as it is sent; nothing about its outcome.',
  measures: ['delivered'],
  sql: (read) => `
SELECT toUnixTimestamp64Milli(ts) AS event_ms, event_ms AS available_ms,
  publication_id, campaign_id, creative_id, position, toFloat64(delivered) AS delivered
FROM ${read.events('placements', "type = 'placement.sent'")}`,
};

export const sends: FactSource = {
  name: 'sends',
  description: 'An email issue that went out, known as soon as it is sent.',
  measures: ['delivered', 'recipients', 'n_ads'],
  sql: (read) => `
SELECT toUnixTimestamp64Milli(ts) AS event_ms, event_ms AS available_ms,
  publication_id, '' AS campaign_id, '' AS creative_id, toUInt8(0) AS position,
  toFloat64(delivered) AS delivered, toFloat64(recipients) AS recipients, toFloat64(n_ads) AS n_ads
FROM ${read.events('sends')}`,
};

export const sendOutcomes: FactSource = {
  name: 'send_outcomes',
  keysFrom: 'sends',
  description: 'Opens and unsubscribes of an issue within 72 h, known 72 h after sending.',
  measures: ['delivered', 'unsubscribes', 'human_opens', 'mpp_opens', 'proxy_opens'],
  sql: (read) => `
SELECT toUnixTimestamp64Milli(s.ts) AS event_ms, event_ms + ${CLICK_WINDOW_MS} AS available_ms,
  s.publication_id AS publication_id, '' AS campaign_id, '' AS creative_id, toUInt8(0) AS position,
  toFloat64(s.delivered) AS delivered, toFloat64(s.unsubscribes) AS unsubscribes,
  o.human_opens AS human_opens, o.mpp_opens AS mpp_opens, o.proxy_opens AS proxy_opens
FROM ${read.events('sends')} AS s
LEFT JOIN (
  SELECT h.post_id AS post_id, toFloat64(sum(h.human_opens)) AS human_opens,
    toFloat64(sum(h.mpp_opens)) AS mpp_opens, toFloat64(sum(h.proxy_opens)) AS proxy_opens
  FROM (SELECT post_id, toUnixTimestamp64Milli(ts) AS hour_ms, human_opens, mpp_opens, proxy_opens FROM ${read.events('opens')}) AS h
  INNER JOIN (SELECT post_id, toUnixTimestamp64Milli(ts) AS sent_ms FROM ${read.events('sends')}) AS t ON t.post_id = h.post_id
  WHERE h.hour_ms + 3600000 <= t.sent_ms + ${CLICK_WINDOW_MS}
  GROUP BY post_id
) AS o ON o.post_id = s.post_id`,
};

export const offersShown: FactSource = {
  name: 'offers_shown',
  description: 'An offer that a publisher saw, known at once.',
  measures: ['est_payout_micros', 'menu_size'],
  sql: (read) => `
SELECT toUnixTimestamp64Milli(ts) AS event_ms, event_ms AS available_ms, publication_id, campaign_id, creative_id,
  toUInt8(0) AS position, toFloat64(est_payout_micros) AS est_payout_micros, toFloat64(menu_size) AS menu_size
FROM ${read.events('offers', "type = 'offer.shown'")}`,
};

export const offerOutcomes: FactSource = {
  name: 'offer_outcomes',
  keysFrom: 'offers_shown',
  description:
    'What a publisher did with an offer, counted when its time is up: answers come early, silence late, and counting each as it comes would favour the answered. A yes counts whether or not the campaign could still pay; what was withdrawn unanswered does not count.',
  measures: [
    'decided',
    'accepted',
    'downvoted',
    'log_payout_millionths',
    'accepted_log_payout_millionths',
  ],
  context: ['est_payout_micros', 'price_micros', 'menu_size', 'rank'],
  sql: (read) => `
SELECT shown_ms AS event_ms, expires_ms AS available_ms, est_payout_micros, price_micros, menu_size, rank, publication_id, campaign_id, creative_id, toUInt8(0) AS position,
  1.0 AS decided, toFloat64(accepted) AS accepted, toFloat64(downvoted) AS downvoted,
  round(1000000 * log1p(est_payout_micros / 1000000.0)) AS log_payout_millionths, accepted * log_payout_millionths AS accepted_log_payout_millionths
FROM (${offerOutcomesSql(read)})
WHERE NOT withdrawn`,
};
