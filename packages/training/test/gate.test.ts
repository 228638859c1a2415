import { Rng } from '@waggle/core';
import { describe, expect, test } from 'vitest';
import { type GateRows, runGate } from '../src/index.js';

function rows(
  seed: number,
  modelOf: (truth: number, i: number) => number,
  nPublications = 100,
  nRows = 2_000,
): GateRows {
  const rng = new Rng(seed, 4);
  const effect = Array.from({ length: nPublications }, () => 0.5 * rng.normal());
  const model = new Float64Array(nRows);
  const prior = new Float64Array(nRows).fill(0.003);
  const successes = new Float64Array(nRows);
  const trials = new Float64Array(nRows);
  const publications = new Uint32Array(nRows);
  const campaigns = new Uint32Array(nRows);
  const decisionTsMs = new Float64Array(nRows);
  for (let i = 0; i < nRows; i++) {
    publications[i] = rng.integer(nPublications);
    campaigns[i] = rng.integer(30);
    decisionTsMs[i] = i;
    const truth = 0.0026 * Math.exp(effect[publications[i]!]!);
    model[i] = modelOf(truth, i);
    trials[i] = 2_000 + rng.integer(8_000);
    successes[i] = rng.binomial(trials[i]!, truth);
  }
  return { model, prior, successes, trials, publications, campaigns, decisionTsMs };
}
const options = { name: 'pctr', seed: 1 } as const;

