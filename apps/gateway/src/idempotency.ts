import { createHash } from 'node:crypto';
import type { Clock, Logger } from '@waggle/core';
import type { FastifyRequest } from 'fastify';
import { gatewayError } from './errors.js';
import type { AnswerRecord, IdempotencyJournal } from './ports.js';

/** A stored answer: the exact bytes that were sent. */
export interface StoredAnswer {
  readonly status: number;
  readonly body: string;
}

/** An answer that was just made. */
export interface MadeAnswer extends StoredAnswer {
  /** Something failed for the moment and the answer has no effects: like a failure, it is not kept. */
  readonly passing?: boolean;
}

interface Entry extends StoredAnswer {
  readonly digest: string;
  readonly storedAtMs: number;
  readonly bytes: number;
  /** The journal has it too: dropped from memory, it is read back. */
  readonly journaled: boolean;
}

interface Flight {
  readonly digest: string;
  readonly answer: Promise<StoredAnswer>;
}

export interface IdempotencyOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly ttlMs: number;
  /**
   * Bound of the memory that stored answers take; the least recently used go first. Either kind, with effects or
   * without, drops answers of the other only as far as that has more than half.
   */
  readonly maxBytes: number;
  /** Where answers with effects are kept across restarts, and read back from when memory has dropped them. */
  readonly journal?: IdempotencyJournal | undefined;
}

/** Rough cost of an entry beyond its strings: map slot, object, digest. */
const ENTRY_OVERHEAD_BYTES = 256;
/** Rough cost of knowing where the journal has an answer: map slot, short hash, number. */
const PLACE_BYTES = 96;
/** Places that are kept: 50 fills a second for a day, 400 MiB. */
const MAX_PLACES = 1 << 22;

/** Answers in memory, least recently used first. */
class Shelf {
  readonly entries = new Map<string, Entry>();
  bytes = 0;

  /** A scope that it does not have. */
  put(scope: string, entry: Entry): void {
    this.entries.set(scope, entry);
    this.bytes += entry.bytes;
  }

  drop(scope: string): void {
    const entry = this.entries.get(scope);
    if (entry === undefined) return;
    this.entries.delete(scope);
    this.bytes -= entry.bytes;
  }
}

/**
 * Same key and same body → the same answer, byte for byte, for `ttlMs`; the same key with another body is
 * refused; requests that arrive while the first still runs wait for its answer. Failures are not kept, so
 * that a retry after a failure runs again. Answers with effects are found for all of that time, in memory or in
 * the journal, however many others there are.
 */
export class IdempotencyCache {
  readonly #options: IdempotencyOptions;
  readonly #cheap = new Shelf();
  readonly #effective = new Shelf();
  /** Where the journal has an answer, by a hash of its scope; oldest first. */
  readonly #places = new Map<string, number>();
  readonly #flights = new Map<string, Flight>();
  readonly #recalls = new Map<string, Promise<Entry | undefined>>();
  /** Answers with effects that only memory has. */
  #unwritten = 0;
  #evicted = 0;
  #replayed = 0;

  constructor(options: IdempotencyOptions) {
    this.#options = options;
  }

  get bytes(): number {
    return this.#cheap.bytes + this.#effective.bytes + PLACE_BYTES * this.#places.size;
  }

  /** Answers that a repeat would get. */
  get size(): number {
    return this.#cheap.entries.size + this.#unwritten + this.#places.size;
  }

  /** Answers forgotten before their time because memory was full. */
  get evicted(): number {
    return this.#evicted;
  }

  get replayed(): number {
    return this.#replayed;
  }

