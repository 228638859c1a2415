import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { DAY_MS, silentLogger, stringAt } from '@waggle/core';
import { buildDataset, ctrFeatures } from '@waggle/features';
import { LinearScorer } from '@waggle/ranking';
import { readManifest } from '@waggle/simulator';
import { readTruth } from '@waggle/simulator/truth';
import { openLocalStore } from '@waggle/store';
import { estimateCtrParams, evaluateOracleGap, trainCtr } from '@waggle/training';
import { measureCommand } from '../process-tree.js';
import { type Measurement, type SuiteOptions, summarize } from '../record.js';

const waggle = fileURLToPath(new URL('../../../apps/pipeline/bin/waggle.mjs', import.meta.url));

/** The last week of a world is never trained on: what is measured are its sends. */
const HELD_OUT_MS = 7 * DAY_MS;
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
async function evaluateSeed(scale: string, seed: number): Promise<Evaluated> {
  const dir = mkdtempSync(join(tmpdir(), 'waggle-pctr-'));
  try {
    const env = { ...process.env, WAGGLE_DIR: dir };
    const cli = (...args: string[]) => measureCommand(process.execPath, [waggle, ...args], { env });
    const world = join(dir, 'worlds', `${scale}-${seed}`);
    await cli('simulate', '--scale', scale, '--seed', String(seed));
    await cli('ingest', world);
    await cli('embed');
    const { config } = readManifest(world);
    const store = await openLocalStore({
      dataDir: dir,
      logger: silentLogger,
      startOwner: { command: process.execPath, args: [waggle, 'store', '--dir', dir] },
    });
    try {
      const cutMs = config.endMs - HELD_OUT_MS;
      const past = {
        tenantId: config.tenantId,
        fromMs: config.startMs,
        toMs: cutMs,
        asOfMs: cutMs,
      };
      const params = await estimateCtrParams(store, past);
      const history = await buildDataset(store, ctrFeatures, { ...past, params });
      const later = await buildDataset(store, ctrFeatures, {
        tenantId: config.tenantId,
        fromMs: cutMs,
        toMs: config.endMs,
        asOfMs: config.endMs,
        params,
      });
      const { model } = await trainCtr(history, { featureSet: ctrFeatures, seed, asOfMs: cutMs });
      const p = new LinearScorer(model).scoreInto(
        later.x,
        later.nRows,
        new Float64Array(later.nRows),
      );
      const exposure = history.trials.reduce((sum, n, i) => sum + n * history.maturity[i]!, 0);
      const rate = history.successes.reduce((sum, s) => sum + s, 0) / exposure;
      const truth = await readTruth(world, 'placements');
      const rowOf = new Map(truth.strings('placement_id').map((id, row) => [id, row]));
      const pOracle = truth.numbers('p_oracle');
      const share = truth.numbers('share_72h');
      const rows = Array.from({ length: later.nRows }, (_, i) => i);
      const columns = {
        model: rows.map((i) => p[i]! * later.maturity[i]!),
        oracle: rows.map((i) => {
          const t = rowOf.get(stringAt(later.rowIds, i))!;
          return pOracle[t]! * share[t]! * later.maturity[i]!;
        }),
        global: rows.map((i) => rate * later.maturity[i]!),
        successes: [...later.successes],
        trials: [...later.trials],
        publications: [...later.publication.codes],
        campaigns: [...later.campaign.codes],
      };
      const own = evaluateOracleGap(columns);
      return {
        ...columns,
        gapClosed: own.gapClosed,
        ratio: own.calibration.ratio,
        priorOnly: model.priorOnly,
      };
    } finally {
      await store.close();
    }
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
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
