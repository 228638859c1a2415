import { measureSelection, type SelectedRows, type SelectionReport } from '@waggle/training';
import { type SelectionWorld, selectionWorld } from '../data/selection-world.js';
import {
  type Measurement,
  type Recorder,
  type SuiteOptions,
  summarize,
  wanted,
} from '../record.js';

const CASE = 'selection-calibration';
/** Seeds of other worlds than those that anything was chosen on (1 … 5). */
const FIRST_SEED = 11;
/** Allowed |ln ratio| of expected over true clicks, or so many standard errors where the worlds cannot tell better. */
const OVERALL = { floor: Math.log(1.03), errors: 2 };
const DECILE = { floor: Math.log(1.1), errors: 2.5 };

/** Rows of all worlds; codes of different worlds name different publications and campaigns. */
function pool(worlds: readonly SelectionWorld[], of: 'plain' | 'corrected'): SelectedRows {
  const all = (name: keyof SelectedRows, apart: number): number[] =>
    worlds.flatMap((world, w) => Array.from(world[of][name], (v) => v + w * apart));
  return {
    probability: all('probability', 0),
    trials: all('trials', 0),
    clicks: all('clicks', 0),
    publications: all('publications', 1_000_000),
    campaigns: all('campaigns', 1_000_000),
  };
}

/** The distance of each decile from 1, over what is allowed; the worst of them. */
function worstDecile(report: SelectionReport): { error: number; allowed: number; decile: number } {
  const all = report.deciles.map(({ calibration }, decile) => ({
    decile,
    error: Math.abs(calibration.logRatio),
    allowed: Math.max(DECILE.floor, DECILE.errors * calibration.logStandardError),
  }));
  return all.reduce((worst, one) =>
    one.error / one.allowed > worst.error / worst.allowed ? one : worst,
  );
}

function describe(report: SelectionReport): string {
  const { ratio, logStandardError } = report.overall;
  const deciles = report.deciles.map(
    ({ calibration }) =>
      `${calibration.ratio.toFixed(3)}±${calibration.logStandardError.toFixed(3)}`,
  );
  return `expected/true ${ratio.toFixed(3)} ± ${logStandardError.toFixed(3)}, deciles ${deciles.join(' ')}`;
}

/**
 * `train/selection-calibration`: the best candidate of every held-out slot by expected clicks, what it promised against the truth,
 * before and after the correction for selection; pooled over five worlds.
 */
export async function measureSelectionCalibration(
  options: SuiteOptions,
  recorder: Recorder,
): Promise<void> {
  if (!wanted(options, CASE)) return;
  const { quick, seed } = options;
  const scale = quick ? 'ci' : 'demo';
  const seeds = Array.from({ length: quick ? 2 : 5 }, (_, i) => FIRST_SEED + (seed - 1) * 100 + i);
  const worlds: SelectionWorld[] = [];
  for (const one of seeds) {
    const world = await selectionWorld(scale, one);
    process.stderr.write(
      `selection ${scale} seed ${one}: ${world.nCandidates} candidates${world.priorOnly ? ' (gate failed: prior)' : ''}\n  ${world.verdict.explanation}\n  before: ${describe(measureSelection(world.plain))}\n  after:  ${describe(measureSelection(world.corrected))}\n`,
    );
    worlds.push(world);
  }
  for (const [of, metric] of [
    ['corrected', ''],
    ['plain', '_uncorrected'],
  ] as const) {
    const report = measureSelection(pool(worlds, of));
    process.stderr.write(`selection ${scale} pooled, ${of}: ${describe(report)}\n`);
    const { logRatio, logStandardError, ratio } = report.overall;
    const allowed = Math.max(OVERALL.floor, OVERALL.errors * logStandardError);
    const worst = worstDecile(report);
    const base: Omit<Measurement, 'metric' | 'unit' | 'value' | 'iqr'> = {
      suite: 'train',
      case: quick ? `${CASE}/ci` : CASE,
      better: 'lower',
      runs: seeds.length,
      seed,
    };
    recorder.push(
      {
        ...base,
        metric: `ratio${metric}`,
        unit: `|ln expected/true| of top-1 (ratio ${ratio.toFixed(3)}, SE ${logStandardError.toFixed(3)})`,
        value: Math.abs(logRatio),
        iqr: summarize(worlds.map((w) => measureSelection(w[of]).overall.logRatio)).iqr,
        limit: { name: 'max(3 %, 2·SE)', value: allowed },
        fractionOfLimit: allowed / Math.abs(logRatio),
      },
      {
        ...base,
        metric: `worst_decile${metric}`,
        unit: `|ln expected/true| of decile ${worst.decile + 1} by expected clicks`,
        value: worst.error,
        iqr: 0,
        limit: { name: 'max(10 %, 2.5·SE)', value: worst.allowed },
        fractionOfLimit: worst.allowed / worst.error,
      },
    );
  }
}
