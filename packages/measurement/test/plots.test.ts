import { Rng } from '@waggle/core';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  calibrationPlot,
  gainCurve,
  gainPlot,
  liftCurve,
  liftPlot,
  makeScale,
  precisionRecallCurve,
  precisionRecallPlot,
  predictionHistogram,
  type ReliabilityBin,
  reliabilityCurve,
  residualPlot,
  residualsOverTime,
  rocCurve,
  rocPlot,
} from '../src/index.js';

const rng = new Rng(4, 4);
const DAY = 86_400_000;
const n = 600;
const probability = Array.from({ length: n }, () => 1 / (1 + Math.exp(6 - 1.2 * rng.normal())));
const trials = probability.map(() => 4_000);
const sample = { probability, trials, successes: probability.map((p) => rng.binomial(4_000, p)) };
const clusters = probability.map((_, i) => i % 40);
const times = probability.map((_, i) => Date.UTC(2026, 1, 1) + (i / n) * 20 * DAY);
const name = 'model <a> & "b"';

const plots: [string, (title: string) => string][] = [
  [
    'calibration',
    (title) =>
      calibrationPlot({
        title,
        series: [
          {
            name,
            bins: reliabilityCurve(sample, { clusters }),
            histogram: predictionHistogram(sample, { log: true }),
          },
        ],
      }),
  ],
  ['roc', (title) => rocPlot({ title, series: [{ name, points: rocCurve(sample) }] })],
  [
    'precision and recall',
    (title) =>
      precisionRecallPlot({ title, series: [{ name, points: precisionRecallCurve(sample) }] }),
  ],
  ['gain', (title) => gainPlot({ title, series: [{ name, points: gainCurve(sample) }] })],
  ['lift', (title) => liftPlot({ title, series: [{ name, points: liftCurve(sample) }] })],
  [
    'residuals',
    (title) =>
      residualPlot({
        title,
        series: [{ name, buckets: residualsOverTime(sample, times, { bucketMs: DAY, clusters }) }],
      }),
  ],
];

/** Every coordinate and size that the file draws with. */
function numbersOf(svg: string): number[] {
  return [...svg.matchAll(/ (?:x|y|x1|x2|y1|y2|cx|cy|d|width|height)="([^"]*)"/g)].flatMap(
    ([, v]) =>
      v!
        .split(/[MLHVhvZ ]+/)
        .filter((part) => part !== '')
        .map(Number),
  );
}

describe.each(plots)('the %s plot', (_name, plot) => {
  test('is one closed document with its text escaped, the same for the same data', () => {
    const svg = plot('clicks < 1 % & "more"');
    expect(plot('clicks < 1 % & "more"')).toBe(svg);
    expect(svg.startsWith('<svg xmlns="http://www.w3.org/2000/svg"')).toBe(true);
    expect(svg.trimEnd().endsWith('</svg>')).toBe(true);
    expect(svg).toContain('clicks &lt; 1 % &amp; &quot;more&quot;');
    expect(svg).toContain('model &lt;a&gt; &amp; &quot;b&quot;');
    expect(svg).not.toContain('<a>');
    // Every tag that opens is closed.
    const depth = [...svg.matchAll(/<(\/?)([a-z]+)[^>]*?(\/?)>/g)].reduce(
      (level, [, closing, , alone]) => level + (closing === '/' ? -1 : alone === '/' ? 0 : 1),
      0,
    );
    expect(depth).toBe(0);
  });

  test('is drawn inside its frame, in colours for light and for dark', () => {
    const svg = plot('t');
    const numbers = numbersOf(svg);
    expect(numbers.length).toBeGreaterThan(40);
    for (const value of numbers) {
      expect(value).toBeGreaterThanOrEqual(-50);
      expect(value).toBeLessThanOrEqual(760);
    }
    expect(svg).toContain('prefers-color-scheme:dark');
    expect(svg).not.toMatch(/NaN|Infinity|undefined|<script|href/);
  });
});

test('a curve of a million points stays a small file and keeps its ends', () => {
  const points = Array.from({ length: 1_000_000 }, (_, i) => {
    const x = i / 999_999;
    return { threshold: 1 - x, falsePositiveRate: x, truePositiveRate: Math.sqrt(x) };
  });
  const svg = rocPlot({ title: 't', series: [{ name: 'm', points }] });
  expect(svg.length).toBeLessThan(40_000);
  expect(svg).toMatch(/d="M78 404L.*L520 44"/);
});

test('a calibrated bin lies on the diagonal; limits at 0 stay in the frame', () => {
  const bin = (p: number, rate: number, lowerRate: number): ReliabilityBin => ({
    lower: p,
    upper: p,
    meanProbability: p,
    observedRate: rate,
    mass: 10,
    lowerRate,
    upperRate: 2 * p,
  });
  const svg = calibrationPlot({
    title: 't',
    series: [{ name: 'm', bins: [bin(0.001, 0.001, 0), bin(0.01, 0, 0), bin(0.05, 0.05, 0.02)] }],
  });
  const circles = [...svg.matchAll(/<circle class="f0" cx="([\d.]+)" cy="([\d.]+)"/g)].map(
    ([, x, y]) => [Number(x), Number(y)] as const,
  );
  expect(circles).toHaveLength(3);
  // The frame is 492 × 360: (x − left) / 492 = (bottom − y) / 360
  for (const [x, y] of [circles[0]!, circles[2]!]) {
    expect((x - 78) / 492).toBeCloseTo((404 - y) / 360, 3);
  }
  expect(circles[1]![1]).toBe(404);
  expect(numbersOf(svg).every(Number.isFinite)).toBe(true);
});

test('residuals break where days are missing', () => {
  const kept = [...times.keys()].filter((i) => i < 200 || i > 300);
  const pick = (column: readonly number[]) => kept.map((i) => column[i]!);
  const buckets = residualsOverTime(
    { probability: pick(probability), trials: pick(trials), successes: pick(sample.successes) },
    pick(times),
    { bucketMs: DAY },
  );
  const svg = residualPlot({ title: 't', series: [{ name: 'm', buckets }] });
  expect(svg.match(/class="f0 soft"/g)).toHaveLength(2);
});

test('nothing to show is an empty frame, not an error', () => {
  for (const svg of [
    calibrationPlot({ title: 't', series: [] }),
    rocPlot({ title: 't', series: [] }),
    precisionRecallPlot({ title: 't', series: [] }),
    liftPlot({ title: 't', series: [{ name: 'm', points: [] }] }),
    residualPlot({ title: 't', series: [] }),
  ]) {
    expect(svg).not.toMatch(/NaN|Infinity/);
  }
});

test('a scale maps its ends to the ends, ticks ascending between', () => {
  fc.assert(
    fc.property(
      fc.array(fc.double({ min: 1e-6, max: 1e6, noNaN: true }), { minLength: 1, maxLength: 20 }),
      fc.boolean(),
      (values, log) => {
        const { at, ticks } = makeScale(values, log, 100, 500);
        for (const v of values) {
          expect(at(v)).toBeGreaterThan(99.9);
          expect(at(v)).toBeLessThan(500.1);
        }
        expect(ticks.length).toBeGreaterThan(1);
        ticks.forEach((t, i) => {
          if (i > 0) expect(t).toBeGreaterThan(ticks[i - 1]!);
        });
      },
    ),
  );
});