  /**
   * The answer for `scope` (tenant, route and key), from store, from the request in flight, or from `run`.
   * @param durable keep the answer across restarts; it is durable before it is given out
   * @throws WAGGLE_IDEMPOTENCY_CONFLICT, WAGGLE_IDEMPOTENCY_UNREADABLE
   */
  async answer(
    scope: string,
    digest: string,
    durable: boolean,
    run: () => Promise<MadeAnswer>,
  ): Promise<StoredAnswer & { replayed: boolean }> {
    for (;;) {
      const known = this.#live(scope) ?? this.#flights.get(scope);
      const place = known === undefined ? this.#placeOf(scope) : undefined;
      const found = known ?? (place === undefined ? undefined : await this.#recall(scope, place));
      if (found !== undefined) {
        this.#compare(found.digest, digest);
        const { status, body } = 'answer' in found ? await found.answer : found;
        this.#replayed++;
        return { status, body, replayed: true };
      }
      // What was read back has expired; meanwhile somebody else may have begun to run it.
      if (place === undefined) break;
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
    run: () => Promise<MadeAnswer>,
  ): Promise<StoredAnswer> {
    const { status, body, passing = false } = await run();
    if (passing) return { status, body };
    const record = { scope, digest, status, body, storedAtMs: this.#options.clock.nowMs() };
    if (!durable) {
      this.#keep(this.#cheap, record, false);
      return { status, body };
    }
    const { journal, logger } = this.#options;
    let place: number | undefined;
    try {
      place = await journal?.append(record);
    } catch (err) {
      // The decision itself is durable in the ledger. Failing the request now would make the client fill
      // again; remembering it in memory keeps every promise but the one about a restart.
      logger.error(
        { err },
        'a fill answer will not outlive this process; check the disk of the data directory',
      );
    }
    if (place !== undefined) this.#keepPlace(scope, place);
    this.#keep(this.#effective, record, place !== undefined);
    return { status, body };
  }

  /** Takes back what the journal kept, in the order of places. @returns false for what has expired */
  restore(record: AnswerRecord, place: number): boolean {
    if (this.#isExpired(record)) return false;
    this.#keepPlace(record.scope, place);
    this.#keep(this.#effective, record, true);
    return true;
  }

  #live(scope: string): Entry | undefined {
    for (const shelf of [this.#effective, this.#cheap]) {
      const entry = shelf.entries.get(scope);
      if (entry === undefined) continue;
      if (this.#isExpired(entry)) {
        this.#drop(shelf, scope);
        continue;
      }
      // The most recently used goes to the end.
      shelf.entries.delete(scope);
      shelf.entries.set(scope, entry);
      return entry;
    }
    return undefined;
  }

  #placeOf(scope: string): number | undefined {
    const { journal } = this.#options;
    if (journal === undefined || this.#places.size === 0) return undefined;
    const place = this.#places.get(hashOf(scope));
    return place === undefined || place < journal.firstPlace ? undefined : place;
  }

  /** Reads back an answer that memory has dropped, once for all who ask at the same time. */
  #recall(scope: string, place: number): Promise<Entry | undefined> {
    let recall = this.#recalls.get(scope);
    if (recall === undefined) {
      recall = this.#readBack(scope, place).finally(() => this.#recalls.delete(scope));
      this.#recalls.set(scope, recall);
    }
    return recall;
  }

  async #readBack(scope: string, place: number): Promise<Entry | undefined> {
    let record: AnswerRecord | undefined;
    try {
      record = await this.#options.journal?.read(place);
    } catch (cause) {
      // Running it again could set money aside twice.
      throw gatewayError(
        'WAGGLE_IDEMPOTENCY_UNREADABLE',
        'the answer of this Idempotency-Key cannot be read back',
        { cause },
      );
    }
    if (record?.scope !== scope || this.#isExpired(record)) {
      const hash = hashOf(scope);
      if (this.#places.get(hash) === place) this.#places.delete(hash);
      return undefined;
    }
    return this.#keep(this.#effective, record, true);
  }

  #isExpired({ storedAtMs }: { readonly storedAtMs: number }): boolean {
    return this.#options.clock.nowMs() - storedAtMs > this.#options.ttlMs;
  }

  #compare(known: string, digest: string): void {
    if (known !== digest) {
      throw gatewayError(
        'WAGGLE_IDEMPOTENCY_CONFLICT',
        'this Idempotency-Key was used with a different body',
      );
    }
  }

  #keep(shelf: Shelf, record: AnswerRecord, journaled: boolean): Entry {
    const { scope, digest, status, body, storedAtMs } = record;
    for (const other of [this.#cheap, this.#effective]) this.#drop(other, scope);
    const entry = { digest, status, body, storedAtMs, bytes: sizeOf(scope, body), journaled };
    shelf.put(scope, entry);
    if (shelf === this.#effective && !journaled) this.#unwritten++;
    for (const each of [this.#cheap, this.#effective]) {
      for (const [old, { storedAtMs: atMs }] of each.entries) {
        if (!this.#isExpired({ storedAtMs: atMs })) break;
        this.#drop(each, old);
      }
    }
    const { maxBytes } = this.#options;
    while (this.#cheap.bytes + this.#effective.bytes > maxBytes) {
      const fuller = this.#effective.bytes > maxBytes / 2 ? this.#effective : this.#cheap;
      const [oldest, old] = fuller.entries.entries().next().value!;
      this.#drop(fuller, oldest);
      if (!old.journaled) this.#forgotten();
    }
    return entry;
  }

  #keepPlace(scope: string, place: number): void {
    const hash = hashOf(scope);
    this.#places.delete(hash);
    this.#places.set(hash, place);
    const firstPlace = this.#options.journal?.firstPlace ?? 0;
    for (const [old, at] of this.#places) {
      if (at < firstPlace) this.#places.delete(old);
      else if (this.#places.size > MAX_PLACES) {
        this.#places.delete(old);
        this.#forgotten();
      } else break;
    }
  }

  #drop(shelf: Shelf, scope: string): void {
    const entry = shelf.entries.get(scope);
    if (entry === undefined) return;
    shelf.drop(scope);
    if (shelf === this.#effective && !entry.journaled) this.#unwritten--;
  }

  #forgotten(): void {
    if (this.#evicted++ % 10_000 !== 0) return;
    this.#options.logger.warn(
      { bytes: this.#options.maxBytes, evicted: this.#evicted },
      'idempotency memory is full, the oldest answers are forgotten early; raise WAGGLE_GATEWAY_IDEMPOTENCY_MAX_BYTES',
    );
  }
}

/** 96 bits: what is found by it is compared with the scope it was stored for. */
function hashOf(scope: string): string {
  return createHash('sha256').update(scope).digest('base64url').slice(0, 16);
}

function sizeOf(scope: string, body: string): number {
  return ENTRY_OVERHEAD_BYTES + 2 * scope.length + 2 * body.length;
}

export const IDEMPOTENCY_KEY = /^[\x21-\x7e]{1,255}$/;

/** The scope of a request's Idempotency-Key, or undefined without one. @throws WAGGLE_IDEMPOTENCY_KEY_INVALID */
export function idempotencyScope(request: FastifyRequest, route: string): string | undefined {
  const key = request.headers['idempotency-key'];
  if (key === undefined) return undefined;
  if (typeof key !== 'string' || !IDEMPOTENCY_KEY.test(key)) {
    throw gatewayError(
      'WAGGLE_IDEMPOTENCY_KEY_INVALID',
      'the Idempotency-Key header is not usable',
    );
  }
  return `${request.tenantId}\n${route}\n${key}`;
}
