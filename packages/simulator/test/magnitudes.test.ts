import type {
  CampaignRow,
  ClickRow,
  ConversionRow,
  LedgerRow,
  OfferRow,
  PlacementRow,
  PublicationRow,
  SendRow,
  SlotRow,
} from '@waggle/core/contract';
import { describe, expect, test } from 'vitest';
import { simulateWorld } from '../src/index.js';

/**
 * The magnitudes of docs/domain: bands, with tolerances wide enough for one world of the `ci` scale.
 */
const world = simulateWorld({ scale: 'ci', seed: 1 });
const { tables, truth, config } = world;
const DAY = 86_400_000;

const latest = <T extends object>(table: string, id: string): T[] => [
  ...new Map(
    [...tables[table]!.rows<T>()].map(
      (row) => [(row as Record<string, unknown>)[id], row] as const,
    ),
  ).values(),
];
const publications = latest<PublicationRow>('publications', 'publication_id');
const campaigns = latest<CampaignRow>('campaigns', 'campaign_id');
const sends = [...tables['sends']!.rows<SendRow>()];

function quantile(values: ArrayLike<number>, p: number): number {
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.round(p * (sorted.length - 1))]!;
}
function mean(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]!;
  return sum / values.length;
}
function deviation(values: ArrayLike<number>): number {
  const m = mean(values);
  return Math.sqrt(mean(Array.from(values, (x) => (x - m) ** 2)));
}
function between(value: number, low: number, high: number): void {
  expect(value).toBeGreaterThanOrEqual(low);
  expect(value).toBeLessThanOrEqual(high);
}

describe('supply', () => {
  test('audiences are log-normal: median 3,000, σ 1.6', () => {
    const sizes = truth.publications.nRows;
    expect(sizes).toBe(500);
    const logs = publications.map((p) => Math.log(p.active_subscribers));
    between(Math.exp(quantile(logs, 0.5)), 2_500, 3_800);
    between(deviation(logs), 1.4, 1.8);
  });

  test('cadence: 16 % daily, 50 % weekly, 25 % two or three a week, 9 % sparse', () => {
    const share = (from: number, to: number) =>
      publications.filter((p) => p.cadence_per_week >= from && p.cadence_per_week <= to).length /
      500;
    between(share(7, 7), 0.13, 0.19);
    between(share(1, 1), 0.47, 0.53);
    between(share(2, 3), 0.22, 0.28);
    between(share(0, 0.9), 0.06, 0.12);
  });

  test('volumes: about 2,300 sends and 25 million delivered', () => {
    between(sends.length, 2_150, 2_450);
    between(
      sends.reduce((sum, s) => sum + s.delivered, 0),
      23.25e6,
      26.75e6,
    );
    between(mean(sends.map((s) => s.delivered / s.recipients)), 0.98, 0.99);
    const unsubscribed = sends.reduce((sum, s) => sum + s.unsubscribes, 0);
    between(unsubscribed / sends.reduce((sum, s) => sum + s.delivered, 0), 0.0018, 0.0022);
  });

  test('slots: 1.4 a send, 60 % on demand, 25 % programmatic, 15 % direct', () => {
    between(mean(sends.map((s) => s.n_slots)), 1.3, 1.5);
    const modes = [...tables['slots']!.rows<SlotRow>()].map((slot) => slot.mode);
    const share = (mode: string) => modes.filter((m) => m === mode).length / modes.length;
    between(share('on_demand'), 0.57, 0.63);
    between(share('programmatic'), 0.22, 0.28);
    between(share('direct'), 0.12, 0.18);
  });

  test('reported opens: 0.43 of delivered in the end, Apple prefetches about half of them', () => {
    const opens = new Map<string, [number, number]>();
    for (const row of tables['opens']!.rows<{
      post_id: string;
      human_opens: number;
      mpp_opens: number;
    }>()) {
      const sums = opens.get(row.post_id) ?? [0, 0];
      sums[0] += row.human_opens;
      sums[1] += row.mpp_opens;
      opens.set(row.post_id, sums);
    }
    const old = sends.filter((s) => Date.parse(s.ts) < config.endMs - 7 * DAY && s.delivered > 500);
    const human = old.map((s) => opens.get(s.post_id)![0] / s.delivered);
    const mpp = old.map((s) => opens.get(s.post_id)![1] / s.delivered);
    // Seven days see 93 % of human opens.
    between(mean(human.map((h, i) => h + mpp[i]!)), 0.37, 0.46);
    between(mean(mpp), 0.19, 0.26);
    between(mean(truth.publications.numbers('mpp_share')), 0.22, 0.28);
    between(mean(truth.publications.numbers('human_open_rate')), 0.25, 0.29);
    const counts = [...opens.keys()].length;
    expect(counts).toBe(sends.length);
    // One row per hour of seven days.
    between(tables['opens']!.nRows / sends.length, 110, 168);
  });

  test('5 % of publications are tagged wrongly, 3 % a week are new, lists grow 3.5 % a month', () => {
    between(mean(truth.publications.numbers('mis_tagged')), 0.02, 0.09);
    const joinedAt = new Map<string, number>();
    for (const row of tables['publications']!.rows<PublicationRow>()) {
      if (row.status === 'eligible' && !joinedAt.has(row.publication_id)) {
        joinedAt.set(row.publication_id, Date.parse(row.updated_at));
      }
    }
    const joined = [...joinedAt.values()].filter((at) => at >= config.startMs).length;
    between(joined / 500, 0.025, 0.11);
    const growth: number[] = [];
    const first = new Map<string, { size: number; at: number }>();
    for (const row of tables['publications']!.rows<PublicationRow>()) {
      const before = first.get(row.publication_id);
      const at = Math.max(Date.parse(row.updated_at), config.startMs);
      if (before === undefined) {
        first.set(row.publication_id, { size: row.active_subscribers, at });
      } else if (row.active_subscribers > 1_000 && at - before.at >= 7 * DAY) {
        const months = (at - before.at) / (30 * DAY);
        growth.push(Math.log(row.active_subscribers / before.size) / months);
      }
    }
    expect(growth.length).toBeGreaterThan(200);
    between(mean(growth), 0.025, 0.045);
    for (const p of publications) expect(p.tags.length).toBeLessThanOrEqual(3);
  });
});

