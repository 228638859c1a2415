import { type Clock, manualClock, silentLogger } from '@waggle/core';
import type { RankRequestBody, RankResponseBody } from '@waggle/core/contract';
import type { FastifyInstance } from 'fastify';
import { buildApp, type GatewayParts } from '../src/app.js';
import { type GatewayConfig, gatewayConfig } from '../src/config.js';
import type {
  CampaignAccount,
  EnginePort,
  LogStatus,
  PostedEvent,
  RankContext,
  ServedRelease,
} from '../src/ports.js';

export const NOW_MS = Date.UTC(2026, 2, 2);

export function rankResponse(
  request: RankRequestBody,
  context: RankContext,
  release = 'rel_a',
): RankResponseBody {
  const n = request.mode === 'fill' ? (request.slots?.length ?? 0) : Math.min(request.k ?? 10, 3);
  return {
    decision_id: `dec_${context.requestId}`,
    request_id: context.requestId,
    mode: request.mode,
    items: Array.from({ length: n }, (_, i) => ({
      campaign_id: `cmp_${i}`,
      creative_id: `crv_${i}`,
      rank: i + 1,
      score: 1000 - i,
      propensity: 1,
      pricing: 'cpc' as const,
      price_micros: 1_500_000,
      est_payout: { p20_micros: 1, p50_micros: 2, p80_micros: 3 },
    })),
    n_eligible: n,
    filtered: { budget: 2, floor: 1 },
    versions: {
      release,
      model: 'pctr@1',
      calibration: 'c',
      duals: 'none',
      features_asof: '2026-03-02T00:00:00.000Z',
    },
    degraded: ['prior_only_model'],
    expires_at: '2026-03-02T01:00:00.000Z',
    latency_ms: 0.1,
  };
}

/** The money of the one campaign. */
const ACCOUNT: CampaignAccount = {
  ...{ budgetMicros: 1_000, dailyBudgetMicros: 300, availableMicros: 120 },
  ...{ heldMicros: 200, spentMicros: 30, outsideMicros: 50, todayMicros: 180 },
};

/** A release whose catalog is three small sets. */
export function servedRelease(id = 'rel_a', tenantId = 'ten_sample'): ServedRelease {
  const known = { publication: 'pub_1', campaign: 'cmp_1', creative: 'crv_1' };
  return {
    id,
    tenantId,
    knows: (kind, entity) => known[kind] === entity,
    summary: () => ({ id }),
  };
}

/** An in-memory journal with the real one's promise: twice is once, by (tenant, type, event_id). */
export class MemoryJournal {
  readonly rows = new Map<string, PostedEvent>();
  async append(events: readonly PostedEvent[]) {
    let accepted = 0;
    for (const event of events) {
      const row = event.row as { tenant_id: string; type: string; event_id: string };
      const id = `${row.tenant_id}/${row.type}/${row.event_id}`;
      if (this.rows.has(id)) continue;
      this.rows.set(id, event);
      accepted++;
    }
    return { accepted, duplicates: events.length - accepted };
  }
  forwarder() {
    return { ok: true, backlog: 0, lagMs: 0, dropped: 0 };
  }
  logs(): Readonly<Record<string, LogStatus>> {
    return { ledger: { ok: true }, events: { ok: true } };
  }
}

export interface TestGateway {
  readonly app: FastifyInstance;
  readonly clock: ReturnType<typeof manualClock>;
  readonly journal: MemoryJournal;
  /** Bodies that reached the engine. */
  readonly ranked: { request: RankRequestBody; context: RankContext }[];
}

export function testGateway(
  o: {
    config?: Partial<GatewayConfig>;
    engine?: EnginePort;
    release?: ServedRelease | undefined;
    parts?: Partial<GatewayParts>;
  } = {},
): TestGateway {
  const clock = manualClock(NOW_MS);
  const journal = new MemoryJournal();
  const ranked: TestGateway['ranked'] = [];
  const release = 'release' in o ? o.release : servedRelease();
  const app = buildApp({
    engine: o.engine ?? {
      rank(request, context) {
        ranked.push({ request, context });
        return rankResponse(request, context);
      },
    },
    releases: {
      current: () => release,
      status: () => ({ release: release?.id, loadedAtMs: NOW_MS, swaps: 1 }),
    },
    ledger: {
      peers: () => ({ peers: 0, ageMs: 0 }),
      account: (campaignId) => (campaignId === 'cmp_1' ? ACCOUNT : undefined),
      follow: async () => {},
    },
    journal,
    clock: clock as Clock,
    logger: silentLogger,
    config: gatewayConfig(o.config),
    ...o.parts,
  });
  return { app, clock, journal, ranked };
}

export const OFFERS: RankRequestBody = { mode: 'offers', publication_id: 'pub_1' };
export const CLICK = {
  type: 'click',
  event_id: 'evt_1',
  ts: '2026-03-01T10:00:00.000Z',
  placement_id: 'plc_1',
  post_id: 'pst_1',
  publication_id: 'pub_1',
  campaign_id: 'cmp_1',
  creative_id: 'crv_1',
  subscriber_key: 'sub_1',
  device: 'mobile',
  ua_class: 'browser',
  ip_prefix: '10.0.0.0/24',
  ms_since_delivery: 60_000,
  links_within_10s: 1,
  honeypot: false,
};
export const OFFER_SHOWN = {
  type: 'offer.shown',
  event_id: 'evt_2',
  ts: '2026-03-01T10:00:00.000Z',
  offer_id: 'ofr_1',
  publication_id: 'pub_1',
  campaign_id: 'cmp_1',
  pricing: 'cpc',
  price_micros: 1,
  est_payout_micros: 1,
  menu_size: 3,
  rank: 1,
  propensity: 0.5,
  expires_at: '2026-03-08T10:00:00.000Z',
};
