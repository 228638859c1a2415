import { type ColumnTable, type StringColumn, stringData } from '@waggle/core';
import { type CompileOptions, fitFactsSql, keyColumn } from '../compile-sql.js';
import type { EffectFit } from '../definition.js';
import type { FeatureStore } from '../feature-store.js';
import { numbers } from '../query-columns.js';
import { type Neighbourhoods, neighbourEffect } from './neighbours.js';
import { type EffectBeliefs, type EffectSolution, solveEffects } from './solve.js';

const DAY_MS = 86_400_000;
const HOUR_MS = 3_600_000;

/** The refit that a decision sees which may know what was available at `asOfMs`. */
export function refitMsOf(fit: EffectFit, asOfMs: number): number {
  const everyMs = fit.everyHours * HOUR_MS;
  return Math.floor(asOfMs / everyMs) * everyMs;
}

/** Effects of a fit at its refit times, looked up by the values of a level's keys. */
export interface RefittedEffects {
  /** @returns NaN-free; 0 for keys that no fact has shown by then */
  base(refitMs: number): number;
  effect(refitMs: number, level: number, group: number): number;
  evidence(refitMs: number, level: number, group: number): number;
  /** What the entity's neighbours by text suggest, see `neighbourEffect`; 0 for entities without a text. */
  neighbours(refitMs: number, level: number, id: string): number;
  /** Group of the level that a row belongs to; −1 when facts never showed it or a key is ''. */
  groupOf(
    level: number,
    keyValue: (key: EffectFit['levels'][number]['by'][number]) => string,
  ): number;
}

/** What a unit's instalments have in common. */
interface Units {
  readonly n: number;
  readonly ofFact: Int32Array;
  readonly offset: Float64Array;
  /** [n × levels] */
  readonly codes: Int32Array;
}

/**
 * Refits in runs of neighbours, each run on a thread of its own. A run starts from what is believed, so the number of
 * runs decides last bits and is the same on every machine.
 */
const RUNS = 4;

/** Joins key values; control characters do not occur in ids and categories. */
const SEPARATOR = '\u0001';

/**
 * Solves a fit at every given refit time from the facts available then. One statement for the facts; refits start from the
 * solution of the one before, which saves steps and changes nothing beyond the solver's tolerance.
 * Memory O(facts + refits · groups); time O(refits · solve).
 * @param refitMs ascending multiples of the fit's period
 * @param texts neighbourhoods by level, for those that `neighbours` will be asked about
 */
export async function refitEffects(
  store: FeatureStore,
  compile: CompileOptions,
  fit: EffectFit,
  refitMs: readonly number[],
  query: Parameters<FeatureStore['queryColumns']>[1],
  texts: ReadonlyMap<number, Neighbourhoods>,
): Promise<RefittedEffects> {
  const lastMs = refitMs[refitMs.length - 1] ?? Number.NEGATIVE_INFINITY;
  const facts = await store.queryColumns(fitFactsSql(compile, fit, lastMs), query);
  const groups = fit.levels.map(() => new Map<string, number>());
  const units = unitsOf(facts, fit, groups);
  const param = (name: string) => compile.params[name]!;
  const beliefs: EffectBeliefs = {
    link: fit.link,
    levels: fit.levels.map((level, l) => ({
      size: groups[l]!.size,
      variance: 1 / param(level.strength),
    })),
    base: { mean: baseOf(fit, param(fit.baseRate)), variance: 1 / param(fit.baseStrength) },
    dispersion: param(fit.dispersion),
  };
  const solved = new Map<number, EffectSolution>();
  const solveRun = async (times: readonly number[]): Promise<void> => {
    const countAt = counterOf(facts, units, fit.windowDays * DAY_MS);
    let start: Float64Array | undefined;
    for (const at of times) {
      const { offset, codes } = units;
      const solution = await solveEffects({ ...countAt(at), offset, codes }, beliefs, {
        start,
        signal: query?.signal,
      });
      start = solution.state;
      solved.set(at, solution);
    }
  };
  const perRun = Math.ceil(refitMs.length / RUNS);
  const runs: Promise<void>[] = [];
  for (let from = 0; from < refitMs.length; from += perRun) {
    runs.push(solveRun(refitMs.slice(from, from + perRun)));
  }
  await Promise.all(runs);
  const groupsOfTexts = new Map(
    [...texts].map(([level, { rowOf }]) => {
      const groupOfRow = new Int32Array(rowOf.size);
      for (const [id, row] of rowOf) groupOfRow[row] = groups[level]!.get(id) ?? -1;
      return [level, groupOfRow];
    }),
  );
  return {
    base: (at) => solved.get(at)!.base,
    effect: (at, level, group) => (group < 0 ? 0 : solved.get(at)!.effects[level]![group]!),
    evidence: (at, level, group) => (group < 0 ? 0 : solved.get(at)!.evidence[level]![group]!),
    neighbours: (at, level, id) => {
      const near = texts.get(level);
      const row = near?.rowOf.get(id);
      if (near === undefined || row === undefined) return 0;
      const { effects, evidence } = solved.get(at)!;
      return neighbourEffect(near, row, {
        groupOfRow: groupsOfTexts.get(level)!,
        effects: effects[level]!,
        evidence: evidence[level]!,
        strength: param(fit.levels[level]!.strength),
      });
    },
    groupOf: (level, keyValue) => {
      const key = keyOf(fit.levels[level]!.by.map(keyValue));
      return key === undefined ? -1 : (groups[level]!.get(key) ?? -1);
    },
  };
}

