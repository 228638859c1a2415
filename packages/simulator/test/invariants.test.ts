import type {
  CampaignRow,
  ClickRow,
  ConversionRow,
  LedgerRow,
  OfferRow,
  OpenHourRow,
  PlacementRow,
  PostRow,
  SendRow,
  SlotRow,
} from '@waggle/core/contract';
import { describe, expect, test } from 'vitest';
import { simulateWorld, type World } from '../src/index.js';

const worlds = [
  simulateWorld({ scale: 'tiny', seed: 11 }),
  simulateWorld({ scale: 'ci', seed: 12, overrides: { publications: 120, campaigns: 25 } }),
];

const rows = <T extends object>(world: World, table: string): T[] => [
  ...world.tables[table]!.rows<T>(),
];
const time = (text: string): number => Date.parse(text);

describe.each(worlds.map((world) => [world.config.scale, world] as const))(
  '%s',
  (_scale, world) => {
    const { startMs, endMs } = world.config;
    const posts = new Map(rows<PostRow>(world, 'posts').map((post) => [post.post_id, post]));
    const sends = new Map(rows<SendRow>(world, 'sends').map((send) => [send.post_id, send]));
    const slots = new Map(rows<SlotRow>(world, 'slots').map((slot) => [slot.slot_id, slot]));
    const placements = rows<PlacementRow>(world, 'placements');
    const sent = new Map(
      placements.filter((p) => p.type === 'placement.sent').map((p) => [p.placement_id, p]),
    );
    const campaigns = new Map(
      rows<CampaignRow>(world, 'campaigns').map((campaign) => [campaign.campaign_id, campaign]),
    );

    test('event ids are unique over all tables, entity ids per version', () => {
      const seen = new Set<string>();
      let events = 0;
      for (const [name, table] of Object.entries(world.tables)) {
        if (!table.spec.columns.some(([column]) => column === 'event_id')) continue;
        for (const id of table.strings('event_id')) {
          seen.add(id);
          events++;
        }
        expect(name).toBeTruthy();
      }
      expect(seen.size).toBe(events);
      for (const [table, column] of [
        ['publishers', 'publisher_id'],
        ['publications', 'publication_id'],
        ['advertisers', 'advertiser_id'],
        ['campaigns', 'campaign_id'],
        ['creatives', 'creative_id'],
        ['posts', 'post_id'],
        ['slots', 'slot_id'],
      ] as const) {
        const ids = world.tables[table]!.strings(column);
        const versions = world.tables[table]!.numbers('version');
        expect(new Set(ids.map((id, i) => `${id}/${versions[i]}`)).size).toBe(ids.length);
      }
    });

    test('events fall inside the world, versions follow creation', () => {
      for (const table of Object.values(world.tables)) {
        const columns = table.spec.columns.map(([column]) => column);
        if (columns.includes('ts')) {
          for (const ts of table.numbers('ts')) {
            expect(ts >= startMs - 3_600_000 && ts < endMs).toBe(true);
          }
        } else {
          const created = table.numbers('created_at');
          table.numbers('updated_at').forEach((at, i) => {
            expect(at).toBeGreaterThanOrEqual(created[i]!);
            expect(at).toBeLessThan(endMs);
          });
        }
      }
    });

    test('every sent placement has its post, send, slot, creative and campaign in flight', () => {
      const creatives = new Map(
        rows<{ creative_id: string; campaign_id: string }>(world, 'creatives').map((c) => [
          c.creative_id,
          c.campaign_id,
        ]),
      );
      expect(sent.size).toBeGreaterThan(20);
      for (const placement of sent.values()) {
        const send = sends.get(placement.post_id)!;
        expect(posts.has(placement.post_id)).toBe(true);
        expect(send.delivered).toBe(placement.delivered);
        expect(send.n_ads).toBe(placement.n_ads);
        expect(placement.position).toBeLessThanOrEqual(placement.n_ads);
        const slot = slots.get(placement.slot_id)!;
        expect(slot.post_id).toBe(placement.post_id);
        expect(slot.mode).toBe(placement.mode);
        expect(creatives.get(placement.creative_id)).toBe(placement.campaign_id);
        const campaign = campaigns.get(placement.campaign_id)!;
        expect(time(placement.ts)).toBeGreaterThanOrEqual(time(campaign.flight_start));
        expect(time(posts.get(placement.post_id)!.planned_at)).toBeLessThan(
          time(campaign.flight_end),
        );
      }
    });

    test('a slot runs at most one ad, a post no two of one advertiser or competitor group', () => {
      const group = new Map(
        rows<{ advertiser_id: string; competitor_group: string }>(world, 'advertisers').map((a) => [
          a.advertiser_id,
          a.competitor_group,
        ]),
      );
      const used = new Set<string>();
      const perPost = new Map<string, string[]>();
      for (const placement of sent.values()) {
        expect(used.has(placement.slot_id)).toBe(false);
        used.add(placement.slot_id);
        const advertiser = campaigns.get(placement.campaign_id)!.advertiser_id;
        perPost.set(placement.post_id, [...(perPost.get(placement.post_id) ?? []), advertiser]);
      }
      for (const advertisers of perPost.values()) {
        expect(new Set(advertisers).size).toBe(advertisers.length);
        const groups = advertisers.map((a) => group.get(a)!).filter((g) => g !== '');
        expect(new Set(groups).size).toBe(groups.length);
      }
      for (const send of sends.values())
        expect(perPost.get(send.post_id)?.length ?? 0).toBe(send.n_ads);
    });

    test('placements go reserved → sent, no-show or cancelled, once', () => {
      const states = new Map<string, string[]>();
      for (const p of placements)
        states.set(p.placement_id, [...(states.get(p.placement_id) ?? []), p.type]);
      for (const types of states.values()) {
        expect(types[0]).toBe('placement.reserved');
        expect(types.length).toBeLessThanOrEqual(2);
      }
    });

    test('offers are answered at most once, by someone they were shown to', () => {
      const answers = new Map<string, number>();
      const shown = new Map<string, OfferRow>();
      for (const offer of rows<OfferRow>(world, 'offers')) {
        if (offer.type === 'offer.shown') shown.set(offer.offer_id, offer);
        else if (offer.type !== 'offer.withdrawn') {
          answers.set(offer.offer_id, (answers.get(offer.offer_id) ?? 0) + 1);
        }
        expect(offer.rank).toBeLessThanOrEqual(offer.menu_size);
        expect(offer.propensity).toBeGreaterThan(0);
      }
      for (const [offer, count] of answers) {
        expect(count).toBe(1);
        expect(shown.has(offer)).toBe(true);
      }
    });

    test('a yes leads to a placement, or to a withdrawal right after it where no money was left', () => {
      const placed = new Set(placements.map((p) => p.offer_id));
      const accepted = new Map<string, OfferRow>();
      const withdrawn = new Map<string, OfferRow>();
      for (const offer of rows<OfferRow>(world, 'offers')) {
        if (offer.type === 'offer.accepted') accepted.set(offer.offer_id, offer);
        if (offer.type === 'offer.withdrawn') withdrawn.set(offer.offer_id, offer);
      }
      for (const [id, { ts, reason }] of withdrawn) {
        expect(time(ts) - time(accepted.get(id)!.ts)).toBe(1);
        expect(reason).toBe('budget');
      }
      for (const [id, { ts, creative_id }] of accepted) {
        expect(creative_id).not.toBe('');
        // What would follow the last millisecond lies beyond the end.
        if (time(ts) < endMs - 1) expect(placed.has(id)).toBe(!withdrawn.has(id));
      }
    });

    test('clicks follow delivery to their placement', () => {
      const clicks = rows<ClickRow>(world, 'clicks');
      expect(clicks.length).toBeGreaterThan(1_000);
      for (const click of clicks) {
        const placement = sent.get(click.placement_id)!;
        const delay = time(click.ts) - time(placement.ts);
        expect(delay).toBeGreaterThanOrEqual(click.ms_since_delivery);
        expect(delay - click.ms_since_delivery).toBeLessThanOrEqual(120_000);
        expect(click.campaign_id).toBe(placement.campaign_id);
        expect(click.post_id).toBe(placement.post_id);
        expect(click.creative_id).toBe(placement.creative_id);
      }
    });

    test('people click an ad once, apart from marked repeats', () => {
      const causes = world.truth.clicks.strings('cause');
      const pairs = new Set<string>();
      let people = 0;
      let i = 0;
      for (const click of world.tables['clicks']!.rows<ClickRow>()) {
        if (causes[i++] !== 'person') continue;
        people++;
        pairs.add(`${click.placement_id}/${click.subscriber_key}`);
      }
      expect(pairs.size).toBe(people);
    });

    test('conversions follow a click of their campaign', () => {
      const clicks = new Map(
        rows<ClickRow>(world, 'clicks').map((click) => [click.event_id, click]),
      );
      for (const conversion of rows<ConversionRow>(world, 'conversions')) {
        const click = clicks.get(conversion.click_id)!;
        expect(click.campaign_id).toBe(conversion.campaign_id);
        expect(time(conversion.ts)).toBeGreaterThanOrEqual(time(click.ts));
      }
    });

    test('unique opens never exceed the delivered emails', () => {
      const opens = new Map<string, number>();
      for (const row of rows<OpenHourRow>(world, 'opens')) {
        opens.set(row.post_id, (opens.get(row.post_id) ?? 0) + row.human_opens + row.mpp_opens);
        expect(time(row.ts)).toBeGreaterThan(time(sends.get(row.post_id)!.ts) - 3_600_000);
      }
      for (const [post, count] of opens)
        expect(count).toBeLessThanOrEqual(sends.get(post)!.delivered);
    });

    test('opens are charged as the hourly counts show them within 72 h, or what is left of the budget', () => {
      const opens = new Map<string, number>();
      for (const row of rows<OpenHourRow>(world, 'opens')) {
        const sentMs = time(sends.get(row.post_id)!.ts);
        if (time(row.ts) + 3_600_000 > sentMs + 72 * 3_600_000) continue;
        opens.set(row.post_id, (opens.get(row.post_id) ?? 0) + row.human_opens);
      }
      let charged = 0;
      let whole = 0;
      for (const entry of rows<LedgerRow>(world, 'ledger_entries')) {
        const placement = sent.get(entry.reference_id);
        if (entry.type !== 'ledger.charge' || placement?.pricing !== 'cpm') continue;
        const due = Math.round((placement.price_micros * opens.get(placement.post_id)!) / 1000);
        expect(entry.amount_micros).toBeLessThanOrEqual(due);
        charged++;
        if (entry.amount_micros === due) whole++;
      }
      expect(charged).toBeGreaterThan(0);
      expect(whole).toBeGreaterThanOrEqual(0.9 * charged);
    });

    test('reserved and charged money never exceeds a budget at any moment', () => {
      const committed = new Map<string, number>();
      const ledger = rows<LedgerRow>(world, 'ledger_entries').sort((a, b) => {
        const order = time(a.ts) - time(b.ts);
        // Of one moment, releases come first: a placement's release and charge are one step.
        return order !== 0
          ? order
          : Number(b.type === 'ledger.release') - Number(a.type === 'ledger.release');
      });
      const held = new Map<string, number>();
      for (const entry of ledger) {
        const total = (committed.get(entry.campaign_id) ?? 0) + entry.amount_micros;
        committed.set(entry.campaign_id, total);
        expect(total).toBeLessThanOrEqual(campaigns.get(entry.campaign_id)!.budget_micros);
        expect(total).toBeGreaterThanOrEqual(0);
        const reference = held.get(entry.reference_id) ?? 0;
        if (entry.type === 'ledger.reserve') {
          expect(held.has(entry.reference_id)).toBe(false);
          held.set(entry.reference_id, entry.amount_micros);
        } else if (entry.type === 'ledger.release') {
          expect(entry.amount_micros).toBe(-reference);
        }
      }
    });
  },
);
