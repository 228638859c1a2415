import { stringAt } from '@waggle/core';
import { buildClickRows, CLICK_SIGNALS, type ClickRows, isVerifiedClick } from '@waggle/features';
import { areaUnderRoc, logLoss } from '@waggle/measurement';
import { Trees } from '@waggle/native';
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  type LoadedWorld,
  loadSimulatedWorld,
  rowsOf,
} from '../../features/test/support/simulated-world.js';
import {
  humanClicks,
  ringShare,
  type TrainedHuman,
  trainHuman,
  weighSuccesses,
} from '../src/index.js';
import { synthetic } from './synthetic.js';

let loaded: LoadedWorld;
let rows: ClickRows;
let trained: TrainedHuman;
let p: Float64Array;
/** Who really clicked. */
let cause: string[];

beforeAll(async () => {
  loaded = await loadSimulatedWorld({ scale: 'ci', seed: 1 }, [
    'placements',
    'clicks',
    'conversions',
  ]);
  const { store, range } = loaded;
  rows = await buildClickRows(store, range);
  trained = await trainHuman({ rows, seed: 1 });
  p = await trained.predict(rows);
  const of = new Map(
    [...loaded.world.truth.clicks.rows()].map((c) => [String(c['event_id']), String(c['cause'])]),
  );
  cause = Array.from({ length: rows.nRows }, (_, i) => of.get(stringAt(rows.clickIds, i))!);
}, 300_000);
afterAll(() => loaded?.close());

test('every click has a row once, in time order, with the rule’s verdict and its signals', () => {
  const clicks = rowsOf(loaded.world, 'clicks');
  expect(rows.nRows).toBe(clicks.length);
  const byId = new Map(clicks.map((c) => [String(c['event_id']), c]));
  const width = CLICK_SIGNALS.length;
  for (let i = 0; i < rows.nRows; i += 97) {
    const click = byId.get(stringAt(rows.clickIds, i))!;
    expect(rows.verified[i]).toBe(isVerifiedClick(click as never) ? 1 : 0);
    expect(rows.trapped[i]).toBe(click['honeypot'] ? 1 : 0);
    expect(rows.x[i * width]).toBeCloseTo(Math.log1p(Number(click['ms_since_delivery'])), 4);
    expect(rows.x[i * width + 1]).toBe(click['links_within_10s']);
    if (i > 0) expect(rows.tsMs[i]).toBeGreaterThanOrEqual(rows.tsMs[i - 1]!);
  }
});

test('nobody labelled a click, and yet people are told from machines better than by the rule', () => {
  const human = Float64Array.from(cause, (c) => (c === 'person' || c === 'repeat' ? 1 : 0));
  const rule = rows.verified;
  const clipped = (column: Float64Array, by: number) =>
    column.map((v) => Math.min(Math.max(v, by), 1 - by));
  // The rule is given the error rate that suits it best.
  const wrong = human.reduce((n, y, i) => n + (y === rule[i] ? 0 : 1), 0) / rows.nRows;
  const judge = (probability: Float64Array) => ({
    loss: logLoss({ probability, successes: human }),
    auc: areaUnderRoc({ probability, successes: human }),
  });
  const ours = judge(clipped(p, 1e-4));
  const theirs = judge(clipped(rule, wrong));
  expect(ours.loss).toBeLessThan(0.3 * theirs.loss);
  expect(ours.auc).toBeGreaterThan(Math.max(0.999, theirs.auc));
  const total = (of: string) =>
    cause.reduce((sum, c, i) => (c === of ? [sum[0]! + p[i]!, sum[1]! + 1] : sum), [0, 0]);
  const share = (of: string) => total(of)[0]! / total(of)[1]!;
  expect(share('person')).toBeGreaterThan(0.99);
  expect(share('scanner')).toBeLessThan(0.01);
  // A ring passes the rule altogether.
  expect(total('fraud')[1]).toBeGreaterThan(100);
  expect(share('fraud')).toBeLessThan(0.2);
});

