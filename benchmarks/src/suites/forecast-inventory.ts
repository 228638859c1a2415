import { DAY_MS, HOUR_MS } from '@waggle/core';
import { buildSendHistory, type NamedSendHistory } from '@waggle/features';
import {
  boostedLearner,
  INVENTORY_TARGETS,
  InventoryModel,
  type InventoryTarget,
  inventoryBase,
} from '@waggle/forecasting';
import { countCoverage, intervalCoverage } from '@waggle/measurement';
import { treesFit } from '@waggle/native';
import { say } from '../bench-context.js';
import { inventoryOracle } from '../data/inventory-oracle.js';
import { withSimulatedWorld } from '../data/simulated-world.js';
import { type Recorder, type SuiteOptions, summarize, wanted } from '../record.js';

const CASE = 'inventory';
/** A send is forecast a day before it is planned for, knowing what is known then. */
const LEAD_MS = 24 * HOUR_MS;
/** The last week whose outcomes are final when the world ends is measured … */
const MEASURED_MS = 7 * DAY_MS;
/** … and conformal shifts come from the week before it, as far as its outcomes were known. */
const CALIBRATED_MS = 7 * DAY_MS;
/** Seeds of other worlds than those that anything was chosen on (21). */
const FIRST_SEED = 41;
/** Some 35 s of two cores each. */
const WORLDS = 4;

interface Measured {
  /** Σ |forecast − actual|, Σ |oracle − actual|, Σ actual. */
  error: number;
  oracle: number;
  total: number;
  readonly judged: Judged;
}

/** Sends that can bring anything (clicks: with ad places), each with its P10 and P90. */
interface Judged {
  readonly actual: number[];
  /** Of the count plus a uniform number from [0, 1). */
  readonly smooth: Interval;
  /** In whole numbers. */
  readonly whole: Interval;
}

interface Interval {
  readonly lower: number[];
  readonly upper: number[];
}

type ByTarget = Record<InventoryTarget, Measured>;

/** Sends with ad places, and how many of them the oracle's own P10 and P90 of clicks enclose. */
interface OracleInterval {
  inside: number;
  n: number;
}

interface MeasuredWorld extends ByTarget {
  readonly oracleInterval: OracleInterval;
}

function measureWorld(seed: number): Promise<MeasuredWorld> {
  return withSimulatedWorld(
    { scale: 'demo', seed, embed: false },
    async ({ store, world, config }) => {
      const history = await buildSendHistory(store, {
        tenantId: config.tenantId,
        fromMs: config.startMs,
        toMs: config.endMs,
        asOfMs: config.endMs,
        leadMs: LEAD_MS,
      });
      const window = measuredWindow(history, config.endMs);
      const { rows } = window;
      const oracle = await inventoryOracle(store, world, { history, rows, seed });
      const measured = {} as ByTarget;
      for (const target of INVENTORY_TARGETS) {
        measured[target] = await measureTarget(history, target, oracle.medians[target], window);
      }
      const oracleInterval: OracleInterval = { inside: 0, n: 0 };
      rows.forEach((i, r) => {
        if (history.nSlots[i] === 0) return;
        oracleInterval.n++;
        const { low, high } = oracle.clickInterval;
        const clicks = history.clicks[i]!;
        if (clicks >= low[r]! && clicks <= high[r]!) oracleInterval.inside++;
      });
      return { ...measured, oracleInterval };
    },
  );
}

interface Window {
  readonly fromMs: number;
  /** Sends planned in it that went out. */
  readonly rows: readonly number[];
}

function measuredWindow(history: NamedSendHistory, endMs: number): Window {
  const untilMs = endMs - history.outcomeMs - HOUR_MS;
  const fromMs = untilMs - MEASURED_MS;
  const rows: number[] = [];
  for (let i = 0; i < history.nSends; i++) {
    const planned = history.plannedMs[i]!;
    if (planned >= fromMs && planned < untilMs && history.sentMs[i]! > 0) rows.push(i);
  }
  return { fromMs, rows };
}

