import type { Clock, Logger } from '@waggle/core';
import type { DecisionRow } from '@waggle/core/contract';
import type { Store } from '../store.js';
import type { WriteAheadLog } from '../wal/index.js';
import { Forwarder, type ForwarderStatus } from './forwarder.js';

export interface DecisionLogOptions {
  /** A log of its own. */
  readonly wal: WriteAheadLog;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly intervalMs?: number;
  readonly batchRows?: number;
  readonly maxBackoffMs?: number;
}

const FILL = Buffer.from('"decision.fill"');

/**
 * Served decisions: `record` never waits and never throws for the disk's sake; a crash loses at most the last
 * 100 ms (the log's loss window). Forwarded to the table `decisions` like events.
 */
export class DecisionLog {
  readonly #wal: WriteAheadLog;
  readonly #forwarder: Forwarder;
  readonly #logger: Logger;
  #dropped = 0;
  #refused = false;

  private constructor(wal: WriteAheadLog, forwarder: Forwarder, logger: Logger) {
    this.#wal = wal;
    this.#forwarder = forwarder;
    this.#logger = logger;
  }

  static async open(options: DecisionLogOptions): Promise<DecisionLog> {
    const forwarder = await Forwarder.open({
      wal: options.wal,
      clock: options.clock,
      logger: options.logger,
      // One JSON object per record, as `record` wrote it: the store reads it, nobody before.
      records: { linesFor: 'decisions' },
      // Every batch becomes a part that the store merges with others: few large ones cost it less than many small.
      intervalMs: options.intervalMs ?? 2_000,
      ...(options.batchRows === undefined ? {} : { batchRows: options.batchRows }),
      ...(options.maxBackoffMs === undefined ? {} : { maxBackoffMs: options.maxBackoffMs }),
    });
    return new DecisionLog(options.wal, forwarder, options.logger);
  }

  /**
   * Queues the decision; durable within the loss window.
   * @param json the row as `JSON.stringify` writes it, where the caller has it
   */
  record(row: DecisionRow, json: string = JSON.stringify(row)): void {
    try {
      this.#wal.appendLater(json);
      this.#forwarder.notify();
      this.#refused = false;
    } catch (err) {
      // A ranking must not fail because its log is full: count it and say so, once each time that it begins.
      if (!this.#refused) this.#logger.error({ err }, 'decisions are not logged');
      this.#refused = true;
      this.#dropped++;
    }
  }

  /** Resolves once the decision is durable. @throws the log's errors; then it is not counted as dropped */
  async recordDurably(row: DecisionRow): Promise<void> {
    await this.#wal.append(Buffer.from(JSON.stringify(row)));
    this.#forwarder.notify();
  }

  /** Ids of the `fill` decisions that the log still has on disk. O(bytes of the log). */
  async recordedFills(): Promise<Set<string>> {
    const ids = new Set<string>();
    for await (const { payload } of this.#wal.read(0, { borrowed: true })) {
      const bytes = Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength);
      // Most decisions are offers, and need not be parsed to see it.
      if (!bytes.includes(FILL)) continue;
      const row = JSON.parse(bytes.toString('utf8')) as DecisionRow;
      if (row.type === 'decision.fill') ids.add(row.decision_id);
    }
    return ids;
  }

  /** Decisions that could not be queued since the start. */
  get dropped(): number {
    return this.#dropped;
  }

  start(store: Store): void {
    this.#forwarder.start(store);
  }

  /** Resolves when everything recorded so far is in the store. */
  async idle(): Promise<void> {
    await this.#wal.flush();
    await this.#forwarder.idle();
  }

  async stop(drainMs?: number): Promise<void> {
    await this.#wal.flush().catch(() => {});
    await this.#forwarder.stop(drainMs);
  }

  status(): ForwarderStatus {
    return this.#forwarder.status();
  }
}