describe('click rates', () => {
  const parts = truth.placements;

  test('the median ad is clicked by 0.2 % of delivered, 5th to 95th percentile 0.04 to 1 %', () => {
    const p = parts.numbers('p_true');
    between(quantile(p, 0.5), 0.0014, 0.0027);
    between(quantile(p, 0.05), 0.00025, 0.0006);
    between(quantile(p, 0.95), 0.0065, 0.0145);
  });

  test('the parts of the log-odds have their stated deviations', () => {
    const observed = truth.publications.numbers('observed_effect');
    const latent = truth.publications.numbers('latent_effect');
    between(deviation(observed.map((x, i) => x + latent[i]!)), 0.48, 0.62);
    const observedShare =
      deviation(observed) ** 2 / (deviation(observed) ** 2 + deviation(latent) ** 2);
    between(observedShare, 0.4, 0.6);
    between(deviation(truth.campaigns.numbers('effect')), 0.33, 0.57);
    between(deviation(truth.creatives.numbers('effect')), 0.2, 0.3);
    between(deviation(parts.numbers('affinity')), 0.4, 0.6);
    between(deviation(parts.numbers('send_noise')), 0.23, 0.27);
    const place = parts.numbers('place');
    const time = parts.numbers('time');
    between(deviation(place.map((x, i) => x + time[i]!)), 0.08, 0.2);
  });

  test('the noise of a send leaves the expected rate alone', () => {
    const ratio = parts.numbers('send_noise').map(Math.exp);
    between(mean(ratio), 0.97, 1.03);
    const expected = parts.numbers('p_oracle');
    const delivered = parts.numbers('delivered');
    const clicks = parts.numbers('human_clicks');
    let predicted = 0;
    let seen = 0;
    for (let i = 0; i < clicks.length; i++) {
      predicted += expected[i]! * delivered[i]!;
      seen += clicks[i]!;
    }
    between(seen / predicted, 0.93, 1.07);
  });

  test('fatigue lowers rates by 12 % a repeat, never below half', () => {
    const fatigue = parts.numbers('fatigue');
    for (const f of fatigue) between(f, Math.log(0.5) - 1e-12, 0);
    expect(fatigue.filter((f) => f < -0.05).length).toBeGreaterThan(20);
  });

  test('clicks come a third in one hour, half in three, 81 % in a day', () => {
    const causes = truth.clicks.strings('cause');
    const cutoff = config.endMs - 8 * DAY;
    const hours: number[] = [];
    let i = 0;
    for (const click of tables['clicks']!.rows<ClickRow>()) {
      const person = causes[i++] === 'person';
      if (!person || Date.parse(click.ts) - click.ms_since_delivery > cutoff) continue;
      hours.push(click.ms_since_delivery / 3_600_000);
    }
    const within = (h: number) => hours.filter((x) => x <= h).length / hours.length;
    between(within(1), 0.29, 0.41);
    between(within(3), 0.46, 0.58);
    between(within(24), 0.77, 0.87);
    between(mean(truth.placements.numbers('share_72h')), 0.89, 0.96);
  });
});

