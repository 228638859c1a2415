import { type Clock, hash32, type Logger } from '@waggle/core';
import { EVENT_TABLES, type EventKind } from '@waggle/core/contract';
import { ledgerError } from '../errors.js';
import type { Store } from '../store.js';
import type { WriteAheadLog } from '../wal/index.js';
import { type ForwardedRow, Forwarder, type ForwarderStatus } from './forwarder.js';

export interface JournalEvent {
  readonly kind: EventKind;
  /** A row of that kind's table; must hold `tenant_id` and `event_id`. */
  readonly row: object;
}

export interface EventJournalOptions {
  /** A log of its own. */
  readonly wal: WriteAheadLog;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Ids remembered for the `duplicates` count; older doubles are removed by the store. @default 200_000 */
  readonly recentIds?: number;
  readonly intervalMs?: number;
  readonly maxBackoffMs?: number;
}

interface Remembered {
  /** Tells contents apart: 64 bits of hash, as a text of two numbers would take more memory. */
  readonly high: number;
  readonly low: number;
  /** Settles when the event is durable; undefined once it is. */
  pending: Promise<void> | undefined;
}

/**
 * Posted events: durable before `append` resolves, then carried to the store in the background. An id seen
 * recently is not written again; one seen long ago is written again and counted once by the store. A recent id with
 * other content is refused.
 */
export class EventJournal {
  readonly #wal: WriteAheadLog;
  readonly #forwarder: Forwarder;
  readonly #limit: number;
  /** Ids in order of arrival. */
  readonly #recent = new Map<string, Remembered>();
  #closed = false;

  private constructor(wal: WriteAheadLog, forwarder: Forwarder, limit: number) {
    this.#wal = wal;
    this.#forwarder = forwarder;
    this.#limit = limit;
  }

  static async open(options: EventJournalOptions): Promise<EventJournal> {
    const forwarder = await Forwarder.open({
      wal: options.wal,
      clock: options.clock,
      logger: options.logger,
      records: { rowsOf: (payload) => parse(payload).map(toForwarded) },
      ...(options.intervalMs === undefined ? {} : { intervalMs: options.intervalMs }),
      ...(options.maxBackoffMs === undefined ? {} : { maxBackoffMs: options.maxBackoffMs }),
    });
    const journal = new EventJournal(options.wal, forwarder, options.recentIds ?? 200_000);
    for await (const { payload } of options.wal.read(0)) {
      for (const event of parse(payload)) journal.#remember(keyOf(event), contentOf(event));
    }
    return journal;
  }

  /**
   * @returns how many were new; duplicates (within the call or of recent ones) count as accepted by nobody twice
   * @throws WAGGLE_JOURNAL_CONFLICT when an id comes with other content than before, within the call or recently;
   *   WAGGLE_WAL_DISK_FULL and the log's other errors. Then none of the new events was accepted
   */
  async append(events: readonly JournalEvent[]): Promise<{ accepted: number; duplicates: number }> {
    if (this.#closed) throw ledgerError('WAGGLE_LEDGER_CLOSED', 'the event journal is closed');
    const fresh: JournalEvent[] = [];
    const waits = new Set<Promise<void>>();
    const mine = new Map<string, Remembered>();
    for (const [index, event] of events.entries()) {
      const key = keyOf(event);
      const content = contentOf(event);
      const known = mine.get(key) ?? this.#recent.get(key);
      if (known === undefined) {
        mine.set(key, content);
        fresh.push(event);
      } else if (known.high !== content.high || known.low !== content.low) {
        const { event_id } = event.row as { event_id?: unknown };
        throw ledgerError(
          'WAGGLE_JOURNAL_CONFLICT',
          `event ${index} repeats the id ${String(event_id)} with other content`,
          { details: { index, event_id } },
        );
      } else if (known.pending !== undefined) {
        waits.add(known.pending);
      }
    }
    if (fresh.length > 0) {
      const payload = Buffer.from(JSON.stringify(fresh.map(({ kind, row }) => [kind, row])));
      const durable = this.#wal.append(payload).then(
        () => {
          for (const remembered of mine.values()) remembered.pending = undefined;
          this.#forwarder.notify();
        },
        (err) => {
          for (const key of mine.keys()) this.#recent.delete(key);
          throw err;
        },
      );
      for (const [key, remembered] of mine) {
        remembered.pending = durable;
        this.#remember(key, remembered);
      }
      waits.add(durable);
    }
    // A duplicate of an event that is just being written is as durable as that one.
    await Promise.all(waits);
    return { accepted: fresh.length, duplicates: events.length - fresh.length };
  }

  /** Begins forwarding. */
  start(store: Store): void {
    this.#forwarder.start(store);
  }

  /** Resolves when everything accepted so far is in the store. */
  idle(): Promise<void> {
    return this.#forwarder.idle();
  }

  /** Sends what is left, for a few seconds, and stops; what remains is sent after the next start. */
  async stop(drainMs?: number): Promise<void> {
    this.#closed = true;
    await this.#forwarder.stop(drainMs);
  }

  status(): ForwarderStatus {
    return this.#forwarder.status();
  }

  #remember(key: string, remembered: Remembered): void {
    this.#recent.set(key, remembered);
    if (this.#recent.size <= this.#limit) return;
    for (const [oldest, { pending }] of this.#recent) {
      // Ids that are still being written are needed for correctness, not for the count.
      if (pending === undefined) this.#recent.delete(oldest);
      if (this.#recent.size <= this.#limit) return;
    }
  }
}

/** What an event says, whatever the order of its fields. O(bytes) */
function contentOf({ kind, row }: JournalEvent): Remembered {
  const fields = Object.entries(row).filter(([, value]) => value !== undefined);
  fields.sort(([a], [b]) => (a < b ? -1 : 1));
  const text = JSON.stringify([kind, fields]);
  return { high: hash32(text, 1), low: hash32(text, 2), pending: undefined };
}

function keyOf(event: JournalEvent): string {
  const { tenant_id, type, event_id } = event.row as {
    tenant_id?: unknown;
    type?: unknown;
    event_id?: unknown;
  };
  return `${String(tenant_id)}\u0000${String(type)}\u0000${String(event_id)}`;
}

function parse(payload: Uint8Array): JournalEvent[] {
  const text = Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength).toString('utf8');
  return (JSON.parse(text) as [EventKind, object][]).map(([kind, row]) => ({ kind, row }));
}

function toForwarded({ kind, row }: JournalEvent): ForwardedRow {
  return { table: EVENT_TABLES[kind].table, row };
}
