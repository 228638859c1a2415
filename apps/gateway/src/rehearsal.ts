import { type Clock, idFactory, silentLogger } from '@waggle/core';
import { Engine, ledgerBudgets, type RankingRelease } from '@waggle/engine';
import { buildApp } from './app.js';
import type { GatewayConfig } from './config.js';
import type { ServedRelease } from './ports.js';

const PUBLICATIONS = 8;
const MAX_REQUESTS = 400;

/**
 * Answers requests that nobody asked before anybody can ask: the first hundreds run in the interpreter, ten times slower
 * than what the compiler makes of them, and under load each would keep others waiting beyond their deadline. It is the
 * same application with parts that keep nothing: no decision is logged, no metric counted, no money moved.
 * @returns how many requests were answered within `budgetMs`
 */
export async function rehearse(o: {
  ranking: RankingRelease;
  served: ServedRelease;
  config: GatewayConfig;
  clock: Clock;
  budgetMs: number;
}): Promise<number> {
  const { ranking, clock } = o;
  const money = new Map(
    [...ledgerBudgets(ranking)].map((b) => [b.campaignId, b.budgetMicros - (b.spentMicros ?? 0)]),
  );
  const engine = new Engine({
    current: () => ranking,
    ledger: {
      version: 0,
      availableMicros: (id) => Math.max(0, money.get(id) ?? 0),
      reserve: () => Promise.resolve({ ok: true }),
    },
    decisions: { record: () => {} },
    clock,
    logger: silentLogger,
    ids: idFactory(() => clock.nowMs()),
  });
  const app = buildApp({
    engine,
    releases: {
      current: () => o.served,
      status: () => ({ release: ranking.id, loadedAtMs: undefined, swaps: 0 }),
    },
    ledger: {
      peers: () => ({ peers: 0, ageMs: 0 }),
      account: () => undefined,
      follow: () => Promise.resolve(),
    },
    journal: {
      append: () => Promise.resolve({ accepted: 0, duplicates: 0 }),
      forwarder: () => ({ ok: true, backlog: 0, lagMs: 0, dropped: 0 }),
      logs: () => ({}),
    },
    clock,
    logger: silentLogger,
    config: { ...o.config, apiKeys: '', tenantId: ranking.tenantId, summaryIntervalMs: 0 },
  });
  let answered = 0;
  try {
    const ids = ranking.publications.ids.slice(0, PUBLICATIONS);
    if (ids.length === 0) return 0;
    const endMs = clock.monotonicMs() + o.budgetMs;
    while (answered < MAX_REQUESTS && clock.monotonicMs() < endMs) {
      const publication = ids[answered % ids.length]!;
      const minute = ranking.asOfMs + 60_000 * Math.floor(answered / (4 * ids.length));
      const { statusCode } = await app.inject({
        method: 'POST',
        url: '/v1/rank',
        headers: { 'content-type': 'application/json' },
        payload: JSON.stringify({
          mode: 'offers',
          publication_id: publication,
          k: 10,
          explain: 'summary',
          deadline_ms: 1_000,
          context: { planned_at: new Date(minute).toISOString() },
        }),
      });
      // A release that cannot answer says so to those who ask, not here.
      if (statusCode !== 200) break;
      answered++;
    }
  } finally {
    engine.close();
    await app.close();
  }
  return answered;
}
