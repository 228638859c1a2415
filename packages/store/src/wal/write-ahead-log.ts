import { type FileHandle, open, readdir, readFile, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { type Clock, type Logger, silentLogger, systemClock, WaggleError } from '@waggle/core';
import { DirectoryLock, type DirectoryLockOptions, type HeldBy } from '../directory-lock.js';
import { walError } from '../errors.js';
import {
  MAX_RECORD_BYTES,
  RECORD_HEAD_BYTES,
  readRecord,
  readSegmentHead,
  SEGMENT_HEAD_BYTES,
  segmentHead,
  writeRecord,
} from './record.js';
import { type Slab, TextSlabs } from './text-slabs.js';

export interface WriteAheadLogOptions {
  /** Directory of the log; created when missing, locked against a second writer. */
  readonly dir: string;
  /** A segment is closed once it is this large. @default 64 MiB */
  readonly segmentBytes?: number;
  readonly clock?: Clock;
  readonly logger?: Logger;
  /** Wait this long for more records before a sync. 0: sync at once, batch what arrives meanwhile. @default 0 */
  readonly groupCommitMs?: number;
  /** `appendLater` records are durable within this time. @default 100 */
  readonly lossWindowMs?: number;
  /** The file system; tests put a failing one here. */
  readonly files?: WalFiles;
  /** Times of the lock, the same for everybody who may open the directory; tests cannot wait for the usual ones. */
  readonly lock?: Pick<DirectoryLockOptions, 'heartbeatMs' | 'staleMs'>;
}

/** What the log needs of the file system. */
export interface WalFiles {
  open(path: string, flags: string): Promise<WalFile>;
  syncDirectory(path: string): Promise<void>;
}
export type WalFile = Pick<FileHandle, 'write' | 'datasync' | 'sync' | 'truncate' | 'close'>;

interface Segment {
  readonly first: number;
  readonly path: string;
  /** Offsets of some records, so that reading from the middle does not begin at the head. */
  readonly marks: { sequence: number; offset: number }[];
  /** Offset after the last durable record. */
  end: number;
}

interface Waiting {
  readonly sequence: number;
  readonly queuedAtMs: number;
  readonly payload: Uint8Array;
  /** Where the payload lies, when it came as text. */
  readonly slab?: Slab;
  readonly fulfil?: (sequence: number) => void;
  readonly reject?: (error: WaggleError) => void;
}

const MARK_EVERY_BYTES = 65_536;
/** Records of `appendLater` that wait while the disk refuses; beyond this they are refused too. */
const MAX_BACKLOG_BYTES = 64 << 20;
const MAX_BATCH_BYTES = 8 << 20;
/** Batches up to this size are put together in memory that is used again. */
const KEPT_BATCH_BYTES = 4 << 20;
const READ_BYTES = 1 << 20;
const RETRY_MS = 100;
/** Pause between two looks whether a disk that refused takes writes again, when nothing waits for it. */
const PROBE_MS = 1_000;
/** Room for the next requests, not for their first bytes alone. */
const PROBE_BYTES = 65_536;
const PROBE_FILE = 'probe';

/**
 * An append-only log in segment files. `append` resolves when its record has been fsynced; everything that
 * arrives while a sync runs shares the next one, so that a thousand writers cost a handful of syncs. After a crash
 * every acknowledged record is there, in order, once. One writer per directory.
 */
export class WriteAheadLog {
  readonly dir: string;
  readonly #segmentBytes: number;
  readonly #groupCommitMs: number;
  readonly #laterMs: number;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #files: WalFiles;
  readonly #lock: DirectoryLock;
  readonly #segments: Segment[];
  #file: WalFile | undefined;
  #queue: Waiting[] = [];
  #queuedBytes = 0;
  readonly #texts = new TextSlabs();
  #batchBytes = Buffer.alloc(0);
  #lastSequence: number;
  #durableSequence: number;
  #flushing: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  /** The active segment may hold bytes after its durable end, from a write that failed. */
  #dirtyTail = false;
  #syncs = 0;
  #failure: WaggleError | undefined;
  #closed = false;

  /**
   * Opens the log and checks all of it. A torn tail (bytes of a write that was never acknowledged) is cut off
   * with a line in the log.
   * @throws WAGGLE_WAL_LOCKED, WAGGLE_WAL_CORRUPT, WAGGLE_WAL_READ_ONLY, WAGGLE_WAL_DISK_FULL, WAGGLE_WAL_IO
   */
  static async open(options: WriteAheadLogOptions): Promise<WriteAheadLog> {
    const dir = resolve(options.dir);
    const logger = options.logger ?? silentLogger;
    const files = options.files ?? nodeFiles;
    let lock: DirectoryLock | HeldBy;
    try {
      lock = await DirectoryLock.acquire(dir, {
        ...options.lock,
        onWait: ({ heldBy, host }, staleMs) =>
          logger.warn(
            { dir, pid: heldBy, host, stale_ms: staleMs },
            'the log was last held in another container or on another machine; waiting for a sign of life from there',
          ),
        onLost: () => logger.error({ err: lostError(dir) }, 'the log cannot be written any more'),
      });
    } catch (err) {
      throw ioError(err, `open ${dir}`);
    }
    if (!(lock instanceof DirectoryLock)) throw lockedError(lock, dir);
    try {
      const { segments, lastSequence } = await recover(dir, files, logger);
      const log = new WriteAheadLog(dir, options, files, lock, segments, lastSequence);
      await log.#openActive();
      return log;
    } catch (err) {
      await lock.release();
      throw err instanceof WaggleError ? err : ioError(err, `open ${dir}`);
    }
  }

  private constructor(
    dir: string,
    options: WriteAheadLogOptions,
    files: WalFiles,
    lock: DirectoryLock,
    segments: Segment[],
    lastSequence: number,
  ) {
    this.dir = dir;
    this.#segmentBytes = options.segmentBytes ?? 64 << 20;
    this.#groupCommitMs = options.groupCommitMs ?? 0;
    // Half the window for waiting, half for writing.
    this.#laterMs = (options.lossWindowMs ?? 100) / 2;
    this.#logger = options.logger ?? silentLogger;
    this.#files = files;
    this.#lock = lock;
    this.#segments = segments;
    this.#lastSequence = lastSequence;
    this.#durableSequence = lastSequence;
    this.#clock = options.clock ?? systemClock;
  }

  /** Sequence of the newest record, durable or not; 0 for an empty log. Sequences rise; refused ones leave gaps. */
  get lastSequence(): number {
    return this.#lastSequence;
  }

  /** Everything up to here survives a crash. */
  get durableSequence(): number {
    return this.#durableSequence;
  }

  /** Oldest sequence that the log may still hold. */
  get firstSequence(): number {
    return this.#segments[0]?.first ?? this.#lastSequence + 1;
  }

  /** Group commits so far, records that wait and for how long, and the failure that the disk is in, if any. */
  status(): {
    syncs: number;
    waiting: number;
    waitingMs: number;
    failure: WaggleError | undefined;
  } {
    const oldest = this.#queue[0];
    return {
      syncs: this.#syncs,
      waiting: this.#queue.length,
      waitingMs: oldest === undefined ? 0 : this.#clock.monotonicMs() - oldest.queuedAtMs,
      failure: this.#failure,
    };
  }

  /**
   * @param payload bytes of the record, at most 16 MiB; copied when the batch is written: do not change them before
   * @returns the record's sequence, once it is durable
   * @throws WAGGLE_WAL_DISK_FULL, WAGGLE_WAL_READ_ONLY, WAGGLE_WAL_IO, WAGGLE_WAL_LOCKED: the record is not in the log;
   *   WAGGLE_WAL_CLOSED, WAGGLE_WAL_RECORD_TOO_LARGE
   */
  append(payload: Uint8Array): Promise<number> {
    let sequence: number;
    try {
      sequence = this.#next(payload);
    } catch (err) {
      return Promise.reject(err);
    }
    return new Promise<number>((fulfil, reject) => {
      this.#enqueue({ sequence, queuedAtMs: this.#clock.monotonicMs(), payload, fulfil, reject });
      if (this.#groupCommitMs > 0) this.#flushIn(this.#groupCommitMs);
      else void this.#flush();
    });
  }

  /**
   * Queues a record without waiting: it is durable within the loss window, or later while the disk refuses
   * writes (such records are kept and tried again).
   * @param payload bytes, or a text that becomes UTF-8 at once: cheaper than making a buffer of it first
   * @throws WAGGLE_WAL_CLOSED, WAGGLE_WAL_RECORD_TOO_LARGE, WAGGLE_WAL_IO when 64 MiB wait already
   */
  appendLater(payload: Uint8Array | string): number {
    if (this.#queuedBytes > MAX_BACKLOG_BYTES) {
      throw walError('WAGGLE_WAL_IO', 'too many records wait for the disk', {
        cause: this.#failure,
        details: { bytes: this.#queuedBytes },
      });
    }
    const queuedAtMs = this.#clock.monotonicMs();
    let sequence: number;
    if (typeof payload === 'string') {
      this.#assertOpen();
      const { bytes, slab } = this.#texts.encode(payload);
      try {
        sequence = this.#next(bytes);
      } catch (err) {
        this.#texts.giveBack(slab);
        throw err;
      }
      this.#enqueue({ sequence, queuedAtMs, payload: bytes, slab });
    } else {
      sequence = this.#next(payload);
      this.#enqueue({ sequence, queuedAtMs, payload });
    }
    this.#flushIn(this.#laterMs);
    return sequence;
  }

  /** Waits until everything queued so far is durable or refused. */
  async flush(): Promise<void> {
    while (this.#queue.length > 0 || this.#flushing !== undefined) {
      await this.#flush();
      if (this.#failure !== undefined) throw this.#failure;
    }
  }

  /**
   * Durable records from a sequence on, in order. Sees what is durable when each step is taken; ends at the end.
   * @param options.borrowed payloads are valid until the next step only, and cost no memory of their own
   * @throws WAGGLE_WAL_CORRUPT
   */
  async *read(
    fromSequence: number,
    options: { readonly borrowed?: boolean } = {},
  ): AsyncGenerator<{ sequence: number; payload: Uint8Array }> {
    let room = Buffer.alloc(0);
    for (let s = 0; s < this.#segments.length; s++) {
      const segment = this.#segments[s]!;
      const next = this.#segments[s + 1];
      if (next !== undefined && next.first <= fromSequence) continue;
      let start = SEGMENT_HEAD_BYTES;
      for (const mark of segment.marks) {
        if (mark.sequence > fromSequence) break;
        start = mark.offset;
      }
      const handle = await open(segment.path, 'r');
      try {
        let buffer = Buffer.alloc(0);
        let base = start;
        let at = 0;
        while (base + at < segment.end) {
          let record = readRecord(buffer, at);
          if (record === undefined) {
            // The record is not whole in the buffer: read on, by more each time.
            const want = Math.min(
              segment.end - (base + at),
              Math.max(READ_BYTES, (buffer.length - at) * 2),
            );
            if (options.borrowed !== true || room.length < want)
              room = Buffer.allocUnsafeSlow(want);
            const { bytesRead } = await handle.read(room, 0, want, base + at);
            base += at;
            at = 0;
            buffer = room.subarray(0, bytesRead);
            record = readRecord(buffer, 0);
            if (record === undefined) {
              if (base + want < segment.end && want <= MAX_RECORD_BYTES + RECORD_HEAD_BYTES)
                continue;
              throw corruptError(segment.path, base);
            }
          }
          at = record.end;
          if (record.sequence >= fromSequence)
            yield { sequence: record.sequence, payload: record.payload };
        }
      } finally {
        await handle.close();
      }
      // Segments may have been removed from the front while the reader was away.
      s = this.#segments.indexOf(segment);
      if (s < 0) s = -1;
    }
  }

  /**
   * A durable sequence up to which the records from `fromSequence` on take some `bytes`, to within 64 KiB and one
   * record; at least `fromSequence`. O(segments + marks).
   */
  boundary(fromSequence: number, bytes: number): number {
    let left = bytes;
    for (const [s, segment] of this.#segments.entries()) {
      const next = this.#segments[s + 1];
      if (next !== undefined && next.first <= fromSequence) continue;
      let offset = SEGMENT_HEAD_BYTES;
      for (const mark of segment.marks) {
        if (mark.sequence > fromSequence) {
          left -= mark.offset - offset;
          if (left <= 0) return Math.max(fromSequence, mark.sequence - 1);
        }
        offset = mark.offset;
      }
      left -= segment.end - offset;
      if (left <= 0 && next !== undefined) return Math.max(fromSequence, next.first - 1);
    }
    return this.#durableSequence;
  }

  /** Removes whole segments whose records all lie before `sequence`. @throws WAGGLE_WAL_LOCKED, WAGGLE_WAL_IO */
  async truncateBefore(sequence: number): Promise<void> {
    await this.assertHeld();
    let removed = 0;
    while (this.#segments.length > 1 && this.#segments[1]!.first <= sequence) {
      const segment = this.#segments.shift()!;
      await rm(segment.path, { force: true });
      removed++;
    }
    if (removed > 0) {
      await this.#files.syncDirectory(this.dir).catch((err) => {
        throw ioError(err, 'truncate the log');
      });
    }
  }

  /**
   * For files of others in the directory, before they are written. A process that stood still for long may have been
   * taken for dead by one that it cannot see, and must not write any more.
   * @throws WAGGLE_WAL_LOCKED, WAGGLE_WAL_IO
   */
  async assertHeld(): Promise<void> {
    if (this.#lock.isSure()) return;
    let isOurs: boolean;
    try {
      isOurs = await this.#lock.confirm();
    } catch (err) {
      throw ioError(err, 'look after the lock');
    }
    if (!isOurs) throw lostError(this.dir);
  }

  /** Makes everything durable that can be, and gives the directory back. Idempotent. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    while (this.#flushing !== undefined) await this.#flushing;
    if (this.#queue.length > 0) await this.#flush();
    const lost = this.#queue.length;
    if (lost > 0)
      this.#logger.error({ lost }, 'records could not be written before the log was closed');
    await this.#file?.close().catch(() => {});
    this.#file = undefined;
    await this.#lock.release();
  }

  #next(payload: Uint8Array): number {
    this.#assertOpen();
    if (payload.byteLength > MAX_RECORD_BYTES) {
      throw walError('WAGGLE_WAL_RECORD_TOO_LARGE', `a record of ${payload.byteLength} bytes`, {
        details: { bytes: payload.byteLength, limit: MAX_RECORD_BYTES },
      });
    }
    return ++this.#lastSequence;
  }

  #assertOpen(): void {
    if (this.#closed) throw walError('WAGGLE_WAL_CLOSED', 'the write-ahead log is closed');
  }

  #enqueue(entry: Waiting): void {
    this.#queue.push(entry);
    this.#queuedBytes += entry.payload.byteLength;
  }

  #flushIn(ms: number): void {
    if (this.#timer !== undefined || this.#flushing !== undefined) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      void this.#flush();
    }, ms);
  }

  #flush(): Promise<void> {
    this.#flushing ??= this.#commitLoop().finally(() => {
      this.#flushing = undefined;
      if (this.#closed) return;
      // A writer that was just answered may have come back before the loop had quite ended.
      if (this.#queue.some((entry) => entry.reject !== undefined)) void this.#flush();
      // Records that nobody waits for stay queued after a failure: try again a little later.
      else if (this.#queue.length > 0)
        this.#flushIn(this.#failure === undefined ? this.#laterMs : RETRY_MS);
      // Whoever is told that the disk refuses sends nothing until it is said that it no longer does.
      else if (this.#failure !== undefined) this.#flushIn(PROBE_MS);
    });
    return this.#flushing;
  }

  async #commitLoop(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    // Everything appended in this turn of the event loop joins the first batch.
    await Promise.resolve();
    if (this.#queue.length === 0 && this.#failure !== undefined) await this.#probe();
    while (this.#queue.length > 0) {
      const batch = this.#takeBatch();
      try {
        await this.#commit(batch);
        this.#recovered();
      } catch (err) {
        const error = ioError(err, 'append to the log');
        if (this.#failure === undefined)
          this.#logger.error({ err: error, dir: this.dir }, 'the log cannot be written');
        this.#failure = error;
        const kept: Waiting[] = [];
        for (const entry of batch) {
          if (entry.reject === undefined) kept.push(entry);
          else entry.reject(error);
        }
        for (const entry of kept) this.#queuedBytes += entry.payload.byteLength;
        this.#queue = [...kept, ...this.#queue];
        if (!this.#queue.some((entry) => entry.reject !== undefined)) return;
        continue;
      }
      for (const entry of batch) {
        if (entry.slab !== undefined) this.#texts.giveBack(entry.slab);
        entry.fulfil?.(entry.sequence);
      }
    }
  }

  #recovered(): void {
    if (this.#failure === undefined) return;
    this.#failure = undefined;
    this.#logger.info({ dir: this.dir }, 'the log can be written again');
  }

  /** Whether the disk takes writes again: what a record would ask of it, done to a file that is removed. */
  async #probe(): Promise<void> {
    const path = join(this.dir, PROBE_FILE);
    try {
      await this.assertHeld();
      const file = await this.#files.open(path, 'w');
      try {
        const { bytesWritten } = await file.write(Buffer.alloc(PROBE_BYTES), 0, PROBE_BYTES, 0);
        if (bytesWritten < PROBE_BYTES) return;
        await file.sync();
      } finally {
        await file.close().catch(() => {});
        await rm(path, { force: true });
      }
      this.#recovered();
    } catch (err) {
      this.#failure = ioError(err, 'append to the log');
    }
  }

  #takeBatch(): Waiting[] {
    let bytes = 0;
    let count = 0;
    while (count < this.#queue.length && (count === 0 || bytes < MAX_BATCH_BYTES)) {
      bytes += this.#queue[count]!.payload.byteLength;
      count++;
    }
    const batch = this.#queue.slice(0, count);
    this.#queue = this.#queue.slice(count);
    this.#queuedBytes -= bytes;
    return batch;
  }

  /** Writes and syncs a batch; on failure the file ends where it ended before, or is cut before the next use. */
  async #commit(batch: readonly Waiting[]): Promise<void> {
    await this.assertHeld();
    if (this.#dirtyTail) await this.#cutTail();
    if (this.#file === undefined || this.#active().end >= this.#segmentBytes) {
      await this.#rotate(batch[0]!.sequence);
    }
    const segment = this.#active();
    let total = 0;
    for (const entry of batch) total += RECORD_HEAD_BYTES + entry.payload.byteLength;
    const bytes = this.#batchRoom(total);
    let at = 0;
    let lastMark = segment.marks.at(-1)?.offset ?? 0;
    const marks: Segment['marks'] = [];
    for (const { sequence, payload } of batch) {
      const offset = segment.end + at;
      if (offset - lastMark >= MARK_EVERY_BYTES) {
        marks.push({ sequence, offset });
        lastMark = offset;
      }
      at = writeRecord(bytes, at, { sequence, durable: this.#durableSequence, payload });
    }
    this.#dirtyTail = true;
    let written = 0;
    while (written < total) {
      const { bytesWritten } = await this.#file!.write(
        bytes,
        written,
        total - written,
        segment.end + written,
      );
      if (bytesWritten === 0)
        throw Object.assign(new Error('nothing was written'), { code: 'ENOSPC' });
      written += bytesWritten;
    }
    try {
      await this.#file!.datasync();
    } catch (err) {
      // After a failed sync the page cache may claim to be clean: never trust this file with more data.
      await this.#file!.close().catch(() => {});
      this.#file = undefined;
      throw err;
    }
    this.#syncs++;
    this.#dirtyTail = false;
    segment.end += total;
    segment.marks.push(...marks);
    this.#durableSequence = batch.at(-1)!.sequence;
  }

  /** Memory for one batch; batches are written one after the other. */
  #batchRoom(bytes: number): Buffer {
    if (bytes > KEPT_BATCH_BYTES) return Buffer.allocUnsafeSlow(bytes);
    if (this.#batchBytes.length < bytes) {
      this.#batchBytes = Buffer.allocUnsafeSlow(
        Math.min(KEPT_BATCH_BYTES, Math.max(bytes, 2 * this.#batchBytes.length)),
      );
    }
    return this.#batchBytes;
  }

  #active(): Segment {
    return this.#segments.at(-1)!;
  }

  /** Cuts what a failed write may have left after the durable end. */
  async #cutTail(): Promise<void> {
    const segment = this.#active();
    const file = this.#file ?? (await this.#files.open(segment.path, 'r+'));
    try {
      await file.truncate(segment.end);
      await file.sync();
    } finally {
      if (this.#file === undefined) await file.close().catch(() => {});
    }
    this.#dirtyTail = false;
  }

  /** Begins a new segment; the old one is complete and synced. */
  async #rotate(firstSequence: number): Promise<void> {
    await this.#file?.close().catch(() => {});
    this.#file = undefined;
    const path = join(this.dir, segmentName(firstSequence));
    const file = await this.#files.open(path, 'w');
    try {
      const head = segmentHead(firstSequence);
      await file.write(head, 0, head.length, 0);
      await file.sync();
      await this.#files.syncDirectory(this.dir);
    } catch (err) {
      await file.close().catch(() => {});
      if (!this.#segments.some((segment) => segment.path === path)) {
        await rm(path, { force: true }).catch(() => {});
      }
      throw err;
    }
    this.#file = file;
    // An active segment without records is replaced rather than left behind.
    const before = this.#segments.at(-1);
    if (before !== undefined && before.end === SEGMENT_HEAD_BYTES) {
      this.#segments.pop();
      if (before.path !== path) await rm(before.path, { force: true });
    }
    this.#segments.push({ first: firstSequence, path, marks: [], end: SEGMENT_HEAD_BYTES });
  }

  async #openActive(): Promise<void> {
    const segment = this.#segments.at(-1);
    if (segment === undefined) await this.#rotate(this.#lastSequence + 1);
    else this.#file = await this.#files.open(segment.path, 'r+');
  }
}

