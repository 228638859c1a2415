import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  boundedLogit,
  correctSelected,
  type LinearModel,
  logit,
  meanLogit,
  parseHeadModel,
  sealLinearModel,
  sealTreesModel,
  selectedLogit,
  sigmoid,
  withSelection,
} from '../src/index.js';

const linear = sealLinearModel({
  kind: 'linear_logistic',
  name: 'pctr',
  featureNames: ['a', 'b'],
  featureSetFingerprint: 'ctr@0123456789ab',
  coefficients: [1, 0.5],
  intercept: -0.1,
  calibration: { kind: 'platt', a: 0.9, b: -0.2 },
  priorOnly: false,
  dataRange: {},
  metrics: {},
});
const trees = sealTreesModel({
  kind: 'trees_logistic',
  name: 'pctr',
  featureNames: ['a', 'b'],
  featureSetFingerprint: 'ctr@0123456789ab',
  offsetFeature: 'a',
  calibration: { kind: 'identity' },
  priorOnly: false,
  treesSha256: '00',
  dataRange: {},
  metrics: {},
});

describe('correction for selection', () => {
  test.each([
    ['Float64Array', Float64Array],
    ['Float32Array', Float32Array],
  ])(
    'a candidate that a model is sure of leaves the others numbers and their order (%s)',
    (_, columns) => {
      for (const sure of [0, 1]) {
        const p = columns.from([0.002, sure, 0.004, 0.001]);
        correctSelected({ level: 0.1, edge: -0.2 }, p, p.length);
        const mean = meanLogit(columns.from([0.002, sure, 0.004, 0.001]), 4);
        expect(Number.isFinite(mean)).toBe(true);
        [0.002, sure, 0.004, 0.001].forEach((before, i) => {
          const z = boundedLogit(before);
          expect(p[i]).toBeCloseTo(sigmoid(z + 0.1 - 0.2 * (z - mean)), 6);
        });
        expect([...p.keys()].sort((a, b) => p[a]! - p[b]!)).toEqual(
          sure === 0 ? [1, 3, 0, 2] : [3, 0, 2, 1],
        );
      }
    },
  );

  test('a logit is bounded at the ends only', () => {
    expect(boundedLogit(0.3)).toBe(logit(0.3));
    expect(boundedLogit(0)).toBe(logit(1e-9));
    expect(boundedLogit(1)).toBe(logit(1 - 1e-9));
  });

  test('shifts every candidate by the level and by the edge times its advantage, and keeps the order', () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: -9, max: -2, noNaN: true }), { minLength: 1, maxLength: 40 }),
        fc.double({ min: -0.5, max: 0.5, noNaN: true }),
        fc.double({ min: -0.9, max: 0.9, noNaN: true }),
        (logits, level, edge) => {
          const p = Float64Array.from(logits, sigmoid);
          correctSelected({ level, edge }, p, p.length);
          const mean = logits.reduce((sum, z) => sum + z, 0) / logits.length;
          logits.forEach((z, i) => {
            expect(logit(p[i]!)).toBeCloseTo(selectedLogit({ level, edge }, z, z - mean), 9);
          });
          const order = [...p.keys()].sort((a, b) => logits[a]! - logits[b]!);
          for (let k = 1; k < order.length; k++) {
            expect(p[order[k]!]!).toBeGreaterThanOrEqual(p[order[k - 1]!]!);
          }
        },
      ),
    );
  });

  test('touches the given rows only, and nothing where there are none', () => {
    const p = Float32Array.of(0.01, 0.02, 0.5);
    correctSelected({ level: -0.1, edge: -0.2 }, p, 2);
    expect(p[2]).toBe(0.5);
    correctSelected({ level: -0.1, edge: 0 }, p, 0);
    expect(p[2]).toBe(0.5);
  });

  test('travels in a model of either kind, under a version of its own', () => {
    for (const model of [linear, trees]) {
      const corrected = withSelection(model, { level: -0.02, edge: -0.05 });
      expect(corrected.version).not.toBe(model.version);
      const back = parseHeadModel(JSON.parse(JSON.stringify(corrected)));
      expect(back.selection).toEqual({ level: -0.02, edge: -0.05 });
      expect(() =>
        parseHeadModel({ ...corrected, selection: { level: -0.02, edge: -0.06 } }),
      ).toThrow(expect.objectContaining({ code: 'WAGGLE_RANKING_MODEL_INVALID' }));
    }
  });

  test('one that is no number or turns the order around is refused', () => {
    const odd = [null, 3, {}, { level: 0 }, { level: Number.NaN, edge: 0 }, { level: 0, edge: -1 }];
    for (const selection of odd) {
      for (const model of [linear, trees]) {
        const broken = { ...model, selection } as unknown as LinearModel;
        expect(() => parseHeadModel(broken)).toThrow(/selection/);
      }
    }
  });
});
