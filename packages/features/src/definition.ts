import { createHash } from 'node:crypto';
import { featuresError } from './errors.js';
import {
  canonicalJson,
  childrenOf,
  type Dependency,
  type EntityName,
  type Expression,
  isLeaf,
  KEYS,
  type Key,
  type Leaf,
} from './expression.js';
import { VERIFIED_CLICK_SQL } from './label.js';

/** One number about a decision, declared once. */
export interface FeatureDefinition {
  /** snake_case, unique within its set, the name of its column everywhere. */
  readonly name: string;
  /** What it is a number about; must equal what `value` depends on. */
  readonly entity: readonly Dependency[];
  readonly value: Expression;
  /** Stands in where the value is missing or infinite. */
  readonly default: number;
  /** One sentence with the unit. */
  readonly description: string;
}

/** How a fact source reads a table: deduplicated, of one tenant, nothing hidden from it slips through. */
export interface TableReader {
  /** Rows of an event table for which `condition` holds, each event once, as a sub-select in brackets. */
  events(table: string, condition?: string): string;
  /** The same without the cost of deduplication: only under an aggregate that repeats cannot change. */
  repeatable(table: string, condition?: string): string;
  /** Versions of an entity table, those that are still unknown left out, as a sub-select in brackets. */
  versions(table: string): string;
}

/**
 * Facts are what features count. Each row of `sql` has `event_ms` (when it happened: entity attributes are
 * read as of then), `available_ms` (from when on a decision may know it), the ids `publication_id`,
 * `campaign_id`, `creative_id` ('' where none) and `position` (0 where none), and one number per measure. Measures are whole numbers (others are rounded): sums of whole
 * doubles are exact in any order, so taking an expired fact out again leaves nothing behind.
 */
export interface FactSource {
  readonly name: string;
  readonly description: string;
  readonly measures: readonly string[];
  readonly sql: (read: TableReader) => string;
  /**
   * A cheaper source that shows every combination of keys of this one, no later: snapshots list combinations
   * from it when the set has it too.
   */
  readonly keysFrom?: string;
  /** Columns of `sql` that a fit's offset may read as request or candidate fields: `n_ads`, `menu_size` … */
  readonly context?: readonly string[];
  /**
   * Column that names what a fact is an instalment of. A fit adds up the instalments known by then, so that a placement
   * whose clicks arrive over three days remains one observation.
   */
  readonly unit?: string;
}

/** One group of effects of a fit: multipliers of the rate for every value of the keys. */
export interface EffectLevel {
  readonly name: string;
  readonly by: readonly Key[];
  /** Parameter: inverse variance of the level's effects; for rare events, prior successes. */
  readonly strength: string;
}

/**
 * η = base + offset + Σ level effects, fitted jointly to a fact source, so that a publication is not credited for the
 * good campaigns that it happened to run: crossed normal effects by penalised quasi-likelihood (`solveEffects`).
 * Refitted at every multiple of `everyHours` from what was available then.
 */
export interface EffectFit {
  readonly name: string;
  readonly source: string;
  readonly successes: string;
  readonly trials: string;
  readonly levels: readonly EffectLevel[];
  /** Rate = e^η for rare events (`log`) or sigmoid(η) (`logit`). */
  readonly link: 'log' | 'logit';
  /**
   * What describes a decision without counting facts (attributes, comparisons, similarities, request fields) and
   * is taken out before effects are fitted. Missing counts as 0.
   */
  readonly offset?: Expression;
  readonly everyHours: number;
  /** Facts older than this are left out. */
  readonly windowDays: number;
  /** Parameter: variance of a single observation's η beyond counting noise. */
  readonly dispersion: string;
  /** Parameters: the overall rate before any fact, and how many prior successes it is worth. */
  readonly baseRate: string;
  readonly baseStrength: string;
}

export interface FeatureSetSpec {
  readonly name: string;
  /** A decision is a row of this kind. */
  readonly row: 'placement' | 'offer' | 'acceptance';
  readonly params: Readonly<Record<string, number>>;
  readonly sources: readonly FactSource[];
  readonly fits: readonly EffectFit[];
  readonly features: readonly FeatureDefinition[];
}

