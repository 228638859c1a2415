import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isWaggleError, manualClock } from '@waggle/core';
import { afterEach, describe, expect, it } from 'vitest';
import {
  checkServed,
  detectFormat,
  type ForeignContract,
  ModelRegistry,
  openForeign,
  parseContract,
  registerForeign,
} from '../src/index.js';

const folders: string[] = [];
const clock = manualClock(Date.parse('2026-03-01T00:00:00Z'));
const text = (content: string) => new TextEncoder().encode(content);
const MODEL = text('tree\nversion=v4\nend of trees\n');
const CONTRACT: ForeignContract = {
  contractVersion: 1,
  name: 'pctr_gbm',
  format: 'lightgbm',
  features: [
    { name: 'prior', dtype: 'float32' },
    { name: 'topic', dtype: 'category' },
  ],
  featureSetFingerprint: 'ctr_abc',
  missing: 'nan',
  output: { meaning: 'probability' },
  producer: 'lightgbm 4.6.0',
  dataRange: { from: '2026-01-01T00:00:00Z', to: '2026-02-01T00:00:00Z' },
};
const SERVED = { names: ['prior', 'topic'], fingerprint: 'ctr_abc' };

async function open(): Promise<{ registry: ModelRegistry; dir: string }> {
  const dir = mkdtempSync(join(tmpdir(), 'waggle-foreign-'));
  folders.push(dir);
  return { registry: await ModelRegistry.open({ dir, clock }), dir };
}

afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

async function codeOf(action: () => unknown): Promise<string> {
  try {
    await action();
  } catch (error) {
    expect(isWaggleError(error), String(error)).toBe(true);
    return (error as { code: string }).code;
  }
  return 'accepted';
}

