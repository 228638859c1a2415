import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  calibrate,
  type LinearModel,
  LinearScorer,
  logit,
  parseLinearModel,
  predictLinear,
  priorOnlyModel,
  sealLinearModel,
  sigmoid,
} from '../src/index.js';

const model = (over: Partial<LinearModel> = {}): LinearModel =>
  sealLinearModel({
    kind: 'linear_logistic',
    name: 'pctr',
    featureNames: ['a', 'b'],
    featureSetFingerprint: 'f'.repeat(8),
    coefficients: [2, -1],
    intercept: 0.5,
    calibration: { kind: 'identity' },
    priorOnly: false,
    dataRange: {},
    metrics: {},
    ...over,
  });

test('a prediction is the sigmoid of intercept plus coefficients times features', () => {
  const p = predictLinear(model(), Float32Array.of(1, 1, 0, 0.5), 2);
  expect(p[0]).toBeCloseTo(1 / (1 + Math.exp(-1.5)), 6);
  expect(p[1]).toBeCloseTo(0.5, 6);
});

test('platt calibration is applied to the whole logit, intercept included', () => {
  const m = model({ calibration: { kind: 'platt', a: 0.5, b: -1 } });
  const p = predictLinear(m, Float32Array.of(1, 1), 1);
  expect(p[0]).toBeCloseTo(calibrate(m.calibration, 1.5), 6);
});

test('sigmoid and logit invert each other and never leave [0, 1]', () => {
  fc.assert(
    fc.property(fc.double({ min: -30, max: 30, noNaN: true }), (z) => {
      expect(Math.abs(logit(sigmoid(z)) - z)).toBeLessThan(1e-3 * Math.max(1, Math.abs(z)));
    }),
  );
  for (const z of [-1e308, 1e308, -Infinity, Infinity]) {
    expect(sigmoid(z)).toBeGreaterThanOrEqual(0);
    expect(sigmoid(z)).toBeLessThanOrEqual(1);
  }
});

test('a prediction grows with a feature whose coefficient is positive', () => {
  fc.assert(
    fc.property(
      fc.float({ min: -5, max: 5, noNaN: true }),
      fc.float({ min: Math.fround(0.01), max: 5, noNaN: true }),
      (x, step) => {
        const p = predictLinear(model(), Float32Array.of(x, 0, x + step, 0), 2);
        expect(p[1]!).toBeGreaterThanOrEqual(p[0]!);
      },
    ),
  );
});

test('a feature that is not a number is refused by row and name', () => {
  expect(() => predictLinear(model(), Float32Array.of(0, 0, 1, Number.NaN), 2)).toThrow(
    /row 1, feature b = NaN/,
  );
  expect(() => predictLinear(model(), Float32Array.of(0), 1)).toThrow(
    expect.objectContaining({ code: 'WAGGLE_RANKING_SHAPE' }),
  );
});

test('the prior-only model repeats the prior logit of its set', () => {
  const set = { name: 'accept', names: ['x', 'prior_logit_accept'], fingerprint: 'abc' } as const;
  const prior = priorOnlyModel(set);
  expect(prior).toMatchObject({ name: 'accept', priorOnly: true, coefficients: [0, 1] });
  expect(predictLinear(prior, Float32Array.of(9, -2), 1)[0]).toBeCloseTo(sigmoid(-2), 6);
  expect(() => priorOnlyModel({ name: 'ctr', names: ['x'], fingerprint: '' })).toThrow(
    expect.objectContaining({ code: 'WAGGLE_RANKING_MODEL_INVALID' }),
  );
});

test('a model survives JSON, and any changed field is noticed', () => {
  const good = JSON.parse(JSON.stringify(model()));
  expect(parseLinearModel(good)).toEqual(model());
  const broken: [string, unknown][] = [
    ['kind', 'forest'],
    ['name', 'pcvr'],
    ['featureNames', ['a']],
    ['featureNames', ['a', 'a']],
    ['coefficients', [1]],
    ['coefficients', [1, null]],
    ['coefficients', [1, 2]],
    ['intercept', 'x'],
    ['calibration', { kind: 'platt', a: 1 }],
    ['priorOnly', 1],
    ['version', 'pctr@000000000000'],
    ['metrics', null],
  ];
  for (const [key, value] of broken) {
    expect(() => parseLinearModel({ ...good, [key]: value }), key).toThrow(
      expect.objectContaining({ code: 'WAGGLE_RANKING_MODEL_INVALID' }),
    );
  }
  for (const junk of [null, 3, 'x', []]) {
    expect(() => parseLinearModel(junk)).toThrow(
      expect.objectContaining({ code: 'WAGGLE_RANKING_MODEL_INVALID' }),
    );
  }
});

test('the scorer with folded calibration equals calibrating the raw logit', async () => {
  const m = model({ calibration: { kind: 'platt', a: 1.3, b: 0.2 } });
  const scorer = new LinearScorer(m);
  const x = Float32Array.from({ length: 20 }, (_, i) => Math.sin(i));
  const p = await scorer.score(x, 10);
  for (let r = 0; r < 10; r++) {
    const raw = m.intercept + m.coefficients[0]! * x[2 * r]! + m.coefficients[1]! * x[2 * r + 1]!;
    expect(p[r]).toBeCloseTo(calibrate(m.calibration, raw), 6);
  }
});

test('sums that are known already give the same probabilities, in place too', () => {
  const scorer = new LinearScorer(model({ calibration: { kind: 'platt', a: 0.5, b: -1 } }));
  const x = Float32Array.of(1, 1, 0.25, -3);
  const expected = scorer.scoreInto(x, 2, new Float64Array(2));
  const sums = Float64Array.from(
    [0, 1],
    (r) => scorer.weights[0]! * x[2 * r]! + scorer.weights[1]! * x[2 * r + 1]!,
  );
  const p = scorer.scoreSums(sums, 2, sums);
  for (let r = 0; r < 2; r++) expect(p[r]).toBeCloseTo(expected[r]!, 14);
  const code = (expectedCode: string) => expect.objectContaining({ code: expectedCode });
  expect(() => scorer.scoreSums(Float64Array.of(Number.NaN), 1, new Float32Array(1))).toThrow(
    code('WAGGLE_RANKING_NAN'),
  );
  expect(() => scorer.scoreSums(sums, 3, new Float32Array(3))).toThrow(
    code('WAGGLE_RANKING_SHAPE'),
  );
});
