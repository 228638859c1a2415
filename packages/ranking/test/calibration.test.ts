import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  type Calibration,
  calibrate,
  calibrateLogit,
  calibrationFault,
  calibrationLine,
  LinearScorer,
  logit,
  parseLinearModel,
  sealLinearModel,
  sigmoid,
  sliceOfCalibration,
  softmaxAtTemperature,
  softplus,
} from '../src/index.js';

const isotonic: Calibration = { kind: 'isotonic', x: [-2, 0, 1], y: [-1, 0, 3] };
const shift: Calibration = { kind: 'shift', by: 'category', shifts: { food: 0.5, news: -0.25 } };
const kinds: readonly Calibration[] = [
  { kind: 'identity' },
  { kind: 'platt', a: 0.7, b: 0.2 },
  { kind: 'beta', a: 0.8, b: 1.4, c: -0.3 },
  isotonic,
  shift,
  { kind: 'composed', steps: [{ kind: 'platt', a: 1.1, b: 0 }, isotonic, shift] },
];

function modelOf(calibration: Calibration) {
  return sealLinearModel({
    kind: 'linear_logistic',
    name: 'pctr',
    featureNames: ['a', 'b'],
    featureSetFingerprint: 'ctr_x',
    coefficients: [0.5, -1],
    intercept: 0.3,
    calibration,
    priorOnly: false,
    dataRange: {},
    metrics: {},
  });
}

test('each kind is the formula it names', () => {
  const z = -0.8;
  const p = sigmoid(z);
  const at = (calibration: Calibration, slice?: string) => calibrateLogit(calibration, z, slice);
  expect(at(kinds[0]!)).toBe(z);
  expect(at(kinds[1]!)).toBeCloseTo(0.7 * z + 0.2, 14);
  expect(at(kinds[2]!)).toBeCloseTo(0.8 * Math.log(p) - 1.4 * Math.log(1 - p) - 0.3, 12);
  // between (−2, −1) and (0, 0)
  expect(at(isotonic)).toBeCloseTo(-0.4, 14);
  expect(at(shift, 'food')).toBeCloseTo(-0.3, 14);
  expect(at(shift, 'toString')).toBe(z);
  expect(at(shift)).toBe(z);
  expect(at(kinds[5]!, 'news')).toBeCloseTo(-0.44 - 0.25, 14);
});

test('isotonic passes through its knots and goes on with slope 1 beyond them', () => {
  expect([-2, 0, 1].map((z) => calibrateLogit(isotonic, z))).toEqual([-1, 0, 3]);
  expect(calibrateLogit(isotonic, -5)).toBe(-4);
  expect(calibrateLogit(isotonic, 2.5)).toBe(4.5);
  expect(calibrateLogit({ kind: 'isotonic', x: [1], y: [2] }, 0)).toBe(1);
});

test('every kind keeps the order of candidates and gives probabilities at any logit', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(...kinds),
      fc.double({ min: -40, max: 40, noNaN: true }),
      fc.double({ min: 1e-6, max: 10, noNaN: true }),
      (calibration, z, step) => {
        expect(calibrateLogit(calibration, z + step)).toBeGreaterThanOrEqual(
          calibrateLogit(calibration, z),
        );
        const p = calibrate(calibration, z);
        expect(p).toBeGreaterThanOrEqual(0);
        expect(p).toBeLessThanOrEqual(1);
      },
    ),
  );
  expect(softplus(-800)).toBe(0);
  expect(softplus(800)).toBe(800);
  expect(logit(sigmoid(1.5))).toBeCloseTo(1.5, 12);
});

