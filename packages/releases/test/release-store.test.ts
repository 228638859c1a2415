import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { encodeColumns, type Logger, manualClock, numericColumn, silentLogger } from '@waggle/core';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type ReleaseInput, ReleaseStore, releaseInMemory } from '../src/index.js';

const T0 = Date.UTC(2026, 2, 2);
let dir: string;
let warnings: string[];

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'waggle-releases-'));
  warnings = [];
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const logger: Logger = {
  ...silentLogger,
  warn: (_fields, message) => void warnings.push(message ?? ''),
};
const open = (where = dir) =>
  new ReleaseStore({ dir: where, clock: manualClock(T0), logger, pollMs: 20 });
const text = (value: string) => new TextEncoder().encode(value);
const table = encodeColumns({
  nRows: 3,
  meta: { unit: 'micros' },
  columns: { bid: numericColumn('f64', Float64Array.of(1, 2, 3)) },
});
const input = (tag: string): ReleaseInput => ({
  sections: {
    catalog: { 'campaigns.col': table },
    models: { 'pctr.json': text(`{"tag":"${tag}"}`), 'empty.bin': new Uint8Array() },
  },
  lineage: { tag, rows: 3 },
});
const code = (expected: string) => expect.objectContaining({ code: expected });

describe('storing and opening', () => {
  test('a release that is never stored is the one that would have been', async () => {
    const store = open();
    const { id } = await store.create(input('a'));
    const stored = await store.open(id);
    const other = releaseInMemory(input('a'), T0);
    expect(other.manifest).toEqual(stored.manifest);
    expect(other.read('models', 'pctr.json')).toEqual(
      new Uint8Array(stored.read('models', 'pctr.json')),
    );
    expect(() => other.read('models', 'nothing')).toThrowError(code('WAGGLE_RELEASE_INCOMPLETE'));
    expect(() => releaseInMemory({ ...input('a'), sections: { '../x': {} } }, T0)).toThrowError(
      code('WAGGLE_RELEASE_NAME'),
    );
  });

  test('a stored release reads back byte for byte, as JSON and as columns', async () => {
    const store = open();
    const manifest = await store.create(input('a'));
    expect(manifest.id).toMatch(/^rel_[0-9a-f]{16}$/);
    expect(manifest.createdAt).toBe('2026-03-02T00:00:00.000Z');
    const release = await store.open(manifest.id);
    expect(release.manifest).toEqual(manifest);
    expect(release.has('models', 'pctr.json')).toBe(true);
    expect(release.has('models', 'nothing')).toBe(false);
    expect(release.json('models', 'pctr.json')).toEqual({ tag: 'a' });
    expect(release.table('catalog', 'campaigns.col').nRows).toBe(3);
    expect(release.read('models', 'empty.bin').byteLength).toBe(0);
    expect(() => release.read('models', 'nothing')).toThrow(code('WAGGLE_RELEASE_INCOMPLETE'));
    expect(() => release.json('catalog', 'campaigns.col')).toThrow(code('WAGGLE_RELEASE_CORRUPT'));
    expect(() => release.table('models', 'pctr.json')).toThrow(code('WAGGLE_RELEASE_CORRUPT'));
  });

  test('equal content is one release, whatever the order of its parts and the time', async () => {
    const first = await open().create(input('a'));
    const later = new ReleaseStore({ dir, clock: manualClock(T0 + 5_000), logger });
    const { sections } = input('a');
    const turned = {
      sections: Object.fromEntries(Object.entries(sections).reverse()),
      lineage: { rows: 3, tag: 'a' },
    };
    expect(await later.create(turned)).toEqual(first);
    expect(await later.list()).toEqual([first]);
    expect((await later.create(input('b'))).id).not.toBe(first.id);
  });

  test('twenty concurrent creations from several stores end as one release and no litter', async () => {
    const ids = await Promise.all(Array.from({ length: 20 }, () => open().create(input('same'))));
    expect(new Set(ids.map((m) => m.id)).size).toBe(1);
    expect(readdirSync(dir)).toEqual([ids[0]!.id]);
  });

  test('names that could leave the folder are refused before anything is written', async () => {
    for (const name of ['../x', 'a/b', '', '.hidden', 'ü', 'x'.repeat(65)]) {
      const bad = { sections: { models: { [name]: text('x') } }, lineage: {} };
      await expect(open().create(bad)).rejects.toThrow(code('WAGGLE_RELEASE_NAME'));
      const badSection = { sections: { [name]: {} }, lineage: {} };
      await expect(open().create(badSection)).rejects.toThrow(code('WAGGLE_RELEASE_NAME'));
    }
    expect(readdirSync(dir)).toEqual([]);
  });

  test('ids that are not ids, or not here, are not found', async () => {
    for (const id of ['rel_0123456789abcdef', '../../etc', '', 'rel_XYZ']) {
      await expect(open().open(id)).rejects.toThrow(code('WAGGLE_RELEASE_NOT_FOUND'));
    }
    expect(await open(join(dir, 'absent')).list()).toEqual([]);
    expect(await open(join(dir, 'absent')).active()).toBeUndefined();
  });

  test('temporary folders of a process that died are cleared away, young ones are left', async () => {
    mkdirSync(join(dir, '.tmp-old'));
    mkdirSync(join(dir, '.tmp-young'));
    utimesSync(join(dir, '.tmp-old'), 1, 1);
    const { id } = await open().create(input('a'));
    expect(readdirSync(dir).sort()).toEqual(['.tmp-young', id].sort());
    expect(await open().list()).toHaveLength(1);
  });
});

