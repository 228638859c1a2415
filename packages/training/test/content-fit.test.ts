import { Rng, type StringColumn } from '@waggle/core';
import { ctrFeatures, type EntityVectors } from '@waggle/features';
import * as ort from 'onnxruntime-node';
import { expect, test } from 'vitest';
import { splitByTime, trainContentFit } from '../src/index.js';
import { at, correlation, sentAds, unitRow, vectorsOf } from './sent-ads.js';

const DIM = 24;

/** Ads whose clicks follow publication, campaign, and the product of both on the first two directions of their texts. */
function network(seed: number, strength = 0.8) {
  const rng = new Rng(seed, 31);
  const entities = (n: number) =>
    Array.from({ length: n }, () => unitRow(DIM, 2, () => rng.normal()));
  const [nPublications, nCampaigns, nRows] = [120, 40, 4_000];
  const [publications, campaigns] = [entities(nPublications), entities(nCampaigns)];
  const effect = (n: number, sd: number) => Array.from({ length: n }, () => sd * rng.normal());
  const [ofPublication, ofCampaign] = [effect(nPublications, 0.5), effect(nCampaigns, 0.4)];
  const width = ctrFeatures.names.length;
  const x = new Float32Array(nRows * width);
  const truth = new Float64Array(nRows);
  const successes = new Float64Array(nRows);
  const trials = new Float64Array(nRows);
  const [publication, campaign]: [string[], string[]] = [[], []];
  for (let i = 0; i < nRows; i++) {
    const [p, c] = [rng.integer(nPublications), rng.integer(nCampaigns)];
    publication.push(`pub_${p}`);
    campaign.push(`cmp_${c}`);
    const dot = publications[p]!.reduce((sum, v, d) => sum + v * campaigns[c]![d]!, 0);
    // The cosine weighs both directions alike; only the first one matters.
    x[i * width + at('cosine_publication_campaign')] = dot;
    truth[i] = strength * publications[p]![0]! * campaigns[c]![0]!;
    trials[i] = 4_000;
    const eta = -5.5 + ofPublication[p]! + ofCampaign[c]! + truth[i]! + 0.2 * rng.normal();
    successes[i] = rng.binomial(4_000, 1 / (1 + Math.exp(-eta)));
  }
  return {
    truth,
    input: {
      dataset: sentAds({ x, successes, trials, publications: publication, campaigns: campaign }),
      featureSet: ctrFeatures,
      publications: vectorsOf('pub', publications),
      campaigns: vectorsOf('cmp', campaigns),
      seed: 1,
    },
  };
}

test('finds which directions of the texts matter, which a cosine cannot, and passes its gate', async () => {
  const { input, truth } = network(1);
  const trained = await trainContentFit(input);
  expect(trained.gate.passed, trained.gate.summary).toBe(true);
  expect(trained.gate.summary).toMatch(/% where campaigns share its errors, too\)/);
  const fit = trained.score(input.dataset);
  const width = ctrFeatures.names.length;
  const cosine = truth.map(
    (_, i) => input.dataset.x[i * width + at('cosine_publication_campaign')]!,
  );
  const ours = correlation(fit, truth);
  // 0.88 here. The ridge that later rows do not reject (3,000) shrinks the few directions that matter less than the noise in the others,
  // unevenly; a correlation of 0.9 needs more rows than these 4,000, or a weaker belief that pairs are alike.
  expect(ours).toBeGreaterThan(0.85);
  expect(ours).toBeGreaterThan(correlation(cosine, truth) + 0.05);
  expect(fit.reduce((s, v) => s + v, 0) / fit.length).toBeCloseTo(0, 1);
  const session = await ort.InferenceSession.create(trained.artifacts['model.onnx']!, {
    logSeverityLevel: 3,
  });
  expect(session.inputNames).toEqual(['indices', 'values']);
});

test('where texts say nothing the fit stays near 0; without vectors only the tabular columns compare', async () => {
  const { input } = network(2, 0);
  const trained = await trainContentFit(input);
  const spread = Math.sqrt(
    trained.score(input.dataset).reduce((s, v) => s + v * v, 0) / input.dataset.nRows,
  );
  expect(spread).toBeLessThan(0.08);
  const none: EntityVectors = { model: '', dim: 0, rowOf: new Map(), vectors: new Float32Array(0) };
  const plain = await trainContentFit({ ...network(1).input, publications: none, campaigns: none });
  expect(plain.head.names.some((name) => name.startsWith('component_'))).toBe(false);
  expect(plain.head.components).toHaveLength(0);
});

test('later rows of one campaign or publication, or without clicks, are a failed gate', async () => {
  const { input } = network(1);
  const { dataset } = input;
  const { gate } = splitByTime(dataset.decisionTsMs);
  const judged = new Set(gate);
  const alike = (column: StringColumn): StringColumn => ({
    ...column,
    codes: column.codes.map((code, i) => (judged.has(i) ? 0 : code)),
  });
  for (const [change, why] of [
    [{ campaign: alike(dataset.campaign) }, /1 campaigns/],
    [{ publication: alike(dataset.publication) }, /1 publications/],
    [
      { successes: dataset.successes.map((s, i) => (judged.has(i) ? 0 : s)) },
      /no later row has a click/,
    ],
  ] as const) {
    const trained = await trainContentFit({ ...input, dataset: { ...dataset, ...change } });
    expect(trained.gate.passed).toBe(false);
    expect(trained.gate.summary).toMatch(why);
  }
});

test('too few clicks and broken rows are refused', async () => {
  const { input } = network(3);
  const { dataset } = input;
  const quiet = { ...dataset, successes: dataset.successes.map(() => 0) };
  await expect(trainContentFit({ ...input, dataset: quiet })).rejects.toMatchObject({
    code: 'WAGGLE_TRAINING_TOO_FEW',
  });
  const x = dataset.x.slice();
  x[11] = Number.POSITIVE_INFINITY;
  await expect(trainContentFit({ ...input, dataset: { ...dataset, x } })).rejects.toMatchObject({
    code: 'WAGGLE_TRAINING_NOT_FINITE',
  });
  await expect(
    trainContentFit({
      ...input,
      dataset: { ...dataset, successes: dataset.trials.map((n) => n + 1) },
    }),
  ).rejects.toMatchObject({ code: 'WAGGLE_TRAINING_LABEL' });
});
