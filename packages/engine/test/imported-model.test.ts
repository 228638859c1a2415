import { silentLogger } from '@waggle/core';
import { ctrFeatures } from '@waggle/features';
import type { ForeignContract } from '@waggle/models';
import { type LinearModel, LinearScorer, sigmoid } from '@waggle/ranking';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type ImportedModel, loadRankingRelease, rankingReleaseFiles } from '../src/index.js';
import { onThread } from '../src/served-model.js';
import { treesFor } from './support/trees.js';
import { openTestWorld, type TestWorld } from './support/world.js';

let world: TestWorld;
beforeAll(async () => {
  world = await openTestWorld({ scale: 'tiny' });
});
afterAll(() => world?.close());

const names = ctrFeatures.names;
const PRIOR = names.indexOf('prior_logit_ctr');

async function released(pctr: ImportedModel) {
  const { models, ...rest } = world.input;
  const input = rankingReleaseFiles({ ...rest, models: { ...models, imported: { pctr } } });
  const { id } = await world.releases.create(input);
  return loadRankingRelease(await world.releases.open(id), { logger: silentLogger });
}

describe('a release with a model of another tool', () => {
  test('answers with it, says its version, and is not the prior any more', async () => {
    const imported = await treesFor();
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
    const imported = await treesFor(rest);
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
