import type { Clock, Logger } from '@waggle/core';
import type { IdempotencyCache } from './idempotency.js';
import type { AnswerRecord, IdempotencyJournal } from './ports.js';

/** The part of a write-ahead log that stored answers need. */
export interface AnswerLog {
  append(payload: Uint8Array): Promise<number>;
  read(fromSequence: number): AsyncIterable<{ sequence: number; payload: Uint8Array }>;
  truncateBefore(sequence: number): Promise<void>;
}

/** How finely the log is cut behind answers that have expired. */
const STRETCH_MS = 600_000;

/** A piece of the log that is given up as a whole. */
interface Stretch {
  /** Its first sequence. */
  readonly sequence: number;
  /** Times of its answers; clocks may go back. */
  readonly fromMs: number;
  untilMs: number;
}

/** Keeps `fill` answers in a write-ahead log: durable before they are given out, cut once they have expired. */
export class DurableAnswers implements IdempotencyJournal {
  readonly #log: AnswerLog;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #ttlMs: number;
  #stretches: Stretch[] = [];
  #firstPlace = 0;

  constructor(o: { log: AnswerLog; clock: Clock; logger: Logger; ttlMs: number }) {
    this.#log = o.log;
    this.#clock = o.clock;
    this.#logger = o.logger;
    this.#ttlMs = o.ttlMs;
  }

  get firstPlace(): number {
    return this.#firstPlace;
  }

  /** Fills the cache from the log and cuts off what has expired; once, before requests are taken. */
  async restoreInto(cache: IdempotencyCache): Promise<void> {
    let restored = 0;
    let skipped = 0;
    let last = -1;
    for await (const { sequence, payload } of this.#log.read(0)) {
      const record = decode(payload);
      if (record !== undefined) this.#note(sequence, record.storedAtMs);
      if (record !== undefined && cache.restore(record, sequence)) restored++;
      else skipped++;
      last = sequence;
    }
    if (restored + skipped > 0) this.#logger.info({ restored, skipped }, 'stored fill answers');
    await this.#cut(last + 1);
  }

  async append(record: AnswerRecord): Promise<number> {
    const sequence = await this.#log.append(encode(record));
    if (this.#note(sequence, record.storedAtMs)) await this.#cut(sequence);
    return sequence;
  }

  async read(place: number): Promise<AnswerRecord | undefined> {
    for await (const { sequence, payload } of this.#log.read(place)) {
      return sequence === place ? decode(payload) : undefined;
    }
    return undefined;
  }

  /** @returns true when the record began another stretch */
  #note(sequence: number, atMs: number): boolean {
    const last = this.#stretches.at(-1);
    if (last !== undefined && Math.abs(atMs - last.fromMs) < STRETCH_MS) {
      last.untilMs = Math.max(last.untilMs, atMs);
      return false;
    }
    this.#stretches.push({ sequence, fromMs: atMs, untilMs: atMs });
    return true;
  }

  /** Gives up the stretches at the front that have expired. @param end where the log ends when all of them have */
  async #cut(end: number): Promise<void> {
    const nowMs = this.#clock.nowMs();
    const kept = this.#stretches.findIndex(({ untilMs }) => nowMs - untilMs <= this.#ttlMs);
    this.#stretches = kept < 0 ? [] : this.#stretches.slice(kept);
    const firstPlace = this.#stretches[0]?.sequence ?? end;
    if (firstPlace <= this.#firstPlace) return;
    this.#firstPlace = firstPlace;
    try {
      await this.#log.truncateBefore(firstPlace);
    } catch (err) {
      this.#logger.warn(
        { err },
        'the log of fill answers could not be cut; it is tried again with later ones',
      );
    }
  }
}

function encode(record: AnswerRecord): Uint8Array {
  return Buffer.from(JSON.stringify({ v: 1, ...record }));
}

/** @returns undefined for a foreign or damaged record */
function decode(payload: Uint8Array): AnswerRecord | undefined {
  let value: Partial<AnswerRecord & { v: number }> | null;
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
  return valid ? (value as AnswerRecord) : undefined;
}