export interface FeatureSet extends FeatureSetSpec {
  readonly names: readonly string[];
  /** Hash of everything that decides a value: declarations, sources, fits, default parameters, click rule. */
  readonly fingerprint: string;
  /** Distinct leaves of all features, in a stable order; `leafKey` of each. */
  readonly leaves: readonly Leaf[];
  readonly leafKeys: readonly string[];
  /** Per feature: `request` when any part changes with the request. */
  readonly depends: readonly ('static' | 'request')[];
}

const REPLACED_READER: TableReader = {
  events: (table, condition = '1') => `(${table} WHERE ${condition})`,
  repeatable: (table, condition = '1') => `(${table} WHERE ${condition})`,
  versions: (table) => `(${table})`,
};

/**
 * Checks the declarations and freezes them into a set.
 * @throws WAGGLE_FEATURES_DECLARATION naming the feature and what is wrong with it
 */
export function defineFeatureSet(spec: FeatureSetSpec): FeatureSet {
  const wrong = (where: string, why: string) =>
    featuresError('WAGGLE_FEATURES_DECLARATION', `${spec.name}.${where}: ${why}`, {
      details: { set: spec.name, where },
    });
  const sources = new Map(spec.sources.map((s) => [s.name, s]));
  const fits = new Map(spec.fits.map((f) => [f.name, f]));
  const checkParam = (where: string, name: string) => {
    if (!Number.isFinite(spec.params[name])) throw wrong(where, `parameter ${name} has no default`);
  };
  const checkFact = (where: string, source: string, measure: string) => {
    const found = sources.get(source);
    if (found === undefined) throw wrong(where, `there is no fact source ${source}`);
    if (measure !== 'count' && !found.measures.includes(measure)) {
      throw wrong(where, `source ${source} has no measure ${measure}`);
    }
  };
  for (const fit of spec.fits) {
    checkFact(fit.name, fit.source, fit.successes);
    checkFact(fit.name, fit.source, fit.trials);
    for (const name of [fit.dispersion, fit.baseRate, fit.baseStrength]) checkParam(fit.name, name);
    for (const level of fit.levels) checkParam(`${fit.name}.${level.name}`, level.strength);
    if (fit.offset !== undefined) {
      walk(fit.offset, (node) => {
        if (node.op === 'aggregate' || node.op === 'effect') {
          throw wrong(fit.name, 'an offset describes a fact, it cannot count others');
        }
        if (node.op === 'param') checkParam(fit.name, node.name);
      });
    }
    if (!(fit.everyHours > 0) || !(fit.windowDays > 0)) {
      throw wrong(fit.name, 'everyHours and windowDays must be positive');
    }
  }
  const leaves = new Map<string, Leaf>();
  const seen = new Set<string>();
  for (const feature of spec.features) {
    const at = feature.name;
    if (!/^[a-z][a-z0-9_]{0,62}$/.test(at)) throw wrong(at, 'names are snake_case');
    if (seen.has(at)) throw wrong(at, 'declared twice');
    seen.add(at);
    if (!Number.isFinite(feature.default)) throw wrong(at, 'the default must be finite');
    if (feature.description.trim() === '') throw wrong(at, 'a description is missing');
    walk(feature.value, (node) => {
      if (node.op === 'const' && !Number.isFinite(node.value)) {
        throw wrong(at, `constant ${node.value} is not finite`);
      }
      if (node.op === 'param') checkParam(at, node.name);
      if (node.op === 'aggregate') {
        checkFact(at, node.source, node.measure);
        if (node.windowDays !== null && !(node.windowDays > 0)) {
          throw wrong(at, 'a window must be positive');
        }
        for (const key of node.by) if (!KEYS.includes(key)) throw wrong(at, `no key ${key}`);
      }
      if (node.op === 'effect') {
        const fit = fits.get(node.fit);
        if (fit === undefined) throw wrong(at, `there is no fit ${node.fit}`);
        const level = fit.levels.find((l) => l.name === node.level);
        if (node.level !== 'base' && level === undefined) {
          throw wrong(at, `fit ${node.fit} has no level ${node.level}`);
        }
        if (node.output === 'neighbours' && textEntity(level?.by ?? []) === undefined) {
          throw wrong(at, `level ${node.level} is not about one entity with a text of its own`);
        }
      }
      if (isLeaf(node)) leaves.set(canonicalJson(node), node);
    });
    const actual = [...dependenciesOf(feature.value, fits)].sort();
    const declared = [...feature.entity].sort();
    if (actual.join() !== declared.join()) {
      throw wrong(
        at,
        `declared about [${declared.join(', ')}] but its value depends on [${actual.join(', ')}]`,
      );
    }
  }
  const leafKeys = [...leaves.keys()].sort();
  const fingerprint = createHash('sha256')
    .update(
      canonicalJson({
        version: 2,
        verifiedClick: VERIFIED_CLICK_SQL,
        name: spec.name,
        row: spec.row,
        params: spec.params,
        sources: spec.sources.map((s) => [
          s.name,
          s.measures,
          s.sql(REPLACED_READER),
          s.unit ?? null,
        ]),
        fits: spec.fits,
        features: spec.features.map(({ name, value, default: fallback }) => [
          name,
          value,
          fallback,
        ]),
      }),
    )
    .digest('hex')
    .slice(0, 24);
  return Object.freeze({
    ...spec,
    names: spec.features.map((f) => f.name),
    fingerprint: `${spec.name}_${fingerprint}`,
    leaves: leafKeys.map((key) => leaves.get(key)!),
    leafKeys,
    depends: spec.features.map((f) =>
      [...dependenciesOf(f.value, fits)].some((d) => d === 'request' || d === 'candidate')
        ? 'request'
        : 'static',
    ),
  });
}

