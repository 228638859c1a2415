import { CTR_OFFSET_TERMS, ctrFeatures } from '@waggle/features';
import { describe, expect, test } from 'vitest';
import { CTR_EFFECT_PARAMS, estimateEffectPriors, estimateFeatureParams } from '../src/index.js';
import { synthetic } from './synthetic.js';

const terms = [
  { feature: 'cosine', center: 0.5, weight: 'w_cosine', default: 0.2 },
  { feature: 'position', center: 1, weight: 'w_position', default: 0 },
  { feature: 'noise', center: 0, weight: 'w_noise', default: 0 },
];
const effects = { publication: 'a_publication', dispersion: 'dispersion' };

describe('parameters of the hierarchical prior', () => {
  test('weights and strengths are learned from history', async () => {
    const { dataset } = synthetic({ seed: 1, nRows: 6_000, publicationNoise: 0.3 });
    const params = await estimateFeatureParams(dataset, { terms, effects });
    expect(params['w_cosine']).toBeCloseTo(0.4, 1);
    expect(params['w_position']).toBeCloseTo(-0.2, 1);
    expect(Math.abs(params['w_noise']!)).toBeLessThan(0.05);
    // publications spread by 0.4 (what the prior feature knows) and 0.3: relative variance exp(0.25) − 1
    expect(1 / params['a_publication']!).toBeGreaterThan(0.15);
    expect(1 / params['a_publication']!).toBeLessThan(0.45);
    expect(params['dispersion']).toBeGreaterThan(0.03);
    expect(params['dispersion']).toBeLessThan(0.13);
  });

  test('a short history leaves weights near what was believed before', async () => {
    const { dataset } = synthetic({ seed: 2, nRows: 700, nPublications: 60 });
    const believed = [{ ...terms[0]!, default: 0.9 }];
    const params = await estimateFeatureParams(dataset, { terms: believed });
    expect(params['w_cosine']).toBeGreaterThan(0.3);
    expect(params['w_cosine']).toBeLessThan(0.95);
  });

  test('three days do not pass for the week', async () => {
    const { dataset } = synthetic({ seed: 7, nRows: 3_000, publicationNoise: 0.2 });
    // Decisions of three days, each with luck of its own, and a column that tells them apart as a weekday would.
    const luck = [0.8, 1, 1.3];
    const column = dataset.featureNames.indexOf('noise');
    const x = dataset.x.slice();
    const decisionTsMs = Float64Array.from(
      { length: dataset.nRows },
      (_, i) => Date.UTC(2026, 0, 5) + Math.floor((i * 3) / dataset.nRows) * 86_400_000 + i,
    );
    const successes = dataset.successes.map((s, i) => {
      const day = Math.floor((i * 3) / dataset.nRows);
      x[i * dataset.featureNames.length + column] = Math.sin((2 * Math.PI * day) / 7);
      return Math.min(Math.round(s * luck[day]!), dataset.trials[i]!);
    });
    const short = { ...dataset, x, decisionTsMs, successes };
    const split = { trainShare: 0.98, calibrateShare: 0.01, labelHorizonMs: 0, burnInMs: 0 };
    const weekday = { feature: 'noise', center: 0, weight: 'w_day', default: 0 };
    const loose = await estimateFeatureParams(short, { terms: [weekday], split });
    const tight = await estimateFeatureParams(short, { terms: [{ ...weekday, sd: 0.1 }], split });
    // The luck of the days rises by 0.5 along the column; with a spread of 0.1 among days that is two standard deviations.
    expect(loose['w_day']).toBeGreaterThan(0.25);
    expect(tight['w_day']).toBeLessThan(0.2);
  });

  test('hardly any history leaves the declared defaults', async () => {
    const { dataset } = synthetic({ seed: 3, nRows: 50 });
    expect(await estimateFeatureParams(dataset, { terms, effects })).toEqual({});
    const none = { ...dataset, successes: new Float64Array(dataset.nRows) };
    expect(await estimateFeatureParams(none, { terms, effects })).toEqual({});
  });

  test('rows of the gate are not looked at', async () => {
    const { dataset } = synthetic({ seed: 4 });
    const last = [...dataset.decisionTsMs].sort((a, b) => a - b)[Math.floor(0.8 * dataset.nRows)]!;
    const changed = {
      ...dataset,
      successes: dataset.successes.map((s, i) => (dataset.decisionTsMs[i]! > last ? 0 : s)),
    };
    expect(await estimateFeatureParams(changed, { terms, effects })).toEqual(
      await estimateFeatureParams(dataset, { terms, effects }),
    );
  });

  test('a term without its feature is refused', async () => {
    const { dataset } = synthetic({ seed: 5 });
    await expect(
      estimateFeatureParams(dataset, { terms: [{ ...terms[0]!, feature: 'nowhere' }] }),
    ).rejects.toMatchObject({ code: 'WAGGLE_TRAINING_SHAPE' });
  });

  test('what is estimated for clicks are parameters that the click features have', () => {
    for (const { feature, weight } of CTR_OFFSET_TERMS) {
      expect(ctrFeatures.names).toContain(feature);
      expect(ctrFeatures.params).toHaveProperty(weight);
    }
    for (const name of Object.values(CTR_EFFECT_PARAMS))
      expect(ctrFeatures.params).toHaveProperty(name);
  });
});

test('effects of groups with one row do not swallow the dispersion', () => {
  const { dataset } = synthetic({
    seed: 6,
    nRows: 2_000,
    nPublications: 2_000,
    publicationNoise: 0,
    sendNoise: 0.5,
  });
  const { dispersion, levels } = estimateEffectPriors({
    successes: dataset.successes,
    trials: dataset.trials,
    levels: [
      { name: 'publication', codes: dataset.publication.codes },
      { name: 'campaign', codes: dataset.campaign.codes },
    ],
  });
  // all of it is somewhere: one's own luck and one's own publication look alike here
  expect(dispersion + levels[0]!.variance).toBeGreaterThan(0.2);
});
