import { DAY_MS } from '@waggle/core';
import type { FactSource, TableReader } from '../definition.js';

/** An accepted ad has gone out in time when its issue did within a day of its planned time. */
export const SEND_GRACE_MS = DAY_MS;
/** An ad that was accepted without an issue has so long to find one and go out with it. */
export const UNSCHEDULED_WINDOW_MS = 7 * DAY_MS;

/**
 * Accepted offers for which money was reserved, with the time by which they must have gone out: a yes that the campaign could no
 * longer pay is no placement, and nothing to send. An issue counts with the time it was first planned for: what
 * is moved later is late. `lead_ms` from acceptance to that time, NaN where no issue was chosen.
 */
export function acceptancesSql(read: TableReader): string {
  return `
SELECT a.*, i.planned_ms AS planned_ms, greatest(i.planned_ms, a.accepted_ms) AS slot_ms,
  if(i.planned_ms > 0, toFloat64(slot_ms - a.accepted_ms), nan) AS lead_ms,
  if(i.planned_ms > 0, slot_ms + ${SEND_GRACE_MS}, a.accepted_ms + ${UNSCHEDULED_WINDOW_MS}) AS due_ms
FROM (
  SELECT event_id, placement_id, post_id, publication_id, campaign_id, creative_id, position, toFloat64(n_ads) AS n_ads,
    toFloat64(price_micros) AS price_micros, toUnixTimestamp64Milli(ts) AS accepted_ms
  FROM ${read.events('placements', "type = 'placement.reserved' AND mode = 'on_demand'")}
) AS a
LEFT JOIN (
  SELECT post_id, toUnixTimestamp64Milli(argMin(planned_at, version)) AS planned_ms FROM ${read.versions('posts')} GROUP BY post_id
) AS i ON i.post_id = a.post_id`;
}

/** `placement_id` and whether it went out by its time: an ad that is sent later, cancelled or left out was not. */
export function sentByDueTimeSql(read: TableReader): string {
  return `
SELECT a.*, s.sent_ms > 0 AND s.sent_ms <= a.due_ms AS sent
FROM (${acceptancesSql(read)}) AS a
LEFT JOIN (
  SELECT placement_id, min(toUnixTimestamp64Milli(ts)) AS sent_ms
  FROM ${read.repeatable('placements', "type = 'placement.sent'")}
  GROUP BY placement_id
) AS s ON s.placement_id = a.placement_id`;
}

export const acceptances: FactSource = {
  name: 'acceptances',
  description:
    'An ad that a publisher accepted and the campaign could pay, known at once; nothing about what came of it.',
  measures: ['scheduled'],
  sql: (read) => `
SELECT accepted_ms AS event_ms, accepted_ms AS available_ms, publication_id, campaign_id, creative_id, position,
  toFloat64(planned_ms > 0) AS scheduled
FROM (${acceptancesSql(read)})`,
};

export const acceptanceOutcomes: FactSource = {
  name: 'acceptance_outcomes',
  keysFrom: 'acceptances',
  description:
    'What became of an accepted ad, counted when its time is up: those that go out do so earlier than those that do not are given up, and counting each as it comes would favour the sent.',
  measures: ['accepted', 'sent', 'scheduled', 'scheduled_sent'],
  context: ['n_ads', 'lead_ms', 'price_micros'],
  sql: (read) => `
SELECT accepted_ms AS event_ms, due_ms AS available_ms, publication_id, campaign_id, creative_id, position, n_ads, lead_ms,
  price_micros, 1.0 AS accepted, toFloat64(sent) AS sent, toFloat64(planned_ms > 0) AS scheduled, scheduled * sent AS scheduled_sent
FROM (${sentByDueTimeSql(read)})`,
};
