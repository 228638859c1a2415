import { DAY_MS, type StringColumn, stringAt } from '@waggle/core';
import {
  acceptFeatures,
  buildDataset,
  ctrFeatures,
  type Dataset,
  type FeatureSet,
} from '@waggle/features';
import { LinearScorer } from '@waggle/ranking';
import { readTruth, type TruthTable } from '@waggle/simulator/truth';
import {
  CTR_EFFECT_PARAMS,
  describedPart,
  estimateAcceptParams,
  estimateCtrParams,
  estimateFeatureParams,
  evaluateOracleGap,
  type OracleGap,
  type TrainedModel,
  trainAccept,
  trainCtr,
} from '@waggle/training';
import { MATURED_OFFSET_TERMS, maturedCtrFeatures } from '../data/matured-ctr.js';
import { type SimulatedWorld, withSimulatedWorld } from '../data/simulated-world.js';
import { type Measurement, type Recorder, type SuiteOptions, touched, wanted } from '../record.js';
import { summarize } from '../statistics.js';

/** A publication is new when its first ad ran in the held-out week, or in the three days before: none of its outcomes was final. */
const NEW_MS = 3 * DAY_MS;
/** Seeds of other worlds than those that anything was chosen on. */
const FIRST_SEED = 11;
const SEEDS = 20;

/** Rows of the held-out week: who they were about, what came of them, and what was thought of them. */
interface Judged {
  readonly oracle: number[];
  readonly global: number[];
  readonly successes: number[];
  readonly trials: number[];
  readonly publications: number[];
  readonly campaigns: number[];
  readonly isNew: boolean[];
  readonly models: Readonly<Record<string, number[]>>;
}

/** Trains on the past and scores the later decisions with what a release would serve. */
async function learn(
  { store, past, later, seed }: SimulatedWorld,
  set: FeatureSet,
  params: Readonly<Record<string, number>>,
  train: typeof trainCtr,
): Promise<{ history: Dataset; rows: Dataset; p: Float64Array; trained: TrainedModel }> {
  const history = await buildDataset(store, set, { ...past, params });
  const rows = await buildDataset(store, set, { ...later, params });
  const trained = await train(history, { featureSet: set, seed, asOfMs: past.asOfMs });
  const p = new LinearScorer(trained.model).scoreInto(
    rows.x,
    rows.nRows,
    new Float64Array(rows.nRows),
  );
  return { history, rows, p, trained };
}

function firstSeen(...datasets: readonly Dataset[]): Map<string, number> {
  const first = new Map<string, number>();
  for (const { publication, decisionTsMs } of datasets) {
    decisionTsMs.forEach((ts, i) => {
      const id = stringAt(publication, i);
      first.set(id, Math.min(first.get(id) ?? Number.POSITIVE_INFINITY, ts));
    });
  }
  return first;
}

function judged(
  history: Dataset,
  rows: Dataset,
  models: Readonly<Record<string, Float64Array>>,
  truthOf: (row: number) => number,
  newFromMs: number,
): Judged {
  const exposure = history.trials.reduce((sum, n, i) => sum + n * history.maturity[i]!, 0);
  const rate = history.successes.reduce((sum, s) => sum + s, 0) / exposure;
  const visible = (p: number, i: number) =>
    Math.min(Math.max(p * rows.maturity[i]!, 1e-9), 1 - 1e-9);
  const first = firstSeen(history, rows);
  const indices = Array.from({ length: rows.nRows }, (_, i) => i);
  return {
    oracle: indices.map((i) => visible(truthOf(i), i)),
    global: indices.map((i) => visible(rate, i)),
    successes: [...rows.successes],
    trials: [...rows.trials],
    publications: [...rows.publication.codes],
    campaigns: [...rows.campaign.codes],
    isNew: indices.map((i) => first.get(stringAt(rows.publication, i))! >= newFromMs),
    models: Object.fromEntries(
      Object.entries(models).map(([name, p]) => [name, indices.map((i) => visible(p[i]!, i))]),
    ),
  };
}

function truthRows(
  truth: TruthTable,
  idColumn: string,
  ids: StringColumn,
): (row: number) => number {
  const rowOf = new Map(truth.strings(idColumn).map((id, row) => [id, row]));
  return (row) => rowOf.get(stringAt(ids, row))!;
}

async function judgePctr(world: SimulatedWorld): Promise<Judged> {
  const { store, past } = world;
  const now = await learn(world, ctrFeatures, await estimateCtrParams(store, past), trainCtr);
  const described = describedPart(maturedCtrFeatures, MATURED_OFFSET_TERMS);
  const before = await learn(
    world,
    maturedCtrFeatures,
    await estimateFeatureParams(await buildDataset(store, described, past), {
      terms: MATURED_OFFSET_TERMS,
      effects: CTR_EFFECT_PARAMS,
    }),
    trainCtr,
  );
  const truth = await readTruth(world.world, 'placements');
  const at = truthRows(truth, 'placement_id', now.rows.rowIds);
  const oracle = truth.numbers('p_oracle');
  const share = truth.numbers('share_72h');
  return judged(
    now.history,
    now.rows,
    { model: now.p, before: before.p },
    (row) => oracle[at(row)]! * share[at(row)]!,
    past.asOfMs - NEW_MS,
  );
}