describe('gate', () => {
  test('a model that knows the publications passes', () => {
    const report = runGate(
      rows(1, (truth) => truth),
      options,
    );
    expect(report).toMatchObject({ passed: true, released: 'model' });
    expect(report.relativeLogLoss?.upper95).toBeLessThan(0);
    expect(report.summary).toMatch(/^pctr passed its gate/);
  });

  test('a model equal to the prior passes: no worse is good enough', () => {
    const sample = rows(2, () => 0.003);
    const report = runGate(
      { ...sample, successes: sample.trials.map((n) => Math.round(n * 0.003)) },
      options,
    );
    expect(report.passed).toBe(true);
    expect(report.relativeLogLoss).toMatchObject({ estimate: 0, upper95: 0 });
  });

  test('errors that a campaign shares widen the second limit, which is told and not judged', () => {
    const sample = rows(1, (truth) => truth);
    const wrong = Float64Array.from({ length: 30 }, (_, c) => Math.exp(c % 3 === 0 ? 0.6 : -0.1));
    const model = sample.model.map((p, i) => p * wrong[sample.campaigns[i]!]!);
    const report = runGate({ ...sample, model }, options);
    const { upper95, upper95Crossed } = report.relativeLogLoss!;
    expect(upper95Crossed).toBeGreaterThan(upper95);
    const check = report.checks.find((c) => c.name === 'log_loss')!;
    expect(check.value).toBe(upper95);
    expect(check.explanation).toContain('where campaigns share its errors, too');
  });

  test('a worse model fails on log-loss and the prior takes its place', () => {
    const report = runGate(
      rows(3, (truth, i) => truth * Math.exp(i % 2 === 0 ? 1.2 : -1.2)),
      options,
    );
    expect(report).toMatchObject({ passed: false, released: 'prior_only' });
    expect(report.checks.find((c) => c.name === 'log_loss')?.passed).toBe(false);
    expect(report.summary).toMatch(/the prior takes its place.*log-loss differs from the prior's/);
  });

  test('a model that promises 60 % too much fails on calibration', () => {
    const report = runGate(
      rows(4, (truth) => truth * 1.6),
      options,
    );
    const check = report.checks.find((c) => c.name === 'calibration');
    expect(check).toMatchObject({ passed: false, value: expect.closeTo(Math.log(1.6), 1) });
    expect(report.passed).toBe(false);
  });

  test('two standard errors are allowed where the data cannot tell better', () => {
    const report = runGate(
      rows(5, (truth) => truth * 1.08, 12, 60),
      options,
    );
    const check = report.checks.find((c) => c.name === 'calibration')!;
    expect(check.limit).toBeGreaterThanOrEqual(0.05);
    expect(check.limit).toBeCloseTo(Math.max(0.05, 2 * report.modelMetrics!.logCalibrationSe), 12);
  });

  test.each([
    ['no rows', rows(6, (t) => t, 1, 0)],
    ['one publication', rows(7, (t) => t, 1, 500)],
    ['no successes', { ...rows(8, (t) => t), successes: new Float64Array(2_000) }],
  ])('%s is a failed gate with a reason, not an error', (_name, sample) => {
    const report = runGate(sample, options);
    expect(report).toMatchObject({ passed: false, released: 'prior_only', relativeLogLoss: null });
    expect(report.checks.find((c) => c.name === 'enough_data')?.passed).toBe(false);
    expect(JSON.parse(JSON.stringify(report))).toEqual(report);
  });

  test.each(['campaigns', 'publications'] as const)(
    'rows of one of the %s fail the gate, which says why',
    (kind) => {
      const sample = rows(1, (truth) => truth);
      const report = runGate({ ...sample, [kind]: new Uint32Array(sample.model.length) }, options);
      expect(report).toMatchObject({ passed: false, released: 'prior_only', modelMetrics: null });
      expect(report.checks.find((c) => c.name === 'enough_data')).toMatchObject({ passed: false });
      expect(report.summary).toMatch(new RegExp(`2000 later rows of .*1 ${kind}.* are needed`));
    },
  );

  test('campaigns without trials do not count', () => {
    const sample = rows(1, (truth) => truth);
    const campaigns = Uint32Array.from(sample.campaigns, (_, i) => (i < 10 ? i : 0));
    const idle = <T extends Float64Array>(column: T) => column.map((v, i) => (i < 10 ? 0 : v));
    const report = runGate(
      {
        ...{ ...sample, campaigns },
        ...{ trials: idle(sample.trials), successes: idle(sample.successes) },
      },
      options,
    );
    expect(report.passed).toBe(false);
  });

  test('a check that failed before fails the gate', () => {
    const report = runGate(
      rows(1, (truth) => truth),
      {
        ...options,
        earlierChecks: [
          {
            name: 'no_leak',
            passed: false,
            value: 1,
            limit: 0,
            explanation: 'feature x has seen them',
          },
        ],
      },
    );
    expect(report.passed).toBe(false);
    expect(report.summary).toContain('feature x has seen them');
  });

  test('the same rows and seed give the same report, and it survives JSON', () => {
    const sample = rows(9, (truth) => truth);
    const report = runGate(sample, options);
    expect(runGate(sample, options)).toEqual(report);
    expect(JSON.parse(JSON.stringify(report))).toEqual(report);
  });

  test('newcomers are told apart: whoever had no final outcome when the slice began', () => {
    const sample = rows(9, (truth) => truth);
    const dayMs = 86_400_000;
    // Publications below 20 came two days before the slice, campaigns below 3 in its middle.
    const first = (codes: Uint32Array, below: number, newMs: number) =>
      Float64Array.from(codes, (code) => (code < below ? newMs : -10 * dayMs));
    const report = runGate(
      {
        ...sample,
        publicationFirstMs: first(sample.publications, 20, -2 * dayMs),
        campaignFirstMs: first(sample.campaigns, 3, 500),
      },
      options,
    );
    const count = (codes: Uint32Array, below: number) => codes.filter((c) => c < below).length;
    const slice = (name: string) => report.slices.find((s) => s.name === name)!;
    expect(report.slices).toHaveLength(4);
    expect(slice('new_publication').rows).toBe(count(sample.publications, 20));
    expect(slice('new_campaign').rows).toBe(count(sample.campaigns, 3));
    expect(slice('new_publication').rows + slice('known_publication').rows).toBe(2_000);
    expect(slice('new_campaign').logLoss).toBeLessThan(slice('new_campaign').priorLogLoss!);
    expect(slice('known_publication').calibrationRatio).toBeCloseTo(1, 1);
    expect(runGate(sample, options).slices).toEqual([]);
  });
});
