import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { asyncBufferFromFile, parquetReadObjects } from 'hyparquet';
import { afterAll, describe, expect, test } from 'vitest';
import * as publicApi from '../src/index.js';
import { readManifest, simulateWorld, TABLES, writeWorld } from '../src/index.js';
import { readTruth, TRUTH_TABLES, type TruthName } from '../src/truth.js';

const root = mkdtempSync(join(tmpdir(), 'waggle-world-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const options = { scale: 'tiny', seed: 4 } as const;
const world = simulateWorld(options);
const directory = join(root, 'tiny');
const steps: string[] = [];
const written = writeWorld(options, directory, { progress: ({ step }) => steps.push(step) });

/** What hyparquet reads, in the contract's JSON types. */
function plain(value: unknown): unknown {
  if (typeof value === 'bigint') return Number(value);
  if (value instanceof Date) return value.toISOString();
  return value;
}

describe('files', () => {
  test.each(Object.keys(TABLES))(
    '%s.parquet holds the rows of the world in memory',
    async (name) => {
      const table = world.tables[name]!;
      const entry = written.manifest.tables[name];
      if (table.nRows === 0) {
        expect(entry).toBeUndefined();
        expect(existsSync(join(directory, `${name}.parquet`))).toBe(false);
        return;
      }
      expect(entry!.rows).toBe(table.nRows);
      const rows = await parquetReadObjects({
        file: await asyncBufferFromFile(join(directory, entry!.path)),
      });
      const seen = rows.map((row) =>
        Object.fromEntries(Object.entries(row).map(([column, value]) => [column, plain(value)])),
      );
      expect(seen).toEqual([...table.rows()]);
    },
  );

  test('the manifest names sizes and hashes', () => {
    const { manifest } = written;
    expect(manifest.end).toBe('2026-03-02T00:00:00.000Z');
    expect(manifest.start).toBe('2026-02-23T00:00:00.000Z');
    for (const file of [...Object.values(manifest.tables), ...Object.values(manifest.truth)]) {
      const bytes = readFileSync(join(directory, file.path));
      expect(bytes.length).toBe(file.bytes);
      expect(createHash('sha256').update(bytes).digest('hex')).toBe(file.sha256);
    }
    expect(readManifest(directory)).toEqual(manifest);
    expect(steps).toContain('simulate');
  });

  test('the same world again is reused; forced, it is byte for byte the same', () => {
    expect(writeWorld(options, directory)).toEqual({ manifest: written.manifest, reused: true });
    const again = writeWorld(options, join(root, 'again'));
    expect(again.reused).toBe(false);
    expect(again.manifest).toEqual(written.manifest);
  });

  test('another seed, or a damaged file, replaces the directory', () => {
    const place = join(root, 'replaced');
    writeWorld(options, place);
    const other = writeWorld({ scale: 'tiny', seed: 5 }, place);
    expect(other.reused).toBe(false);
    expect(readManifest(place).config.seed).toBe(5);
    truncateSync(join(place, 'clicks.parquet'), 100);
    expect(writeWorld({ scale: 'tiny', seed: 5 }, place)).toEqual({
      manifest: other.manifest,
      reused: false,
    });
    expect(readdirSync(root).filter((name) => name.startsWith('.'))).toEqual([]);
  });

  test('a directory with other things in it is never replaced', () => {
    const place = join(root, 'precious');
    mkdirSync(place);
    writeFileSync(join(place, 'thesis.txt'), 'years of work');
    expect(() => writeWorld(options, place)).toThrowError(
      expect.objectContaining({ code: 'WAGGLE_SIMULATOR_WRITE' }),
    );
    expect(readFileSync(join(place, 'thesis.txt'), 'utf8')).toBe('years of work');
  });

  test('a failure while writing leaves nothing behind and says why', () => {
    const parent = join(root, 'file-in-the-way');
    writeFileSync(parent, '');
    expect(() => writeWorld(options, join(parent, 'world'))).toThrowError(
      expect.objectContaining({ code: 'WAGGLE_SIMULATOR_WRITE' }),
    );
  });

  test('a progress callback that throws aborts cleanly', () => {
    const place = join(root, 'aborted');
    expect(() =>
      writeWorld(options, place, {
        progress: () => {
          throw new Error('enough');
        },
      }),
    ).toThrowError(expect.objectContaining({ code: 'WAGGLE_SIMULATOR_WRITE' }));
    expect(existsSync(place)).toBe(false);
    expect(readdirSync(root).filter((name) => name.startsWith('.'))).toEqual([]);
  });
});

describe('hidden truth', () => {
  test('lies in a folder of its own and is read by its own entry point', async () => {
    expect(Object.keys(publicApi).some((name) => /truth/i.test(name))).toBe(false);
    for (const file of Object.values(written.manifest.tables))
      expect(file.path).not.toMatch(/truth/);
    for (const file of Object.values(written.manifest.truth)) expect(file.path).toMatch(/^truth\//);
    for (const name of Object.keys(TRUTH_TABLES) as TruthName[]) {
      const table = await readTruth(directory, name);
      expect(table.nRows).toBe(world.truth[name].nRows);
      for (const [column, kind] of TRUTH_TABLES[name].columns) {
        if (kind === 'dict' || kind === 'id' || kind === 'text') {
          expect(table.strings(column)).toEqual(world.truth[name].strings(column));
        } else {
          expect([...table.numbers(column)]).toEqual([...world.truth[name].numbers(column)]);
        }
      }
    }
  });

  test('a missing world or column is an error with a code', async () => {
    await expect(readTruth(join(root, 'nowhere'), 'clicks')).rejects.toMatchObject({
      code: 'WAGGLE_SIMULATOR_WORLD',
    });
    const clicks = await readTruth(directory, 'clicks');
    expect(() => clicks.numbers('nonsense')).toThrowError(
      expect.objectContaining({ code: 'WAGGLE_SIMULATOR_OPTION' }),
    );
    expect(() => readManifest(join(root, 'nowhere'))).toThrowError(
      expect.objectContaining({ code: 'WAGGLE_SIMULATOR_WORLD' }),
    );
  });
});