describe('damage', () => {
  const files = ['manifest.json', 'catalog/campaigns.col', 'models/pctr.json'];

  test('any file cut at any byte is noticed', async () => {
    const store = open();
    const { id } = await store.create(input('a'));
    for (const file of files) {
      const path = join(dir, id, file);
      const whole = readFileSync(path);
      for (let length = 0; length < whole.length; length++) {
        truncateSync(path, length);
        await expect(store.open(id), `${file} at ${length}`).rejects.toThrow(
          code('WAGGLE_RELEASE_CORRUPT'),
        );
        writeFileSync(path, whole);
      }
    }
    await store.open(id);
  });

  test('any flipped byte is noticed, except in the time of creation', async () => {
    const store = open();
    const { id } = await store.create(input('a'));
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...files),
        fc.nat(),
        fc.integer({ min: 1, max: 255 }),
        async (file, position, mask) => {
          const path = join(dir, id, file);
          const whole = readFileSync(path);
          const at = position % whole.length;
          const line = whole.toString('latin1').lastIndexOf('\n', at) + 1;
          const harmless =
            file === 'manifest.json' && whole.toString('latin1', line).startsWith('  "createdAt"');
          const broken = Buffer.from(whole);
          broken[at] = broken[at]! ^ mask;
          writeFileSync(path, broken);
          try {
            if (!harmless && !isSameJson(file, whole, broken)) {
              await expect(store.open(id)).rejects.toThrow(/release|format/);
            }
          } finally {
            writeFileSync(path, whole);
          }
        },
      ),
      { numRuns: 300 },
    );
  });

  /** One kind of white space for another leaves a manifest what it was. */
  function isSameJson(file: string, a: Buffer, b: Buffer): boolean {
    if (file !== 'manifest.json') return false;
    try {
      return JSON.stringify(JSON.parse(a.toString())) === JSON.stringify(JSON.parse(b.toString()));
    } catch {
      return false;
    }
  }

  test('a missing file, a missing manifest and a foreign format each have their code', async () => {
    const store = open();
    const { id } = await store.create(input('a'));
    const manifestPath = join(dir, id, 'manifest.json');
    const manifest = readFileSync(manifestPath);
    writeFileSync(manifestPath, JSON.stringify({ ...JSON.parse(manifest.toString()), format: 2 }));
    await expect(store.open(id)).rejects.toThrow(code('WAGGLE_RELEASE_FORMAT'));
    for (const junk of ['[]', '3', '"x"', 'null']) {
      writeFileSync(manifestPath, junk);
      await expect(store.open(id)).rejects.toThrow(code('WAGGLE_RELEASE_CORRUPT'));
    }
    rmSync(manifestPath);
    await expect(store.open(id)).rejects.toThrow(code('WAGGLE_RELEASE_INCOMPLETE'));
    writeFileSync(manifestPath, manifest);
    rmSync(join(dir, id, 'models/pctr.json'));
    await expect(store.open(id)).rejects.toThrow(code('WAGGLE_RELEASE_INCOMPLETE'));
  });

  test('a release copied under another id does not open', async () => {
    const store = open();
    const { id } = await store.create(input('a'));
    const other = 'rel_00000000000000aa';
    mkdirSync(join(dir, other));
    writeFileSync(join(dir, other, 'manifest.json'), readFileSync(join(dir, id, 'manifest.json')));
    await expect(store.open(other)).rejects.toThrow(code('WAGGLE_RELEASE_CORRUPT'));
    expect((await store.list()).map((m) => m.id)).toEqual([id]);
    expect(warnings).toHaveLength(1);
  });

  test('creating the content of a damaged release again repairs it', async () => {
    const store = open();
    const { id } = await store.create(input('a'));
    truncateSync(join(dir, id, 'catalog/campaigns.col'), 5);
    expect((await store.create(input('a'))).id).toBe(id);
    await store.open(id);
    rmSync(join(dir, id, 'manifest.json'));
    await store.create(input('a'));
    await store.open(id);
    expect(readdirSync(dir)).toEqual([id]);
  });
});

