import { DAY_MS, HOUR_MS, Rng, type SendHistory } from '@waggle/core';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  BASE_FEATURES,
  constantLearner,
  INVENTORY_LEVELS,
  INVENTORY_TARGETS,
  InventoryModel,
  inventoryBase,
  inventoryCell,
  type QuantileLearner,
  rearrange,
} from '../src/index.js';
import { byHour, OUTCOME_MS, START_MS, simulateNetwork } from './support/network.js';

const LEAD_MS = 24 * HOUR_MS;
const { history, expected } = simulateNetwork(1);
const nowMs = START_MS + 28 * DAY_MS;

/** The same history with everything that became known after a moment changed beyond recognition. */
function disturbedAfter(h: SendHistory, momentMs: number): SendHistory {
  const change = (values: Float64Array, knownMs: (i: number) => number) =>
    values.map((v, i) => (knownMs(i) > momentMs ? v * 3 + 17 : v));
  const nHours = h.outcomeMs / HOUR_MS;
  const changeHours = (values: Float64Array) =>
    change(values, (k) => h.sentMs[Math.floor(k / nHours)]! + ((k % nHours) + 1) * HOUR_MS);
  return {
    ...h,
    hourly: { opens: changeHours(h.hourly.opens), clicks: changeHours(h.hourly.clicks) },
    recipients: change(h.recipients, (i) => h.sentMs[i]!),
    delivered: change(h.delivered, (i) => h.sentMs[i]!),
    opens: change(h.opens, (i) => h.sentMs[i]! + OUTCOME_MS),
    clicks: change(h.clicks, (i) => h.sentMs[i]! + OUTCOME_MS),
    lists: {
      ...h.lists,
      subscribers: change(h.lists.subscribers, (i) => h.lists.atMs[i]!),
    },
  };
}

/** Of a count plus a uniform number from [0, 1), the share that lies between two limits. */
const shareWithin = (count: number, low: number, high: number): number =>
  Math.max(0, Math.min(count + 1, high) - Math.max(count, low));

/** A Float64Array and some more. */
function joined(values: Float64Array, more: Float64Array): Float64Array {
  const out = new Float64Array(values.length + more.length);
  out.set(values);
  out.set(more, values.length);
  return out;
}

describe.each(INVENTORY_TARGETS)('base forecast of %s', (target) => {
  const base = inventoryBase(history, target, LEAD_MS);

  test('knows nothing that became known later than its lead before the planned time', () => {
    const momentMs = START_MS + 15 * DAY_MS + 5 * HOUR_MS;
    const other = inventoryBase(disturbedAfter(history, momentMs), target, LEAD_MS);
    let compared = 0;
    let changed = 0;
    for (let i = 0; i < history.nSends; i++) {
      if (history.plannedMs[i]! - LEAD_MS <= momentMs) {
        expect(other.mean[i]).toBe(base.mean[i]);
        expect(other.deviation[i]).toBe(base.deviation[i]);
        compared++;
      } else if (other.mean[i] !== base.mean[i]) {
        changed++;
      }
    }
    expect(compared).toBeGreaterThan(100);
    expect(changed).toBeGreaterThan(100);
  });

  test('is the same twice, and has a deviation wherever it has a mean', () => {
    expect(inventoryBase(history, target, LEAD_MS)).toEqual(base);
    for (let i = 0; i < history.nSends; i++) {
      if (base.mean[i]! > 0) expect(base.deviation[i]).toBeGreaterThan(0);
    }
  });

  test('knows nothing before the network has finished sends', () => {
    expect(base.mean[0]).toBeNaN();
    expect(base.features.subarray(0, BASE_FEATURES.length).every(Number.isNaN)).toBe(true);
  });

  test('has quantiles of which four fifths hold, and that never cross', async () => {
    const asOfMs = history.plannedMs.map((ms) => ms - LEAD_MS);
    const actual = history[target];
    const testFromMs = nowMs - OUTCOME_MS - 7 * DAY_MS;
    const model = await InventoryModel.fit({
      base,
      actual: actual.map((v, i) =>
        history.sentMs[i]! + OUTCOME_MS <= testFromMs ? v : Number.NaN,
      ),
      asOfMs,
      fitUntilMs: testFromMs - 8 * DAY_MS,
      calibrateUntilMs: testFromMs,
      learner: constantLearner,
    });
    const rows: number[] = [];
    for (let i = 0; i < history.nSends; i++) {
      if (asOfMs[i]! >= testFromMs && Number.isFinite(actual[i]!) && base.deviation[i]! > 0) {
        rows.push(i);
      }
    }
    const q = await model.predict(base, rows);
    const smooth = await model.predictSmooth(base, rows);
    let inside = 0;
    rows.forEach((i, r) => {
      const own = q.subarray(r * 5, r * 5 + 5);
      for (let l = 1; l < 5; l++) expect(own[l]!).toBeGreaterThanOrEqual(own[l - 1]!);
      expect(own[0]!).toBeGreaterThanOrEqual(0);
      expect(own.every(Number.isInteger)).toBe(true);
      inside += shareWithin(actual[i]!, smooth[r * 5]!, smooth[r * 5 + 4]!);
    });
    expect(rows.length).toBeGreaterThan(200);
    // Some hundred sends of common weather, and a calibration set of the same size: four standard errors.
    expect(Math.abs(inside / rows.length - 0.8)).toBeLessThan(0.09);
  });
});