/** Counts of every unit at ascending moments: what was available then, no longer ago than `spanMs`. */
function counterOf(
  facts: ColumnTable,
  units: Units,
  spanMs: number,
): (atMs: number) => { successes: Float64Array; exposure: Float64Array } {
  const availableMs = numbers(facts, 't_ms');
  const successes = numbers(facts, 'n');
  const trials = numbers(facts, 'd');
  const seen = new Float64Array(units.n);
  const exposed = new Float64Array(units.n);
  let entering = 0;
  let leaving = 0;
  return (atMs) => {
    // Facts come in order of availability, and leave in the same order.
    for (; entering < facts.nRows && availableMs[entering]! <= atMs; entering++) {
      const unit = units.ofFact[entering]!;
      seen[unit] = seen[unit]! + successes[entering]!;
      exposed[unit] = exposed[unit]! + trials[entering]!;
    }
    for (; leaving < entering && availableMs[leaving]! + spanMs <= atMs; leaving++) {
      const unit = units.ofFact[leaving]!;
      seen[unit] = Math.max(0, seen[unit]! - successes[leaving]!);
      exposed[unit] = Math.max(0, exposed[unit]! - trials[leaving]!);
    }
    return { successes: seen.slice(), exposure: exposed.slice() };
  };
}

function baseOf(fit: EffectFit, rate: number): number {
  return fit.link === 'log' ? Math.log(rate) : Math.log(rate / (1 - rate));
}

function keyOf(values: readonly string[]): string | undefined {
  return values.includes('') ? undefined : values.join(SEPARATOR);
}

function unitsOf(
  facts: ColumnTable,
  fit: EffectFit,
  groups: readonly Map<string, number>[],
): Units {
  const { nRows } = facts;
  const ofFact = new Int32Array(nRows);
  const first: number[] = [];
  if (nRows > 0) {
    const { codes, dictionary } = stringData(facts, 'unit');
    const unitOfCode = new Int32Array(dictionary.length).fill(-1);
    for (let i = 0; i < nRows; i++) {
      // A fact without a unit is one by itself.
      const known = dictionary[codes[i]!] === '' ? -1 : unitOfCode[codes[i]!]!;
      if (known >= 0) {
        ofFact[i] = known;
        continue;
      }
      unitOfCode[codes[i]!] = first.length;
      ofFact[i] = first.length;
      first.push(i);
    }
  }
  const offsets = numbers(facts, 'o');
  const columns = new Map<string, StringColumn>();
  for (const level of fit.levels) {
    for (const key of level.by) {
      if (nRows > 0) columns.set(key, stringData(facts, keyColumn(key)));
    }
  }
  const codes = new Int32Array(first.length * fit.levels.length);
  fit.levels.forEach((level, l) => {
    const known = groups[l]!;
    first.forEach((i, unit) => {
      const key = keyOf(
        level.by.map((k) => {
          const column = columns.get(k)!;
          return column.dictionary[column.codes[i]!]!;
        }),
      );
      let group = key === undefined ? -1 : known.get(key);
      if (key !== undefined && group === undefined) {
        group = known.size;
        known.set(key, group);
      }
      codes[unit * fit.levels.length + l] = group!;
    });
  });
  return { n: first.length, ofFact, offset: Float64Array.from(first, (i) => offsets[i]!), codes };
}