/** Checks every segment, cuts a torn tail. */
async function recover(
  dir: string,
  files: WalFiles,
  logger: Logger,
): Promise<{ segments: Segment[]; lastSequence: number }> {
  const names = (await readdir(dir)).filter((name) => /^\d{16}\.wal$/.test(name)).sort();
  const segments: Segment[] = [];
  let lastSequence = 0;
  for (const [index, name] of names.entries()) {
    const path = join(dir, name);
    const isLast = index === names.length - 1;
    const bytes = await readFile(path);
    const first = readSegmentHead(bytes);
    if (first === undefined || first !== Number(name.slice(0, 16)) || first <= lastSequence) {
      // A head is synced before the first record is written: without a head there is nothing to lose.
      if (!isLast || bytes.length > SEGMENT_HEAD_BYTES) throw corruptError(path, 0);
      logger.warn({ path }, 'removed an empty segment of the write-ahead log');
      await rm(path);
      await files.syncDirectory(dir);
      lastSequence = Math.max(lastSequence, Number(name.slice(0, 16)) - 1);
      continue;
    }
    // Sequences before this segment were given out even if their records are gone.
    lastSequence = Math.max(lastSequence, first - 1);
    const segment: Segment = { first, path, marks: [], end: SEGMENT_HEAD_BYTES };
    let lastMark = 0;
    for (;;) {
      const record = readRecord(bytes, segment.end);
      if (record === undefined || record.sequence <= lastSequence) break;
      if (segment.end - lastMark >= MARK_EVERY_BYTES) {
        segment.marks.push({ sequence: record.sequence, offset: segment.end });
        lastMark = segment.end;
      }
      lastSequence = record.sequence;
      segment.end = record.end;
    }
    if (segment.end < bytes.length) {
      if (!isLast || laterDurable(bytes, segment.end) > lastSequence)
        throw corruptError(path, segment.end);
      const cut = bytes.length - segment.end;
      const file = await files.open(path, 'r+');
      try {
        await file.truncate(segment.end);
        await file.sync();
      } finally {
        await file.close();
      }
      logger.warn(
        { path, bytes: cut, lastSequence },
        'cut an unacknowledged tail off the write-ahead log',
      );
    }
    segments.push(segment);
  }
  return { segments, lastSequence };
}

