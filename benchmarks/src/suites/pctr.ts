import { stringAt } from '@waggle/core';
import { buildDataset, ctrFeatures } from '@waggle/features';
import { LinearScorer } from '@waggle/ranking';
import { readTruth } from '@waggle/simulator/truth';
import { estimateCtrParams, evaluateOracleGap, trainCtr } from '@waggle/training';
import { withSimulatedWorld } from '../data/simulated-world.js';
import { type Measurement, type SuiteOptions, summarize } from '../record.js';

/** Seeds of other worlds than those that anything was chosen on (1 … 5). */
const FIRST_SEED = 11;

interface Evaluated {
  readonly model: number[];
  readonly oracle: number[];
  readonly global: number[];
  readonly successes: number[];
  readonly trials: number[];
  readonly publications: number[];
  readonly campaigns: number[];
  /** Of this seed alone. */
  readonly gapClosed: number;
  readonly ratio: number;
  readonly priorOnly: boolean;
}

/**
 * One world: everything is learnt from what was known a week before its end, then what the release would serve is compared
 * with what the later sends brought and with the truth that the simulator kept to itself (without send noise).
 */
function evaluateSeed(scale: string, seed: number): Promise<Evaluated> {
  return withSimulatedWorld({ scale, seed }, async ({ store, world, past, later }) => {
    const params = await estimateCtrParams(store, past);
    const history = await buildDataset(store, ctrFeatures, { ...past, params });
    const rowsLater = await buildDataset(store, ctrFeatures, { ...later, params });
    const { model } = await trainCtr(history, {
      featureSet: ctrFeatures,
      seed,
      asOfMs: past.asOfMs,
    });
    const p = new LinearScorer(model).scoreInto(
      rowsLater.x,
      rowsLater.nRows,
      new Float64Array(rowsLater.nRows),
    );
    const exposure = history.trials.reduce((sum, n, i) => sum + n * history.maturity[i]!, 0);
    const rate = history.successes.reduce((sum, s) => sum + s, 0) / exposure;
    const truth = await readTruth(world, 'placements');
    const rowOf = new Map(truth.strings('placement_id').map((id, row) => [id, row]));
    const pOracle = truth.numbers('p_oracle');
    const share = truth.numbers('share_72h');
    const rows = Array.from({ length: rowsLater.nRows }, (_, i) => i);
    const columns = {
      model: rows.map((i) => p[i]! * rowsLater.maturity[i]!),
      oracle: rows.map((i) => {
        const t = rowOf.get(stringAt(rowsLater.rowIds, i))!;
        return pOracle[t]! * share[t]! * rowsLater.maturity[i]!;
      }),
      global: rows.map((i) => rate * rowsLater.maturity[i]!),
      successes: [...rowsLater.successes],
      trials: [...rowsLater.trials],
      publications: [...rowsLater.publication.codes],
      campaigns: [...rowsLater.campaign.codes],
    };
    const own = evaluateOracleGap(columns);
    return {
      ...columns,
      gapClosed: own.gapClosed,
      ratio: own.calibration.ratio,
      priorOnly: model.priorOnly,
    };
  });
}

/** `pipeline/pctr`: gap closed and calibration, pooled over the rows of five worlds. */
export async function measurePctr({ quick, seed }: SuiteOptions): Promise<readonly Measurement[]> {
  const scale = quick ? 'ci' : 'demo';
  const seeds = Array.from({ length: quick ? 2 : 5 }, (_, i) => FIRST_SEED + (seed - 1) * 100 + i);
  const worlds: Evaluated[] = [];
  for (const one of seeds) {
    const world = await evaluateSeed(scale, one);
    process.stderr.write(
      `pctr ${scale} seed ${one}: gap closed ${world.gapClosed.toFixed(3)}, expected/observed ${world.ratio.toFixed(3)}${world.priorOnly ? ' (gate failed: prior)' : ''}\n`,
    );
    worlds.push(world);
  }
  // Codes of different worlds name different publications.
  const apart = (name: 'publications' | 'campaigns') =>
    worlds.flatMap((world, w) => world[name].map((code) => code + w * 1_000_000));
  const all = (name: 'model' | 'oracle' | 'global' | 'successes' | 'trials') =>
    worlds.flatMap((world) => world[name]);
  const pooled = evaluateOracleGap({
    model: all('model'),
    oracle: all('oracle'),
    global: all('global'),
    successes: all('successes'),
    trials: all('trials'),
    publications: apart('publications'),
    campaigns: apart('campaigns'),
  });
  const { ratio, logStandardError } = pooled.calibration;
  const tolerance = Math.max(0.05, 2 * logStandardError);
  const base = {
    suite: 'pipeline',
    case: quick ? 'pctr-ci' : 'pctr',
    seed,
    runs: seeds.length,
  } as const;
  return [
    {
      ...base,
      metric: 'gap_closed',
      unit: 'share of the log-loss between global rate and oracle',
      value: pooled.gapClosed,
      better: 'higher',
      iqr: summarize(worlds.map((w) => w.gapClosed)).iqr,
      limit: { name: 'oracle without send noise', value: 1 },
      fractionOfLimit: pooled.gapClosed,
    },
    {
      ...base,
      metric: 'calibration',
      unit: `|ln expected/observed| (ratio ${ratio.toFixed(3)}, SE ${logStandardError.toFixed(3)})`,
      value: Math.abs(Math.log(ratio)),
      better: 'lower',
      iqr: summarize(worlds.map((w) => Math.log(w.ratio))).iqr,
      limit: { name: 'max(0.05, 2·SE)', value: tolerance },
      fractionOfLimit: tolerance / Math.abs(Math.log(ratio)),
    },
  ];
}
