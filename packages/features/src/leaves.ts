import { type StringColumn, stringColumn, stringData } from '@waggle/core';
import { type CompileOptions, compileLeaves, keyColumn } from './compile-sql.js';
import { textEntity } from './definition.js';
import { findNeighbourhoods, type Neighbourhoods } from './effects/neighbours.js';
import { refitEffects, refitMsOf } from './effects/refits.js';
import { queryEntityVectors } from './entity-vectors.js';
import { type EntityName, KEYS, type Key, type Leaf } from './expression.js';
import type { FeatureStore } from './feature-store.js';
import { buildProgram, vectorLoop } from './online-program.js';
import { numbers } from './query-columns.js';

/** What the features of every spine row are made of, in the order of `ordinal`. */
export interface LeafRows {
  readonly nRows: number;
  readonly ordinal: ArrayLike<number>;
  /** Per leaf of the set [nRows], NaN = missing; undefined for leaves that were not asked for. */
  readonly values: readonly (ArrayLike<number> | undefined)[];
  /** The keys that rows resolve to. */
  readonly keys: Readonly<Record<Key, StringColumn>>;
}

/**
 * Leaves of every spine row: counted, compared and read by one statement, level effects solved from the facts of
 * each fit. Training, hypothetical decisions and snapshots all come through here, so they cannot disagree.
 * Cost: a pass over the tenant's events, one over each fit's facts, and a solve per refit that a row sees.
 */
export async function computeLeaves(
  store: FeatureStore,
  compile: CompileOptions,
  query: Parameters<FeatureStore['queryColumns']>[1],
  keep: (leaf: Leaf) => boolean = () => true,
): Promise<LeafRows> {
  const { set } = compile;
  const result = await store.queryColumns(compileLeaves(compile, keep), query);
  const { nRows } = result;
  const keys = Object.fromEntries(
    KEYS.map((key) => [key, nRows === 0 ? stringColumn([]) : stringData(result, keyColumn(key))]),
  ) as unknown as Record<Key, StringColumn>;
  const values: (ArrayLike<number> | undefined)[] = set.leaves.map((leaf, i) =>
    leaf.op !== 'effect' && keep(leaf) ? numbers(result, `l${i}`) : undefined,
  );
  const asOfMs = numbers(result, 'as_of_ms');
  const neighbourhoods = new Map<EntityName, Promise<Neighbourhoods>>();
  const neighbourhoodsOf = (entity: EntityName): Promise<Neighbourhoods> => {
    let found = neighbourhoods.get(entity);
    if (found === undefined) {
      found = queryEntityVectors(store, entity, compile.embeddingModel, query).then(
        findNeighbourhoods,
      );
      neighbourhoods.set(entity, found);
    }
    return found;
  };
  for (const fit of set.fits) {
    const wanted = set.leaves.flatMap((leaf, i) =>
      leaf.op === 'effect' && leaf.fit === fit.name && keep(leaf) ? [{ leaf, i }] : [],
    );
    if (wanted.length === 0) continue;
    const refits = Float64Array.from({ length: nRows }, (_, r) => refitMsOf(fit, asOfMs[r]!));
    const times = [...new Set(refits)].sort((a, b) => a - b);
    const texts = new Map<number, Neighbourhoods>();
    for (const { leaf } of wanted) {
      if (leaf.op !== 'effect' || leaf.output !== 'neighbours') continue;
      const level = fit.levels.findIndex((l) => l.name === leaf.level);
      const entity = textEntity(fit.levels[level]!.by)!;
      texts.set(level, await neighbourhoodsOf(entity));
    }
    const effects = await refitEffects(store, compile, fit, times, query, texts);
    const groups = new Map<number, Int32Array>();
    const groupsOf = (level: number): Int32Array => {
      let found = groups.get(level);
      if (found === undefined) {
        found = Int32Array.from({ length: nRows }, (_, r) =>
          effects.groupOf(level, (key) => {
            const column = keys[key];
            return column.dictionary[column.codes[r]!]!;
          }),
        );
        groups.set(level, found);
      }
      return found;
    };
    for (const { leaf, i } of wanted) {
      if (leaf.op !== 'effect') continue;
      const { level: name, output } = leaf;
      if (name === 'base') {
        values[i] = Float64Array.from({ length: nRows }, (_, r) =>
          output === 'evidence' ? 0 : effects.base(refits[r]!),
        );
        continue;
      }
      const level = fit.levels.findIndex((l) => l.name === name);
      if (output === 'neighbours') {
        const { codes, dictionary } = keys[textEntity(fit.levels[level]!.by)!];
        // Rows of the same entity and refit share the answer.
        const known = new Map<number, Map<number, number>>(times.map((at) => [at, new Map()]));
        values[i] = Float64Array.from({ length: nRows }, (_, r) => {
          const at = known.get(refits[r]!)!;
          let value = at.get(codes[r]!);
          if (value === undefined) {
            value = effects.neighbours(refits[r]!, level, dictionary[codes[r]!]!);
            at.set(codes[r]!, value);
          }
          return value;
        });
        continue;
      }
      const own = groupsOf(level);
      values[i] = Float64Array.from({ length: nRows }, (_, r) =>
        output === 'evidence'
          ? effects.evidence(refits[r]!, level, own[r]!)
          : effects.effect(refits[r]!, level, own[r]!),
      );
    }
  }
  return { nRows, ordinal: numbers(result, 'ordinal'), values, keys };
}

/** Rows are worked through in runs of this many, so that the working arrays stay in the cache. */
const RUN = 1024;

/**
 * Features from leaves by the operations that online evaluation runs too.
 * @returns float32 [nRows × nFeatures], row-major, in the order of `rows.ordinal`; O(nRows · operations)
 */
export function evaluateLeaves(
  compile: Pick<CompileOptions, 'set' | 'params'>,
  rows: LeafRows,
): Float32Array {
  const { set, params } = compile;
  const { nodes, outputs } = buildProgram(set);
  const registers = nodes.map(() => new Float64Array(RUN));
  const leafOf = new Map(set.leafKeys.map((key, i) => [key, i]));
  const steps = nodes.map(
    ({ expression, args, leafKey }, n): ((from: number, count: number) => void) => {
      const register = registers[n]!;
      if (leafKey !== undefined) {
        const values = rows.values[leafOf.get(leafKey)!]!;
        return (from, count) => {
          for (let i = 0; i < count; i++) register[i] = values[from + i]!;
        };
      }
      if (expression.op === 'const' || expression.op === 'param') {
        register.fill(expression.op === 'const' ? expression.value : params[expression.name]!);
        return () => {};
      }
      const run = vectorLoop(
        expression,
        args.map((arg) => registers[arg]!),
        register,
      );
      return (_, count) => run(count);
    },
  );
  const width = set.features.length;
  const out = new Float32Array(rows.nRows * width);
  for (let from = 0; from < rows.nRows; from += RUN) {
    const count = Math.min(RUN, rows.nRows - from);
    for (const step of steps) step(from, count);
    set.features.forEach((feature, f) => {
      const values = registers[outputs[f]!]!;
      const fallback = Math.fround(feature.default);
      for (let i = 0; i < count; i++) {
        const value = Math.fround(values[i]!);
        out[(from + i) * width + f] = value - value === 0 ? value : fallback;
      }
    });
  }
  return out;
}
