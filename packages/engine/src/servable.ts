import { SERVABLE } from '@waggle/retrieval';
import type { Catalog } from './catalog.js';
import { texts } from './ranking-release.js';

/** How many of a kind may be served at all, and why the others may not. */
export interface ServableCount {
  readonly total: number;
  readonly servable: number;
  /** Each of the others once, under its first reason: `status paused`, `advertiser status banned`, `no servable creative`. */
  readonly reasons: Readonly<Record<string, number>>;
}

/**
 * What of a catalog its statuses let be served, before dates, budgets and targets: a release whose campaigns all say a word that
 * Waggle does not serve answers with nothing. O(rows)
 */
export function countServable(
  catalog: Catalog,
): Readonly<Record<'publications' | 'campaigns', ServableCount>> {
  const { publications, campaigns, creatives, advertisers } = catalog;
  const ofAdvertisers = texts(advertisers, 'status');
  const advertiserStatus = new Map(
    texts(advertisers, 'advertiser_id').map((id, row) => [id, ofAdvertisers[row]!]),
  );
  const ofCreatives = texts(creatives, 'status');
  const withCreative = new Set(
    texts(creatives, 'campaign_id').filter((_, row) => serves('creative', ofCreatives[row]!)),
  );
  const ids = texts(campaigns, 'campaign_id');
  const advertiserOf = texts(campaigns, 'advertiser_id');
  return {
    publications: countOf(texts(publications, 'status'), (status) =>
      serves('publication', status) ? undefined : `status ${status}`,
    ),
    campaigns: countOf(texts(campaigns, 'status'), (status, row) => {
      if (!serves('campaign', status)) return `status ${status}`;
      const advertiser = advertiserStatus.get(advertiserOf[row]!);
      if (advertiser === undefined) return 'unknown advertiser';
      if (!serves('advertiser', advertiser)) return `advertiser status ${advertiser}`;
      return withCreative.has(ids[row]!) ? undefined : 'no servable creative';
    }),
  };
}

const serves = (kind: keyof typeof SERVABLE, status: string): boolean =>
  (SERVABLE[kind] as readonly string[]).includes(status);

function countOf(
  statuses: readonly string[],
  why: (status: string, row: number) => string | undefined,
): ServableCount {
  const reasons: Record<string, number> = {};
  let servable = 0;
  statuses.forEach((status, row) => {
    const reason = why(status, row);
    if (reason === undefined) servable++;
    else reasons[reason] = (reasons[reason] ?? 0) + 1;
  });
  return { total: statuses.length, servable, reasons };
}
