import { join } from 'node:path';
import type { Clock, Logger } from '@waggle/core';
import type { Store } from '@waggle/store';
import { BudgetLedger, DecisionLog, EventJournal, LedgerPeers } from '@waggle/store/ledger';
import { WriteAheadLog } from '@waggle/store/wal';
import type {
  ForwarderStatus,
  JournalPort,
  LedgerPort,
  LogStatus,
  PlacementReport,
} from './ports.js';
import type { ShutdownStep } from './server.js';

/** Answers are small and kept for a day: short segments let them go soon after. */
const ANSWER_SEGMENT_BYTES = 4 << 20;
/** Time to hand the store what is left at shutdown; the rest waits in the log for the next start. */
const DRAIN_MS = 3_000;

/** Everything the gateway keeps on disk, each part in a log of its own under `<dir>/gateway`. */
export interface LiveParts {
  readonly ledger: BudgetLedger;
  readonly decisions: DecisionLog;
  readonly answers: WriteAheadLog;
  readonly ledgerPort: LedgerPort;
  readonly journalPort: JournalPort;
  /**
   * Begins forwarding to the store.
   * @param shared other gateways may use it, and are told of this one's money and asked for theirs
   */
  forwardTo(store: Store, shared: boolean): void;
  /** In the order in which they must run. */
  readonly shutdown: readonly ShutdownStep[];
}

/**
 * Opens the logs and rebuilds the ledger. What was opened is closed again when a later part does not open.
 * @throws WAGGLE_WAL_LOCKED when another gateway runs on the directory; WAGGLE_WAL_*, WAGGLE_LEDGER_CORRUPT
 */
export async function openLiveParts(o: {
  dir: string;
  tenantId: string;
  clock: Clock;
  logger: Logger;
  /** Tenant of what is served by now. */
  servedTenantId: () => string;
  /** Pause between two exchanges with other gateways' ledgers; 0 = none. */
  ledgerPeersMs: number;
}): Promise<LiveParts> {
  const { clock, logger } = o;
  const wals: WriteAheadLog[] = [];
  const openWal = async (name: string, segmentBytes?: number): Promise<WriteAheadLog> => {
    const wal = await WriteAheadLog.open({
      dir: join(o.dir, 'gateway', name),
      clock,
      logger,
      ...(segmentBytes === undefined ? {} : { segmentBytes }),
    });
    wals.push(wal);
    return wal;
  };
  const closeWals = () => Promise.all(wals.map((wal) => wal.close()));
  try {
    const ledgerWal = await openWal('ledger');
    const decisionWal = await openWal('decisions');
    const ledger = await BudgetLedger.open({
      wal: ledgerWal,
      clock,
      logger,
      tenantId: o.tenantId,
      decisionSequence: () => decisionWal.durableSequence,
    });
    const eventWal = await openWal('events');
    const journal = await EventJournal.open({ wal: eventWal, clock, logger });
    const decisions = await DecisionLog.open({ wal: decisionWal, clock, logger });
    await ledger.releaseOrphans(decisionWal, () => decisions.recordedFills());
    const answers = await openWal('answers', ANSWER_SEGMENT_BYTES);
    const peers = new LedgerPeers({
      ledger,
      clock,
      logger,
      tenantId: o.servedTenantId,
      intervalMs: o.ledgerPeersMs,
    });
    let forwarding = false;
    return {
      ledger,
      decisions,
      answers,
      ledgerPort: {
        peers: () => peers.status(),
        account: (campaignId, nowMs) => {
          const balances = ledger.balances(campaignId);
          if (balances === undefined) return undefined;
          return {
            ...balances,
            availableMicros: ledger.availableMicros(campaignId, nowMs),
            todayMicros: ledger.usedOnDayMicros(campaignId, nowMs),
          };
        },
        follow: (reports) => followPlacements(ledger, reports, logger),
      },
      journalPort: {
        append: (events) => journal.append(events),
        forwarder: () =>
          combined(forwarding, decisions.dropped, [
            journal.status(),
            decisions.status(),
            ledger.status(),
          ]),
        logs: () => ({
          ledger: logStatus(ledgerWal),
          events: logStatus(eventWal),
          decisions: logStatus(decisionWal),
          answers: logStatus(answers),
        }),
      },
      forwardTo(store, shared) {
        forwarding = true;
        journal.start(store);
        decisions.start(store);
        ledger.start(store);
        if (shared && o.ledgerPeersMs > 0) peers.start(store);
      },
      shutdown: [
        {
          name: 'drain logs',
          run: () => {
            const closed = ledger.close();
            return Promise.all([
              journal.stop(DRAIN_MS),
              decisions.stop(DRAIN_MS),
              peers.stop(closed),
              closed,
            ]);
          },
        },
        { name: 'close logs', run: closeWals },
      ],
    };
  } catch (cause) {
    await closeWals();
    throw cause;
  }
}

function logStatus(wal: WriteAheadLog): LogStatus {
  const { failure } = wal.status();
  return failure === undefined ? { ok: true } : { ok: false, detail: failure.message };
}

async function followPlacements(
  ledger: BudgetLedger,
  reports: readonly PlacementReport[],
  logger: Logger,
): Promise<void> {
  const byPlacement = new Map<string, PlacementReport[]>();
  for (const report of reports) {
    const steps = byPlacement.get(report.placementId);
    if (steps === undefined) byPlacement.set(report.placementId, [report]);
    else steps.push(report);
  }
  await Promise.all(
    Array.from(byPlacement.values(), async (steps) => {
      for (const step of steps) await followPlacement(ledger, step, logger);
    }),
  );
}

async function followPlacement(
  ledger: BudgetLedger,
  report: PlacementReport,
  logger: Logger,
): Promise<void> {
  const { type, placementId, campaignId, tenantId, amountMicros, decisionId, atMs } = report;
  const money = {
    campaignId,
    referenceId: placementId,
    amountMicros,
    decisionId,
    nowMs: atMs,
    tenantId,
  };
  switch (type) {
    case 'placement.reserved':
    // What runs was reserved, whether or not that was told.
    case 'placement.sent':
      await ledger.commit(money);
      return;
    case 'placement.settled': {
      const { refusedMicros } = await ledger.settle(money);
      if (refusedMicros > 0) {
        logger.warn(
          { placement_id: placementId, campaign_id: campaignId, refused_micros: refusedMicros },
          'a settlement passes the budget, and the rest is not charged; look at what was reserved',
        );
      }
      return;
    }
    case 'placement.cancelled':
    case 'placement.no_show':
      await ledger.cancel(money);
      return;
    default:
  }
}

function combined(
  forwarding: boolean,
  dropped: number,
  parts: readonly Omit<ForwarderStatus, 'dropped'>[],
): ForwarderStatus {
  const failed = parts.find((part) => !part.ok);
  const detail = failed?.detail ?? (forwarding ? undefined : 'no store is connected yet');
  return {
    ok: forwarding && failed === undefined,
    backlog: parts.reduce((total, part) => total + part.backlog, 0),
    lagMs: Math.max(...parts.map((part) => part.lagMs)),
    dropped,
    ...(detail === undefined ? {} : { detail }),
  };
}
