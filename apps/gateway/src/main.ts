import { createServer } from 'node:net';
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import {
  type Clock,
  clockStartingAt,
  idFactory,
  type Logger,
  onStopSignal,
  redactConfig,
  systemClock,
  type WaggleError,
} from '@waggle/core';
import { Engine, ledgerBudgets, loadRankingRelease, type RankingRelease } from '@waggle/engine';
import { OnnxRunner } from '@waggle/models';
import { ReleaseStore } from '@waggle/releases';
import { type LocalStoreOptions, openLocalStore, openServerStore, type Store } from '@waggle/store';
import type { FastifyInstance } from 'fastify';
import { collectDefaultMetrics } from 'prom-client';
import { buildApp } from './app.js';
import type { GatewayConfig } from './config.js';
import { DurableAnswers } from './durable-answers.js';
import { gatewayError } from './errors.js';
import { IdempotencyCache } from './idempotency.js';
import { openLiveParts } from './live-parts.js';
import type { ClockSource, ServedRelease } from './ports.js';
import { notReady } from './readiness.js';
import { rehearse } from './rehearsal.js';
import { type LoadedForServing, ReleaseSwitch } from './release-switch.js';
import { servedRelease } from './served-release.js';
import { bindError, listen, type ShutdownStep, shutDown } from './server.js';
import { StoreLink } from './store-link.js';
import { logSummaries } from './summary.js';

export interface StartOptions {
  readonly config: GatewayConfig;
  readonly logger: Logger;
  /** How to start the local store's owner when none runs. Without it, and without a URL, nothing is forwarded. */
  readonly storeOwner?: LocalStoreOptions['startOwner'];
  /** A store that is open already; the caller closes it, after the gateway. */
  readonly store?: Store;
  /** Replaces the configured clock. */
  readonly clock?: Clock;
}

export interface RunningGateway {
  readonly url: string;
  /** The release in service; undefined while there is none. */
  readonly releaseId: string | undefined;
  /** Why none is, and what to do about it: what requests are answered meanwhile. */
  readonly unserved: WaggleError | undefined;
  readonly app: FastifyInstance;
  /** Stops accepting, finishes what was accepted, hands over the logs. Idempotent; false when something was cut. */
  close(): Promise<boolean>;
}

/** Runs that may wait for a release's network: what cannot be answered by then is better answered without it. */
const NETWORK_QUEUE = 64;
/** Rows of several requests that one run of a network holds together. */
const NETWORK_BATCH_ROWS = 2_048;

/** A second start must serve within seconds; this much of it goes to not being slow afterwards. */
const REHEARSAL_MS = 500;

/**
 * Wires the real parts and listens. The gateway starts without a release (not ready until one is activated) and
 * without a store (events wait in the log).
 * @throws WAGGLE_PORT_IN_USE, WAGGLE_BIND_FAILED, WAGGLE_WAL_LOCKED (another gateway on the directory),
 *   WAGGLE_WAL_*, WAGGLE_LEDGER_CORRUPT; then nothing stays open
 */
