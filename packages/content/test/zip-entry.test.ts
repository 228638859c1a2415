import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readZipEntry } from '../src/model/zip-entry.js';
import { zipArchive } from './fixtures/wheel.js';

const LIMIT = 1 << 20;

describe('readZipEntry', () => {
  it('gives back any file, stored or deflated', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 500 }), fc.boolean(), (content, stored) => {
        const archive = zipArchive(
          { 'a/first.txt': Uint8Array.of(1), 'b/file.bin': content },
          stored,
        );
        expect(new Uint8Array(readZipEntry(archive, 'b/file.bin', LIMIT)!)).toEqual(content);
        expect(readZipEntry(archive, 'b/other', LIMIT)).toBeUndefined();
      }),
    );
  });

  it('throws, and nothing worse, on a truncated or altered archive', () => {
    const archive = zipArchive({ 'file.bin': new Uint8Array(300).fill(5) });
    fc.assert(
      fc.property(fc.nat({ max: archive.length - 1 }), fc.nat({ max: 255 }), (at, value) => {
        expect(() => readZipEntry(archive.slice(0, at), 'file.bin', LIMIT)).toThrow();
        const altered = archive.slice();
        altered[at] = value;
        try {
          readZipEntry(altered, 'file.bin', LIMIT);
        } catch (error) {
          expect(error).toBeInstanceOf(Error);
        }
      }),
    );
  });

  it('refuses a file that unpacks to more than expected', () => {
    const archive = zipArchive({ 'file.bin': new Uint8Array(5000) });
    expect(() => readZipEntry(archive, 'file.bin', 4999)).toThrow(/5000/);
  });
});
