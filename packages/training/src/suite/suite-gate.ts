import { type GateCheck, MAX_RELATIVE_LOSS, MIN_CAMPAIGNS } from '../gate.js';
import type { SliceOfModel } from './slice-table.js';

/** Why a model of the suite was or was not promoted; plain JSON. */
export interface SuiteGate {
  readonly model: string;
  readonly passed: boolean;
  readonly checks: readonly GateCheck[];
  /** One paragraph for people. */
  readonly summary: string;
}

const MIN_PUBLICATIONS = 10;
const MIN_ROWS = 100;

/**
 * Gate of a model whose loss can be compared with a baseline's on the same later rows: enough rows, publications and, where they
 * count, campaigns, the upper 97.5 % limit of its relative loss within the house's limit, and whatever else was checked before.
 */
export function gateOnSlices(
  model: string,
  all: SliceOfModel,
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
  if (all.relative !== null) {
    const { estimate, upper } = all.relative;
    checks.push({
      name: 'log_loss',
      passed: upper <= MAX_RELATIVE_LOSS,
      value: upper,
      limit: MAX_RELATIVE_LOSS,
      explanation: `log-loss differs from the baseline's by ${(100 * estimate).toFixed(2)} %, at most ${(100 * upper).toFixed(2)} % with 97.5 % confidence; allowed is ${(100 * MAX_RELATIVE_LOSS).toFixed(1)} %`,
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
    summary: `${model} ${passed ? 'passed its gate' : 'failed its gate and is not promoted'}: ${told.map((c) => c.explanation).join('; ')}.`,
  };
}
