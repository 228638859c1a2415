import {
  type Calibration,
  calibrate,
  calibrationFault,
  sliceOfCalibration,
} from './calibration.js';
import { rankingError } from './errors.js';

/**
 * A hierarchy of effects: logit = base + Σ over levels of the effect of the row's key, then calibration. A key that a level
 * does not know has none, so that a newcomer is judged by what it shares with others.
 */
export interface EffectsModel {
  readonly kind: 'effects_logit';
  readonly name: string;
  readonly base: number;
  readonly levels: readonly {
    readonly name: string;
    readonly effects: Readonly<Record<string, number>>;
  }[];
  readonly calibration: Calibration;
}

/** Checks an untrusted model file. @throws WAGGLE_RANKING_MODEL_INVALID naming what is wrong */
export function parseEffectsModel(value: unknown): EffectsModel {
  const fail = (why: string) => rankingError('WAGGLE_RANKING_MODEL_INVALID', `model file: ${why}`);
  if (typeof value !== 'object' || value === null) throw fail('not an object');
  const m = value as Record<string, unknown>;
  if (m['kind'] !== 'effects_logit') throw fail(`unknown kind ${String(m['kind'])}`);
  if (typeof m['name'] !== 'string') throw fail('name is missing');
  if (!Number.isFinite(m['base'])) throw fail('base is not a finite number');
  if (!Array.isArray(m['levels'])) throw fail('levels are missing');
  for (const level of m['levels'] as readonly unknown[]) {
    const { name, effects } = (level ?? {}) as Record<string, unknown>;
    if (typeof name !== 'string' || typeof effects !== 'object' || effects === null) {
      throw fail('a level has no name or no effects');
    }
    const wrong = Object.entries(effects).find(([, effect]) => !Number.isFinite(effect));
    if (wrong !== undefined) throw fail(`the effect of ${name} ${wrong[0]} is ${String(wrong[1])}`);
  }
  const fault = calibrationFault(m['calibration']);
  if (fault !== undefined) throw fail(`calibration ${fault}`);
  if (sliceOfCalibration(m['calibration'] as Calibration) !== undefined) {
    throw fail('calibration by slice: effects already tell slices apart');
  }
  return m as unknown as EffectsModel;
}

/**
 * Probabilities of rows that are told by their keys.
 * @param keyOf key of a row at a level, by the level's position; '' or unknown = no effect
 * @returns float64 [nRows] in (0, 1); O(nRows · levels)
 */
export function scoreEffects(
  model: EffectsModel,
  nRows: number,
  keyOf: (level: number, row: number) => string,
): Float64Array {
  const { levels, base, calibration } = model;
  return Float64Array.from({ length: nRows }, (_, row) => {
    let logit = base;
    levels.forEach(({ effects }, l) => {
      const key = keyOf(l, row);
      if (Object.hasOwn(effects, key)) logit += effects[key]!;
    });
    return calibrate(calibration, logit);
  });
}