/** Calls `visit` for the expression and everything under it. */
export function walk(expression: Expression, visit: (node: Expression) => void): void {
  visit(expression);
  for (const child of childrenOf(expression)) walk(child, visit);
}

const KEY_DEPENDENCY: Readonly<Record<Key, Dependency>> = {
  publication: 'publication',
  pubCategory: 'publication',
  pubAudience: 'publication',
  pubSize: 'publication',
  pubLanguage: 'publication',
  campaign: 'campaign',
  advertiser: 'campaign',
  campCategory: 'campaign',
  campPricing: 'campaign',
  creative: 'creative',
  position: 'request',
};

/** The entity that keys name and whose text has a vector; undefined for keys of any other kind. */
export function textEntity(by: readonly Key[]): EntityName | undefined {
  const [key] = by;
  return by.length === 1 && (key === 'publication' || key === 'campaign' || key === 'creative')
    ? key
    : undefined;
}

export function keyDependency(key: Key): Dependency {
  return KEY_DEPENDENCY[key];
}

/** The keys that a leaf is looked up by; undefined when it is not a lookup of facts. */
export function leafKeysBy(
  leaf: Leaf,
  fits: ReadonlyMap<string, EffectFit>,
): readonly Key[] | undefined {
  if (leaf.op === 'aggregate') return leaf.by;
  if (leaf.op === 'effect') {
    if (leaf.level === 'base') return [];
    return fits.get(leaf.fit)?.levels.find((l) => l.name === leaf.level)?.by ?? [];
  }
  return undefined;
}

/** What the value of one leaf changes with. */
export function leafDependencies(
  leaf: Leaf,
  fits: ReadonlyMap<string, EffectFit>,
): readonly Dependency[] {
  switch (leaf.op) {
    case 'aggregate':
    case 'effect':
      return [...new Set(leafKeysBy(leaf, fits)!.map(keyDependency))];
    case 'attribute':
      return [leaf.ref.entity];
    case 'match':
      return [...new Set([leaf.left.entity, leaf.right.entity])];
    case 'similarity':
      return [...new Set([leaf.left, leaf.right])];
    case 'request':
      return ['request'];
    case 'candidate':
      return ['candidate'];
  }
}

/** Everything that a value changes with. */
export function dependenciesOf(
  expression: Expression,
  fits: ReadonlyMap<string, EffectFit>,
): ReadonlySet<Dependency> {
  const found = new Set<Dependency>();
  walk(expression, (node) => {
    if (isLeaf(node)) for (const d of leafDependencies(node, fits)) found.add(d);
  });
  return found;
}

/**
 * The set's parameters with some replaced.
 * @throws WAGGLE_FEATURES_PARAM for an unknown name or a value that is not finite
 */
export function resolveParams(
  set: FeatureSetSpec,
  overrides: Readonly<Record<string, number>> = {},
): Readonly<Record<string, number>> {
  for (const [name, value] of Object.entries(overrides)) {
    if (!(name in set.params) || !Number.isFinite(value)) {
      throw featuresError(
        'WAGGLE_FEATURES_PARAM',
        `${set.name} has no finite parameter ${name} = ${value}`,
        {
          details: { set: set.name, name },
        },
      );
    }
  }
  return { ...set.params, ...overrides };
}