describe('a model of another tool', () => {
  it('comes back as it was registered, under one version for equal content', async () => {
    const { registry } = await open();
    const manifest = await registerForeign(registry, MODEL, CONTRACT);
    expect(manifest.version).toMatch(/^pctr_gbm@[0-9a-f]{12}$/);
    expect(manifest.lineage).toMatchObject({
      featureSetFingerprint: 'ctr_abc',
      codeVersion: 'lightgbm 4.6.0',
    });
    expect((await registerForeign(registry, MODEL, CONTRACT)).version).toBe(manifest.version);
    const other = { ...CONTRACT, featureSetFingerprint: 'ctr_abd' };
    expect((await registerForeign(registry, MODEL, other)).version).not.toBe(manifest.version);
    const model = await openForeign(registry, manifest.version, SERVED);
    expect(model.contract).toEqual(CONTRACT);
    expect(new Uint8Array(model.bytes)).toEqual(MODEL);
    expect(model.sha256).toBe(manifest.artifacts['model.lightgbm.txt']!.sha256);
  });

  it('is refused for another feature set: its number, names, order or fingerprint', async () => {
    const { registry } = await open();
    const { version } = await registerForeign(registry, MODEL, CONTRACT);
    const refused = (served: { names: string[]; fingerprint: string }) =>
      codeOf(() => openForeign(registry, version, served));
    expect(await refused({ ...SERVED, names: ['prior'] })).toBe('WAGGLE_MODEL_CONTRACT_MISMATCH');
    expect(await refused({ ...SERVED, names: ['topic', 'prior'] })).toBe(
      'WAGGLE_MODEL_CONTRACT_MISMATCH',
    );
    expect(await refused({ ...SERVED, fingerprint: 'ctr_new' })).toBe(
      'WAGGLE_MODEL_CONTRACT_MISMATCH',
    );
    expect(() => checkServed(CONTRACT, { ...SERVED, names: ['prior', 'theme'] })).toThrow(
      /topic in column 1.*theme/,
    );
    expect(await refused(SERVED)).toBe('accepted');
  });

  it('is refused once a file of it was altered', async () => {
    for (const file of ['model.lightgbm.txt', 'contract.json']) {
      const { registry, dir } = await open();
      const { version, artifacts } = await registerForeign(registry, MODEL, CONTRACT);
      const { sha256 } = artifacts[file]!;
      const path = join(dir, 'artifacts', sha256.slice(0, 2), sha256);
      const bytes = readFileSync(path);
      bytes[bytes.length >> 1]! ^= 1;
      writeFileSync(path, bytes);
      expect(await codeOf(() => openForeign(registry, version, SERVED))).toBe(
        'WAGGLE_MODEL_CORRUPT',
      );
      // What else the registry holds is as it was.
      expect((await registry.versions('pctr_gbm')).length).toBe(1);
    }
  });

  it('is refused when it is not of the declared format, or of none', async () => {
    const { registry } = await open();
    for (const bytes of [text('{"learner":{}}'), text('a pickle'), text('')]) {
      expect(await codeOf(() => registerForeign(registry, bytes, CONTRACT))).toBe(
        'WAGGLE_MODEL_FORMAT',
      );
    }
    expect(await registry.names()).toEqual([]);
    expect(detectFormat(text('{"learner":{}}'))).toBe('xgboost-json');
    expect(detectFormat(text('{L\0\0'))).toBe('xgboost-ubj');
    expect(detectFormat(text('tree\r\nversion=v3'))).toBe('lightgbm');
    expect(detectFormat(Uint8Array.of(0x08, 0x0a, 0x12))).toBe('onnx');
    expect(detectFormat(Uint8Array.of(0x89, 0x57, 0x47, 0x4c, 0x0d, 0x0a))).toBe('waggle');
    expect(detectFormat(Uint8Array.of())).toBeUndefined();
  });

  it('needs a contract whose parts agree', async () => {
    const parse = (more: object) => codeOf(() => parseContract({ ...CONTRACT, ...more }, 'c.json'));
    expect(await parse({})).toBe('accepted');
    expect(await parse({ extra: 1 })).toBe('WAGGLE_CONFIG_INVALID');
    expect(await parse({ format: 'pickle' })).toBe('WAGGLE_CONFIG_INVALID');
    expect(await parse({ features: [] })).toBe('WAGGLE_CONFIG_INVALID');
    expect(await parse({ dataRange: { from: 'yesterday', to: 'now' } })).toBe(
      'WAGGLE_CONFIG_INVALID',
    );
    const mismatch = 'WAGGLE_MODEL_CONTRACT_MISMATCH';
    const [from, to] = ['2026-01-01T00:00:00Z', '2026-02-30T00:00:00Z'];
    // Neither a day that other days would stand in for, nor a time that ends before it begins.
    for (const range of [
      { from, to },
      { from, to: '2026-02-01T99:99:99Z' },
      { from: to, to: from },
    ]) {
      expect(await parse({ dataRange: range })).toBe(mismatch);
    }
    expect(await parse({ dataRange: { from: '2026-03-01T00:00:00Z', to: from } })).toBe(mismatch);
    const twice = [CONTRACT.features[0], CONTRACT.features[0]];
    expect(await parse({ features: twice })).toBe(mismatch);
    expect(await parse({ offsetFeature: 'none' })).toBe(mismatch);
    expect(await parse({ calibration: { a: 1, b: 0 }, output: { meaning: 'raw' } })).toBe(mismatch);
    expect(await parse({ tensors: { input: 'x', output: 'y' } })).toBe(mismatch);
    expect(await parse({ examples: { rows: [[1, 2]], outputs: [] } })).toBe(mismatch);
    expect(await parse({ examples: { rows: [[1]], outputs: [1] } })).toBe(mismatch);
    expect(await parse({ examples: { rows: [[1, null]], outputs: [0.5] } })).toBe('accepted');
  });

  it('is told from a model that was trained here', async () => {
    const { registry } = await open();
    const own = await registry.register({
      name: 'pctr',
      artifacts: { 'model.json': text('{}') },
      lineage: {
        dataRange: CONTRACT.dataRange,
        featureSetFingerprint: 'ctr_abc',
        codeVersion: '0.1.0',
        metrics: {},
      },
    });
    await expect(openForeign(registry, own.version)).rejects.toMatchObject({
      code: 'WAGGLE_MODEL_NOT_FOUND',
      message: expect.stringContaining(`${own.version} was not imported`) as string,
      remedy: expect.stringContaining('waggle train') as string,
    });
  });
});
