/**
 * How long one `Engine.rank` takes inside the process, HTTP left out: `serving` world, publications with about
 * 200 eligible candidates, k = 10, explain summary. Prints one JSON line per case, times in microseconds.
 *
 *   npx tsc -p tsconfig.build.json && node --conditions=… (see README) bench/rank-hot-path.ts [directory]
 *
 * The directory keeps the world's release between runs.
 */
import { existsSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { clockStartingAt, idFactory, silentLogger, systemClock } from '@waggle/core';
import type { DecisionRow, RankRequestBody, RankResponseBody } from '@waggle/core/contract';
import { ReleaseStore } from '@waggle/releases';
import {
  Engine,
  type LedgerPort,
  ledgerBudgets,
  loadRankingRelease,
  type RankingRelease,
} from '../src/index.js';
import { openTestWorld, TENANT } from '../test/support/world.js';

const directory = process.argv[2] ?? mkdtempSync(join(tmpdir(), 'waggle-bench-'));
const WARM_UP = 3_000;
const ROUNDS = 15;
const PER_ROUND = 2_000;

async function main(): Promise<void> {
  const releases = new ReleaseStore({ dir: directory, clock: systemClock, logger: silentLogger });
  if (!existsSync(join(directory, 'active'))) {
    const world = await openTestWorld({ scale: 'serving' });
    const source = await world.stored();
    const sections: Record<string, Record<string, Uint8Array>> = {};
    for (const { section, file } of source.manifest.files) {
      sections[section] ??= {};
      sections[section][file] = source.read(section, file);
    }
    const { id } = await releases.create({ sections, lineage: source.manifest.lineage });
    await releases.activate(id);
    await world.close();
  }
  const started = performance.now();
  const release = await loadRankingRelease(await releases.open((await releases.active())!), {
    logger: silentLogger,
  });
  report('load', [performance.now() - started], 'ms');

  let logged: DecisionRow | undefined;
  const clock = clockStartingAt(release.asOfMs);
  const engine = new Engine({
    current: () => release,
    ledger: richLedger(release),
    decisions: {
      record(row) {
        logged = row;
      },
    },
    clock,
    logger: silentLogger,
    ids: idFactory(() => clock.nowMs()),
  });
  const rank = (request: RankRequestBody): RankResponseBody =>
    engine.rank(request, {
      tenantId: TENANT,
      requestId: `r${counter++}`,
      receivedAtMs: clock.monotonicMs(),
    }) as RankResponseBody;
  let counter = 0;

  const eligible = release.publications.ids
    .map((id) => ({ id, n: rank({ mode: 'offers', publication_id: id, k: 1 }).n_eligible }))
    .sort((a, b) => Math.abs(a.n - 200) - Math.abs(b.n - 200));
  const near200 = eligible.filter((p) => p.n >= 100).slice(0, 20);
  const over1000 = [...eligible].sort((a, b) => b.n - a.n).slice(0, 5);
  console.log(
    JSON.stringify({ near200: near200.map((p) => p.n), largest: over1000.map((p) => p.n) }),
  );

  const cases: Record<string, (i: number) => RankRequestBody> = {
    'offers-200-k10-summary': (i) => ({
      mode: 'offers',
      publication_id: near200[i % 20]!.id,
      k: 10,
      explain: 'summary',
    }),
    'offers-200-k10-none': (i) => ({ mode: 'offers', publication_id: near200[i % 20]!.id, k: 10 }),
    'offers-200-k10-excluding': (i) => ({
      mode: 'offers',
      publication_id: near200[i % 20]!.id,
      k: 10,
      explain: 'summary',
      constraints: {
        bcat: ['gambling'],
        exclude_campaigns: [release.campaigns.ids[i % release.campaigns.n]!],
      },
    }),
    'offers-200-new-minute': (i) => ({
      mode: 'offers',
      publication_id: near200[i % 20]!.id,
      k: 10,
      explain: 'summary',
      context: {
        planned_at: new Date(release.asOfMs + 3_600_000 + (i % 600) * 60_000).toISOString(),
      },
    }),
    'offers-1000-k10-summary': (i) => ({
      mode: 'offers',
      publication_id: over1000[i % 5]!.id,
      k: 10,
      explain: 'summary',
    }),
    // More than are scored at once: what a restriction leaves is chosen again.
    'offers-1000-k10-excluding': (i) => ({
      mode: 'offers',
      publication_id: over1000[i % 5]!.id,
      k: 10,
      explain: 'summary',
      constraints: {
        bcat: ['gambling'],
        exclude_campaigns: [release.campaigns.ids[i % release.campaigns.n]!],
      },
    }),
    'offers-1000-k10-candidates': (i) => ({
      mode: 'offers',
      publication_id: over1000[i % 5]!.id,
      k: 10,
      explain: 'summary',
      constraints: {
        candidates: Array.from(
          { length: 50 },
          (_, c) => release.campaigns.ids[(i + 80 * c) % release.campaigns.n]!,
        ),
      },
    }),
  };
  for (const [name, make] of Object.entries(cases)) {
    if (!name.includes(process.argv[3] ?? '')) continue;
    for (let i = 0; i < WARM_UP; i++) rank(make(i));
    const perRequest: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      // Processor time, so that a busy machine does not count.
      const from = process.cpuUsage();
      for (let i = 0; i < PER_ROUND; i++) rank(make(i));
      const { user, system } = process.cpuUsage(from);
      perRequest.push((user + system) / PER_ROUND);
    }
    report(name, perRequest, 'us');
  }
  console.log(
    `log row: ${logged!.request.length + logged!.items.length + logged!.filtered.length} characters`,
  );
}

function report(name: string, values: number[], unit: string): void {
  const sorted = [...values].sort((a, b) => a - b);
  const median = sorted[sorted.length >> 1]!;
  console.log(
    JSON.stringify({ case: name, unit, min: +sorted[0]!.toFixed(1), median: +median.toFixed(1) }),
  );
}

/** Money for everybody: what is measured is ranking. */
function richLedger(release: RankingRelease): LedgerPort {
  const known = new Set([...ledgerBudgets(release)].map((b) => b.campaignId));
  return {
    version: 1,
    availableMicros: (id) => (known.has(id) ? 1e15 : 0),
    reserve: () => Promise.resolve({ ok: true }),
  };
}

await main();
