import { silentLogger } from '@waggle/core';
import { ctrFeatures } from '@waggle/features';
import type { ForeignContract } from '@waggle/models';
import { treesFit } from '@waggle/native';
import { type LinearModel, LinearScorer, sigmoid } from '@waggle/ranking';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type ImportedModel, loadRankingRelease, rankingReleaseFiles } from '../src/index.js';
import { onThread } from '../src/served-model.js';
import { openTestWorld, type TestWorld } from './support/world.js';

let world: TestWorld;
beforeAll(async () => {
  world = await openTestWorld({ scale: 'tiny' });
});
afterAll(() => world?.close());

const names = ctrFeatures.names;
const PRIOR = names.indexOf('prior_logit_ctr');

/** Trees that raise the odds with the place in the email, fitted around the prior and stored as another tool's file. */
async function pctrTrees(contract: Partial<ForeignContract> = {}): Promise<ImportedModel> {
  const nRows = 2_000;
  const x = new Float32Array(nRows * names.length);
  const y = new Float64Array(nRows);
  const position = names.indexOf('position');
  for (let i = 0; i < nRows; i++) {
    x[i * names.length + position] = 1 + (i % 5);
    y[i] = i % 5 === 0 && i % 3 !== 0 ? 1 : 0;
  }
  const { trees } = await treesFit({
    ...{ x, nRows, nFeatures: names.length, y, objective: 'logistic' },
    ...{ nTrees: 20, maxLeaves: 4 },
  });
  const bytes = trees.toBytes();
  await trees.close();
  return {
    version: 'pctr_trees@0123456789ab',
    bytes,
    gated: true,
    contract: {
      ...{ contractVersion: 1, name: 'pctr_trees', format: 'waggle', missing: 'nan' },
      features: names.map((name) => ({ name, dtype: 'float32' })),
      featureSetFingerprint: ctrFeatures.fingerprint,
      output: { meaning: 'probability' },
      offsetFeature: 'prior_logit_ctr',
      producer: 'test',
      dataRange: { from: '2026-01-01T00:00:00Z', to: '2026-02-01T00:00:00Z' },
      ...contract,
    },
  };
}

async function released(pctr: ImportedModel) {
  const { models, ...rest } = world.input;
  const input = rankingReleaseFiles({ ...rest, models: { ...models, imported: { pctr } } });
  const { id } = await world.releases.create(input);
  return loadRankingRelease(await world.releases.open(id), { logger: silentLogger });
}

describe('a release with a model of another tool', () => {
  test('answers with it, says its version, and is not the prior any more', async () => {
    const imported = await pctrTrees();
    const release = await released(imported);
    expect(release.versions.model.split('+')[0]).toBe(imported.version);
    const n = Math.min(40, release.campaigns.n);
    const at = { publicationRow: 0, tsMs: release.asOfMs, position: 1, nAds: 2 };
    const campaignRows = Int32Array.from({ length: n }, (_, i) => i);
    const creativeRows = Int32Array.from(
      { length: n },
      (_, i) => release.campaigns.creativeRows[release.campaigns.creativeOffsets[i]!]!,
    );
    const p = new Float64Array(n);
    const pctr = onThread(release.pctr);
    pctr.probabilities(at, campaignRows, creativeRows, p);
    const { features, imported: scorer } = pctr;
    const x = new Float32Array(n * names.length);
    features.evaluate(at, campaignRows, creativeRows, x);
    const raw = await scorer!.trees.predict({ x, nRows: n, raw: true });
    for (let i = 0; i < n; i++) {
      expect(p[i]).toBeCloseTo(sigmoid(raw[i]! + x[i * names.length + PRIOR]!), 6);
    }
    // The linear model is the prior alone: what differs from it is the trees'.
    const linear = new LinearScorer(release.pctr.model as LinearModel).scoreInto(
      x,
      n,
      new Float64Array(n),
    );
    expect(Math.max(...p.map((value, i) => Math.abs(value - linear[i]!)))).toBeGreaterThan(1e-3);
  });

  test.each([
    ['another feature set', { featureSetFingerprint: 'ctr_old' }],
    ['counts', { output: { meaning: 'count' }, offsetFeature: undefined }],
    [
      'a network of tensors',
      { format: 'onnx', tensors: { input: 'x', output: 'p' }, offsetFeature: undefined },
    ],
    [
      'examples that it answers otherwise',
      { examples: { rows: [names.map(() => 0)], outputs: [1], tolerance: 1e-5 } },
    ],
  ] as const)('refuses %s', async (_, contract) => {
    const { offsetFeature, ...rest } = contract as Partial<ForeignContract>;
    const imported = await pctrTrees(rest);
    const changed =
      'offsetFeature' in contract && offsetFeature === undefined
        ? { ...imported, contract: without(imported.contract, 'offsetFeature') }
        : imported;
    await expect(released(changed)).rejects.toMatchObject({ code: 'WAGGLE_RELEASE_UNSERVABLE' });
  });
});

function without(contract: ForeignContract, key: keyof ForeignContract): ForeignContract {
  return Object.fromEntries(
    Object.entries(contract).filter(([name]) => name !== key),
  ) as unknown as ForeignContract;
}