test.each(['delivered', 'opens'] as const)(
  '%s are expected within a third of what chance alone brings',
  (target) => {
    const base = inventoryBase(history, target, LEAD_MS);
    let ours = 0;
    let oracle = 0;
    for (let i = 0; i < history.nSends; i++) {
      const known = Number.isFinite(history[target][i]!) && Number.isFinite(base.mean[i]!);
      if (!known || history.plannedMs[i]! < START_MS + 14 * DAY_MS) continue;
      ours += Math.abs(history[target][i]! - base.mean[i]!);
      oracle += Math.abs(history[target][i]! - expected[target][i]!);
    }
    expect(ours / oracle).toBeLessThan(4 / 3);
  },
);

test('sends without ad places bring no clicks', () => {
  const base = inventoryBase(history, 'clicks', LEAD_MS);
  let seen = 0;
  for (let i = 0; i < history.nSends; i++) {
    if (history.nSlots[i] === 0 && !Number.isNaN(base.mean[i]!)) {
      expect(base.mean[i]).toBe(0);
      seen++;
    }
  }
  expect(seen).toBeGreaterThan(100);
});

test('a publication without history starts from others of its cadence and size', () => {
  expect(inventoryCell(0.5, 100)).not.toBe(inventoryCell(7, 100));
  expect(inventoryCell(7, 100)).not.toBe(inventoryCell(7, 1e6));
  // Daily lists open half as much as the others; a new daily one is expected to do so too.
  const fresh = history.nPublications;
  const opens = history.opens.map((v, i) =>
    history.cadencePerWeek[i] === 7 ? Math.round(v / 2) : v,
  );
  const at = START_MS + 27 * DAY_MS + 9 * HOUR_MS;
  const withNew = (cadence: number): SendHistory => ({
    ...history,
    nSends: history.nSends + 1,
    nPublications: fresh + 1,
    publication: Uint32Array.of(...history.publication, fresh),
    plannedMs: Float64Array.of(...history.plannedMs, at),
    sentMs: Float64Array.of(...history.sentMs, Number.NaN),
    localWeekday: Uint8Array.of(...history.localWeekday, 3),
    localHour: Uint8Array.of(...history.localHour, 9),
    nSlots: Float64Array.of(...history.nSlots, 1),
    cadencePerWeek: Float64Array.of(...history.cadencePerWeek, cadence),
    recipients: Float64Array.of(...history.recipients, Number.NaN),
    delivered: Float64Array.of(...history.delivered, Number.NaN),
    opens: Float64Array.of(...opens, Number.NaN),
    clicks: Float64Array.of(...history.clicks, Number.NaN),
    hourly: {
      opens: joined(history.hourly.opens, byHour(new Rng(1), 0, 0)),
      clicks: joined(history.hourly.clicks, byHour(new Rng(1), 0, 0)),
    },
    lists: {
      publication: Uint32Array.of(...history.lists.publication, fresh),
      atMs: Float64Array.of(...history.lists.atMs, START_MS + 20 * DAY_MS),
      subscribers: Float64Array.of(...history.lists.subscribers, 4000),
    },
  });
  const forecast = (cadence: number) => {
    const base = inventoryBase(withNew(cadence), 'opens', LEAD_MS);
    return { mean: base.mean.at(-1)!, deviation: base.deviation.at(-1)! };
  };
  const daily = forecast(7);
  const weekly = forecast(1);
  expect(daily.mean).toBeLessThan(0.75 * weekly.mean);
  // Nobody has seen it yet: the interval is wide.
  expect(weekly.deviation / weekly.mean).toBeGreaterThan(0.15);
});