describe('demand', () => {
  const kinds = new Map(
    [...truth.campaigns.rows<{ campaign_id: string; kind: string }>()].map((row) => [
      row.campaign_id,
      row.kind,
    ]),
  );

  test('prices: CPC median 1.8 dollars, CPM 1–5 programmatic and 10–20 direct', () => {
    const bids = (pricing: string, kind: string) =>
      campaigns
        .filter((c) => c.pricing === pricing && kinds.get(c.campaign_id) === kind)
        .map((c) => c.bid_micros / 1e6);
    between(quantile(bids('cpc', 'open'), 0.5), 1.3, 2.5);
    between(deviation(bids('cpc', 'open').map(Math.log)), 0.35, 0.65);
    for (const bid of bids('cpm', 'programmatic')) between(bid, 1, 5);
    for (const bid of bids('cpm', 'direct')) between(bid, 10, 20);
  });

  test('budgets are log-normal with σ 1; flights last 7 to 45 days; a fifth is guaranteed', () => {
    const open = campaigns.filter((c) => kinds.get(c.campaign_id) === 'open');
    between(deviation(open.map((c) => Math.log(c.budget_micros))), 0.75, 1.25);
    for (const c of campaigns) {
      between((Date.parse(c.flight_end) - Date.parse(c.flight_start)) / DAY, 6.9, 45.1);
    }
    between(campaigns.filter((c) => c.guaranteed_units > 0).length / 60, 0.08, 0.35);
    between(campaigns.filter((c) => c.daily_budget_micros > 0).length / 60, 0.04, 0.3);
    between(
      campaigns.filter((c) => Date.parse(c.flight_start) >= config.startMs).length / 60,
      0.05,
      0.32,
    );
    const groups = new Set(tables['advertisers']!.strings('competitor_group'));
    expect(groups.size).toBeLessThanOrEqual(31);
  });

  test('budgets bind for 40 to 70 % of campaigns', () => {
    between(mean(truth.campaigns.numbers('budget_bound')), 0.4, 0.7);
  });

  test('publishers accept 30 % of what they are shown, downvote 5 %', () => {
    between(mean(truth.offers.numbers('p_accept')), 0.22, 0.38);
    const outcomes = truth.offers.strings('outcome');
    const share = (outcome: string) =>
      outcomes.filter((o) => o === outcome).length / outcomes.length;
    between(share('accepted'), 0.22, 0.38);
    between(share('downvoted'), 0.03, 0.075);
    const accepted = outcomes.map((o) => Number(o === 'accepted'));
    const gap = mean(accepted) - mean(truth.offers.numbers('p_accept'));
    expect(Math.abs(gap)).toBeLessThan(0.02);
    const shown = [...tables['offers']!.rows<OfferRow>()].filter((o) => o.type === 'offer.shown');
    between(
      quantile(
        shown.map((o) => o.menu_size),
        0.5,
      ),
      4,
      10,
    );
    expect(Math.max(...shown.map((o) => o.menu_size))).toBeLessThanOrEqual(10);
  });

  test('the log tells how often publishers say yes, whatever money was left', () => {
    const chance = new Map(
      [...truth.offers.rows<{ offer_id: string; p_accept: number }>()].map((row) => [
        row.offer_id,
        row.p_accept,
      ]),
    );
    const exhausted = new Set(
      [...truth.campaigns.rows<{ campaign_id: string; budget_bound: boolean }>()].flatMap((row) =>
        row.budget_bound ? [row.campaign_id] : [],
      ),
    );
    const offers = [...tables['offers']!.rows<OfferRow>()];
    const idsOf = (type: string) =>
      new Set(offers.flatMap((o) => (o.type === type ? [o.offer_id] : [])));
    const yes = idsOf('offer.accepted');
    const withdrawn = idsOf('offer.withdrawn');
    const over = offers.filter(
      (o) => o.type === 'offer.shown' && Date.parse(o.expires_at) <= config.endMs,
    );
    for (const own of [over, over.filter((o) => exhausted.has(o.campaign_id))]) {
      const p = own.map((o) => chance.get(o.offer_id)!);
      const error = Math.sqrt(p.reduce((sum, q) => sum + q * (1 - q), 0)) / own.length;
      const observed = own.filter((o) => yes.has(o.offer_id)).length / own.length;
      expect(Math.abs(observed - mean(p))).toBeLessThan(3 * error);
      // Leaving out those that were withdrawn would be seen to be wrong.
      const kept = own.filter((o) => !withdrawn.has(o.offer_id));
      const keptYes = kept.filter((o) => yes.has(o.offer_id)).length / kept.length;
      expect(keptYes).toBeLessThan(mean(p) - 3 * error);
    }
  });

  test('down-votes give the reason that speaks most against the offer', () => {
    const seen = new Map(
      [...truth.offers.rows<{ offer_id: string; log_payout_ratio: number; fit: number }>()].map(
        (row) => [row.offer_id, row],
      ),
    );
    const fits = new Map<string, number[]>();
    const ratios = new Map<string, number[]>();
    for (const offer of tables['offers']!.rows<OfferRow>()) {
      if (offer.type !== 'offer.downvoted') {
        if (offer.type !== 'offer.withdrawn') expect(offer.reason).toBe('');
        continue;
      }
      const { log_payout_ratio, fit } = seen.get(offer.offer_id)!;
      fits.set(offer.reason, [...(fits.get(offer.reason) ?? []), fit]);
      ratios.set(offer.reason, [...(ratios.get(offer.reason) ?? []), log_payout_ratio]);
    }
    expect([...fits.keys()].sort()).toEqual(['irrelevant', 'low_payout', 'quality', 'too_often']);
    for (const list of fits.values()) expect(list.length).toBeGreaterThan(10);
    expect(mean(fits.get('irrelevant')!)).toBeLessThan(mean(fits.get('quality')!));
    expect(mean(ratios.get('low_payout')!)).toBeLessThan(mean(ratios.get('quality')!));
  });

  test('publications that accept automatically take what pays well, within two minutes', () => {
    const automatic = new Set(
      publications.filter((p) => p.auto_accept).map((p) => p.publication_id),
    );
    between(automatic.size / 500, 0.06, 0.14);
    const certain = new Set<string>();
    for (const row of truth.offers.rows<{
      offer_id: string;
      publication_id: string;
      p_accept: number;
    }>()) {
      if (row.p_accept === 1) {
        certain.add(row.offer_id);
        expect(automatic.has(row.publication_id)).toBe(true);
      }
    }
    expect(certain.size).toBeGreaterThan(100);
    const shownAt = new Map<string, number>();
    for (const offer of tables['offers']!.rows<OfferRow>()) {
      if (!certain.has(offer.offer_id)) continue;
      const at = Date.parse(offer.ts);
      if (offer.type === 'offer.shown') shownAt.set(offer.offer_id, at);
      else {
        expect(['offer.accepted', 'offer.withdrawn']).toContain(offer.type);
        expect(at - shownAt.get(offer.offer_id)!).toBeLessThan(120_001);
      }
    }
  });

  test('publications join and pause: their issues go out without slots meanwhile', () => {
    const versions = new Map<string, { at: number; status: string }[]>();
    for (const row of tables['publications']!.rows<PublicationRow>()) {
      const list = versions.get(row.publication_id) ?? [];
      versions.set(row.publication_id, [
        ...list,
        { at: Date.parse(row.updated_at), status: row.status },
      ]);
    }
    const planned = new Map(
      [...tables['posts']!.rows<{ post_id: string; planned_at: string }>()].map((post) => [
        post.post_id,
        Date.parse(post.planned_at),
      ]),
    );
    const seen = new Set<string>();
    for (const send of sends) {
      const at = planned.get(send.post_id)!;
      const status = versions
        .get(send.publication_id)!
        .filter((version) => version.at <= at)
        .at(-1)!.status;
      seen.add(status);
      expect(send.n_slots > 0).toBe(status === 'eligible');
    }
    expect([...seen].sort()).toEqual(['eligible', 'onboarding', 'paused']);
  });

  test('7 % of accepted ads are not sent; a quarter runs another creative than recommended', () => {
    const rows = [...tables['placements']!.rows<PlacementRow>()].filter(
      (p) =>
        p.mode === 'on_demand' && (p.type === 'placement.sent' || p.type === 'placement.no_show'),
    );
    between(rows.filter((p) => p.type === 'placement.no_show').length / rows.length, 0.045, 0.1);
    between(
      rows.filter((p) => p.creative_id !== p.recommended_creative_id).length / rows.length,
      0.2,
      0.3,
    );
  });

  test('most slots are filled, so that ads and clicks come in the expected numbers', () => {
    const slots = sends.reduce((sum, s) => sum + s.n_slots, 0);
    const ads = sends.reduce((sum, s) => sum + s.n_ads, 0);
    between(ads / slots, 0.65, 0.98);
    between(tables['clicks']!.nRows, 60_000, 200_000);
  });

  test('conversions: 2 % of people’s clicks, a third within the hour', () => {
    const rates = truth.campaigns.numbers('conversion_rate');
    between(quantile(rates, 0.5), 0.013, 0.029);
    const clicks = new Map<string, number>();
    for (const click of tables['clicks']!.rows<ClickRow>())
      clicks.set(click.event_id, Date.parse(click.ts));
    const delays: number[] = [];
    for (const conversion of tables['conversions']!.rows<ConversionRow>()) {
      const at = clicks.get(conversion.click_id)!;
      if (conversion.type === 'conversion' && at < config.endMs - 7 * DAY) {
        delays.push(Date.parse(conversion.ts) - at);
      }
    }
    // Half of a mixture with a ten-day tail, seen through seven days or more.
    between(delays.filter((d) => d < 3_600_000).length / delays.length, 0.3, 0.6);
  });

  test('spending is charged after the 72 h window and follows the bids', () => {
    const charges = [...tables['ledger_entries']!.rows<LedgerRow>()].filter(
      (entry) => entry.type === 'ledger.charge',
    );
    expect(charges.length).toBeGreaterThan(500);
    const total = charges.reduce((sum, entry) => sum + entry.amount_micros, 0) / 1e6;
    between(total, 20_000, 300_000);
  });
});

