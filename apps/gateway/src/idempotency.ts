import type { Clock, Logger } from '@waggle/core';
import type { FastifyRequest } from 'fastify';
import { gatewayError } from './errors.js';
import type { IdempotencyJournal } from './ports.js';

/** A stored answer: the exact bytes that were sent. */
export interface StoredAnswer {
  readonly status: number;
  readonly body: string;
}

interface Entry extends StoredAnswer {
  readonly digest: string;
  readonly storedAtMs: number;
  readonly bytes: number;
}

interface Flight {
  readonly digest: string;
  readonly answer: Promise<StoredAnswer>;
}

export interface IdempotencyOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly ttlMs: number;
  /** Bound of the memory that stored answers take; the least recently used go first. */
  readonly maxBytes: number;
  /** Where answers with effects are kept across restarts. */
  readonly journal?: IdempotencyJournal | undefined;
}

/** Rough cost of an entry beyond its strings: map slot, object, digest. */
const ENTRY_OVERHEAD_BYTES = 256;

/**
 * Same key and same body → the same answer, byte for byte, for `ttlMs`; the same key with another body is
 * refused; requests that arrive while the first still runs wait for its answer. Failures are not kept, so
 * that a retry after a failure runs again.
 */
export class IdempotencyCache {
  readonly #options: IdempotencyOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #flights = new Map<string, Flight>();
  #bytes = 0;
  #evicted = 0;
  #replayed = 0;

  constructor(options: IdempotencyOptions) {
    this.#options = options;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** Answers dropped before their time because memory was full. */
  get evicted(): number {
    return this.#evicted;
  }

  get replayed(): number {
    return this.#replayed;
  }

  /**
   * The answer for `scope` (tenant, route and key), from store, from the request in flight, or from `run`.
   * @param durable keep the answer across restarts; it is durable before it is given out
   * @throws WAGGLE_IDEMPOTENCY_CONFLICT
   */
  async answer(
    scope: string,
    digest: string,
    durable: boolean,
    run: () => Promise<StoredAnswer>,
  ): Promise<StoredAnswer & { replayed: boolean }> {
    const known = this.#live(scope);
    if (known !== undefined) {
      this.#compare(known.digest, digest);
      this.#entries.delete(scope);
      this.#entries.set(scope, known);
      this.#replayed++;
      return { status: known.status, body: known.body, replayed: true };
    }
    const running = this.#flights.get(scope);
    if (running !== undefined) {
      this.#compare(running.digest, digest);
      const { status, body } = await running.answer;
      this.#replayed++;
      return { status, body, replayed: true };
    }
    const answer = this.#runOnce(scope, digest, durable, run);
    this.#flights.set(scope, { digest, answer });
    try {
      const { status, body } = await answer;
      return { status, body, replayed: false };
    } finally {
      this.#flights.delete(scope);
    }
  }

  async #runOnce(
    scope: string,
    digest: string,
    durable: boolean,
    run: () => Promise<StoredAnswer>,
  ): Promise<StoredAnswer> {
    const { status, body } = await run();
    const storedAtMs = this.#options.clock.nowMs();
    const { journal, logger } = this.#options;
    if (durable && journal !== undefined) {
      const record = JSON.stringify({ v: 1, scope, digest, status, body, storedAtMs });
      try {
        await journal.append(Buffer.from(record));
      } catch (err) {
        // The decision itself is durable in the ledger. Failing the request now would make the client fill
        // again; remembering it in memory keeps every promise but the one about a restart.
        logger.error(
          { err },
          'a fill answer will not outlive this process; check the disk of the data directory',
        );
      }
    }
    this.#keep(scope, { digest, status, body, storedAtMs, bytes: sizeOf(scope, body) });
    return { status, body };
  }

  /** Takes back what the journal kept. Foreign or damaged records are skipped and counted. */
  restore(payload: Uint8Array): boolean {
    const record = parseRecord(payload);
    if (record === undefined) return false;
    const { scope, digest, status, body, storedAtMs } = record;
    if (this.#options.clock.nowMs() - storedAtMs > this.#options.ttlMs) return false;
    this.#keep(scope, { digest, status, body, storedAtMs, bytes: sizeOf(scope, body) });
    return true;
  }

  #live(scope: string): Entry | undefined {
    const entry = this.#entries.get(scope);
    if (entry === undefined) return undefined;
    if (this.#options.clock.nowMs() - entry.storedAtMs <= this.#options.ttlMs) return entry;
    this.#drop(scope, entry);
    return undefined;
  }

  #compare(known: string, digest: string): void {
    if (known !== digest) {
      throw gatewayError(
        'WAGGLE_IDEMPOTENCY_CONFLICT',
        'this Idempotency-Key was used with a different body',
      );
    }
  }

  #keep(scope: string, entry: Entry): void {
    const previous = this.#entries.get(scope);
    if (previous !== undefined) this.#drop(scope, previous);
    this.#entries.set(scope, entry);
    this.#bytes += entry.bytes;
    const nowMs = this.#options.clock.nowMs();
    for (const [oldScope, old] of this.#entries) {
      const expired = nowMs - old.storedAtMs > this.#options.ttlMs;
      if (!expired && this.#bytes <= this.#options.maxBytes) break;
      this.#drop(oldScope, old);
      if (expired) continue;
      if (this.#evicted++ % 10_000 === 0) {
        this.#options.logger.warn(
          { bytes: this.#options.maxBytes, evicted: this.#evicted },
          'idempotency memory is full, the oldest answers are forgotten early; raise WAGGLE_GATEWAY_IDEMPOTENCY_MAX_BYTES',
        );
      }
    }
  }

  #drop(scope: string, entry: Entry): void {
    this.#entries.delete(scope);
    this.#bytes -= entry.bytes;
  }
}

type StoredRecord = Omit<Entry, 'bytes'> & { readonly scope: string };

function parseRecord(payload: Uint8Array): StoredRecord | undefined {
  let value: Partial<StoredRecord & { v: number }> | null;
  try {
    value = JSON.parse(Buffer.from(payload).toString('utf8'));
  } catch {
    return undefined;
  }
  const valid =
    value?.v === 1 &&
    typeof value.scope === 'string' &&
    typeof value.digest === 'string' &&
    typeof value.body === 'string' &&
    typeof value.status === 'number' &&
    typeof value.storedAtMs === 'number';
  return valid ? (value as StoredRecord) : undefined;
}

function sizeOf(scope: string, body: string): number {
  return ENTRY_OVERHEAD_BYTES + 2 * scope.length + 2 * body.length;
}

const KEY_PATTERN = /^[\x21-\x7e]{1,255}$/;

/** The scope of a request's Idempotency-Key, or undefined without one. @throws WAGGLE_IDEMPOTENCY_KEY_INVALID */
export function idempotencyScope(request: FastifyRequest, route: string): string | undefined {
  const key = request.headers['idempotency-key'];
  if (key === undefined) return undefined;
  if (typeof key !== 'string' || !KEY_PATTERN.test(key)) {
    throw gatewayError(
      'WAGGLE_IDEMPOTENCY_KEY_INVALID',
      'the Idempotency-Key header is not usable',
    );
  }
  return `${request.tenantId}\n${route}\n${key}`;
}