describe('a publication whose only send went out two days before', () => {
  const fresh = history.nPublications;
  const sentMs = START_MS + 26 * DAY_MS + 9 * HOUR_MS + 20 * 60_000;
  const plannedMs = sentMs + 3 * DAY_MS;
  const delivered = 9_850;
  /** Half of the list opens, twice what others do; hours not over when the history ends are unknown. */
  const withSend = (o: { opens: number; over: number }): SendHistory => {
    const add = (values: Float64Array, ...two: number[]) => joined(values, Float64Array.from(two));
    const none = byHour(new Rng(1), 0, 0);
    const hours = byHour(new Rng(1), o.opens, o.over);
    return {
      ...history,
      nSends: history.nSends + 2,
      nPublications: fresh + 1,
      publication: Uint32Array.of(...history.publication, fresh, fresh),
      plannedMs: add(history.plannedMs, sentMs, plannedMs),
      sentMs: add(history.sentMs, sentMs, Number.NaN),
      localWeekday: Uint8Array.of(...history.localWeekday, 3, 3),
      localHour: Uint8Array.of(...history.localHour, 9, 9),
      nSlots: add(history.nSlots, 1, 1),
      cadencePerWeek: add(history.cadencePerWeek, 7, 7),
      recipients: add(history.recipients, 10_000, Number.NaN),
      delivered: add(history.delivered, delivered, Number.NaN),
      opens: add(history.opens, Number.NaN, Number.NaN),
      clicks: add(history.clicks, Number.NaN, Number.NaN),
      hourly: {
        opens: joined(joined(history.hourly.opens, hours), none),
        clicks: joined(joined(history.hourly.clicks, none), none),
      },
    };
  };
  const forecast = (o: { opens: number; over: number }) => {
    const base = inventoryBase(withSend(o), 'opens', LEAD_MS);
    return { mean: base.mean.at(-1)!, deviation: base.deviation.at(-1)! };
  };
  const half = Math.round(delivered / 2);

  test('is expected to open as that send did so far', () => {
    const { mean, deviation } = forecast({ opens: half, over: 48 });
    expect(Math.abs(mean / half - 1)).toBeLessThan(0.06);
    const unseen = forecast({ opens: half, over: 0 });
    expect(unseen.mean / half).toBeLessThan(0.6);
    expect(deviation / mean).toBeLessThan(unseen.deviation / unseen.mean / 2);
  });

  test('is not known by the hour that is not over a day before the next one', () => {
    // It ends at 10:00, two days after the hour of sending began; the forecast is made at 9:20.
    const until = (over: number) => forecast({ opens: half, over });
    expect(until(60)).toEqual(until(48));
    expect(until(47)).not.toEqual(until(48));
  });
});

