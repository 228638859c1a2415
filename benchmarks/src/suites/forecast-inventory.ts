import { DAY_MS, HOUR_MS, stringAt, stringData } from '@waggle/core';
import { buildSendHistory, type NamedSendHistory } from '@waggle/features';
import {
  boostedLearner,
  INVENTORY_TARGETS,
  InventoryModel,
  type InventoryTarget,
  inventoryBase,
} from '@waggle/forecasting';
import { treesFit } from '@waggle/native';
import { expectedSend, readTruth } from '@waggle/simulator/truth';
import type { Store } from '@waggle/store';
import { say } from '../bench-context.js';
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

interface Measured {
  /** Σ |forecast − actual|, Σ |oracle − actual|, Σ actual. */
  error: number;
  oracle: number;
  total: number;
  inside: number;
  n: number;
}

type ByTarget = Record<InventoryTarget, Measured>;

function measureWorld(seed: number): Promise<ByTarget> {
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
      const oracles = await oraclesOf(store, world, history);
      const measured = {} as ByTarget;
      for (const target of INVENTORY_TARGETS) {
        measured[target] = await measureTarget(history, target, oracles[target], config.endMs);
      }
      return measured;
    },
  );
}

async function measureTarget(
  history: NamedSendHistory,
  target: InventoryTarget,
  oracle: Float64Array,
  endMs: number,
): Promise<Measured> {
  const untilMs = endMs - history.outcomeMs - HOUR_MS;
  const fromMs = untilMs - MEASURED_MS;
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
  const rows: number[] = [];
  for (let i = 0; i < history.nSends; i++) {
    const planned = history.plannedMs[i]!;
    if (planned >= fromMs && planned < untilMs && history.sentMs[i]! > 0) rows.push(i);
  }
  const nLevels = model.levels.length;
  const q = await model.predict(base, rows);
  const out: Measured = { error: 0, oracle: 0, total: 0, inside: 0, n: 0 };
  rows.forEach((i, r) => {
    const actual = history[target][i]!;
    // Where nothing is known, nothing is forecast, and that is an error too.
    const median = q[r * nLevels + 2]!;
    out.error += Math.abs(actual - (Number.isNaN(median) ? 0 : median));
    out.oracle += Math.abs(actual - oracle[i]!);
    out.total += actual;
    // Without ad places there is nothing to be unsure of.
    if (target === 'clicks' && history.nSlots[i] === 0) return;
    out.n++;
    if (actual >= q[r * nLevels]! && actual <= q[r * nLevels + nLevels - 1]!) out.inside++;
  });
  return out;
}

/**
 * What one who knows the truth expects of each send when it is planned: its list exactly, its readers' habits; for clicks the
 * publication's own effect, time and the ad places, but not which ads will run, which nobody knows then.
 */