async function judgeAccept(world: SimulatedWorld): Promise<Judged> {
  const { store, past } = world;
  const { history, rows, p } = await learn(
    world,
    acceptFeatures,
    await estimateAcceptParams(store, past),
    trainAccept,
  );
  const truth = await readTruth(world.world, 'offers');
  const at = truthRows(truth, 'offer_id', rows.rowIds);
  const oracle = truth.numbers('p_accept');
  return judged(history, rows, { model: p }, (row) => oracle[at(row)]!, past.asOfMs - NEW_MS);
}

function gapOf(worlds: readonly Judged[], model: string, onlyNew = false): OracleGap {
  const gather = (of: (world: Judged) => readonly number[], apart = 0) =>
    worlds.flatMap((world, w) =>
      of(world).flatMap((v, i) => (onlyNew && !world.isNew[i] ? [] : [v + w * apart])),
    );
  return evaluateOracleGap({
    model: gather((w) => w.models[model]!),
    oracle: gather((w) => w.oracle),
    global: gather((w) => w.global),
    successes: gather((w) => w.successes),
    trials: gather((w) => w.trials),
    // Codes of different worlds name different publications.
    publications: gather((w) => w.publications, 1_000_000),
    campaigns: gather((w) => w.campaigns, 1_000_000),
  });
}

const GAP = 'share of the log-loss between global rate and oracle';

/** `train/pctr` and `train/accept`: what is known of what there is to know, pooled over the rows of twenty worlds. */
export async function measurePctr(options: SuiteOptions, recorder: Recorder): Promise<void> {
  if (!touched(options, 'pctr', 'accept')) return;
  const { quick, seed } = options;
  const scale = quick ? 'ci' : 'demo';
  const seeds = Array.from(
    { length: quick ? 2 : SEEDS },
    (_, i) => FIRST_SEED + (seed - 1) * 100 + i,
  );
  const clicks: Judged[] = [];
  const answers: Judged[] = [];
  for (const one of seeds) {
    await withSimulatedWorld({ scale, seed: one }, async (world) => {
      if (wanted(options, 'pctr')) clicks.push(await judgePctr(world));
      if (wanted(options, 'accept')) answers.push(await judgeAccept(world));
    });
    const told = (worlds: readonly Judged[], model: string) => {
      const last = worlds.slice(-1);
      if (last.length === 0) return '';
      const { gapClosed, calibration } = gapOf(last, model);
      return ` ${model} ${gapClosed.toFixed(3)} (expected/observed ${calibration.ratio.toFixed(3)})`;
    };
    process.stderr.write(
      `train ${scale} seed ${one}: pctr${told(clicks, 'model')}${told(clicks, 'before')}; accept${told(answers, 'model')}\n`,
    );
  }
  const suffix = quick ? '-ci' : '';
  const base = { suite: 'train', seed, runs: seeds.length, unit: GAP, better: 'higher' } as const;
  const closed = (worlds: readonly Judged[], name: string, model: string): Measurement => {
    const value = gapOf(worlds, model).gapClosed;
    return {
      ...base,
      case: name,
      metric: 'gap_closed',
      value,
      iqr: summarize(worlds.map((w) => gapOf([w], model).gapClosed)).iqr,
      limit: { name: 'oracle without send noise', value: 1 },
      fractionOfLimit: value,
    };
  };
  const calibrationOf = (worlds: readonly Judged[], name: string): Measurement => {
    const { ratio, logStandardError } = gapOf(worlds, 'model').calibration;
    const tolerance = Math.max(0.05, 2 * logStandardError);
    const value = Math.abs(Math.log(ratio));
    return {
      ...base,
      case: name,
      metric: 'calibration',
      unit: `|ln expected/observed| (ratio ${ratio.toFixed(3)}, SE ${logStandardError.toFixed(3)})`,
      better: 'lower',
      value,
      iqr: 0,
      limit: { name: 'max(0.05, 2·SE)', value: tolerance },
      fractionOfLimit: tolerance / value,
    };
  };
  if (clicks.length > 0) {
    const name = `pctr${suffix}`;
    const now = closed(clicks, name, 'model');
    const before = closed(clicks, name, 'before').value;
    const newcomers = gapOf(clicks, 'model', true);
    recorder.push(
      {
        ...now,
        peer: { name: 'prior + GLM on matured outcomes', version: 'this commit', value: before },
        // How much more the other leaves open.
        ratio: (1 - before) / (1 - now.value),
      },
      {
        ...base,
        case: name,
        metric: 'left_open',
        unit: 'share of what the prior + GLM on matured outcomes leaves open',
        better: 'lower',
        value: (1 - now.value) / (1 - before),
        iqr: 0,
      },
      {
        ...base,
        case: name,
        metric: 'new_publications',
        unit: `${GAP}, publications first seen in the held-out week or the 3 days before (${newcomers.rows} rows)`,
        value: newcomers.gapClosed,
        iqr: 0,
      },
      calibrationOf(clicks, name),
    );
  }
  if (answers.length > 0) {
    const name = `accept${suffix}`;
    recorder.push(closed(answers, name, 'model'), calibrationOf(answers, name));
  }
}