describe('promotion', () => {
  test('activation points at a release and is written into the history', async () => {
    const store = open();
    const a = (await store.create(input('a'))).id;
    const b = (await store.create(input('b'))).id;
    await store.activate(a);
    await store.activate(b);
    await store.activate(b);
    expect(await store.active()).toBe(b);
    expect(await store.history()).toEqual([
      { at: '2026-03-02T00:00:00.000Z', action: 'activate', id: a, from: null },
      { at: '2026-03-02T00:00:00.000Z', action: 'activate', id: b, from: a },
    ]);
  });

  test('a release that does not open is not activated', async () => {
    const store = open();
    const a = (await store.create(input('a'))).id;
    const b = (await store.create(input('b'))).id;
    await store.activate(a);
    truncateSync(join(dir, b, 'models/pctr.json'), 1);
    await expect(store.activate(b)).rejects.toThrow(code('WAGGLE_RELEASE_CORRUPT'));
    await expect(store.activate('rel_0000000000000000')).rejects.toThrow(
      code('WAGGLE_RELEASE_NOT_FOUND'),
    );
    expect(await store.active()).toBe(a);
    expect(await store.history()).toHaveLength(1);
  });

  test('rolling back twice goes back two releases, then says that there is nothing left', async () => {
    const store = open();
    const [a, b, c] = await Promise.all(
      ['a', 'b', 'c'].map(async (t) => (await store.create(input(t))).id),
    );
    for (const id of [a, b, c]) await store.activate(id!);
    expect(await store.rollback()).toEqual({ from: c, to: b });
    expect(await store.rollback()).toEqual({ from: b, to: a });
    await expect(store.rollback()).rejects.toThrow(code('WAGGLE_RELEASE_NO_PREVIOUS'));
    expect(await store.active()).toBe(a);
    await store.activate(c!);
    expect(await store.rollback()).toEqual({ from: c, to: a });
  });

  test('rolling back passes over a release that no longer opens', async () => {
    const store = open();
    const [a, b, c] = await Promise.all(
      ['a', 'b', 'c'].map(async (t) => (await store.create(input(t))).id),
    );
    for (const id of [a, b, c]) await store.activate(id!);
    rmSync(join(dir, b!, 'models'), { recursive: true });
    expect(await store.rollback()).toEqual({ from: c, to: a });
    expect(warnings.some((w) => w.includes('does not open'))).toBe(true);
  });

  test('before any activation there is nothing to roll back', async () => {
    await expect(open().rollback()).rejects.toThrow(code('WAGGLE_RELEASE_NO_PREVIOUS'));
  });

  test('a pointer cut at any byte is noticed, and can be replaced or rolled back', async () => {
    const store = open();
    const a = (await store.create(input('a'))).id;
    const b = (await store.create(input('b'))).id;
    await store.activate(a);
    await store.activate(b);
    for (let length = 0; length < 21; length++) {
      truncateSync(join(dir, 'active'), length);
      await expect(store.active()).rejects.toThrow(code('WAGGLE_RELEASE_CORRUPT'));
      await store.activate(b);
      expect(await store.active()).toBe(b);
    }
    writeFileSync(join(dir, 'active'), 'gibberish');
    expect(await store.rollback()).toEqual({ from: b, to: a });
  });

  test('a history cut at any byte still allows promotion and rollback', async () => {
    const store = open();
    const a = (await store.create(input('a'))).id;
    const b = (await store.create(input('b'))).id;
    await store.activate(a);
    await store.activate(b);
    const path = join(dir, 'promotions.ndjson');
    const whole = readFileSync(path);
    for (let length = 0; length <= whole.length; length++) {
      writeFileSync(path, whole.subarray(0, length));
      writeFileSync(join(dir, 'active'), `${b}\n`);
      await store.activate(a);
      expect((await store.history()).at(-1)).toMatchObject({ id: a, from: b });
    }
    appendFileSync(path, 'not json\n{"action":"activate"}\n');
    await store.activate(b);
    expect(await store.rollback()).toEqual({ from: b, to: a });
  });

  test('an activation that stopped between history and pointer leaves the old release in charge', async () => {
    const store = open();
    const [a, b, c] = await Promise.all(
      ['a', 'b', 'c'].map(async (t) => (await store.create(input(t))).id),
    );
    await store.activate(a!);
    await store.activate(b!);
    appendFileSync(
      join(dir, 'promotions.ndjson'),
      `${JSON.stringify({ at: 'x', action: 'activate', id: c, from: b })}\n`,
    );
    expect(await store.active()).toBe(b);
    expect(await store.rollback()).toEqual({ from: b, to: a });
  });

  test('concurrent activations leave one of them active and a line for each change', async () => {
    const store = open();
    const ids = await Promise.all(
      ['a', 'b', 'c'].map(async (t) => (await store.create(input(t))).id),
    );
    await Promise.all(ids.map((id) => store.activate(id)));
    const history = await store.history();
    expect(history.map((p) => p.id)).toEqual(ids);
    expect(await store.active()).toBe(history.at(-1)!.id);
  });

  test('watchers hear of the active release, of every change, and nothing after closing', async () => {
    const store = open();
    const a = (await store.create(input('a'))).id;
    const b = (await store.create(input('b'))).id;
    await store.activate(a);
    const heard: string[] = [];
    let wake = () => {};
    const until = async (n: number) => {
      while (heard.length < n) await new Promise<void>((resolve) => (wake = resolve));
    };
    const watcher = open().watch((id) => {
      heard.push(id);
      wake();
    });
    await until(1);
    await store.activate(b);
    await until(2);
    await store.activate(a);
    await until(3);
    expect(heard).toEqual([a, b, a]);
    watcher.close();
    await store.activate(b);
    expect(heard).toHaveLength(3);
  });

  test('watchers hear of a release that is activated again, and the history does not', async () => {
    const store = open();
    const { id } = await store.create(input('a'));
    await store.activate(id);
    let heard = 0;
    let wake = () => {};
    const watcher = open().watch(() => {
      heard++;
      wake();
    });
    await watcher.looked;
    const again = new Promise<void>((resolve) => {
      wake = resolve;
    });
    await store.activate(id);
    await again;
    // Looking without news says nothing.
    await open().watch(() => {}).looked;
    expect(heard).toBe(2);
    expect(await store.history()).toHaveLength(1);
    watcher.close();
  });

  test('watchers hear of a damaged release again when it has been built again under its id', async () => {
    const store = open();
    const { id } = await store.create(input('a'));
    await store.activate(id);
    writeFileSync(join(dir, id, 'models', 'pctr.json'), '{');
    let heard = 0;
    let wake = () => {};
    const watcher = open().watch(() => {
      heard++;
      wake();
    });
    await watcher.looked;
    expect(heard).toBe(1);
    await expect(store.open(id)).rejects.toMatchObject({ code: 'WAGGLE_RELEASE_CORRUPT' });
    const again = new Promise<void>((resolve) => {
      wake = resolve;
    });
    await store.create(input('a'));
    await again;
    expect((await store.open(id)).id).toBe(id);
    watcher.close();
  });

  test('watchers hear once of a pointer that cannot be read, and of its release when it can', async () => {
    const store = open();
    const { id } = await store.create(input('a'));
    await store.activate(id);
    const heard: string[] = [];
    let wake = () => {};
    const hear = (what: string): void => {
      heard.push(what);
      wake();
    };
    const until = async (n: number) => {
      while (heard.length < n) await new Promise<void>((resolve) => (wake = resolve));
    };
    const watcher = open().watch(hear, ({ code }) => hear(code));
    await watcher.looked;
    writeFileSync(join(dir, 'active'), 'junk');
    await until(2);
    // Looks again without anything new to say, however many events or polls come.
    writeFileSync(join(dir, 'active'), 'junk');
    await open().watch(() => {}).looked;
    await store.activate(id);
    await until(3);
    expect(heard).toEqual([id, 'WAGGLE_RELEASE_CORRUPT', id]);
    watcher.close();
  });

  test('a watcher on a folder that does not exist yet hears of its first release', async () => {
    const later = join(dir, 'later');
    const heard = new Promise<string>((resolve) => {
      const watcher = open(later).watch((id) => {
        watcher.close();
        resolve(id);
      });
    });
    const store = open(later);
    const { id } = await store.create(input('a'));
    await store.activate(id);
    expect(await heard).toBe(id);
  });
});