async function oraclesOf(
  store: Store,
  world: string,
  history: NamedSendHistory,
): Promise<Record<InventoryTarget, Float64Array>> {
  const n = history.nSends;
  const publications = await readTruth(world, 'publications');
  const rowOf = new Map(publications.strings('publication_id').map((id, row) => [id, row]));
  const truthRow = history.publicationIds.map((id) => rowOf.get(id)!);
  const mppShare = publications.numbers('mpp_share');
  const humanOpenRate = publications.numbers('human_open_rate');
  const observed = publications.numbers('observed_effect');
  const latent = publications.numbers('latent_effect');
  const delivered = new Float64Array(n);
  const opens = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    const row = truthRow[history.publication[i]!]!;
    const expected = expectedSend({
      recipients: history.recipients[i]!,
      mppShare: mppShare[row]!,
      humanOpenRate: humanOpenRate[row]!,
      plannedMs: history.plannedMs[i]!,
      localWeekday: history.localWeekday[i]!,
      localHour: history.localHour[i]!,
    });
    delivered[i] = expected.delivered;
    opens[i] = expected.opens72h;
  }

  const placements = await readTruth(world, 'placements');
  const run = await store.queryColumns(
    "SELECT placement_id, post_id FROM placements FINAL WHERE type = 'placement.sent'",
  );
  const placementIds = stringData(run, 'placement_id');
  const postIds = stringData(run, 'post_id');
  const postOf = new Map(
    Array.from({ length: run.nRows }, (_, i) => [stringAt(placementIds, i), stringAt(postIds, i)]),
  );
  const sendOf = new Map(
    Array.from({ length: n }, (_, i) => [stringAt(history.posts, i), i] as const),
  );
  const numbers = (name: string) => placements.numbers(name);
  const [base, campaign, affinity, creative, place, time, fatigue, drift, share] = [
    'base',
    'campaign',
    'affinity',
    'creative',
    'place',
    'time',
    'fatigue',
    'drift',
    'share_72h',
  ].map(numbers) as Float64Array[];
  // Rates are low: odds stand for probabilities. The part that depends on the ad is averaged over all that ran.
  let adOdds = 0;
  const adsBySlots = new Float64Array(17);
  const sendsBySlots = new Float64Array(17);
  const circumstances = new Map<number, number>();
  placements.strings('placement_id').forEach((id, row) => {
    adOdds += Math.exp(
      base![row]! +
        campaign![row]! +
        affinity![row]! +
        creative![row]! +
        fatigue![row]! +
        place![row]!,
    );
    const send = sendOf.get(postOf.get(id)!);
    if (send === undefined) return;
    adsBySlots[history.nSlots[send]!]!++;
    circumstances.set(send, Math.exp(time![row]! + drift![row]!) * share![row]!);
  });
  adOdds /= placements.nRows;
  const usual = [...circumstances.values()].reduce((a, b) => a + b, 0) / circumstances.size;
  for (let i = 0; i < n; i++) if (history.sentMs[i]! > 0) sendsBySlots[history.nSlots[i]!]!++;
  const clicks = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    const slots = history.nSlots[i]!;
    if (slots === 0 || !(sendsBySlots[slots]! > 0)) continue;
    const row = truthRow[history.publication[i]!]!;
    clicks[i] =
      delivered[i]! *
      (adsBySlots[slots]! / sendsBySlots[slots]!) *
      adOdds *
      Math.exp(observed[row]! + latent[row]!) *
      (circumstances.get(i) ?? usual);
  }
  return { delivered, opens, clicks };
}

/** `forecast/inventory/*`: a week of sends of whole worlds, each forecast a day before. */
export async function measureInventory(options: SuiteOptions, recorder: Recorder): Promise<void> {
  if (!wanted(options, CASE)) return;
  const seeds = Array.from(
    { length: options.quick ? 1 : 3 },
    (_, i) => FIRST_SEED + (options.seed - 1) * 100 + i,
  );
  const worlds: ByTarget[] = [];
  for (const seed of seeds) worlds.push(await measureWorld(seed));
  for (const target of INVENTORY_TARGETS) {
    const own = worlds.map((world) => world[target]);
    const sum = (of: (m: Measured) => number) => own.reduce((all, m) => all + of(m), 0);
    const wmape = sum((m) => m.error) / sum((m) => m.total);
    const irreducible = sum((m) => m.oracle) / sum((m) => m.total);
    const coverage = sum((m) => m.inside) / sum((m) => m.n);
    say(
      `forecast: ${target}: WMAPE ${wmape.toFixed(5)}, irreducible ${irreducible.toFixed(5)} (${(wmape / irreducible).toFixed(3)}×), P10–P90 coverage ${(100 * coverage).toFixed(1)} % of ${sum((m) => m.n)} sends`,
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
        limit: { name: 'oracle that knows the expectation', value: irreducible },
        fractionOfLimit: irreducible / wmape,
      },
      {
        ...base,
        metric: 'coverage_miss',
        unit: `|P10–P90 coverage − 80 %| (${(100 * coverage).toFixed(1)} %)`,
        better: 'lower',
        value: Math.abs(coverage - 0.8),
        iqr: summarize(own.map((m) => m.inside / m.n)).iqr,
      },
    );
  }
}