test('labels made with it are closer to the people who clicked than labels made by the rule', () => {
  const people = new Map(
    [...loaded.world.truth.placements.rows()].map((t) => [
      String(t['placement_id']),
      Number(t['human_clicks_72h']),
    ]),
  );
  const error = (clicks: ReadonlyMap<string, number>) => {
    let [off, all] = [0, 0];
    for (const [placement, truth] of people) {
      off += Math.abs((clicks.get(placement) ?? 0) - truth);
      all += truth;
    }
    return off / all;
  };
  // Both count what had come by the end: young ads lack clicks either way.
  const weighed = error(humanClicks(rows, p));
  const ruled = error(humanClicks(rows, rows.verified));
  expect(weighed).toBeLessThan(ruled);
  const { dataset } = synthetic({ seed: 1, nRows: 300 });
  const some = new Map([
    ['plc_3', 2.5],
    ['plc_4', 1e12],
  ]);
  const changed = weighSuccesses(dataset, some);
  expect(changed.successes[3]).toBe(Math.min(2.5, dataset.trials[3]!));
  expect(changed.successes[4]).toBe(dataset.trials[4]);
  expect(changed.successes[5]).toBe(0);
});

test('passes its gate by what can be known without truth, says so in its card, and is kept whole', async () => {
  expect(trained.gate.passed, trained.gate.summary).toBe(true);
  expect(trained.gate.checks.map((c) => c.name)).toContain('converters');
  const { estimate, upper975Crossed } = trained.gate.relativeLogLoss!;
  expect(upper975Crossed).toBeGreaterThan(estimate);
  expect(trained.head.touch).toBeGreaterThan(0.8);
  expect(trained.head.accident).toBeLessThan(0.002);
  const trees = await Trees.load(trained.artifacts['model.trees']!);
  expect(trees.nTrees).toBe(trained.trees.nTrees);
  const again = await trainHuman({ rows, seed: 1 });
  expect(
    Buffer.from(again.artifacts['model.trees']!).equals(
      Buffer.from(trained.artifacts['model.trees']!),
    ),
  ).toBe(true);
}, 60_000);

test('wrong clicks are refused by name and row, and none that touched the hidden link is too few', async () => {
  const change = (over: Partial<ClickRows>) => trainHuman({ rows: { ...rows, ...over }, seed: 1 });
  const at = <T extends Float32Array | Float64Array>(column: T, i: number, v: number): T => {
    const out = column.slice() as T;
    out[i] = v;
    return out;
  };
  await expect(change({ trapped: at(rows.trapped, 5, 2) })).rejects.toMatchObject({
    code: 'WAGGLE_TRAINING_LABEL',
  });
  await expect(change({ tsMs: at(rows.tsMs, 5, Number.NaN) })).rejects.toMatchObject({
    code: 'WAGGLE_TRAINING_NOT_FINITE',
  });
  await expect(
    change({ x: at(rows.x, 3 * CLICK_SIGNALS.length + 1, Number.POSITIVE_INFINITY) }),
  ).rejects.toMatchObject({
    code: 'WAGGLE_TRAINING_NOT_FINITE',
    message: expect.stringMatching(/links_within_10s.*row 3/),
  });
  await expect(change({ converted: rows.converted.slice(1) })).rejects.toMatchObject({
    code: 'WAGGLE_TRAINING_SHAPE',
  });
  await expect(change({ trapped: rows.trapped.map(() => 0) })).rejects.toMatchObject({
    code: 'WAGGLE_TRAINING_TOO_FEW',
  });
});

test('a crowded address range is a ring only where chance cannot explain it', () => {
  expect(ringShare(1, 0.01)).toBeLessThan(1e-3);
  expect(ringShare(3, 0.01)).toBeLessThan(0.05);
  expect(ringShare(30, 0.02)).toBeGreaterThan(0.95);
  expect(ringShare(30, 25)).toBeLessThan(0.05);
  expect(ringShare(5_000, 4)).toBeGreaterThan(0.99);
  for (let n = 2; n < 60; n++) {
    expect(ringShare(n, 0.1)).toBeGreaterThanOrEqual(ringShare(n - 1, 0.1));
  }
});
