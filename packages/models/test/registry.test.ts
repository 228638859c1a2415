import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { isWaggleError, manualClock } from '@waggle/core';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { DurableFolder, type ModelLineage, ModelRegistry } from '../src/index.js';

const folders: string[] = [];
const clock = manualClock(Date.parse('2026-03-01T00:00:00Z'));
const bytes = (text: string) => new TextEncoder().encode(text);
const LINEAGE: ModelLineage = {
  dataRange: { from: '2026-01-01T00:00:00Z', to: '2026-02-01T00:00:00Z' },
  featureSetFingerprint: 'ctr-1',
  codeVersion: '0.1.0',
  metrics: { logLoss: 0.05, calibration: null },
};

function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'waggle-registry-'));
  folders.push(folder);
  return folder;
}

afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

async function codeOf(action: Promise<unknown>): Promise<string> {
  const error = await action.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(isWaggleError(error)).toBe(true);
  return (error as { code: string }).code;
}

const openAt = (dir: string, folder?: DurableFolder) =>
  ModelRegistry.open({ dir, clock, ...(folder === undefined ? {} : { folder }) });

describe('ModelRegistry', () => {
  it('answers what was registered, after opening again too', async () => {
    const dir = temporaryFolder();
    const registry = await openAt(dir);
    const manifest = await registry.register({
      name: 'pctr',
      artifacts: { 'model.json': bytes('{}'), 'model.onnx': bytes('onnx') },
      lineage: LINEAGE,
    });
    expect(manifest.version).toMatch(/^pctr@[0-9a-f]{12}$/);
    const again = await openAt(dir);
    const model = await again.get(manifest.version);
    expect(model.manifest).toEqual(manifest);
    expect(Buffer.from(await model.artifact('model.onnx')).toString()).toBe('onnx');
    expect(await again.names()).toEqual(['pctr']);
  });

  it('names a version by its content: the same twice is once, other lineage is another', async () => {
    const registry = await openAt(temporaryFolder());
    const artifacts = { 'model.json': bytes('{}') };
    const first = await registry.register({ name: 'pctr', artifacts, lineage: LINEAGE });
    clock.advance(1000);
    const second = await registry.register({ name: 'pctr', artifacts, lineage: LINEAGE });
    expect(second).toEqual(first);
    await registry.register({
      name: 'pctr',
      artifacts,
      lineage: { ...LINEAGE, codeVersion: '0.2.0' },
    });
    expect((await registry.versions('pctr')).length).toBe(2);
  });

  it('stores any bytes under their hash and gives them back', async () => {
    const registry = await openAt(temporaryFolder());
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), async (content) => {
        const { sha256 } = await registry.putArtifact(content);
        expect(new Uint8Array(await registry.getArtifact(sha256))).toEqual(content);
      }),
      { numRuns: 40 },
    );
  });

  it('refuses an altered artifact and an altered manifest', async () => {
    const dir = temporaryFolder();
    const registry = await openAt(dir);
    const manifest = await registry.register({
      name: 'pctr',
      artifacts: { 'a.bin': bytes('abc') },
      lineage: LINEAGE,
    });
    const { sha256 } = manifest.artifacts['a.bin']!;
    writeFileSync(join(dir, 'artifacts', sha256.slice(0, 2), sha256), 'abd');
    expect(await codeOf((await registry.get(manifest.version)).artifact('a.bin'))).toBe(
      'WAGGLE_MODEL_CORRUPT',
    );
    await expect((await registry.get(manifest.version)).artifact('a.bin')).rejects.toThrow(
      `a.bin of ${manifest.version}, at artifacts/`,
    );
    expect(
      await codeOf(registry.promote({ version: manifest.version, by: 'test', reason: '' })),
    ).toBe('WAGGLE_MODEL_CORRUPT');
    const path = join(dir, 'models', 'pctr', `${manifest.version.slice(5)}.json`);
    writeFileSync(path, readFileSync(path, 'utf8').replace('0.05', '0.01'));
    expect(await codeOf(registry.get(manifest.version))).toBe('WAGGLE_MODEL_CORRUPT');
    writeFileSync(path, '{"manifestVersion":1');
    expect(await codeOf(registry.get(manifest.version))).toBe('WAGGLE_MODEL_CORRUPT');
  });

  it('makes a damaged or missing artifact whole when its model is registered again', async () => {
    const dir = temporaryFolder();
    const registry = await openAt(dir);
    const request = { name: 'pctr', artifacts: { 'a.bin': bytes('abc') }, lineage: LINEAGE };
    const { version, artifacts } = await registry.register(request);
    const { sha256 } = artifacts['a.bin']!;
    const path = join(dir, 'artifacts', sha256.slice(0, 2), sha256);
    for (const damage of [
      () => writeFileSync(path, 'abd'),
      () => writeFileSync(path, ''),
      () => rmSync(path),
    ]) {
      damage();
      expect((await registry.register(request)).version).toBe(version);
      expect(Buffer.from(await (await registry.get(version)).artifact('a.bin')).toString()).toBe(
        'abc',
      );
    }
    expect(readdirSync(join(dir, 'tmp'))).toEqual([]);
  });

  it('names what does not exist and what is not a name', async () => {
    const registry = await openAt(temporaryFolder());
    expect(await codeOf(registry.get('pctr@000000000000'))).toBe('WAGGLE_MODEL_NOT_FOUND');
    expect(await codeOf(registry.getArtifact('0'.repeat(64)))).toBe('WAGGLE_MODEL_NOT_FOUND');
    expect(await codeOf(registry.get('../../etc@000000000000'))).toBe('WAGGLE_INVALID_ARGUMENT');
    expect(await codeOf(registry.getArtifact('../x'))).toBe('WAGGLE_INVALID_ARGUMENT');
    for (const file of ['../a', '', 'a/b', '.hidden']) {
      const request = { name: 'pctr', artifacts: { [file]: bytes('x') }, lineage: LINEAGE };
      expect(await codeOf(registry.register(request))).toBe('WAGGLE_INVALID_ARGUMENT');
    }
    const lineage = { ...LINEAGE, extra: 1 } as ModelLineage;
    expect(
      await codeOf(registry.register({ name: 'pctr', artifacts: { a: bytes('x') }, lineage })),
    ).toBe('WAGGLE_CONFIG_INVALID');
  });

  it('keeps every promotion on record', async () => {
    const dir = temporaryFolder();
    const registry = await openAt(dir);
    const register = (content: string) =>
      registry.register({ name: 'pctr', artifacts: { a: bytes(content) }, lineage: LINEAGE });
    const [one, two] = [await register('1'), await register('2')];
    expect(await registry.active('pctr')).toBeUndefined();
    for (const version of [one.version, two.version, one.version]) {
      await registry.promote({ version, by: 'test', reason: 'gate passed' });
    }
    expect(await (await openAt(dir)).active('pctr')).toBe(one.version);
    expect(
      (await registry.promotions('pctr')).map((p) => [p.sequence, p.version, p.previous]),
    ).toEqual([
      [1, one.version, ''],
      [2, two.version, one.version],
      [3, one.version, two.version],
    ]);
  });

  it('gives promotions made at the same time different places in the ledger', async () => {
    const dir = temporaryFolder();
    const registries = await Promise.all([openAt(dir), openAt(dir), openAt(dir)]);
    const { version } = await registries[0]!.register({
      name: 'pctr',
      artifacts: { a: bytes('1') },
      lineage: LINEAGE,
    });
    await Promise.all(
      Array.from({ length: 12 }, (_, i) =>
        registries[i % 3]!.promote({ version, by: `p${i}`, reason: '' }),
      ),
    );
    const ledger = await registries[1]!.promotions('pctr');
    expect(ledger.map((record) => record.sequence)).toEqual(
      Array.from({ length: 12 }, (_, i) => i + 1),
    );
    expect(new Set(ledger.map((record) => record.by)).size).toBe(12);
  });

  it('is intact after stopping between any two steps', async () => {
    for (let stopAfter = 0; ; stopAfter++) {
      const dir = temporaryFolder();
      const registry = await openAt(dir);
      const before = await registry.register({
        name: 'pctr',
        artifacts: { a: bytes('old') },
        lineage: LINEAGE,
      });
      await registry.promote({ version: before.version, by: 'test', reason: '' });
      const stopping = await openAt(dir, new StoppingFolder(dir, stopAfter));
      const finished = await stopping
        .register({
          name: 'pctr',
          artifacts: { a: bytes('new'), b: bytes('more') },
          lineage: LINEAGE,
        })
        .then((manifest) => stopping.promote({ version: manifest.version, by: 'test', reason: '' }))
        .then(
          () => true,
          () => false,
        );
      const after = await openAt(dir);
      const versions = await after.versions('pctr');
      expect(versions[0]).toEqual(before);
      for (const { version, artifacts } of versions) {
        const model = await after.get(version);
        for (const file of Object.keys(artifacts)) await model.artifact(file);
      }
      const active = await after.active('pctr');
      expect(versions.map((manifest) => manifest.version)).toContain(active);
      // The interrupted work can be done again.
      const manifest = await after.register({
        name: 'pctr',
        artifacts: { a: bytes('new'), b: bytes('more') },
        lineage: LINEAGE,
      });
      await after.promote({ version: manifest.version, by: 'test', reason: '' });
      expect(await after.active('pctr')).toBe(manifest.version);
      if (finished) {
        expect(stopAfter).toBeGreaterThan(8);
        return;
      }
    }
  });

  it('is intact after its process was killed, and forgets the temporary files of the dead', async () => {
    const dir = temporaryFolder();
    const program = `
      import { ModelRegistry } from ${JSON.stringify(new URL('../dist/index.js', import.meta.url).href)};
      const clock = { nowMs: () => 0, monotonicMs: () => 0 };
      const registry = await ModelRegistry.open({ dir: ${JSON.stringify(dir)}, clock });
      const lineage = ${JSON.stringify(LINEAGE)};
      for (let i = 0; ; i++) {
        const artifacts = { a: new Uint8Array(200_000).fill(i) };
        const manifest = await registry.register({ name: 'pctr', artifacts, lineage: { ...lineage, codeVersion: String(i) } });
        await registry.promote({ version: manifest.version, by: 'child', reason: '' });
        console.log(manifest.version);
      }`;
    const child = spawn(process.execPath, ['--input-type=module', '--eval', program], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, NODE_OPTIONS: '' },
    });
    const exited = once(child, 'exit');
    const acknowledged: string[] = [];
    for await (const line of createInterface({ input: child.stdout })) {
      acknowledged.push(line);
      if (acknowledged.length === 7) child.kill('SIGKILL');
    }
    await exited;
    writeFileSync(join(dir, 'tmp', `${child.pid}.left`), 'half');
    const registry = await openAt(dir);
    expect(readdirSync(join(dir, 'tmp'))).toEqual([]);
    const versions = (await registry.versions('pctr')).map((manifest) => manifest.version);
    for (const version of acknowledged) {
      expect(versions).toContain(version);
      await (await registry.get(version)).artifact('a');
    }
    expect((await registry.promotions('pctr')).length).toBeGreaterThanOrEqual(acknowledged.length);
  });

  it.skipIf(process.getuid?.() === 0)('says so when its folder cannot be written', async () => {
    const dir = temporaryFolder();
    chmodSync(dir, 0o500);
    expect(await codeOf(openAt(dir))).toBe('WAGGLE_MODEL_STORAGE');
  });

  it('says so when its folder cannot be made', async () => {
    const file = join(temporaryFolder(), 'file');
    writeFileSync(file, '');
    expect(await codeOf(openAt(join(file, 'registry')))).toBe('WAGGLE_MODEL_STORAGE');
  });

  it('reports a full disk and stays as it was', async () => {
    const dir = temporaryFolder();
    const registry = await openAt(dir, new FullDisk(dir));
    const request = { name: 'pctr', artifacts: { a: bytes('x') }, lineage: LINEAGE };
    expect(await codeOf(registry.register(request))).toBe('WAGGLE_MODEL_STORAGE');
    expect(await registry.names()).toEqual([]);
    expect(readdirSync(join(dir, 'tmp'))).toEqual([]);
  });
});

/** Stops for good, as a killed process does, after so many steps. */
class StoppingFolder extends DurableFolder {
  #left: number;
  constructor(root: string, steps: number) {
    super(root);
    this.#left = steps;
  }
  #step(): void {
    if (this.#left-- <= 0) throw new Error('stopped');
  }
  protected override async writeTemporary(path: string, content: Uint8Array): Promise<void> {
    this.#step();
    await super.writeTemporary(path, content.subarray(0, content.length >> 1));
    this.#step();
    rmSync(path);
    await super.writeTemporary(path, content);
  }
  protected override async makeFolder(path: string): Promise<void> {
    this.#step();
    await super.makeFolder(path);
  }
  protected override async publish(temporary: string, target: string): Promise<boolean> {
    this.#step();
    return super.publish(temporary, target);
  }
  protected override async syncFolder(path: string): Promise<void> {
    this.#step();
    await super.syncFolder(path);
  }
}

class FullDisk extends DurableFolder {
  protected override async writeTemporary(): Promise<void> {
    throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' });
  }
}
