import { areaUnderRoc, logLoss } from '@waggle/measurement';
import { BenchContext, bestLevel, say } from '../bench-context.js';
import type { FitSettings } from '../contenders/ours-fit.js';
import type { Contender } from '../contenders/protocol.js';
import { ctrTable } from '../data/ctr-table.js';
import { readInto, writeRaw } from '../data/files.js';
import { clickTable, PUBLIC_TABLES, publicTable, type Table } from '../data/tables.js';
import { FastRandom } from '../data/vectors.js';
import { pairedDifference } from '../learning-metrics.js';
import { type Recorder, type SuiteOptions, wanted } from '../record.js';
import { median, pairedRatios, summarize } from '../statistics.js';

const FOLDS = 5;
const MIB = 2 ** 20;
/** Worse than a peer by this share is no difference, whatever the standard error. */
const TOLERATED = 0.001;

/** What all three can be told; the rest is each library's own. XGBoost knows no least number of rows, so nobody has one. */
const SETTINGS = {
  nTrees: 200,
  maxLeaves: 63,
  learningRate: 0.1,
  maxBins: 255,
  minChildWeight: 1,
  minChildRows: 1,
  l2: 1,
} as const;

/** Small sets overfit with what a million rows bear. */
const SMALL_SETTINGS = { ...SETTINGS, nTrees: 150, maxLeaves: 31, learningRate: 0.05 } as const;

/**
 * `train/trees-1m`: time and peak memory of learning from the same rows in the same process each time, binning included.
 * `train/quality/*`: log-loss and AUC of held-out rows, ours against the better peer, paired by seed and fold; `demo` is what
 * pCTR learns from in a simulated network, its folds made of whole publications.
 */
export async function measureTrees(options: SuiteOptions, recorder: Recorder): Promise<void> {
  const context = new BenchContext();
  try {
    if (wanted(options, 'trees-1m')) await measureSpeed(context, options, recorder);
    for (const name of PUBLIC_TABLES) {
      if (!wanted(options, `quality/${name}`)) continue;
      const table = publicTable(name);
      if (table === undefined) {
        say(`bench: quality/${name} SKIPPED: no such file in WAGGLE_DATA_DIR`);
        continue;
      }
      await measureQuality(context, table, options, recorder);
    }
    if (wanted(options, 'quality/demo')) {
      const table = await ctrTable('demo', options.quick ? 'ci' : 'demo', options.seed);
      await measureQuality(context, table, options, recorder);
    }
  } finally {
    await context.close();
  }
}

async function contenders(context: BenchContext): Promise<Contender[]> {
  const all = [
    await context.ours(bestLevel()),
    await context.peer('lightgbm'),
    await context.peer('xgboost'),
  ];
  return all.filter((one) => one !== undefined);
}

async function measureSpeed(
  context: BenchContext,
  { quick, seed }: SuiteOptions,
  recorder: Recorder,
): Promise<void> {
  const nRows = quick ? 200_000 : 1_000_000;
  const train = clickTable(nRows, seed);
  const test = clickTable(50_000, seed + 1_000_003);
  const { categorical, nFeatures } = train;
  const file = (name: string, values: Float32Array): string =>
    writeRaw(context.file(`${name}.f32`), values);
  const arrays = [
    { as: 'x', path: file('x', train.x), rows: nRows, cols: nFeatures },
    { as: 'y', path: file('y', train.y), rows: nRows, cols: 1 },
    { as: 'test', path: file('test', test.x), rows: test.nRows, cols: nFeatures },
  ];
  const settings: FitSettings = { ...SETTINGS, seed, threads: context.threads };
  const all = await contenders(context);
  const times = new Map<string, number[]>();
  const peaks = new Map<string, number>();
  const losses = new Map<string, number>();
  for (const one of all) for (const array of arrays) await one.call('load', array);
  const rounds = quick ? 2 : 3;
  for (let round = 0; round < rounds; round++) {
    for (const one of round % 2 === 0 ? all : [...all].reverse()) {
      const { name } = one.hello;
      const save = context.file('p.f32');
      const request = { x: 'x', y: 'y', test: 'test', categorical, settings, save };
      const { ms, bytes } = (await one.call('fit', request)) as { ms: number; bytes: number };
      times.set(name, [...(times.get(name) ?? []), ms / 1000]);
      // A process keeps what it had: only the first run shows all that learning takes.
      if (round === 0) {
        peaks.set(name, bytes / MIB);
        const probability = readInto(save, new Float32Array(test.nRows));
        losses.set(name, logLoss({ probability, successes: test.y }));
      }
    }
  }
  await context.end(...all);
  const [ours, ...peers] = all;
  const own = times.get(ours!.hello.name)!;
  // What stands in the case's own record: the fastest peer.
  peers.sort((a, b) => median(times.get(a.hello.name)!) - median(times.get(b.hello.name)!));
  const base = { suite: 'train', seed, better: 'lower' } as const;
  const push = (metric: string, unit: string, id: string, peer?: Contender): void => {
    const values = { time_s: times, peak_mib: peaks, logloss: losses }[metric]!;
    const of = (who: Contender): number[] => [values.get(who.hello.name)!].flat();
    recorder.push({
      ...base,
      ...{ case: id, metric, unit },
      ...summarize(of(ours!)),
      ...(peer !== undefined && {
        peer: {
          name: peer.hello.name,
          version: peer.hello.version,
          value: median(of(peer)),
        },
        ratio: median(pairedRatios(of(peer), of(ours!))),
      }),
    });
  };
  say(`bench: trees-1m: ${nRows} rows, ${own.length} rounds`);
  const id = quick ? 'trees-1m/quick' : 'trees-1m';
  push('time_s', 's', id, peers[0]);
  push('peak_mib', 'MiB', id, peers.find((p) => p.hello.name === 'lightgbm') ?? peers[0]);
  push('logloss', 'nat', id, peers[0]);
  for (const peer of peers) {
    push('time_s', 's', `${id}/vs-${peer.hello.name}`, peer);
    push('peak_mib', 'MiB', `${id}/vs-${peer.hello.name}`, peer);
    push('logloss', 'nat', `${id}/vs-${peer.hello.name}`, peer);
  }
}

