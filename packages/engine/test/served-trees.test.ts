import { createHash } from 'node:crypto';
import { manualClock, silentLogger } from '@waggle/core';
import { buildDataset, ctrFeatures } from '@waggle/features';
import { InlineRunner } from '@waggle/models';
import { Trees, treesFit } from '@waggle/native';
import { openTreesModel, sealTreesModel, type TreesModel } from '@waggle/ranking';
import { exportTreesOnnx } from '@waggle/training';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { loadRankingRelease, type RankingReleaseInput, replay } from '../src/index.js';
import { onThread } from '../src/served-model.js';
import { engineOn } from './support/ports.js';
import { openTestWorld, TENANT, type TestWorld } from './support/world.js';

const OFFSET = 'prior_logit_ctr';
let world: TestWorld;
let models: RankingReleaseInput['models'];
let model: TreesModel;
let bytes: Uint8Array;

beforeAll(async () => {
  world = await openTestWorld({ scale: 'tiny' });
  const rows = await buildDataset(world.store, ctrFeatures, {
    tenantId: TENANT,
    fromMs: 0,
    toMs: world.asOfMs,
    asOfMs: world.asOfMs,
    embeddingModel: 'test',
  });
  const prior = ctrFeatures.names.indexOf(OFFSET);
  const { trees } = await treesFit({
    x: rows.x,
    nRows: rows.nRows,
    nFeatures: ctrFeatures.names.length,
    y: rows.successes,
    trials: rows.trials,
    offset: Float64Array.from(
      { length: rows.nRows },
      (_, i) => rows.x[i * ctrFeatures.names.length + prior]!,
    ),
    objective: 'logistic',
    nTrees: 60,
    minChildRows: 5,
  });
  bytes = trees.toBytes();
  const calibration = { kind: 'platt', a: 0.95, b: -0.1 } as const;
  const onnx = exportTreesOnnx(trees, {
    name: 'pctr',
    featureNames: ctrFeatures.names,
    featureSetFingerprint: ctrFeatures.fingerprint,
    offsetFeature: OFFSET,
    calibration,
  });
  model = sealTreesModel({
    kind: 'trees_logistic',
    name: 'pctr',
    featureNames: ctrFeatures.names,
    featureSetFingerprint: ctrFeatures.fingerprint,
    offsetFeature: OFFSET,
    calibration,
    priorOnly: false,
    treesSha256: createHash('sha256').update(bytes).digest('hex'),
    onnxSha256: onnx.sha256,
    dataRange: {},
    metrics: {},
  });
  models = { ...world.input.models, pctr: model, pctrTrees: bytes, pctrOnnx: onnx.bytes };
});
afterAll(() => world?.close());

test('a release that names trees is served by them: answers are their probabilities, explained, logged and replayed', async () => {
  const runner = new InlineRunner();
  const release = await loadRankingRelease(await world.stored({ models }), {
    logger: silentLogger,
    runner,
  });
  await runner.close();
  expect(release.degraded).not.toContain('onnx_unavailable');
  expect(release.versions.model).toContain(model.version);
  expect(release.versions.calibration).toContain('platt');

  const clock = manualClock(release.asOfMs);
  const { engine, decisions } = engineOn(release, clock);
  const publicationRow = release.publications.deliveredPerSend.findIndex((n) => n > 0);
  const request = {
    mode: 'offers',
    publication_id: release.publications.ids[publicationRow]!,
    k: 5,
    explain: 'full',
  } as const;
  const answer = await engine.rank(request, {
    tenantId: TENANT,
    requestId: 'req_1',
    receivedAtMs: clock.monotonicMs(),
  });
  expect(answer.items.length).toBeGreaterThan(0);
  const scorer = await openTreesModel(model, bytes);
  for (const item of answer.items) {
    const campaign = release.campaigns.ids.indexOf(item.campaign_id);
    const creative = release.creativeIds.indexOf(item.creative_id);
    const x = new Float32Array(ctrFeatures.names.length);
    release.pctr.features.evaluate(
      { publicationRow, tsMs: release.asOfMs, position: 1, nAds: 1 },
      Int32Array.of(campaign),
      Int32Array.of(creative),
      x,
    );
    const [p] = await scorer.score(x, 1);
    expect(item.explain!.p_click).toBeCloseTo(p!, 6);
  }
  const linear = await world.release();
  const x = new Float32Array(ctrFeatures.names.length).fill(0.3);
  const [before, after] = [linear, release].map(({ pctr }) => onThread(pctr).scoreRows(x, 1)[0]);
  expect(after).not.toBe(before);
  await scorer.close();
  expect((await replay(decisions.last, release)).differences).toEqual([]);
});

test('more candidates than one call may score are scored in parts, to the same bits', async () => {
  const scorer = await openTreesModel(model, bytes);
  const nRows = 5_000;
  const width = ctrFeatures.names.length;
  const x = Float32Array.from({ length: nRows * width }, (_, i) => Math.sin(i * 0.37));
  const whole = await scorer.score(x, nRows);
  const parts = scorer.scoreInto(x, nRows, new Float32Array(nRows));
  expect(Buffer.from(parts.buffer).equals(Buffer.from(whole.buffer))).toBe(true);
  const broken = x.slice();
  broken[7 * width + 2] = Number.NaN;
  expect(() => scorer.scoreInto(broken, nRows, new Float32Array(nRows))).toThrow(
    expect.objectContaining({ code: 'WAGGLE_RANKING_NAN' }),
  );
  expect(() => scorer.scoreInto(x, nRows, new Float32Array(3))).toThrow(
    expect.objectContaining({ code: 'WAGGLE_RANKING_SHAPE' }),
  );
  await scorer.close();
});

test('trees that are missing, altered, of another set, or whose twin answers otherwise are not served', async () => {
  const load = async (over: Partial<RankingReleaseInput['models']>, runner?: InlineRunner) =>
    loadRankingRelease(await world.stored({ models: { ...models, ...over } }), {
      logger: silentLogger,
      ...(runner === undefined ? {} : { runner }),
    });
  const unservable = { code: 'WAGGLE_RELEASE_UNSERVABLE' };
  const { pctrTrees: _, ...withoutTrees } = models;
  await expect(
    (async () =>
      loadRankingRelease(await world.stored({ models: withoutTrees }), { logger: silentLogger }))(),
  ).rejects.toMatchObject({ code: expect.stringMatching(/^WAGGLE_RELEASE_/) });
  const altered = bytes.slice();
  altered[altered.length >> 1]! ^= 1;
  await expect(load({ pctrTrees: altered })).rejects.toMatchObject(unservable);
  const { version, ...content } = model;
  expect(version).toMatch(/^pctr@/);
  await expect(
    load({ pctr: sealTreesModel({ ...content, featureSetFingerprint: 'ctr_old' }) }),
  ).rejects.toMatchObject(unservable);
  await expect(load({ pctr: { ...model, offsetFeature: 'position' } })).rejects.toMatchObject(
    unservable,
  );
  await expect(load({ accept: model, acceptTrees: bytes })).rejects.toMatchObject(unservable);
  // Another calibration than the twin has: the hash agrees, the answers do not.
  const runner = new InlineRunner();
  const other = sealTreesModel({ ...content, calibration: { kind: 'platt', a: 1, b: 0.7 } });
  await expect(load({ pctr: other }, runner)).rejects.toMatchObject({
    code: 'WAGGLE_RELEASE_TWIN_MISMATCH',
  });
  await runner.close();
  expect(await Trees.load(bytes)).toMatchObject({ nTrees: 60 });
});