describe('machines', () => {
  const causes = truth.clicks.strings('cause');
  const audience = new Map(publications.map((p) => [p.publication_id, p.audience]));
  const clicks = [...tables['clicks']!.rows<ClickRow>()];

  test('scanners open 0.1 % of consumer and 1.1 % of business mail', () => {
    const shares = truth.publications.numbers('scanner_share');
    const ids = truth.publications.strings('publication_id');
    const of = (kind: string) => mean(shares.filter((_, i) => audience.get(ids[i]!) === kind));
    between(of('consumer'), 0.0008, 0.0013);
    between(of('b2b'), 0.0085, 0.0145);
    const scanned = new Map<string, Set<string>>();
    clicks.forEach((click, i) => {
      if (causes[i] !== 'scanner') return;
      const keys = scanned.get(click.post_id) ?? new Set<string>();
      scanned.set(click.post_id, keys.add(click.subscriber_key));
    });
    const rates: Record<string, [number, number]> = { consumer: [0, 0], b2b: [0, 0] };
    for (const send of sends) {
      if (send.n_ads === 0) continue;
      const sums = rates[audience.get(send.publication_id)!]!;
      sums[0] += scanned.get(send.post_id)?.size ?? 0;
      sums[1] += send.delivered;
    }
    between(rates['consumer']![0] / rates['consumer']![1], 0.0006, 0.0016);
    between(rates['b2b']![0] / rates['b2b']![1], 0.007, 0.018);
  });

  test('nine in ten scans come within a minute, nine in ten follow the hidden link', () => {
    const scans = clicks.filter((_, i) => causes[i] === 'scanner');
    expect(scans.length).toBeGreaterThan(5_000);
    between(scans.filter((c) => c.ms_since_delivery < 60_000).length / scans.length, 0.87, 0.93);
    between(scans.filter((c) => c.honeypot).length / scans.length, 0.88, 0.92);
    expect(scans.some((c) => c.ms_since_delivery > 30 * 60_000)).toBe(true);
  });

  test('fraud rings are rare', () => {
    expect(mean(truth.publications.numbers('fraud_ring'))).toBeLessThan(0.02);
  });
});