function shuffled(values: number[], rng: FastRandom): number[] {
  for (let i = values.length - 1; i > 0; i--) {
    const j = Math.floor((rng.uint32() / 2 ** 32) * (i + 1));
    [values[i], values[j]] = [values[j]!, values[i]!];
  }
  return values;
}

/** Whole groups to a fold each; without groups, as many rows of a label in every fold as can be. */
function foldsOf({ y, groups }: Table, seed: number): Uint8Array {
  const rng = new FastRandom(seed, 0x666f_6c64);
  if (groups !== undefined) {
    const order = shuffled([...new Set(groups)], rng);
    const foldOf = new Map(order.map((group, i) => [group, i % FOLDS]));
    return Uint8Array.from(groups, (group) => foldOf.get(group)!);
  }
  const folds = new Uint8Array(y.length);
  for (const label of [0, 1]) {
    const rows: number[] = [];
    for (const [r, value] of y.entries()) if (value === label) rows.push(r);
    for (const [i, r] of shuffled(rows, rng).entries()) folds[r] = i % FOLDS;
  }
  return folds;
}

const METRICS = [
  { name: 'logloss', better: 'lower', unit: 'nat', of: logLoss },
  { name: 'auc', better: 'higher', unit: '', of: areaUnderRoc },
] as const;

async function measureQuality(
  context: BenchContext,
  table: Table,
  { quick, seed }: SuiteOptions,
  recorder: Recorder,
): Promise<void> {
  const { nRows, nFeatures, categorical } = table;
  const id = `quality/${table.name}${quick ? '/quick' : ''}`;
  const path = (name: string): string => context.file(`${table.name}-${name}`);
  const all = await contenders(context);
  const x = writeRaw(path('x.f32'), table.x);
  const y = writeRaw(path('y.f32'), table.y);
  const trials = table.trials && writeRaw(path('trials.f32'), table.trials);
  for (const one of all) {
    await one.call('load', { as: 'x', path: x, rows: nRows, cols: nFeatures });
    await one.call('load', { as: 'y', path: y, rows: nRows, cols: 1 });
    if (trials) await one.call('load', { as: 'trials', path: trials, rows: nRows, cols: 1 });
  }
  const columns = { x: 'x', y: 'y', ...(trials && { trials: 'trials' }) };
  /** By contender and metric, one per seed and fold. */
  const values = new Map<string, { logloss: number[]; auc: number[] }>(
    all.map((one) => [one.hello.name, { logloss: [], auc: [] }]),
  );
  for (let s = 0; s < (quick ? 1 : 5); s++) {
    const folds = foldsOf(table, seed + s);
    const foldFile = writeRaw(path(`folds-${s}.u8`), folds);
    const settings: FitSettings = { ...SMALL_SETTINGS, seed: seed + s, threads: context.threads };
    for (const one of all) {
      await one.call('load', { as: 'folds', path: foldFile, rows: nRows, cols: 1, dtype: 'u8' });
      const save = path('p.f32');
      const data = { ...columns, folds: 'folds', nFolds: FOLDS, categorical, settings, save };
      await one.call('crossFit', data);
      const p = readInto(save, new Float32Array(nRows));
      for (let fold = 0; fold < FOLDS; fold++) {
        const held = (from: Float32Array) => from.filter((_, r) => folds[r] === fold);
        const sample = {
          probability: held(p),
          successes: held(table.y),
          ...(table.trials && { trials: held(table.trials) }),
        };
        for (const { name, of } of METRICS) values.get(one.hello.name)![name].push(of(sample));
      }
    }
  }
  await context.end(...all);
  const [ours, ...peers] = all;
  const mean = (v: readonly number[]): number => v.reduce((a, b) => a + b, 0) / v.length;
  for (const { name, better, unit } of METRICS) {
    const sign = better === 'lower' ? 1 : -1;
    const of = (who: Contender): number[] => values.get(who.hello.name)![name];
    const base = { suite: 'train', case: id, seed, runs: of(ours!).length } as const;
    const best = [...peers].sort((a, b) => sign * (mean(of(a)) - mean(of(b))))[0];
    const own = mean(of(ours!));
    const { iqr } = summarize(of(ours!));
    if (best === undefined) {
      recorder.push({ ...base, metric: name, unit, better, value: own, iqr });
      continue;
    }
    const reference = mean(of(best));
    const { difference, standardError } = pairedDifference(of(ours!), of(best));
    const worse = (100 * sign * difference) / reference;
    const allowed = 100 * Math.max(TOLERATED, (2 * standardError) / reference);
    const peer = { name: best.hello.name, version: best.hello.version };
    recorder.push(
      {
        ...{ ...base, metric: name, unit, better, value: own, iqr },
        peer: { ...peer, value: reference },
        ratio: better === 'lower' ? reference / own : own / reference,
      },
      {
        ...base,
        ...{ metric: `${name}_worse_pct`, unit: '%', better: 'lower', value: worse },
        iqr: (200 * standardError) / reference,
      },
      {
        ...base,
        ...{ metric: `${name}_beyond_limit_pct`, unit: '%', better: 'lower', iqr: 0 },
        value: worse - allowed,
      },
    );
  }
}
