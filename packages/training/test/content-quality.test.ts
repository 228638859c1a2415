import { Rng } from '@waggle/core';
import { ctrFeatures, type EntityVectors } from '@waggle/features';
import { expect, test } from 'vitest';
import { renderModelCard, trainContentQuality } from '../src/index.js';
import { at, correlation, sentAds, unitRow, vectorsOf } from './sent-ads.js';

const DIM = 24;

/** Ads whose clicks follow what publication and ad say of themselves, what nobody can read off them, and the place. */
function network(seed: number, strength = 1) {
  const rng = new Rng(seed, 41);
  const unit = () => unitRow(DIM, 3, () => rng.normal());
  const [nPublications, nCampaigns, nRows] = [900, 300, 15_000];
  const publications = Array.from({ length: nPublications }, () => ({
    text: unit(),
    size: 8 + rng.normal(),
    hidden: 0.25 * rng.normal(),
  }));
  const campaigns = Array.from({ length: nCampaigns }, () => ({
    text: unit(),
    bid: 1 + 0.3 * rng.normal(),
    hidden: 0.2 * rng.normal(),
  }));
  const width = ctrFeatures.names.length;
  const x = new Float32Array(nRows * width);
  const truth = { publication: new Float64Array(nRows), ad: new Float64Array(nRows) };
  const successes = new Float64Array(nRows);
  const trials = new Float64Array(nRows).fill(4_000);
  const ids: [string[], string[]] = [[], []];
  for (let i = 0; i < nRows; i++) {
    // Every tenth publication and campaign begins in the last quarter, where they are judged.
    const late = i > 0.75 * nRows;
    const pick = (n: number) => {
      for (;;) {
        const one = rng.integer(n);
        if (late || one % 10 > 0) return one;
      }
    };
    const [p, c] = [pick(nPublications), pick(nCampaigns)];
    ids[0].push(`pub_${p}`);
    ids[1].push(`cmp_${c}`);
    const publication = publications[p]!;
    const campaign = campaigns[c]!;
    const row = x.subarray(i * width, (i + 1) * width);
    row[at('log_list_size')] = publication.size;
    row[at('log_bid')] = campaign.bid;
    row[at('position')] = 1 + rng.integer(3);
    truth.publication[i] = strength * (0.8 * publication.text[0]! - 0.25 * (publication.size - 8));
    truth.ad[i] = strength * (0.6 * campaign.text[1]! + 0.5 * (campaign.bid - 1));
    const eta =
      -5.5 +
      truth.publication[i]! +
      truth.ad[i]! +
      publication.hidden +
      campaign.hidden -
      0.2 * (row[at('position')]! - 1) +
      0.2 * rng.normal();
    successes[i] = rng.binomial(4_000, 1 / (1 + Math.exp(-eta)));
  }
  const vectorsOfTexts = (prefix: string, of: readonly { text: Float64Array }[]) =>
    vectorsOf(
      prefix,
      of.map(({ text }) => text),
    );
  return {
    truth,
    input: {
      dataset: sentAds({ x, successes, trials, publications: ids[0], campaigns: ids[1] }),
      featureSet: ctrFeatures,
      publications: vectorsOfTexts('pub', publications),
      campaigns: vectorsOfTexts('cmp', campaigns),
      creatives: vectorsOfTexts('cmp', campaigns),
      seed: 1,
    },
  };
}

test('reads quality off texts and attributes, of newcomers too, and passes its gate', async () => {
  const { input, truth } = network(1);
  const trained = await trainContentQuality(input);
  expect(trained.gate.passed, trained.gate.summary).toBe(true);
  expect(trained.gate.summary).toMatch(/% where campaigns share its errors, too\)/);
  const { publication, ad } = trained.score(input.dataset);
  // Hidden effects of n entities leave σ²·k/n of noise on k values: 810 publications, σ 0.25, 18 values, spread 0.5 → 0.997;
  // 270 campaigns, σ 0.2, 26 values in two collinear copies, spread 0.35 → 0.985. The ridge and the walk of chance cost the rest.
  expect(correlation(publication, truth.publication)).toBeGreaterThan(0.95);
  expect(correlation(ad, truth.ad)).toBeGreaterThan(0.9);
  const late = Uint32Array.from({ length: 3_000 }, (_, i) => 12_000 + i).filter(
    (i) =>
      Number(input.dataset.publication.dictionary[input.dataset.publication.codes[i]!]!.slice(4)) %
        10 ===
      0,
  );
  expect(late.length).toBeGreaterThan(100);
  const of = (v: Float64Array) => Float64Array.from(late, (i) => v[i]!);
  expect(correlation(of(publication), of(truth.publication))).toBeGreaterThan(0.9);
  const newcomers = trained.card.slices.find((s) => s.name === 'new publications')!;
  expect(newcomers.relative!.upper).toBeLessThan(0);
  expect(renderModelCard(trained.card)).toContain('| baseline | place and pair');
});

test('where content says nothing all are alike; without vectors the attributes are left', async () => {
  const { input } = network(2, 0);
  const { metrics } = await trainContentQuality(input);
  expect(metrics['spread of publications’ quality']).toBeLessThan(0.12);
  const none: EntityVectors = { model: '', dim: 0, rowOf: new Map(), vectors: new Float32Array(0) };
  const { head } = await trainContentQuality({
    ...network(1).input,
    ...{ publications: none, campaigns: none, creatives: none },
  });
  expect(head.components).toHaveLength(0);
  expect(head.names).toContain('log_list_size');
});

test('too few clicks and broken rows are refused', async () => {
  const { input } = network(3);
  const { dataset } = input;
  await expect(
    trainContentQuality({
      ...input,
      dataset: { ...dataset, successes: dataset.successes.map(() => 0) },
    }),
  ).rejects.toMatchObject({ code: 'WAGGLE_TRAINING_TOO_FEW' });
  const x = dataset.x.slice();
  x[11] = Number.POSITIVE_INFINITY;
  await expect(trainContentQuality({ ...input, dataset: { ...dataset, x } })).rejects.toMatchObject(
    { code: 'WAGGLE_TRAINING_NOT_FINITE' },
  );
});
