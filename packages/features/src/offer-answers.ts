import { type StringColumn, stringAt, stringColumn, stringData } from '@waggle/core';
import { type FeatureStore, QUERY_SETTINGS, tableReader } from './feature-store.js';
import { firstAnswersSql } from './sources.js';

/** What may become of an offer; downvotes by the reason that was given. */
export const OFFER_ANSWERS = [
  'accepted',
  'declined',
  'expired',
  'irrelevant',
  'low_payout',
  'too_often',
  'quality',
  'other',
] as const;
export type OfferAnswer = (typeof OFFER_ANSWERS)[number];

const REASONS = OFFER_ANSWERS.slice(3, 7);

/** Answers of offers whose time is up, by the offers' ids; those withdrawn before any have none. */
export interface OfferAnswers {
  readonly nRows: number;
  readonly offers: StringColumn;
  /** [nRows] positions in OFFER_ANSWERS. */
  readonly answers: Uint8Array;
}

/**
 * The first answer of every offer that had run out by `asOfMs`, under the same rule as acceptance: what is said later changes
 * nothing, silence is `expired`. A downvote with an unknown reason is `other`. One statement.
 */
export async function buildOfferAnswers(
  store: FeatureStore,
  o: { readonly tenantId: string; readonly asOfMs: number; readonly signal?: AbortSignal },
): Promise<OfferAnswers> {
  const read = tableReader({ untilMs: o.asOfMs });
  const table = await store.queryColumns(
    `
SELECT s.offer_id AS offer_id, multiIf(
    NOT (a.first_ms > 0 AND a.first_ms <= s.expires_ms), 'expired',
    a.first_type = 'offer.downvoted', if(a.reason IN (${REASONS.map((r) => `'${r}'`).join(', ')}), a.reason, 'other'),
    substring(a.first_type, 7)) AS answer
FROM (SELECT offer_id, toUnixTimestamp64Milli(expires_at) AS expires_ms FROM ${read.events('offers', "type = 'offer.shown'")}) AS s
LEFT JOIN (${firstAnswersSql(read)}) AS a ON a.offer_id = s.offer_id
WHERE s.expires_ms <= ${o.asOfMs} AND answer != 'withdrawn'
ORDER BY offer_id`,
    {
      params: { tenant_id: o.tenantId },
      settings: QUERY_SETTINGS,
      ...(o.signal === undefined ? {} : { signal: o.signal }),
    },
  );
  if (table.nRows === 0) return { nRows: 0, offers: stringColumn([]), answers: new Uint8Array(0) };
  const answer = stringData(table, 'answer');
  const other = OFFER_ANSWERS.indexOf('other');
  return {
    nRows: table.nRows,
    offers: stringData(table, 'offer_id'),
    answers: Uint8Array.from({ length: table.nRows }, (_, i) => {
      const at = (OFFER_ANSWERS as readonly string[]).indexOf(stringAt(answer, i));
      return at < 0 ? other : at;
    }),
  };
}