export async function startGateway(options: StartOptions): Promise<RunningGateway> {
  const { config, logger } = options;
  const dir = resolve(config.dir);
  logger.info({ config: redactConfig(config) }, 'gateway starts');
  // Before anything is opened: a second gateway on one folder should hear about the port first.
  await checkPort(config);

  const releaseStore = new ReleaseStore({ dir: join(dir, 'releases'), clock: systemClock, logger });
  const load = (id: string) => loadForServing(releaseStore, id, logger);
  const first = await firstRelease(releaseStore, load, logger);
  const { clock, source: clockSource } = chooseClock(options, first);
  let tenantId = first?.ranking.tenantId ?? config.tenantId;
  const live = await openLiveParts({
    dir,
    tenantId,
    servedTenantId: () => tenantId,
    clock,
    logger,
    ledgerPeersMs: config.ledgerPeersMs,
  }).catch(async (cause) => {
    await first?.ranking.networks?.close();
    throw cause;
  });
  const retired = new Set<Promise<void>>();
  /** Ends a release's networks once the last decision that holds them has been made. */
  const retire = ({ ranking }: LoadedForServing<RankingRelease>): void => {
    const closed = (ranking.networks?.close() ?? Promise.resolve())
      .catch((err) => logger.warn({ err, release: ranking.id }, 'networks did not close'))
      .finally(() => retired.delete(closed));
    retired.add(closed);
  };
  const steps: ShutdownStep[] = [...live.shutdown];
  let watcher: ReturnType<ReleaseStore['watch']> | undefined;
  try {
    const warnOfClock = (served: ServedRelease): void => {
      const wanted = wantsDataClock(config, served) ? 'data' : 'system';
      if (options.clock !== undefined || wanted === clockSource) return;
      logger.warn(
        { release: served.id, clock: clockSource, wanted },
        'this release is served by the clock that the gateway began with; restart it to change the clock',
      );
    };
    let preloaded = first;
    const releases = new ReleaseSwitch<RankingRelease>({
      load: async (id) => {
        const ready = preloaded?.served.id === id ? preloaded : undefined;
        preloaded = undefined;
        return ready ?? load(id);
      },
      onSwap: ({ ranking, served }) => {
        const before = releases.ranking()?.tenantId;
        if (before !== undefined && before !== ranking.tenantId) {
          // Budgets are kept by campaign: what one tenant's hold would be taken from the other's.
          throw gatewayError('WAGGLE_TENANT_CHANGED', `release ${served.id} is another tenant's`);
        }
        tenantId = ranking.tenantId;
        live.ledger.setBudgets(ledgerBudgets(ranking));
        warnOfClock(served);
        // In this turn the release becomes current; its candidates are prepared from the next one on.
        setImmediate(() => void prepare(ranking));
      },
      onRetire: (loaded) => {
        engine.forget(loaded.ranking);
        retire(loaded);
      },
      clock,
      logger,
    });
    const engine = new Engine({
      current: () => releases.ranking(),
      byId: (id) => releases.byId(id),
      ledger: live.ledger,
      decisions: live.decisions,
      clock,
      logger,
      ids: idFactory(() => clock.nowMs()),
    });
    const preparing = new AbortController();
    const prepare = async (ranking: RankingRelease): Promise<void> => {
      const startedMs = clock.monotonicMs();
      try {
        await engine.prepare(ranking, preparing.signal);
      } catch (err) {
        logger.warn(
          { err, release: ranking.id },
          'candidates are prepared when they are asked for',
        );
        return;
      }
      const duration_ms = Math.round(clock.monotonicMs() - startedMs);
      logger.debug({ release: ranking.id, duration_ms }, 'candidates are prepared');
    };
    if (first !== undefined) await releases.request(first.served.id);
    watcher = releaseStore.watch(
      (id) => void releases.request(id),
      (error) => releases.refuse(error),
    );
    // So that it is known before anybody asks whether, and why, the active one is not served.
    await watcher.looked;
    await releases.settled();
    steps.unshift({
      name: 'close engine',
      async run() {
        preparing.abort();
        engine.close();
        releases.close();
        await Promise.all(retired);
      },
    });

    const answers = new DurableAnswers({
      log: live.answers,
      clock,
      logger,
      ttlMs: config.idempotencyTtlMs,
    });
    const idempotency = new IdempotencyCache({
      clock,
      logger,
      ttlMs: config.idempotencyTtlMs,
      maxBytes: config.idempotencyMaxBytes,
      journal: answers,
    });
    await answers.restoreInto(idempotency);

    let draining = false;
    const app = buildApp({
      engine,
      releases,
      ledger: live.ledgerPort,
      journal: live.journalPort,
      clock,
      clockSource,
      logger,
      config,
      idempotency,
      isDraining: () => draining,
    });
    collectDefaultMetrics({ register: app.gatewayMetrics.registry });
    if (first !== undefined) {
      const { ranking, served } = first;
      const answered = await rehearse({ ranking, served, config, clock, budgetMs: REHEARSAL_MS });
      logger.debug({ answered }, 'rehearsed');
    }
    const url = await listen(app, config).catch(async (cause) => {
      await app.close();
      throw cause;
    });

    const link = linkStore(options, dir, live.forwardTo);
    link?.start();
    if (link !== undefined) steps.push({ name: 'close store', run: () => link.close() });
    steps.push({
      name: 'finish loading',
      async run() {
        await releases.settled();
        await Promise.all(retired);
      },
    });
    const stopSummaries = logSummaries(app.gatewayMetrics, logger, config.summaryIntervalMs);
    logger.info(
      { url, release: releases.current()?.id, clock_ms: clock.nowMs() },
      'gateway listens',
    );

    let closing: Promise<boolean> | undefined;
    return {
      url,
      app,
      get releaseId() {
        return releases.current()?.id;
      },
      get unserved() {
        return releases.current() === undefined ? notReady(releases) : undefined;
      },
      close() {
        closing ??= (async () => {
          draining = true;
          watcher?.close();
          stopSummaries();
          const { drainMs, shutdownTimeoutMs: timeoutMs } = config;
          logger.info({ drain_ms: drainMs }, 'gateway stops');
          const clean = await shutDown(app, steps, { drainMs, timeoutMs, logger });
          logger.info({ clean }, 'gateway stopped');
          return clean;
        })();
        return closing;
      },
    };
  } catch (cause) {
    watcher?.close();
    for (const step of steps) await Promise.resolve(step.run()).catch(() => {});
    await first?.ranking.networks?.close();
    throw cause;
  }
}