/**
 * Highest sequence that any whole record after `from` says was durable before it: if that lies beyond the last good
 * record, acknowledged data is damaged. O(bytes) with a cheap test per offset.
 */
function laterDurable(bytes: Buffer, from: number): number {
  let highest = 0;
  for (let at = from + 1; at + RECORD_HEAD_BYTES <= bytes.length; at++) {
    // Cheap refusals first: a plausible length and plausible high words of both sequences.
    const length = bytes.readUInt32LE(at);
    if (length > MAX_RECORD_BYTES || at + RECORD_HEAD_BYTES + length > bytes.length) continue;
    if (bytes.readUInt32LE(at + 12) > 0x1f_ffff || bytes.readUInt32LE(at + 20) > 0x1f_ffff)
      continue;
    const record = readRecord(bytes, at);
    if (record === undefined || record.durable >= record.sequence) continue;
    highest = Math.max(highest, record.durable);
    at = record.end - 1;
  }
  return highest;
}

function segmentName(first: number): string {
  return `${String(first).padStart(16, '0')}.wal`;
}

function corruptError(path: string, offset: number): WaggleError {
  return walError('WAGGLE_WAL_CORRUPT', `${path} is damaged at byte ${offset}`, {
    details: { path, offset },
  });
}

function lockedError({ heldBy, host }: HeldBy, dir: string): WaggleError {
  if (host === undefined) {
    return walError('WAGGLE_WAL_LOCKED', `process ${heldBy} holds ${dir}`, {
      details: { pid: heldBy, dir },
    });
  }
  return walError(
    'WAGGLE_WAL_LOCKED',
    `process ${heldBy} in another container or machine (${host}) holds ${dir}`,
    {
      details: { pid: heldBy, host, dir },
      remedy: `Stop it there, or give this one its own directory: only one process may write to ${dir}.`,
    },
  );
}

function lostError(dir: string): WaggleError {
  return walError('WAGGLE_WAL_LOCKED', `another process has taken over ${dir}`, {
    details: { dir },
    remedy:
      'Restart this process. It stood still for so long that it was taken for dead; give each process its own directory.',
  });
}

function ioError(cause: unknown, doing: string): WaggleError {
  if (cause instanceof WaggleError) return cause;
  const code = (cause as NodeJS.ErrnoException | undefined)?.code;
  const message = cause instanceof Error ? cause.message : String(cause);
  const options = { cause, details: { errno: code } };
  switch (code) {
    case 'ENOSPC':
    case 'EDQUOT':
      return walError('WAGGLE_WAL_DISK_FULL', `${doing}: the disk is full`, options);
    case 'EROFS':
    case 'EACCES':
    case 'EPERM':
      return walError('WAGGLE_WAL_READ_ONLY', `${doing}: ${message}`, options);
    default:
      return walError('WAGGLE_WAL_IO', `${doing}: ${message}`, options);
  }
}

export const nodeFiles: WalFiles = {
  open: (path, flags) => open(path, flags, 0o600),
  async syncDirectory(path) {
    const handle = await open(path, 'r');
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  },
};