test('a scorer gives what calibrating its raw logit gives, by features and by sums', () => {
  const slices = ['food', 'news', 'other'];
  const x = Float32Array.of(1, 2, -3, 0.5, 0, -1);
  for (const calibration of kinds) {
    const scorer = new LinearScorer(modelOf(calibration));
    const expected = [0, 1, 2].map((r) =>
      calibrate(calibration, 0.3 + 0.5 * x[2 * r]! - x[2 * r + 1]!, slices[r]),
    );
    const byFeatures = scorer.scoreInto(x, 3, new Float64Array(3), slices);
    const sums = Float64Array.from(
      [0, 1, 2],
      (r) => scorer.weights[0]! * x[2 * r]! + scorer.weights[1]! * x[2 * r + 1]!,
    );
    const bySums = scorer.scoreSums(sums, 3, sums, slices);
    for (let r = 0; r < 3; r++) {
      expect(byFeatures[r]).toBeCloseTo(expected[r]!, 14);
      expect(bySums[r]).toBeCloseTo(expected[r]!, 14);
    }
  }
});

test('a model that shifts by slice is not scored without slices', () => {
  const scorer = new LinearScorer(modelOf(shift));
  expect(scorer.slicedBy).toBe('category');
  const refused = expect.objectContaining({ code: 'WAGGLE_RANKING_SHAPE' });
  expect(() => scorer.scoreInto(new Float32Array(2), 1, new Float64Array(1))).toThrowError(refused);
  expect(() =>
    scorer.scoreSums(new Float64Array(2), 2, new Float64Array(2), ['food']),
  ).toThrowError(refused);
  expect(new LinearScorer(modelOf(isotonic)).slicedBy).toBeUndefined();
  expect(sliceOfCalibration(kinds[5]!)).toBe('category');
});

test('lines fold, one after the other too; what bends does not', () => {
  expect(
    calibrationLine({
      kind: 'composed',
      steps: [{ kind: 'platt', a: 2, b: 1 }, { kind: 'identity' }, { kind: 'platt', a: 0.5, b: 3 }],
    }),
  ).toEqual({ a: 1, b: 3.5 });
  expect(calibrationLine(isotonic)).toBeUndefined();
  expect(calibrationLine({ kind: 'composed', steps: [isotonic] })).toBeUndefined();
});

test('a model file with any kind comes back as it was; a broken calibration is refused', () => {
  for (const calibration of kinds) {
    const model = modelOf(calibration);
    expect(parseLinearModel(JSON.parse(JSON.stringify(model)))).toEqual(model);
  }
  const broken: unknown[] = [
    null,
    'platt',
    { kind: 'magic' },
    { kind: 'platt', a: 1 },
    { kind: 'beta', a: 1, b: -0.1, c: 0 },
    { kind: 'beta', a: 1, b: 1, c: Number.NaN },
    { kind: 'isotonic', x: [0, 1], y: [0] },
    { kind: 'isotonic', x: [], y: [] },
    { kind: 'isotonic', x: [0, 0], y: [0, 1] },
    { kind: 'isotonic', x: [0, 1], y: [1, 0] },
    {
      kind: 'isotonic',
      x: Array.from({ length: 65 }, (_, i) => i),
      y: Array.from({ length: 65 }, (_, i) => i),
    },
    { kind: 'shift', by: 'category', shifts: { food: 'much' } },
    { kind: 'shift', shifts: {} },
    { kind: 'composed', steps: [{ kind: 'composed', steps: [] }] },
    { kind: 'composed', steps: new Array(5).fill({ kind: 'identity' }) },
    { kind: 'composed' },
  ];
  for (const calibration of broken) {
    expect(calibrationFault(calibration), JSON.stringify(calibration)).toBeDefined();
    expect(() => parseLinearModel({ ...modelOf({ kind: 'identity' }), calibration })).toThrowError(
      expect.objectContaining({ code: 'WAGGLE_RANKING_MODEL_INVALID' }),
    );
  }
});

test('softmax at temperature 1 is softmax; a high temperature evens out, in place too', () => {
  const logits = Float64Array.of(1, 2, 3, 1000, 1000, 0);
  const p = softmaxAtTemperature(logits, 3, 1);
  expect(p[2]).toBeCloseTo(Math.exp(3) / (Math.exp(1) + Math.exp(2) + Math.exp(3)), 12);
  expect([...p.subarray(3)]).toEqual([0.5, 0.5, 0]);
  softmaxAtTemperature(logits, 3, 1e9, logits);
  expect(logits[0]).toBeCloseTo(1 / 3, 6);
});
