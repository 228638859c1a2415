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
const CHECKPOINT_MS = 600_000;

/** Keeps `fill` answers in a write-ahead log: durable before they are given out, cut once they have expired. */
export class DurableAnswers implements IdempotencyJournal {
  readonly #log: AnswerLog;
  readonly #clock: Clock;
  readonly #ttlMs: number;
  /** First sequence of each stretch of the log and when it was written. */
  readonly #checkpoints: { sequence: number; atMs: number }[] = [];

  constructor(o: { log: AnswerLog; clock: Clock; ttlMs: number }) {
    this.#log = o.log;
    this.#clock = o.clock;
    this.#ttlMs = o.ttlMs;
  }

  get firstPlace(): number {
    return this.#checkpoints[0]?.sequence ?? 0;
  }

  /** Fills the cache from the log, once, before requests are taken. */
  async restoreInto(cache: IdempotencyCache, logger: Logger): Promise<void> {
    let restored = 0;
    let skipped = 0;
    for await (const { sequence, payload } of this.#log.read(0)) {
      const record = decode(payload);
      if (record !== undefined && cache.restore(record, sequence)) restored++;
      else skipped++;
      if (this.#checkpoints.length === 0)
        this.#checkpoints.push({ sequence, atMs: this.#clock.nowMs() });
    }
    if (restored + skipped > 0) logger.info({ restored, skipped }, 'stored fill answers');
  }

  async append(record: AnswerRecord): Promise<number> {
    const sequence = await this.#log.append(encode(record));
    await this.#cutBefore(sequence);
    return sequence;
  }

  async read(place: number): Promise<AnswerRecord | undefined> {
    for await (const { sequence, payload } of this.#log.read(place)) {
      return sequence === place ? decode(payload) : undefined;
    }
    return undefined;
  }

  async #cutBefore(sequence: number): Promise<void> {
    const nowMs = this.#clock.nowMs();
    const last = this.#checkpoints.at(-1);
    if (last !== undefined && nowMs - last.atMs < CHECKPOINT_MS) return;
    this.#checkpoints.push({ sequence, atMs: nowMs });
    // A stretch has expired when the one after it began longer ago than answers are kept.
    let expired = 0;
    while (
      expired + 1 < this.#checkpoints.length &&
      nowMs - this.#checkpoints[expired + 1]!.atMs > this.#ttlMs
    ) {
      expired++;
    }
    if (expired === 0) return;
    this.#checkpoints.splice(0, expired);
    await this.#log.truncateBefore(this.#checkpoints[0]!.sequence);
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
