import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DAY_MS, HOUR_MS, Rng } from '@waggle/core';
import type { ClickRow, PlacementRow, SendRow } from '@waggle/core/contract';
import { migrate, openEmbeddedStore, type Store } from '@waggle/store';

/**
 * A hand-sized network with every awkward case that features meet: entities that change, entities without
 * history or embedding, sends without ads, repeated events, bots, pending and late offers, times that
 * coincide to the millisecond.
 */
export const WORLD = {
  tenantId: 'ten_small',
  model: 'test-8',
  dim: 8,
  startMs: Date.UTC(2026, 0, 1),
  endMs: Date.UTC(2026, 0, 21),
  publications: 24,
  campaigns: 7,
} as const;

export interface SmallWorld {
  readonly store: Store;
  readonly ids: {
    publications: string[];
    campaigns: string[];
    creatives: string[];
    advertisers: string[];
  };
  readonly embeddings: {
    readonly dim: number;
    readonly publication: Float32Array;
    readonly campaign: Float32Array;
    readonly creative: Float32Array;
  };
  readonly campaignOfCreative: Int32Array;
  /** The events as inserted, without the repeats. */
  readonly rows: {
    readonly sends: readonly SendRow[];
    readonly placements: readonly PlacementRow[];
    readonly clicks: readonly ClickRow[];
  };
  close(): Promise<void>;
}

const iso = (ms: number): string => new Date(ms).toISOString();

export async function openTemporaryStore(): Promise<{ store: Store; close(): Promise<void> }> {
  const path = mkdtempSync(join(tmpdir(), 'waggle-features-'));
  const store = await openEmbeddedStore({ path });
  await migrate(store, {});
  return {
    store,
    async close() {
      await store.close();
      rmSync(path, { recursive: true, force: true });
    },
  };
}

