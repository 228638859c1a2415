import { inflateRawSync } from 'node:zlib';

const END_OF_DIRECTORY = 0x06054b50;
const DIRECTORY_ENTRY = 0x02014b50;
const LOCAL_ENTRY = 0x04034b50;

/**
 * One file out of a ZIP archive (a Python wheel is one), stored or deflated. ZIP64 and encryption are refused.
 * Layout: APPNOTE.TXT 6.3.10, sections 4.3.7, 4.3.12 and 4.3.16.
 *
 * @param archive the whole file, borrowed
 * @param maxBytes most that the file may unpack to
 * @returns the file's bytes; undefined when the archive has no such name
 * @throws RangeError when the archive is truncated or not a ZIP file
 */
export function readZipEntry(
  archive: Uint8Array,
  name: string,
  maxBytes: number,
): Uint8Array | undefined {
  const view = new DataView(archive.buffer, archive.byteOffset, archive.byteLength);
  const u16 = (at: number) => view.getUint16(at, true);
  const u32 = (at: number) => view.getUint32(at, true);
  let end = archive.byteLength - 22;
  const lowest = Math.max(0, end - 0xffff);
  while (end >= lowest && u32(end) !== END_OF_DIRECTORY) end--;
  if (end < lowest) throw new RangeError('not a ZIP file, or a truncated one');
  const nEntries = u16(end + 10);
  let at = u32(end + 16);
  const decoder = new TextDecoder();
  for (let entry = 0; entry < nEntries; entry++) {
    if (u32(at) !== DIRECTORY_ENTRY) throw new RangeError('the ZIP directory is damaged');
    const flags = u16(at + 8);
    const method = u16(at + 10);
    const packed = u32(at + 20);
    const unpacked = u32(at + 24);
    const nameBytes = u16(at + 28);
    const local = u32(at + 42);
    const found = decoder.decode(archive.subarray(at + 46, at + 46 + nameBytes));
    at += 46 + nameBytes + u16(at + 30) + u16(at + 32);
    if (found !== name) continue;
    if ((flags & 1) !== 0) throw new RangeError(`${name} is encrypted`);
    if (unpacked > maxBytes)
      throw new RangeError(`${name} unpacks to ${unpacked} bytes, at most ${maxBytes} expected`);
    if (u32(local) !== LOCAL_ENTRY) throw new RangeError('the ZIP directory points astray');
    const from = local + 30 + u16(local + 26) + u16(local + 28);
    if (from + packed > archive.byteLength) throw new RangeError(`${name} is truncated`);
    const data = archive.subarray(from, from + packed);
    if (method === 0) return data.slice();
    if (method === 8) return inflateRawSync(data, { maxOutputLength: Math.max(1, maxBytes) });
    throw new RangeError(`${name} is packed by method ${method}`);
  }
  return undefined;
}
