import { DAY_MS, Rng, stringColumn } from '@waggle/core';
import { sentFeatures } from '@waggle/features';
import { LinearScorer } from '@waggle/ranking';
import { expect, test } from 'vitest';
import { type TrainingDataset, trainSent } from '../src/index.js';
import { START_MS } from './synthetic.js';

const at = (name: string) => sentFeatures.names.indexOf(name);

/** Acceptances whose ads go out with logit prior + 1.2·(lead − 1.5), which the prior does not know. */
function acceptances(o: { seed: number; nRows?: number; alwaysSent?: boolean }): TrainingDataset {
  const { seed, nRows = 4_000, alwaysSent = false } = o;
  const rng = new Rng(seed, 9);
  const width = sentFeatures.names.length;
  const x = new Float32Array(nRows * width);
  const publication: string[] = [];
  const successes = new Float64Array(nRows);
  const decisionTsMs = new Float64Array(nRows);
  for (let i = 0; i < nRows; i++) {
    decisionTsMs[i] = START_MS + (i / nRows) * 30 * DAY_MS;
    publication.push(`pub_${rng.integer(200)}`);
    const row = x.subarray(i * width, (i + 1) * width);
    row[at('prior_logit_sent')] = 1 + 0.5 * rng.normal();
    row[at('is_scheduled')] = 1;
    row[at('log_lead_days')] = 1.5 + 0.5 * rng.normal();
    row[at('hour_sin')] = rng.normal();
    const logit = row[at('prior_logit_sent')]! + 1.2 * (row[at('log_lead_days')]! - 1.5);
    successes[i] = alwaysSent || rng.bernoulli(1 / (1 + Math.exp(-logit))) ? 1 : 0;
  }
  const names = (prefix: string) =>
    stringColumn(Array.from({ length: nRows }, (_, i) => `${prefix}_${i % 40}`));
  return {
    nRows,
    x,
    featureNames: sentFeatures.names,
    decisionTsMs,
    successes,
    trials: new Float64Array(nRows).fill(1),
    maturity: new Float64Array(nRows).fill(1),
    publication: stringColumn(publication),
    campaign: names('cmp'),
    creative: names('crv'),
    rowIds: stringColumn(Array.from({ length: nRows }, (_, i) => `plc_${i}`)),
  };
}

const options = { featureSet: sentFeatures, seed: 1, bootstrapReplicates: 200 };

test('learns what decides whether an ad goes out, and passes its gate against the hierarchy', async () => {
  const data = acceptances({ seed: 1 });
  const { gate, model, slices } = await trainSent(data, options);
  expect(gate.passed, gate.summary).toBe(true);
  expect(gate.model).toBe('sent');
  expect(model.name).toBe('sent');
  // Drawn towards the prior as far as later rows allow: some 840 acceptances choose the penalty, and the information that all 2,800 have on
  // a standardised coefficient, n·p(1 − p) ≈ 550, meets the strongest unrejected ridge of 600 to 1,000: 0.54 of the true 1.2.
  expect(model.coefficients[at('log_lead_days')]).toBeGreaterThan(0.5);
  expect(model.coefficients[at('log_lead_days')]).toBeLessThan(1.4);
  expect(gate.relativeLogLoss!.upper95).toBeLessThan(-0.02);
  expect(slices[0]!.relative!.upper).toBeLessThan(0);
  const p = new LinearScorer(model).scoreInto(data.x, data.nRows, new Float64Array(data.nRows));
  expect(p.every((v) => v > 0 && v < 1)).toBe(true);
});

test('a window in which everything went out is no error: the prior stays and the gate says why', async () => {
  const { gate, model, slices } = await trainSent(
    acceptances({ seed: 2, alwaysSent: true }),
    options,
  );
  expect(gate.passed).toBe(false);
  expect(model.priorOnly).toBe(true);
  expect(gate.summary).toContain('0 failures');
  expect(slices[0]!.rows).toBeGreaterThan(0);
});

test('wrong input is refused with the row and the feature', async () => {
  const data = acceptances({ seed: 3, nRows: 400 });
  const broken = data.x.slice();
  broken[7 * sentFeatures.names.length + at('log_lead_days')] = Number.NaN;
  await expect(trainSent({ ...data, x: broken }, options)).rejects.toMatchObject({
    code: 'WAGGLE_TRAINING_NOT_FINITE',
    message: expect.stringMatching(/log_lead_days.*row 7/),
  });
  await expect(
    trainSent({ ...data, successes: data.successes.map((s) => s + 1) }, options),
  ).rejects.toMatchObject({ code: 'WAGGLE_TRAINING_LABEL' });
  await expect(
    trainSent(data, { ...options, featureSet: { ...sentFeatures, name: 'ctr' } }),
  ).rejects.toMatchObject({ code: 'WAGGLE_TRAINING_SHAPE' });
});
