import { crossedLossLimit } from '@waggle/measurement';
import { type GateCheck, MAX_RELATIVE_LOSS, MIN_CAMPAIGNS, MIN_PUBLICATIONS } from '../gate.js';
import type { JudgedRows, SliceOfModel } from './slice-table.js';

/** Why a model of the suite was or was not promoted; plain JSON. */
export interface SuiteGate {
  readonly model: string;
  readonly passed: boolean;
  readonly checks: readonly GateCheck[];
  /** (loss − baseline's) / baseline's with its upper limits; null where too little came to measure it. */
  readonly relativeLogLoss: {
    readonly estimate: number;
    readonly upper975: number;
    /**
     * The same limit where rows of a campaign share the model's error as those of a publication do; null with a single campaign. For
     * information: no check.
     */
    readonly upper975Crossed: number | null;
  } | null;
  /** One paragraph for people. */
  readonly summary: string;
}

const MIN_ROWS = 100;

/** Judged rows with the campaign of each. */
export type CrossedRows = Pick<JudgedRows, 'loss' | 'baselineLoss' | 'mass' | 'publications'> & {
  readonly campaigns: ArrayLike<number>;
};

function crossedLimit({ publications, campaigns, ...rows }: CrossedRows): number | null {
  const seen = new Set(Array.from(campaigns).filter((_, i) => rows.mass[i]! > 0));
  if (seen.size < MIN_CAMPAIGNS) return null;
  const { loss, baselineLoss, mass } = rows;
  const paired = { loss, baselineLoss, mass, clusters: publications, crossed: campaigns };
  return crossedLossLimit(paired, 0.975).upperLimit;
}

/**
 * Gate of a model whose loss can be compared with a baseline's on the same later rows: enough rows, publications and, where they
 * count, campaigns, the upper 97.5 % limit of its relative loss within the house's limit, and whatever else was checked before.
 */
export function gateOnSlices(
  model: string,
  all: SliceOfModel,
  rows: CrossedRows,
  earlier: readonly GateCheck[] = [],
  campaigns?: number,
): SuiteGate {
  const ads = campaigns === undefined ? '' : ` and ${campaigns} campaigns`;
  const adsNeeded = campaigns === undefined ? '' : ` and ${MIN_CAMPAIGNS} campaigns`;
  const checks: GateCheck[] = [
    ...earlier,
    {
      name: 'enough_data',
      passed:
        all.rows >= MIN_ROWS &&
        all.publications >= MIN_PUBLICATIONS &&
        (campaigns ?? MIN_CAMPAIGNS) >= MIN_CAMPAIGNS,
      value: all.rows,
      limit: MIN_ROWS,
      explanation: `${all.rows} later rows of ${all.publications} publications${ads}; at least ${MIN_ROWS} of ${MIN_PUBLICATIONS} publications${adsNeeded} are needed`,
    },
  ];
  let relativeLogLoss: SuiteGate['relativeLogLoss'] = null;
  if (all.relative !== null) {
    const { estimate, upper } = all.relative;
    const crossed = crossedLimit(rows);
    relativeLogLoss = { estimate, upper975: upper, upper975Crossed: crossed };
    const beside =
      crossed === null
        ? ''
        : ` (${(100 * crossed).toFixed(2)} % where campaigns share its errors, too)`;
    checks.push({
      name: 'log_loss',
      passed: upper <= MAX_RELATIVE_LOSS,
      value: upper,
      limit: MAX_RELATIVE_LOSS,
      explanation: `log-loss differs from the baseline's by ${(100 * estimate).toFixed(2)} %, at most ${(100 * upper).toFixed(2)} % with 97.5 % confidence${beside}; allowed is ${(100 * MAX_RELATIVE_LOSS).toFixed(1)} %`,
    });
  }
  const passed = checks.every((check) => check.passed);
  const told = passed
    ? checks.filter((c) => c.name !== 'enough_data')
    : checks.filter((c) => !c.passed);
  return {
    model,
    passed,
    checks,
    relativeLogLoss,
    summary: `${model} ${passed ? 'passed its gate' : 'failed its gate and is not promoted'}: ${told.map((c) => c.explanation).join('; ')}.`,
  };
}