/** Closes the gateway when the process is told to stop; who insists ends it at once. Returns the outcome. */
export function untilSignal(gateway: RunningGateway): Promise<boolean> {
  return new Promise((settle, fail) => {
    onStopSignal(() => void gateway.close().then(settle, fail));
  });
}

async function loadForServing(
  store: ReleaseStore,
  id: string,
  logger: Logger,
): Promise<LoadedForServing<RankingRelease>> {
  const release = await store.open(id);
  const ranking = await loadRankingRelease(release, {
    logger,
    // One thread for a moment: requests are answered meanwhile, and nothing of it is needed afterwards.
    runner: () => new OnnxRunner({ workers: 1, threads: 1 }),
    // One worker, so that its session is warm for whoever comes first; it computes on the cores that requests leave.
    networkRunner: () =>
      new OnnxRunner({
        workers: 1,
        threads: Math.max(1, availableParallelism() - 1),
        maxQueue: NETWORK_QUEUE,
        maxBatchRows: NETWORK_BATCH_ROWS,
      }),
  });
  return { served: servedRelease(release.manifest, ranking), ranking };
}

/** The active release when it loads; the clock and the ledger's tenant come from it. */
async function firstRelease(
  store: ReleaseStore,
  load: (id: string) => Promise<LoadedForServing<RankingRelease>>,
  logger: Logger,
): Promise<LoadedForServing<RankingRelease> | undefined> {
  try {
    const id = await store.active();
    if (id !== undefined) return await load(id);
    logger.warn(
      { dir: store.dir },
      'no release is active; run `waggle run` or activate one with `waggle release`',
    );
  } catch {
    // The watcher asks for it again and reports why it is refused, in the log, the metrics and /readyz.
  }
  return undefined;
}

function chooseClock(
  { config, logger, clock }: StartOptions,
  first: LoadedForServing<RankingRelease> | undefined,
): { readonly clock: Clock; readonly source: ClockSource } {
  const system = { clock: clock ?? systemClock, source: 'system' } as const;
  if (clock !== undefined || first === undefined || !wantsDataClock(config, first.served)) {
    return system;
  }
  const startMs = first.ranking.asOfMs;
  logger.warn(
    { start: new Date(startMs).toISOString() },
    'the clock starts at the end of the release’s data, so events of today are refused as future; for the system’s time say --clock system',
  );
  return { clock: clockStartingAt(startMs), source: 'data' };
}

function wantsDataClock(config: GatewayConfig, served: ServedRelease): boolean {
  const { lineage } = served.summary() as { lineage?: { sample?: unknown } };
  return config.clock === 'data' || (config.clock === 'auto' && lineage?.sample === true);
}

function linkStore(
  { config, logger, store, storeOwner }: StartOptions,
  dir: string,
  forwardTo: (store: Store, shared: boolean) => void,
): StoreLink | undefined {
  if (store !== undefined) {
    forwardTo(store, true);
    return undefined;
  }
  const { clickhouseUrl, clickhouseUser, clickhousePassword, clickhouseDatabase } = config;
  if (clickhouseUrl !== undefined) {
    const open = () =>
      openServerStore({
        url: clickhouseUrl,
        ...(clickhouseUser === undefined ? {} : { username: clickhouseUser }),
        ...(clickhousePassword === undefined ? {} : { password: clickhousePassword }),
        ...(clickhouseDatabase === undefined ? {} : { database: clickhouseDatabase }),
        logger,
      });
    return new StoreLink({ open, onOpen: (opened) => forwardTo(opened, true), logger });
  }
  if (storeOwner === undefined) return undefined;
  const open = () => openLocalStore({ dataDir: dir, logger, startOwner: storeOwner });
  // In the folder that this gateway has for itself.
  return new StoreLink({ open, onOpen: (opened) => forwardTo(opened, false), logger });
}

/** @throws WAGGLE_PORT_IN_USE, WAGGLE_BIND_FAILED */
function checkPort(config: GatewayConfig): Promise<void> {
  return new Promise((settle, fail) => {
    const probe = createServer();
    probe.once('error', (cause) => fail(bindError(cause, config)));
    probe.listen({ host: config.host, port: config.port, exclusive: true }, () => {
      probe.close(() => settle());
    });
  });
}
