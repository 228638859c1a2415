import { execFileSync } from 'node:child_process';
import {
  constants,
  cp,
  type FileHandle,
  mkdtemp,
  open,
  readFile,
  rename,
  rm,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { clockStartingAt, type Logger, silentLogger, systemClock } from '@waggle/core';
import { RankResponse, type RankResponseBody, SCORE_TERMS } from '@waggle/core/contract';
import { ReleaseStore } from '@waggle/releases';
import { BudgetLedger } from '@waggle/store/ledger';
import { Compile } from 'typebox/compile';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { type GatewayConfig, gatewayConfig } from '../src/config.js';
import { type RunningGateway, startGateway } from '../src/main.js';
import { isErrorShape } from './error-shape.js';
import { PATIENCE } from './patience.js';
import { type SampleNetwork, sampleNetwork } from './sample-network.js';

const contract = Compile(RankResponse);
let network: SampleNetwork;
const running: RunningGateway[] = [];

beforeAll(async () => {
  network = await sampleNetwork();
});
afterEach(async () => {
  for (const gateway of running.splice(0)) await gateway.close();
  await network.releases.activate(network.releaseIds[0]);
});
afterAll(() => network.close());

/** A gateway on the sample network: real engine, releases, ledger and logs, forwarding to the network's store. */
async function start(
  config: Partial<GatewayConfig> = {},
  logger: Logger = silentLogger,
): Promise<RunningGateway> {
  const gateway = await startGateway({
    config: gatewayConfig({ dir: network.dir, port: 0, ...config }),
    logger,
    store: network.store,
  });
  running.push(gateway);
  return gateway;
}

async function post(
  gateway: RunningGateway,
  path: string,
  body: unknown,
  headers: Record<string, string> = {},
) {
  const response = await fetch(`${gateway.url}${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(body),
  });
  const text = await response.text();
  return { status: response.status, text, headers: response.headers, json: JSON.parse(text) };
}

async function offers(gateway: RunningGateway, fields: object = {}): Promise<RankResponseBody> {
  for (const publication_id of network.ids.publications) {
    const { status, json } = await post(gateway, '/v1/rank', {
      mode: 'offers',
      publication_id,
      deadline_ms: 10_000,
      explain: 'summary',
      ...fields,
    });
    expect(status).toBe(200);
    if (json.items.length > 0) return json;
  }
  throw new Error('no publication of the sample network has an eligible campaign');
}

/** Whether any publication is offered this campaign. */
function offersCampaign(gateway: RunningGateway, campaignId: string): Promise<boolean> {
  return offers(gateway, { constraints: { candidates: [campaignId] } }).then(
    () => true,
    () => false,
  );
}

/** A report of a placement that a publisher accepted on demand; its ids are missing. */
function placement(
  type: string,
  ad: { campaign_id: string; creative_id: string; reserved_micros: number },
) {
  return {
    type,
    ts: new Date(network.asOfMs).toISOString(),
    publication_id: network.ids.publications[0],
    ...ad,
    position: 1,
    n_ads: 1,
    mode: 'on_demand',
    pricing: 'cpc',
    price_micros: 1,
    delivered: 0,
  };
}

describe('a gateway on a sample network', () => {
  test('ranks within the contract: terms sum to the score, the release is named', async () => {
    const gateway = await start();
    const answer = await offers(gateway);
    expect(contract.Check(answer)).toBe(true);
    expect(answer.versions.release).toBe(network.releaseIds[0]);
    expect(answer.degraded).toContain('prior_only_model');
    for (const item of answer.items) {
      const sum = SCORE_TERMS.reduce((total, term) => total + item.explain!.terms[term], 0);
      expect(sum).toBe(item.score);
    }
    expect(gateway.releaseId).toBe(network.releaseIds[0]);
  });

  test('answers every refusal of the engine with its own status', async () => {
    const gateway = await start();
    const publication_id = network.ids.publications[0]!;
    const cases: [object, number, string][] = [
      [{ mode: 'offers', publication_id: 'pub_nobody' }, 422, 'WAGGLE_UNKNOWN_PUBLICATION'],
      [
        { mode: 'offers', publication_id, constraints: { candidates: ['cmp_nobody'] } },
        422,
        'WAGGLE_UNKNOWN_CANDIDATES',
      ],
      [
        { mode: 'offers', publication_id, pin: { release: 'rel_nobody' } },
        409,
        'WAGGLE_PIN_UNKNOWN',
      ],
      [{ mode: 'fill', publication_id }, 422, 'WAGGLE_RANK_INVALID'],
    ];
    for (const [body, status, code] of cases) {
      const answer = await post(gateway, '/v1/rank', { deadline_ms: 10_000, ...body });
      expect([answer.status, answer.json.error.code]).toEqual([status, code]);
      expect(isErrorShape(answer.json)).toBe(true);
    }
  });

  test('never passes a budget, however many fills run at once, and gives cancelled holds back', async () => {
    const gateway = await start();
    const fill = async (i: number) => {
      const publication_id = network.ids.publications[i % network.ids.publications.length]!;
      return post(gateway, '/v1/rank', {
        mode: 'fill',
        publication_id,
        deadline_ms: 10_000,
        slots: [{ id: `slot_${i}`, n_forecast: 200_000 }],
      });
    };
    const answers = await Promise.all(Array.from({ length: 500 }, (_, i) => fill(i)));
    expect(new Set(answers.map((a) => a.status))).toEqual(new Set([200]));
    const items = answers.flatMap((a) => (a.json as RankResponseBody).items);
    expect(items.length).toBeGreaterThan(0);
    const held = new Map<string, number>();
    for (const item of items)
      held.set(item.campaign_id, (held.get(item.campaign_id) ?? 0) + item.reserved_micros!);
    const budgets = await network.store.query<{ campaign_id: string; budget: number }>(
      'SELECT campaign_id, argMax(budget_micros, version) AS budget FROM campaigns GROUP BY campaign_id',
    );
    for (const { campaign_id, budget } of budgets) {
      expect(held.get(campaign_id) ?? 0).toBeLessThanOrEqual(Number(budget));
    }

    const placement = items[0]!;
    const cancelled = {
      type: 'placement.cancelled',
      event_id: 'evt_cancel_1',
      ts: new Date(network.asOfMs).toISOString(),
      placement_id: placement.placement_id,
      publication_id: network.ids.publications[0],
      campaign_id: placement.campaign_id,
      creative_id: placement.creative_id,
      position: 1,
      n_ads: 1,
      mode: 'programmatic',
      pricing: placement.pricing,
      price_micros: placement.price_micros,
      reserved_micros: placement.reserved_micros,
      delivered: 0,
    };
    for (const expected of [
      { accepted: 1, duplicates: 0 },
      { accepted: 0, duplicates: 1 },
    ]) {
      const answer = await post(gateway, '/v1/events', { events: [cancelled] });
      expect([answer.status, answer.json]).toEqual([202, expected]);
    }
    await gateway.close();
    const [row] = await network.store.query<{ n: number; micros: number }>(
      `SELECT count() AS n, sum(amount_micros) AS micros FROM ledger_entries FINAL WHERE type = 'ledger.release' AND reference_id = {id:String}`,
      { params: { id: placement.placement_id } },
    );
    expect([Number(row!.n), Number(row!.micros)]).toEqual([1, placement.reserved_micros]);
  });

  test('what publishers accepted is spoken for before 202, once, and after a restart', async () => {
    let gateway = await start();
    const { campaign_id, creative_id } = (await offers(gateway)).items[0]!;
    const report = (type: string, i: number, reserved_micros: number) => ({
      ...placement(type, { campaign_id, creative_id, reserved_micros }),
      event_id: `evt_accepted_${type}_${i}`,
      placement_id: `plc_accepted_${i}`,
    });
    const isOffered = () => offersCampaign(gateway, campaign_id);
    const say = async (...events: object[]) => {
      const { status, json } = await post(gateway, '/v1/events', { events });
      expect([status, json.accepted + json.duplicates]).toEqual([202, events.length]);
    };
    expect(await isOffered()).toBe(true);
    const reserved = Array.from({ length: 50 }, (_, i) => report('placement.reserved', i, 9e12));
    await say(...reserved);
    expect(await isOffered()).toBe(false);
    await gateway.close();
    gateway = await start();
    expect(await isOffered()).toBe(false);
    await say(...reserved);
    // One of them ends before it is told of.
    await say(report('placement.no_show', 50, 9e12), report('placement.reserved', 50, 9e12));
    await say(...reserved.slice(1).map((_, i) => report('placement.cancelled', i + 1, 9e12)));
    expect(await isOffered()).toBe(false);
    const settled = {
      type: 'placement.settled',
      event_id: 'evt_settled',
      ts: new Date(network.asOfMs).toISOString(),
      placement_id: 'plc_accepted_0',
      campaign_id,
      charged_micros: 1_000,
    };
    await say(settled, { ...settled, event_id: 'evt_settled_again' });
    expect(await isOffered()).toBe(true);
    await gateway.close();
    const [row] = await network.store.query<{ n: number; micros: number }>(
      `SELECT count() AS n, sumIf(amount_micros, type = 'ledger.charge') AS micros
       FROM ledger_entries FINAL WHERE startsWith(reference_id, 'plc_accepted_')`,
    );
    expect([Number(row!.n), Number(row!.micros)]).toEqual([101, 1_000]);
    const told = await network.store.query<{ n: number }>(
      "SELECT count() AS n FROM settlements FINAL WHERE placement_id = 'plc_accepted_0'",
    );
    expect(Number(told[0]!.n)).toBe(2);
  });

  test('says where the money of campaigns is', async () => {
    const gateway = await start();
    const budget = async (campaignId: string) => {
      const answer = await fetch(`${gateway.url}/v1/budgets?campaign_id=${campaignId}`);
      expect(answer.status).toBe(200);
      return ((await answer.json()) as { budgets: Record<string, number>[] }).budgets[0]!;
    };
    const { campaign_id, creative_id } = (await offers(gateway)).items[0]!;
    const before = await budget(campaign_id);
    const { budget_micros, held_micros, spent_micros, outside_micros, today_micros } = before;
    const uncommitted = budget_micros! - held_micros! - spent_micros! - outside_micros!;
    const today = before['daily_budget_micros']! - today_micros!;
    expect(before['available_micros']).toBe(
      before['daily_budget_micros'] === 0 ? uncommitted : Math.min(uncommitted, today),
    );
    const say = async (event: object) =>
      expect((await post(gateway, '/v1/events', { events: [event] })).status).toBe(202);
    await say({
      ...placement('placement.reserved', { campaign_id, creative_id, reserved_micros: 5_000 }),
      event_id: 'evt_budget_reserved',
      placement_id: 'plc_budget',
    });
    const moved = { ...before, available_micros: before['available_micros']! - 5_000 };
    const held = held_micros! + 5_000;
    const used = today_micros! + 5_000;
    expect(await budget(campaign_id)).toEqual({ ...moved, held_micros: held, today_micros: used });
    await say({
      type: 'placement.settled',
      event_id: 'evt_budget_settled',
      ts: new Date(network.asOfMs).toISOString(),
      placement_id: 'plc_budget',
      campaign_id,
      charged_micros: 3_000,
    });
    expect(await budget(campaign_id)).toEqual({
      ...before,
      available_micros: before['available_micros']! - 3_000,
      spent_micros: spent_micros! + 3_000,
      today_micros: today_micros! + 3_000,
    });
  });

  test('sees what another gateway on the store commits, and either may be told how it ended', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'waggle-second-gateway-'));
    try {
      await cp(join(network.dir, 'releases'), join(dir, 'releases'), { recursive: true });
      const first = await start({ ledgerPeersMs: 20 });
      const second = await start({ dir, ledgerPeersMs: 20 });
      const { campaign_id, creative_id } = (await offers(first)).items[0]!;
      const reserved = {
        ...placement('placement.reserved', { campaign_id, creative_id, reserved_micros: 9e14 }),
        event_id: 'evt_shared_reserved',
        placement_id: 'plc_shared',
      };
      const isOffered = (gateway: RunningGateway) => offersCampaign(gateway, campaign_id);
      const say = async (gateway: RunningGateway, event: object) =>
        expect((await post(gateway, '/v1/events', { events: [event] })).status).toBe(202);
      const until = (gateway: RunningGateway, offered: boolean) =>
        vi.waitUntil(async () => (await isOffered(gateway)) === offered, PATIENCE);
      expect(await isOffered(second)).toBe(true);
      await say(first, reserved);
      await until(second, false);
      const { budgets } = (await (
        await fetch(`${second.url}/v1/budgets?campaign_id=${campaign_id}`)
      ).json()) as { budgets: { available_micros: number; outside_micros: number }[] };
      expect(budgets[0]!.outside_micros).toBeGreaterThanOrEqual(9e14);
      expect(budgets[0]!.available_micros).toBe(0);
      const metrics = await (await fetch(`${second.url}/metrics`)).text();
      expect(metrics).toMatch(/^waggle_ledger_peers 1$/m);
      await say(second, {
        type: 'placement.settled',
        event_id: 'evt_shared_settled',
        ts: new Date(network.asOfMs).toISOString(),
        placement_id: 'plc_shared',
        campaign_id,
        charged_micros: 1_000,
      });
      await until(first, true);
      await until(second, true);
      await first.close();
      await second.close();
      const entries = await network.store.query(
        `SELECT type, amount_micros FROM ledger_entries FINAL WHERE reference_id = 'plc_shared' ORDER BY type, amount_micros`,
      );
      expect(entries).toEqual([
        { type: 'ledger.charge', amount_micros: 1_000 },
        { type: 'ledger.release', amount_micros: 9e14 },
        { type: 'ledger.reserve', amount_micros: 1_000 },
        { type: 'ledger.reserve', amount_micros: 9e14 },
      ]);
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
  });

  test('carries events and decisions to the store, each once', async () => {
    const gateway = await start();
    const answer = await offers(gateway, { request_id: 'req_of_this_test' });
    const item = answer.items[0]!;
    const events = Array.from({ length: 20 }, (_, i) => ({
      type: 'click',
      event_id: `evt_gateway_${i % 10}`,
      ts: new Date(network.asOfMs).toISOString(),
      placement_id: 'plc_1',
      post_id: 'pst_1',
      publication_id: network.ids.publications[0],
      campaign_id: item.campaign_id,
      creative_id: item.creative_id,
      subscriber_key: `sub_${i % 10}`,
      device: 'mobile',
      ua_class: 'browser',
      ip_prefix: '10.0.0.0/24',
      ms_since_delivery: 1_000,
      links_within_10s: 1,
      honeypot: false,
    }));
    expect((await post(gateway, '/v1/events', { events })).json).toEqual({
      accepted: 10,
      duplicates: 10,
    });
    // Another type may have the same id, in one request with the first and after it.
    const { event_id, ts, publication_id, campaign_id, creative_id } = events[0]!;
    const offer = {
      ...{ type: 'offer.shown', event_id, ts, publication_id, campaign_id, creative_id },
      ...{ offer_id: 'ofr_1', pricing: 'cpc', price_micros: 1, est_payout_micros: 1 },
      ...{ menu_size: 1, rank: 1, propensity: 1, expires_at: ts },
    };
    expect((await post(gateway, '/v1/events', { events: [events[0], offer, offer] })).json).toEqual(
      { accepted: 1, duplicates: 2 },
    );
    const other = { ...events[0], device: 'desktop' };
    const fresh = { ...events[0], event_id: 'evt_gateway_fresh' };
    const conflict = await post(gateway, '/v1/events', { events: [fresh, other] });
    expect([conflict.status, conflict.json.error.code]).toEqual([409, 'WAGGLE_EVENT_CONFLICT']);
    expect(conflict.json.error.details).toEqual({ index: 1, event_id: 'evt_gateway_0' });
    const metrics = await (await fetch(`${gateway.url}/metrics`)).text();
    expect(metrics).toMatch(/^waggle_events_total\{outcome="conflict"\} 1$/m);
    await gateway.close();
    const count = async (sql: string) =>
      Number((await network.store.query<{ n: number }>(sql))[0]!.n);
    expect(
      await count(
        `SELECT count() AS n FROM clicks FINAL WHERE startsWith(event_id, 'evt_gateway_')`,
      ),
    ).toBe(10);
    expect(
      await count(`SELECT count() AS n FROM decisions FINAL WHERE request_id = 'req_of_this_test'`),
    ).toBe(1);
  });

  test('rehearses before it listens, and leaves no trace of it', async () => {
    const count = async () =>
      Number(
        (await network.store.query<{ n: number }>('SELECT count() AS n FROM decisions'))[0]!.n,
      );
    const before = await count();
    const gateway = await start();
    const metrics = await (await fetch(`${gateway.url}/metrics`)).text();
    expect(metrics).toMatch(/^waggle_events_total\{outcome="accepted"\} 0$/m);
    expect(metrics).not.toMatch(/^waggle_http_requests_total\{.*rank.*\} [1-9]/m);
    await gateway.close();
    expect(await count()).toBe(before);
  });

  test('gives a fill with an Idempotency-Key the same answer after a restart', async () => {
    const body = {
      mode: 'fill',
      publication_id: network.ids.publications[1]!,
      slots: [{ id: 'slot_1', n_forecast: 1_000 }],
      deadline_ms: 10_000,
    };
    const key = { 'idempotency-key': 'fill-across-restart' };
    const first = await start();
    const before = await post(first, '/v1/rank', body, key);
    expect(before.status).toBe(200);
    await first.close();
    const second = await start();
    const after = await post(second, '/v1/rank', body, key);
    expect(after.text).toBe(before.text);
    expect(after.headers.get('idempotent-replayed')).toBe('true');
    expect((await post(second, '/v1/rank', { ...body, k: 1 }, key)).status).toBe(409);
  });

  test('decides a fill anew that found the ledger silent, unless it holds money', async () => {
    const gateway = await start();
    const real = BudgetLedger.prototype.reserve;
    let failing = 0;
    const reserve = vi.spyOn(BudgetLedger.prototype, 'reserve').mockImplementation(function (
      this: BudgetLedger,
      request,
    ) {
      return --failing === 0
        ? Promise.reject(new Error('no space left'))
        : real.call(this, request);
    });
    const fill = async (key: string, failingReserve = 0) => {
      failing = failingReserve;
      const { text, headers, json } = await post(
        gateway,
        '/v1/rank',
        {
          mode: 'fill',
          publication_id: network.ids.publications[0],
          deadline_ms: 10_000,
          slots: [{ id: 'slot_1' }, { id: 'slot_2' }],
        },
        { 'idempotency-key': key },
      );
      const { items, degraded } = json as RankResponseBody;
      return { text, n: items.length, degraded, replayed: headers.get('idempotent-replayed') };
    };
    try {
      const empty = await fill('empty', 1);
      expect([empty.n, empty.degraded.includes('ledger_unavailable')]).toEqual([0, true]);
      const again = await fill('empty');
      expect([again.n, again.replayed]).toEqual([2, null]);
      expect((await fill('empty')).text).toBe(again.text);

      const half = await fill('half', 2);
      expect([half.n, half.degraded.includes('ledger_unavailable')]).toEqual([1, true]);
      expect((await fill('half')).text).toBe(half.text);
    } finally {
      reserve.mockRestore();
    }
  });

  test('swaps and rolls back releases without a failed request', async () => {
    const gateway = await start();
    let busy = true;
    const seen = new Set<string>();
    const clients = Array.from({ length: 4 }, async () => {
      while (busy) seen.add((await offers(gateway)).versions.release);
    });
    for (let swap = 0; swap < 20; swap++) {
      const wanted = network.releaseIds[(swap + 1) % 2]!;
      if (swap % 2 === 1) await network.releases.rollback();
      else await network.releases.activate(wanted);
      await vi.waitUntil(() => gateway.releaseId === wanted, { ...PATIENCE, interval: 2 });
    }
    busy = false;
    await Promise.all(clients);
    expect([...seen].sort()).toEqual([...network.releaseIds].sort());
    const metrics = await (await fetch(`${gateway.url}/metrics`)).text();
    expect(metrics).toMatch(/^waggle_release_swaps_total 21$/m);
    expect(metrics).toMatch(/^process_cpu_seconds_total /m);
  });

  test('keeps serving when the next release is damaged, and says so', async () => {
    const gateway = await start();
    const { releases, releaseIds, dir } = network;
    const file = join(dir, 'releases', releaseIds[1], 'models', 'pctr.json');
    const intact = await readFile(file);
    await releases.activate(releaseIds[1]);
    await vi.waitUntil(() => gateway.releaseId === releaseIds[1], PATIENCE);
    await gateway.close();
    await releases.rollback();

    const again = await start();
    // Activation checks a release; what rots afterwards is found when it is loaded.
    await writeFile(file, intact.subarray(0, 100));
    await writeFile(join(dir, 'releases', 'active'), `${releaseIds[1]}\n`);
    await vi.waitUntil(
      async () =>
        ((await (await fetch(`${again.url}/readyz`)).json()) as { checks: { candidate?: unknown } })
          .checks.candidate !== undefined,
      PATIENCE,
    );
    expect((await offers(again)).versions.release).toBe(releaseIds[0]);
    await writeFile(file, intact);
  });

  test('a second gateway on the folder, or on the port, is refused with a remedy', async () => {
    const gateway = await start();
    await expect(start()).rejects.toMatchObject({
      code: 'WAGGLE_WAL_LOCKED',
      remedy: expect.any(String),
    });
    await expect(start({ port: Number(new URL(gateway.url).port) })).rejects.toMatchObject({
      code: 'WAGGLE_PORT_IN_USE',
    });
    expect((await fetch(`${gateway.url}/readyz`)).status).toBe(200);
  });

  test('is not ready while the event log cannot be written, and is again by itself', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'waggle-refused-'));
    await cp(join(network.dir, 'releases'), join(dir, 'releases'), { recursive: true });
    const gateway = await start({ dir });
    const folder = join(dir, 'gateway', 'events');
    let posted = 0;
    const told = async () => {
      const { status, json } = await post(gateway, '/v1/events', {
        events: [
          {
            ...{ type: 'placement.settled', event_id: `evt_${posted++}` },
            ...{ ts: new Date(network.asOfMs).toISOString(), placement_id: `plc_${posted}` },
            ...{ campaign_id: network.ids.campaigns[0], charged_micros: 0 },
          },
        ],
      });
      const ready = await fetch(`${gateway.url}/readyz`);
      const { checks } = (await ready.json()) as { checks: Record<string, { ok: boolean }> };
      return [status, json.error?.code, ready.status, checks['events']?.ok, checks['ledger']?.ok];
    };
    const well = [202, undefined, 200, true, true];
    expect(await told()).toEqual(well);
    await rename(folder, `${folder}.away`);
    // The file stays open, but within half of the time after which the lock would be another's, nobody knows whose it is.
    await vi.waitUntil(async () => (await told())[0] !== 202, { ...PATIENCE, interval: 200 });
    expect(await told()).toEqual([503, 'WAGGLE_WAL_IO', 503, false, true]);
    await offers(gateway);
    await rename(`${folder}.away`, folder);
    await vi.waitUntil(async () => (await fetch(`${gateway.url}/readyz`)).status === 200, PATIENCE);
    expect(await told()).toEqual(well);
    await gateway.close();
    await rm(dir, { recursive: true, force: true });
  });

  test('does not wait long for a release that is being loaded when it stops', async () => {
    const gateway = await start({ shutdownTimeoutMs: 300 });
    const [, id] = network.releaseIds;
    const path = join(network.dir, 'releases', id, 'models', 'pctr.json');
    const intact = await readFile(path);
    // A disk that does not answer: a pipe is read when somebody has written.
    await rm(path);
    execFileSync('mkfifo', [path]);
    let writer: FileHandle | undefined;
    try {
      await writeFile(join(network.dir, 'releases', 'active'), `${id}\n`);
      await vi.waitUntil(async () => {
        // Opens once there is a reader.
        writer = await open(path, constants.O_WRONLY | constants.O_NONBLOCK).catch(() => undefined);
        return writer !== undefined;
      }, PATIENCE);
      const startedMs = performance.now();
      expect(await gateway.close()).toBe(false);
      expect(performance.now() - startedMs).toBeLessThan(5_000);
    } finally {
      await writer?.close();
      await rm(path);
      await writeFile(path, intact);
    }
  });

  test('a deadline that passes while a request waits is answered, not ranked', async () => {
    const gateway = await start();
    const publication_id = network.ids.publications[0]!;
    const answer = await post(gateway, '/v1/rank', {
      mode: 'offers',
      publication_id,
      deadline_ms: 1,
    });
    // One millisecond may or may not be enough; nothing else may happen.
    if (answer.status !== 200) {
      expect([answer.status, answer.json.error.code]).toEqual([504, 'WAGGLE_DEADLINE_EXCEEDED']);
    }
  });
});

test('entries of the ledger are of the release’s tenant, also when the gateway began without a release', async () => {
  const { mkdtemp, cp } = await import('node:fs/promises');
  const dir = await mkdtemp(join(network.dir, 'tenants-'));
  const key = 'a-key-of-the-sample';
  const gateway = await startGateway({
    config: gatewayConfig({
      ...{ dir, port: 0, tenantId: 'ten_other' },
      apiKeys: `${key}:ten_sample`,
    }),
    clock: clockStartingAt(network.asOfMs),
    ...{ logger: silentLogger, store: network.store },
  });
  running.push(gateway);
  await cp(join(network.dir, 'releases'), join(dir, 'releases'), { recursive: true });
  await vi.waitUntil(() => gateway.releaseId !== undefined, PATIENCE);
  let decision: RankResponseBody | undefined;
  for (const publication_id of network.ids.publications) {
    const { json } = await post(
      gateway,
      '/v1/rank',
      {
        ...{ mode: 'fill', publication_id, deadline_ms: 10_000 },
        slots: [{ id: 'slot_1', n_forecast: 1_000 }],
      },
      { authorization: `Bearer ${key}` },
    );
    decision = json as RankResponseBody;
    if (decision.items.length > 0) break;
  }
  expect(decision!.items).toHaveLength(1);

  // Another tenant's release waits for a restart, and this one goes on.
  const other = await network.ofTenant('ten_other');
  await cp(join(network.dir, 'releases', other), join(dir, 'releases', other), { recursive: true });
  const own = { dir: join(dir, 'releases'), clock: systemClock, logger: silentLogger };
  await new ReleaseStore(own).activate(other);
  const headers = { authorization: `Bearer ${key}` };
  const release = async () =>
    (await (await fetch(`${gateway.url}/v1/release`, { headers })).json()) as {
      release: string;
      rejected?: { release: string; code: string; remedy: string };
    };
  await vi.waitUntil(async () => (await release()).rejected !== undefined, PATIENCE);
  expect(await release()).toMatchObject({
    release: network.releaseIds[0],
    rejected: {
      ...{ release: other, code: 'WAGGLE_TENANT_CHANGED' },
      remedy: expect.stringContaining('restart'),
    },
  });
  await gateway.close();
  const tenants = (table: string) =>
    network.store.query<{ tenant_id: string }>(
      `SELECT DISTINCT tenant_id FROM ${table} WHERE decision_id = {id:String}`,
      { params: { id: decision!.decision_id } },
    );
  expect(await tenants('decisions')).toEqual([{ tenant_id: 'ten_sample' }]);
  expect(await tenants('ledger_entries')).toEqual([{ tenant_id: 'ten_sample' }]);
});

test('a gateway without a release is alive, not ready, and serves the first one that is activated', async () => {
  const { mkdtemp, rm, cp } = await import('node:fs/promises');
  const dir = await mkdtemp(join(network.dir, 'fresh-'));
  const warn = vi.fn();
  const gateway = await start({ dir, clock: 'data' }, { ...silentLogger, warn });
  expect(gateway.releaseId).toBeUndefined();
  expect((await fetch(`${gateway.url}/healthz`)).status).toBe(200);
  expect((await fetch(`${gateway.url}/readyz`)).status).toBe(503);
  expect(
    (await post(gateway, '/v1/rank', { mode: 'offers', publication_id: 'pub_1' })).status,
  ).toBe(503);
  await cp(join(network.dir, 'releases'), join(dir, 'releases'), { recursive: true });
  await vi.waitUntil(() => gateway.releaseId !== undefined, PATIENCE);
  const ready = await fetch(`${gateway.url}/readyz`);
  expect([ready.status, await ready.json()]).toMatchObject([200, { clock: 'system' }]);
  expect(warn).toHaveBeenCalledWith(
    expect.objectContaining({ clock: 'system', wanted: 'data' }),
    expect.stringContaining('restart'),
  );
  await gateway.close();
  running.length = 0;
  await rm(dir, { recursive: true, force: true });
});