async function measureTarget(
  history: NamedSendHistory,
  target: InventoryTarget,
  oracle: Float64Array,
  { fromMs, rows }: Window,
): Promise<Measured> {
  // One call: what it knows of a send ends a lead before it (tests of the package hold it to that).
  const base = inventoryBase(history, target, LEAD_MS);
  const asOfMs = history.plannedMs.map((ms) => ms - LEAD_MS);
  const nowMs = fromMs - LEAD_MS;
  const outcomeMs = target === 'delivered' ? 0 : history.outcomeMs;
  const model = await InventoryModel.fit({
    base,
    // What had not come by the first measured forecast is not learnt from.
    actual: history[target].map((v, i) =>
      history.sentMs[i]! + outcomeMs <= nowMs ? v : Number.NaN,
    ),
    asOfMs,
    fitUntilMs: nowMs - CALIBRATED_MS,
    calibrateUntilMs: nowMs,
    learner: boostedLearner(treesFit),
  });
  const nLevels = model.levels.length;
  const whole = await model.predict(base, rows);
  const smooth = await model.predictSmooth(base, rows);
  const judged = {
    actual: [] as number[],
    smooth: { lower: [] as number[], upper: [] as number[] },
    whole: { lower: [] as number[], upper: [] as number[] },
  };
  const out: Measured = { error: 0, oracle: 0, total: 0, judged };
  // Where nothing is known, nothing is forecast, and that is an error too.
  const known = (value: number) => (Number.isNaN(value) ? 0 : value);
  rows.forEach((i, r) => {
    const actual = history[target][i]!;
    out.error += Math.abs(actual - known(whole[r * nLevels + 2]!));
    out.oracle += Math.abs(actual - oracle[r]!);
    out.total += actual;
    if (target === 'clicks' && history.nSlots[i] === 0) return;
    judged.actual.push(actual);
    for (const [interval, q] of [
      [judged.smooth, smooth],
      [judged.whole, whole],
    ] as const) {
      interval.lower.push(known(q[r * nLevels]!));
      interval.upper.push(known(q[r * nLevels + nLevels - 1]!));
    }
  });
  return out;
}

/** All of several worlds as one. */
function together(worlds: readonly Judged[]): Judged {
  const interval = (of: (judged: Judged) => Interval): Interval => ({
    lower: worlds.flatMap((world) => of(world).lower),
    upper: worlds.flatMap((world) => of(world).upper),
  });
  return {
    actual: worlds.flatMap((world) => world.actual),
    smooth: interval((world) => world.smooth),
    whole: interval((world) => world.whole),
  };
}

const coverageOf = ({ actual, smooth }: Judged): number => countCoverage({ actual, ...smooth });

/** How many of the counts the whole numbers enclose, and of those alone whose P10 is above nought. */
function enclosedBy({ actual, whole }: Judged): string {
  const all = intervalCoverage({ actual, ...whole });
  const weights = whole.lower.map((low) => Number(low > 0));
  const above = intervalCoverage({ actual, ...whole, weights });
  return `${(100 * all).toFixed(1)} % lie between P10 and P90 as whole numbers, both included, ${(100 * above).toFixed(1)} % of those whose P10 is above nought`;
}

/** `forecast/inventory/*`: a week of sends of whole worlds, each forecast a day before. */
export async function measureInventory(options: SuiteOptions, recorder: Recorder): Promise<void> {
  if (!wanted(options, CASE)) return;
  const seeds = Array.from(
    { length: options.quick ? 1 : WORLDS },
    (_, i) => FIRST_SEED + (options.seed - 1) * 100 + i,
  );
  const worlds: MeasuredWorld[] = [];
  for (const seed of seeds) worlds.push(await measureWorld(seed));
  const oracles = worlds.map((world) => world.oracleInterval);
  const enclosed = oracles.reduce((all, o) => all + o.inside, 0);
  const asked = oracles.reduce((all, o) => all + o.n, 0);
  say(
    `forecast: clicks are whole numbers: P10 to P90 of one who knows the truth encloses ${((100 * enclosed) / asked).toFixed(1)} % of ${asked} sends with ad places; coverage is therefore that of the count plus a uniform number from [0, 1)`,
  );
  for (const target of INVENTORY_TARGETS) {
    const own = worlds.map((world) => world[target]);
    const sum = (of: (m: Measured) => number) => own.reduce((all, m) => all + of(m), 0);
    const wmape = sum((m) => m.error) / sum((m) => m.total);
    const irreducible = sum((m) => m.oracle) / sum((m) => m.total);
    const judged = together(own.map((m) => m.judged));
    const coverage = coverageOf(judged);
    say(
      `forecast: ${target}: WMAPE ${wmape.toFixed(5)}, irreducible ${irreducible.toFixed(5)} (${(wmape / irreducible).toFixed(3)}×), P10–P90 coverage ${(100 * coverage).toFixed(1)} % of ${judged.actual.length} sends (randomised); ${enclosedBy(judged)}`,
    );
    const base = {
      suite: 'forecast',
      case: `${CASE}/${target}`,
      seed: options.seed,
      runs: seeds.length,
    } as const;
    recorder.push(
      {
        ...base,
        metric: 'wmape',
        unit: 'Σ|error| / Σ',
        better: 'lower',
        value: wmape,
        iqr: summarize(own.map((m) => m.error / m.total)).iqr,
        limit: { name: 'median given the truth', value: irreducible },
        fractionOfLimit: irreducible / wmape,
      },
      {
        ...base,
        metric: 'coverage_miss',
        unit: `|P10–P90 coverage − 80 %| (${(100 * coverage).toFixed(1)} %)`,
        better: 'lower',
        value: Math.abs(coverage - 0.8),
        iqr: summarize(own.map((m) => coverageOf(m.judged))).iqr,
      },
    );
  }
}