test('quantiles of a small count are its own, and those with a uniform number lie between', async () => {
  const n = 12_000;
  const rng = new Rng(3);
  const base = {
    target: 'clicks' as const,
    mean: new Float64Array(n).fill(2),
    deviation: new Float64Array(n).fill(Math.SQRT2),
    features: new Float32Array(n * BASE_FEATURES.length),
  };
  const model = await InventoryModel.fit({
    base,
    actual: Float64Array.from({ length: n }, () => rng.poisson(2)),
    asOfMs: Float64Array.from({ length: n }, (_, i) => i),
    fitUntilMs: 2000,
    calibrateUntilMs: n,
    learner: constantLearner,
  });
  // Poisson of mean 2: 13.5, 40.6, 67.7, 85.7 and 94.7 % are at most 0, 1, 2, 3, 4.
  expect([...(await model.predict(base, [0]))]).toEqual([0, 1, 2, 3, 4]);
  const smooth = [...(await model.predictSmooth(base, [0]))];
  const exact = [0.739, 1.239, 2.347, 3.683, 4.476];
  // A level is met within 0.4 %, a standard error of 10,000 counts; density is 0.09 where it is least.
  smooth.forEach((q, l) => {
    expect(Math.abs(q - exact[l]!)).toBeLessThan((4 * 0.004) / 0.09);
  });
});

test('P10 and P90 from fifty sends enclose four fifths of those to come', async () => {
  const [n, nFit, nWorlds] = [500, 50, 300];
  let inside = 0;
  for (let seed = 0; seed < nWorlds; seed++) {
    const rng = new Rng(seed, 6);
    const base = {
      target: 'opens' as const,
      mean: new Float64Array(n).fill(1e6),
      deviation: new Float64Array(n).fill(1e4),
      features: new Float32Array(n * BASE_FEATURES.length),
    };
    const actual = Float64Array.from({ length: n }, () => Math.round(1e6 + 1e4 * rng.normal()));
    const model = await InventoryModel.fit({
      ...{ base, actual, learner: constantLearner, levels: [0.1, 0.9] },
      asOfMs: Float64Array.from({ length: n }, (_, i) => i),
      fitUntilMs: nFit,
      calibrateUntilMs: 2 * nFit,
    });
    const [low, high] = (await model.predict(base, [0])) as unknown as [number, number];
    inside += actual.slice(2 * nFit).filter((a) => a >= low && a <= high).length;
  }
  // The share of a world varies by 0.055 around what fifty sends give on average.
  expect(Math.abs(inside / (nWorlds * (n - 2 * nFit)) - 0.8)).toBeLessThan((2.5 * 0.055) / 17);
});

test('a learner that sees where errors are wide makes the quantiles wide there', async () => {
  const n = 4000;
  const features = new Float32Array(n * BASE_FEATURES.length);
  const actual = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    const wide = i % 2;
    features[i * BASE_FEATURES.length] = wide;
    // Evenly spread errors, four times as wide for every second send.
    actual[i] = 100 + (wide === 1 ? 40 : 10) * (((i * 7919) % n) / n - 0.5);
  }
  const base = {
    target: 'opens' as const,
    mean: new Float64Array(n).fill(100),
    deviation: new Float64Array(n).fill(10),
    features,
  };
  /** Quantiles of the two kinds apart. */
  const byKind: QuantileLearner = {
    async fit({ x, nRows, nFeatures, y, level }) {
      const of = await Promise.all(
        [0, 1].map((kind) => {
          const own = y.filter((_, i) => x[i * nFeatures] === kind);
          return constantLearner.fit({ x, nRows: own.length, nFeatures, y: own, level });
        }),
      );
      expect(nRows).toBe(y.length);
      return {
        predict: async (rows, count) => {
          const both = await Promise.all(of.map((one) => one.predict(rows, count)));
          return Float64Array.from({ length: count }, (_, i) => both[rows[i * nFeatures]!]![i]!);
        },
      };
    },
  };
  const asOfMs = Float64Array.from({ length: n }, (_, i) => i);
  const model = await InventoryModel.fit({
    base,
    actual,
    asOfMs,
    fitUntilMs: 2000,
    calibrateUntilMs: 3000,
    learner: byKind,
  });
  const q = await model.predict(base, [3000, 3001]);
  const width = (row: number) => q[row * 5 + 4]! - q[row * 5]!;
  expect(width(1) / width(0)).toBeGreaterThan(3.5);
});