export async function buildSmallWorld(seed = 1): Promise<SmallWorld> {
  const { store, close } = await openTemporaryStore();
  const rng = new Rng(seed);
  const { tenantId: tenant_id, startMs, endMs } = WORLD;
  const pick = <T>(list: readonly T[]): T => list[rng.integer(list.length)]!;
  const categories = ['tech', 'food', 'sports', 'money'];

  const publications = Array.from({ length: WORLD.publications }, (_, i) => `pub_${i}`);
  const campaigns = Array.from({ length: WORLD.campaigns }, (_, i) => `cmp_${i}`);
  const advertisers = ['adv_0', 'adv_1', 'adv_2', 'adv_3'];
  const creatives = campaigns.flatMap((_, i) => [`crv_${i}a`, `crv_${i}b`]);
  const campaignOfCreative = Int32Array.from(creatives, (_, i) => i >> 1);

  const publicationRow = (i: number, version: number, updatedMs: number) => ({
    tenant_id,
    publication_id: publications[i],
    version,
    updated_at: iso(updatedMs),
    created_at: iso(startMs - 100 * DAY_MS),
    publisher_id: 'pbr_1',
    name: `Publication ${i}`,
    description: '',
    language: i % 5 === 0 ? 'de' : 'en',
    tags: i % 3 === 0 ? [] : [categories[(i + version) % 4], 'misc'],
    category: categories[(i + version - 1) % 4],
    audience: i % 4 === 0 ? 'b2b' : 'consumer',
    country: 'US',
    timezone: 'UTC',
    cadence_per_week: 1 + (i % 7),
    active_subscribers: 100 * (i + 1) ** 2 * version,
    allowed_categories: [],
    blocked_categories: [],
    blocked_advertisers: [],
    max_ads_per_send: 3,
    min_payout_micros: 5_000_000 * (i % 3),
    auto_accept: i % 2 === 0,
    status: 'active',
  });
  const publicationRows = publications.map((_, i) => publicationRow(i, 1, startMs));
  // The last publication never sends; every third changes its category half way.
  for (let i = 0; i < publications.length; i += 3) {
    publicationRows.push(publicationRow(i, 2, startMs + 9 * DAY_MS + i * HOUR_MS));
  }
  const campaignRow = (i: number, version: number, updatedMs: number) => ({
    tenant_id,
    campaign_id: campaigns[i],
    version,
    updated_at: iso(updatedMs),
    created_at: iso(startMs),
    // Campaign 2 is sold to another advertiser on the way.
    advertiser_id: advertisers[(i + (i === 2 ? version : 0)) % 4],
    name: `Campaign ${i}`,
    description: '',
    category: categories[i % 4],
    goal: 'clicks',
    pricing: ['cpc', 'cpm', 'flat'][i % 3],
    bid_micros: 1_000_000 + i * 250_000 * version,
    budget_micros: 5_000_000_000,
    daily_budget_micros: 0,
    flight_start: iso(startMs),
    flight_end: iso(endMs + i * DAY_MS),
    target_languages: i % 2 ? ['en'] : [],
    target_categories: i % 3 === 0 ? ['tech', 'food'] : [],
    guaranteed_units: 0,
    status: 'live',
  });
  const campaignRows = campaigns.map((_, i) => campaignRow(i, 1, startMs));
  campaignRows.push(campaignRow(2, 2, startMs + 8 * DAY_MS + 12 * HOUR_MS));
  const creativeRows = creatives.map((creative_id, i) => ({
    tenant_id,
    creative_id,
    version: 1,
    updated_at: iso(startMs),
    created_at: iso(startMs),
    campaign_id: campaigns[i >> 1],
    kind: 'text',
    headline: `Headline ${'x'.repeat(i)} ü`,
    body: 'Body '.repeat(i + 1),
    landing_url: 'https://example.test/',
    status: 'active',
  }));

  const sendRows: object[] = [];
  const placementRows: object[] = [];
  const clickRows: object[] = [];
  const openRows: object[] = [];
  const offerRows: object[] = [];
  let serial = 0;
  const eventId = () => `evt_${++serial}`;
  // Campaign 6 and the last publication stay without history.
  for (let p = 0; p < publications.length - 1; p++) {
    const everyMs = (1 + (p % 3)) * DAY_MS;
    for (let ms = startMs + (p % 24) * HOUR_MS; ms < endMs; ms += everyMs) {
      const post_id = `pst_${p}_${ms}`;
      const delivered = 200 * (p + 1) + rng.integer(100);
      const nAds = rng.integer(3);
      sendRows.push({
        tenant_id,
        event_id: eventId(),
        type: 'send.sent',
        ts: iso(ms),
        post_id,
        publication_id: publications[p],
        recipients: delivered + 10,
        delivered,
        unsubscribes: rng.integer(5),
        n_slots: 2,
        n_ads: nAds,
      });
      for (let h = 0; h < 80 && ms + h * HOUR_MS < endMs; h += 1 + h) {
        openRows.push({
          tenant_id,
          event_id: eventId(),
          type: 'open.hour',
          ts: iso(Math.floor(ms / HOUR_MS) * HOUR_MS + h * HOUR_MS),
          post_id,
          publication_id: publications[p],
          human_opens: rng.integer(50),
          mpp_opens: rng.integer(40),
          proxy_opens: rng.integer(5),
        });
      }
      for (let a = 0; a < nAds; a++) {
        const c = rng.integer(campaigns.length - 1);
        const creative = 2 * c + rng.integer(2);
        const placement_id = `plc_${p}_${ms}_${a}`;
        const keys = {
          publication_id: publications[p],
          campaign_id: campaigns[c],
          creative_id: creatives[creative],
          post_id,
        };
        placementRows.push({
          tenant_id,
          event_id: eventId(),
          type: 'placement.sent',
          ts: iso(ms),
          placement_id,
          offer_id: '',
          ...keys,
          recommended_creative_id: '',
          slot_id: '',
          position: a + 1,
          n_ads: nAds,
          mode: 'on_demand',
          pricing: 'cpc',
          price_micros: 1_000_000,
          reserved_micros: 0,
          delivered,
          decision_id: '',
        });
        const keysOfClick = {
          tenant_id,
          type: 'click',
          placement_id,
          ...keys,
          device: 'mobile',
          ua_class: 'human',
          ip_prefix: '10.0.0.0/24',
        };
        const rate = 0.02 * Math.exp(0.6 * Math.sin(p) + 0.5 * Math.cos(c) - 0.2 * a);
        const n = rng.poisson(delivered * rate);
        for (let k = 0; k < n; k++) {
          const bot = rng.bernoulli(0.5);
          const delay = bot ? 20_000 : Math.round(Math.exp(1.03 + 2.45 * rng.normal()) * HOUR_MS);
          const ts = ms + delay;
          if (ts >= endMs) continue;
          const click = {
            ...keysOfClick,
            event_id: eventId(),
            ts: iso(ts),
            subscriber_key: `sub_${rng.integer(delivered)}`,
            ms_since_delivery: delay,
            links_within_10s: bot ? 4 : 1,
            honeypot: bot && rng.bernoulli(0.9),
          };
          clickRows.push(click);
          if (rng.bernoulli(0.05)) clickRows.push(click);
        }
        // A clock that is a minute slow, and one that was never set.
        for (const [subscriber_key, earlyMs] of [
          ['sub_slow', 60_000],
          ['sub_unset', 400 * DAY_MS],
        ] as const) {
          clickRows.push({
            ...keysOfClick,
            event_id: eventId(),
            ts: iso(ms - earlyMs),
            subscriber_key,
            ms_since_delivery: 600_000,
            links_within_10s: 1,
            honeypot: false,
          });
        }
      }
      if (p % 2 === 0) {
        const menu = 1 + rng.integer(4);
        for (let r = 0; r < menu; r++) {
          const c = rng.integer(campaigns.length - 1);
          const offer_id = `ofr_${p}_${ms}_${r}`;
          const shown = ms - 6 * HOUR_MS;
          const expires = shown + 24 * HOUR_MS;
          const offer = (type: string, ts: number) => ({
            tenant_id,
            event_id: eventId(),
            type,
            ts: iso(ts),
            offer_id,
            publication_id: publications[p],
            campaign_id: campaigns[c],
            creative_id: creatives[2 * c],
            post_id: '',
            slot_id: '',
            pricing: 'cpc',
            price_micros: 1_200_000,
            est_payout_micros: 1_000_000 * (5 + rng.integer(40)),
            menu_size: menu,
            rank: r + 1,
            propensity: 0.5,
            decision_id: '',
            reason: '',
            expires_at: iso(expires),
          });
          offerRows.push(offer('offer.shown', shown));
          const answer = pick(['accepted', 'declined', 'downvoted', 'withdrawn', '', 'late']);
          if (answer === 'late') offerRows.push(offer('offer.accepted', expires + HOUR_MS));
          else if (answer !== '') {
            offerRows.push(offer(`offer.${answer}`, shown + rng.integer(20 * HOUR_MS)));
          }
        }
      }
    }
  }
  await store.insert('publications', publicationRows);
  await store.insert('campaigns', campaignRows);
  await store.insert('creatives', creativeRows);
  await store.insert('sends', sendRows);
  await store.insert('placements', placementRows);
  // Loaded twice, as a replayed file is.
  await store.insert('placements', placementRows.slice(0, 50));
  await store.insert('clicks', clickRows);
  await store.insert('opens', openRows);
  await store.insert('opens', openRows.slice(10, 90));
  await store.insert('offers', offerRows);

  const matrix = (n: number, missing: readonly number[]): Float32Array => {
    const out = new Float32Array(n * WORLD.dim);
    for (let i = 0; i < n; i++) {
      if (missing.includes(i)) continue;
      const row = Array.from({ length: WORLD.dim }, () => rng.normal());
      const norm = Math.hypot(...row);
      for (let j = 0; j < WORLD.dim; j++) out[i * WORLD.dim + j] = row[j]! / norm;
    }
    return out;
  };
  const embeddings = {
    dim: WORLD.dim,
    publication: matrix(publications.length, [3]),
    campaign: matrix(campaigns.length, [4]),
    creative: matrix(creatives.length, [1, 8]),
  };
  const vectors = (kind: 'publication' | 'campaign' | 'creative', ids: readonly string[]) =>
    ids.flatMap((entity_id, i) => {
      const vector = [...embeddings[kind].subarray(i * WORLD.dim, (i + 1) * WORLD.dim)];
      return vector.every((x) => x === 0)
        ? []
        : [
            {
              tenant_id,
              entity_kind: kind,
              entity_id,
              model: WORLD.model,
              text_sha256: '0'.repeat(64),
              vector,
              updated_at: iso(startMs),
            },
          ];
    });
  await store.insert('embeddings', [
    ...vectors('publication', publications),
    ...vectors('campaign', campaigns),
    ...vectors('creative', creatives),
  ]);
  return {
    store,
    ids: { publications, campaigns, creatives, advertisers },
    embeddings,
    campaignOfCreative,
    rows: {
      sends: sendRows as SendRow[],
      placements: placementRows as PlacementRow[],
      clicks: clickRows as ClickRow[],
    },
    close,
  };
}
