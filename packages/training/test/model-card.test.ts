import { Rng } from '@waggle/core';
import { ctrFeatures } from '@waggle/features';
import { expect, test } from 'vitest';
import {
  type JudgedRows,
  linearModelCard,
  renderModelCard,
  sliceTable,
  trainCtr,
} from '../src/index.js';
import { ctrSet, START_MS, synthetic } from './synthetic.js';

const DAY = 86_400_000;

/** Rows whose loss, promise and outcome are known by construction; the last fifth of the publications is new. */
function judged(nRows: number, nPublications: number): JudgedRows {
  const rng = new Rng(1, 5);
  const column = (of: (i: number) => number) =>
    Float64Array.from({ length: nRows }, (_, i) => of(i));
  const noise = column(() => rng.uniform());
  const publications = column((i) => i % nPublications);
  const isNew = (i: number) => i % nPublications >= 0.8 * nPublications;
  return {
    loss: column((i) => (isNew(i) ? 0.6 : 0.3) + 0.1 * noise[i]!),
    baselineLoss: column((i) => 0.6 + 0.1 * noise[i]!),
    mass: column(() => 2),
    expected: column(() => 0.5),
    observed: column((i) => (i % 2 === 0 ? 1 : 0)),
    publications,
    publicationFirstMs: column((i) => START_MS + (isNew(i) ? 10 * DAY : 0)),
    campaignFirstMs: column(() => START_MS),
    decisionTsMs: column(() => START_MS + 10 * DAY),
  };
}

test('slices weigh by trials, tell newcomers apart and carry limits around their estimate', () => {
  const rows = judged(2_000, 50);
  const [all, known, fresh, knownCampaigns, freshCampaigns] = sliceTable(rows, 1);
  expect(all!.rows).toBe(2_000);
  expect(all!.mass).toBe(4_000);
  expect(known!.rows + fresh!.rows).toBe(2_000);
  expect(fresh!.publications).toBe(10);
  expect(known!.logLoss!.estimate).toBeCloseTo(0.175, 2);
  expect(fresh!.logLoss!.estimate).toBeCloseTo(0.325, 2);
  expect(known!.relative!.estimate).toBeLessThan(-0.4);
  expect(fresh!.relative!.estimate).toBeCloseTo(0, 6);
  for (const { logLoss } of [all!, known!, fresh!]) {
    expect(logLoss!.lower).toBeLessThanOrEqual(logLoss!.estimate);
    expect(logLoss!.upper).toBeGreaterThanOrEqual(logLoss!.estimate);
  }
  expect(all!.calibration!.estimate).toBeCloseTo(1, 6);
  expect(knownCampaigns!.rows).toBe(2_000);
  // An empty slice is listed, not measured and not an error.
  expect(freshCampaigns).toMatchObject({ rows: 0, mass: 0, logLoss: null, relative: null });
});

test('columns of different lengths are refused by name', () => {
  const rows = judged(100, 10);
  expect(() => sliceTable({ ...rows, observed: new Float64Array(99) }, 1)).toThrow(
    expect.objectContaining({
      code: 'WAGGLE_TRAINING_SHAPE',
      message: expect.stringContaining('observed'),
    }),
  );
});

test('a card says what, on what, how well and where not; the same model has the same card', async () => {
  const { dataset } = synthetic({ seed: 21, nRows: 3_000 });
  const train = () => trainCtr(dataset, { featureSet: ctrSet, seed: 1, bootstrapReplicates: 100 });
  const features = ctrSet.names.map((name) => ({ name, description: `what ${name} | is` }));
  const card = linearModelCard(await train(), { features });
  const text = renderModelCard(card);
  for (const part of [
    '# pctr',
    'unique verified clicks within 72 h',
    '| maturity |',
    '| new publications |',
    '| new campaigns |',
    'expected / observed',
    '## Limits',
    '`cosine`',
    'what cosine \\| is',
    card.gate.summary.replaceAll('|', '\\|'),
  ]) {
    expect(text).toContain(part);
  }
  expect(text).not.toMatch(/undefined|NaN|\[object/);
  // Of a correction, that it was not worth having too.
  const explanation = 'not corrected for being selected, which made it worse: so much';
  const selection = { passed: false, nRows: 9, relativeLogLoss: null, winners: null, explanation };
  const refused = linearModelCard({ ...(await train()), selection }, { features });
  expect(refused.calibration).toBe(`${card.calibration}; ${explanation}`);
  expect(renderModelCard(refused)).toContain(explanation);
  expect(renderModelCard(linearModelCard(await train(), { features }))).toBe(text);
  expect(ctrFeatures.features.every((f) => f.description.length > 0)).toBe(true);
});
