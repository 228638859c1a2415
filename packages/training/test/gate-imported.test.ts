import { DAY_MS } from '@waggle/core';
import { sigmoid } from '@waggle/ranking';
import { describe, expect, test } from 'vitest';
import {
  gateImported,
  importedModelCard,
  learnableUntil,
  renderModelCard,
  type SelectionVerdict,
} from '../src/index.js';
import { ctrSet, START_MS, synthetic } from './synthetic.js';

const { dataset } = synthetic({ seed: 1, publicationNoise: 0.1 });
const options = { featureSet: ctrSet, seed: 1, bootstrapReplicates: 300 };
const width = ctrSet.names.length;
const learnedUntilMs = START_MS + 20 * DAY_MS;

/** Rows as a model of another tool sees them: prior, cosine, position, … */
const scoring =
  (logit: (prior: number, cosine: number, position: number) => number) =>
  async (x: Float32Array, nRows: number): Promise<Float32Array> =>
    Float32Array.from({ length: nRows }, (_, r) =>
      sigmoid(logit(x[r * width]!, x[r * width + 1]!, x[r * width + 2]!)),
    );
const truth = scoring((prior, cosine, position) => prior + 0.4 * cosine - 0.2 * (position - 1));
const imported = { name: 'pctr_other', decision: 'pctr', learnedUntilMs, score: truth } as const;
const failed = (gate: Awaited<ReturnType<typeof gateImported>>['gate']) =>
  gate.checks.filter((check) => !check.passed).map((check) => check.name);

describe('the gate of a model that was trained elsewhere', () => {
  test('passes one that knows what the prior does not, on the rows after its data alone', async () => {
    const seen: number[] = [];
    const { gate, slices } = await gateImported(
      {
        ...imported,
        score: (x, nRows) => {
          seen.push(nRows);
          return truth(x, nRows);
        },
      },
      dataset,
      options,
    );
    expect(gate.passed, gate.summary).toBe(true);
    expect(gate).toMatchObject({ model: 'pctr_other', released: 'model' });
    const later = dataset.decisionTsMs.filter((ts) => ts >= learnedUntilMs).length;
    expect(later).toBeGreaterThan(500);
    expect(seen.reduce((sum, n) => sum + n, 0)).toBe(later);
    expect(gate.rows).toBe(later);
    expect(Date.parse(gate.fromTs!)).toBeGreaterThanOrEqual(learnedUntilMs);
    expect(gate.relativeLogLoss!.upper95).toBeLessThan(0);
    expect(slices[0]).toMatchObject({ name: 'all', rows: later });
    const verdictOf = (explanation: string, kept: boolean) => ({
      ...{ passed: kept, nRows: 9, relativeLogLoss: null, winners: null, explanation },
    });
    const cardOf = (
      selectionVerdict?: SelectionVerdict,
      selection?: { level: number; edge: number },
      passed = true,
    ) =>
      renderModelCard(
        importedModelCard(
          { gate: { ...gate, passed }, slices },
          { ...ctrSet, features: ctrSet.names.map((name) => ({ name, description: name })) },
          {
            ...{ name: 'pctr_other', decision: 'pctr', form: 'other 1.0, onnx' },
            ...{ selection, selectionVerdict },
            ...{ calibration: 'as its maker left it', fromTs: 'a', toTs: 'b' },
          },
        ),
      );
    const kept = verdictOf('corrected for being selected: so much', true);
    const card = cardOf(kept, { level: -0.04, edge: -0.3 });
    expect(card).toContain('| gate | passed');
    expect(card).toContain('Trained elsewhere');
    expect(card).toContain(
      'as its maker left it; then, among the candidates of a slot, level -0.040 and slope 0.700 for having been selected; corrected for being selected: so much |',
    );
    const little = 'not corrected for being selected: too little ran';
    expect(cardOf(verdictOf(little, false))).toContain(`as its maker left it; ${little} |`);
    expect(cardOf(undefined, undefined, false)).toContain(
      'not corrected for being selected: it has not passed',
    );
  });

  test.each([
    ['worse than the prior', (prior: number, cosine: number) => prior - 0.4 * cosine, 'log_loss'],
    ['too sure of itself', (prior: number) => prior + 0.5, 'calibration'],
  ])('fails one that is %s, which is then not released', async (_, logit, check) => {
    const { gate } = await gateImported({ ...imported, score: scoring(logit) }, dataset, options);
    expect(failed(gate)).toContain(check);
    expect(gate).toMatchObject({ passed: false, released: 'unreleased' });
    expect(gate.summary).toContain('it is not released');
  });

  test('fails one that has seen everything, for want of rows to judge it on', async () => {
    const { gate } = await gateImported(
      { ...imported, learnedUntilMs: START_MS + 400 * DAY_MS },
      dataset,
      options,
    );
    expect(failed(gate)).toEqual(['later_rows', 'enough_data']);
    expect(gate.relativeLogLoss).toBeNull();
  });

  test('counts of young rows what has arrived', async () => {
    const young = { ...dataset, maturity: dataset.maturity.map(() => 0.5) };
    const halved = { ...young, successes: young.successes.map((s) => Math.round(s / 2)) };
    const { gate } = await gateImported(imported, halved, options);
    expect(failed(gate)).toEqual([]);
  });

  test('tells who trains elsewhere where to stop: before the rows that our own models are gated on', () => {
    const { learnUntilMs, gateFromMs } = learnableUntil(dataset.decisionTsMs);
    const share = dataset.decisionTsMs.filter((ts) => ts >= gateFromMs).length / dataset.nRows;
    expect(share).toBeCloseTo(0.25, 1);
    expect(gateFromMs - learnUntilMs).toBeGreaterThan(DAY_MS);
  });
});
