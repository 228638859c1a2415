import { crc32c } from '@node-rs/crc32';

/**
 * A segment is a 16-byte head (magic, first sequence) and records:
 * u32 payload length · u32 CRC-32C of all that follows · u64 sequence · u64 highest sequence known durable when
 * this was written · payload. Little endian. The fourth field tells a torn tail from damage: what a later record
 * says was durable must be there.
 */
export const SEGMENT_MAGIC = 'WAGGWAL1';
export const SEGMENT_HEAD_BYTES = 16;
export const RECORD_HEAD_BYTES = 24;
export const MAX_RECORD_BYTES = 16 << 20;

export interface WalRecord {
  readonly sequence: number;
  readonly durable: number;
  readonly payload: Uint8Array;
  /** Offset after the record. */
  readonly end: number;
}

export function segmentHead(firstSequence: number): Buffer {
  const head = Buffer.alloc(SEGMENT_HEAD_BYTES);
  head.write(SEGMENT_MAGIC, 0, 'latin1');
  head.writeBigUInt64LE(BigInt(firstSequence), 8);
  return head;
}

/** @returns the first sequence a segment's head names, or undefined for a foreign or cut head */
export function readSegmentHead(bytes: Buffer): number | undefined {
  if (bytes.length < SEGMENT_HEAD_BYTES || bytes.toString('latin1', 0, 8) !== SEGMENT_MAGIC)
    return undefined;
  return Number(bytes.readBigUInt64LE(8));
}

/** Writes one record at `at`. @returns the offset after it */
export function writeRecord(
  out: Buffer,
  at: number,
  record: { sequence: number; durable: number; payload: Uint8Array },
): number {
  const end = at + RECORD_HEAD_BYTES + record.payload.byteLength;
  out.writeUInt32LE(record.payload.byteLength, at);
  writeUint64(out, record.sequence, at + 8);
  writeUint64(out, record.durable, at + 16);
  out.set(record.payload, at + RECORD_HEAD_BYTES);
  out.writeUInt32LE(crc32c(out.subarray(at + 8, end)), at + 4);
  return end;
}

function writeUint64(out: Buffer, value: number, at: number): void {
  out.writeUInt32LE(value % 4_294_967_296, at);
  out.writeUInt32LE(Math.floor(value / 4_294_967_296), at + 4);
}

/** The record at `at`, or undefined when it is cut, damaged or not there. The payload borrows `bytes`. */
export function readRecord(bytes: Buffer, at: number): WalRecord | undefined {
  if (at + RECORD_HEAD_BYTES > bytes.length) return undefined;
  const length = bytes.readUInt32LE(at);
  const end = at + RECORD_HEAD_BYTES + length;
  if (length > MAX_RECORD_BYTES || end > bytes.length) return undefined;
  if (crc32c(bytes.subarray(at + 8, end)) !== bytes.readUInt32LE(at + 4)) return undefined;
  const sequence = bytes.readUInt32LE(at + 8) + bytes.readUInt32LE(at + 12) * 4_294_967_296;
  const durable = bytes.readUInt32LE(at + 16) + bytes.readUInt32LE(at + 20) * 4_294_967_296;
  return { sequence, durable, payload: bytes.subarray(at + RECORD_HEAD_BYTES, end), end };
}