test('sends that may well bring nothing do not lift the lower quantiles of the others', async () => {
  // Every other send is small: three in five bring nothing, so that their P10 is nought and nothing can fall below it.
  const n = 8000;
  const rng = new Rng(5);
  const isSmall = (i: number) => i % 2 === 0;
  const base = {
    target: 'clicks' as const,
    mean: Float64Array.from({ length: n }, (_, i) => (isSmall(i) ? 0.5 : 100)),
    deviation: Float64Array.from({ length: n }, (_, i) => (isSmall(i) ? 0.7 : 10)),
    features: new Float32Array(n * BASE_FEATURES.length),
  };
  const actual = Float64Array.from({ length: n }, (_, i) =>
    isSmall(i) ? Number(rng.uniform() > 0.6) : 100 + 10 * rng.normal(),
  );
  const model = await InventoryModel.fit({
    base,
    actual,
    asOfMs: Float64Array.from({ length: n }, (_, i) => i),
    fitUntilMs: 2000,
    calibrateUntilMs: 4000,
    learner: constantLearner,
  });
  const rows = Array.from({ length: 4000 }, (_, r) => 4000 + r);
  const q = await model.predict(base, rows);
  let below = 0;
  let large = 0;
  rows.forEach((i, r) => {
    if (isSmall(i)) {
      expect(q[r * 5]).toBe(0);
      return;
    }
    large++;
    if (actual[i]! < q[r * 5]!) below++;
  });
  // Four standard errors of a share of 10 % that 1,000 sends set and 2,000 judge; counting the small ones made it 20 %.
  expect(Math.abs(below / large - 0.1)).toBeLessThan(4 * Math.sqrt(0.09 / 1000 + 0.09 / 2000));
});

describe('bad input', () => {
  const base = inventoryBase(history, 'opens', LEAD_MS);
  const asOfMs = history.plannedMs.map((ms) => ms - LEAD_MS);
  const fit = (o: Partial<Parameters<typeof InventoryModel.fit>[0]>) =>
    InventoryModel.fit({
      base,
      actual: history.opens,
      asOfMs,
      fitUntilMs: START_MS + 14 * DAY_MS,
      calibrateUntilMs: nowMs,
      learner: constantLearner,
      ...o,
    });

  test('is named', async () => {
    await expect(fit({ actual: new Float64Array(3) })).rejects.toMatchObject({
      code: 'WAGGLE_FORECASTING_SHAPE',
    });
    await expect(
      fit({ extra: { values: new Float32Array(1), nColumns: 1 } }),
    ).rejects.toMatchObject({ code: 'WAGGLE_FORECASTING_SHAPE' });
    await expect(fit({ levels: [0.9, 0.1] })).rejects.toMatchObject({
      code: 'WAGGLE_FORECASTING_ARGUMENT',
    });
    await expect(fit({ fitUntilMs: START_MS })).rejects.toMatchObject({
      code: 'WAGGLE_FORECASTING_TOO_FEW_SENDS',
    });
    await expect(fit({ calibrateUntilMs: START_MS + 14 * DAY_MS })).rejects.toMatchObject({
      code: 'WAGGLE_FORECASTING_TOO_FEW_SENDS',
    });
  });

  test('rearrangement sorts rows and keeps their values', () => {
    const n = INVENTORY_LEVELS.length;
    fc.assert(
      fc.property(
        fc.array(fc.array(fc.double({ noNaN: true }), { minLength: n, maxLength: n }), {
          maxLength: 10,
        }),
        (rows) => {
          const flat = Float64Array.from(rows.flat());
          rearrange(flat, n);
          rows.forEach((row, r) => {
            expect([...flat.subarray(r * n, (r + 1) * n)]).toEqual([
              ...Float64Array.from(row).sort(),
            ]);
          });
        },
      ),
    );
  });
});
