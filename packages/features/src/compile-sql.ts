import type { EffectFit, FeatureSet, TableReader } from './definition.js';
import { leafKeysBy, walk } from './definition.js';
import { featuresError } from './errors.js';
import {
  type AttributeRead,
  type AttributeRef,
  type CANDIDATE_FIELDS,
  canonicalJson,
  type EntityName,
  type Expression,
  isLeaf,
  KEYS,
  type Key,
  type Leaf,
  type REQUEST_FIELDS,
} from './expression.js';

/**
 * Declarations → ClickHouse SELECTs. A *spine* names the decisions: who, where, when, and what may be known
 * (`as_of_ms`). Facts and spine are put on one time line; a running sum per key, ordered by the time at which
 * a fact becomes available, gives every decision exactly the facts available by then. A window of w days is
 * the same running sum with every fact taken out again w days later. Level effects are not computed here: the facts of a
 * fit are selected with their keys and offsets, and `computeLeaves` solves them.
 */

const DAY_MS = 86_400_000;

/** Columns that a spine must have besides `ordinal` (1, 2, …), `as_of_ms` and `ts_ms`. */
export const SPINE_ID_COLUMNS = ['publication_id', 'campaign_id', 'creative_id'] as const;
/** Keys that normally follow from the entity's version; a spine may set them itself ('' = follow). */
export const DERIVED_KEYS = [
  'pubCategory',
  'pubAudience',
  'pubSize',
  'pubLanguage',
  'advertiser',
  'campCategory',
  'campPricing',
] as const satisfies readonly Key[];

export const keyColumn = (key: Key): string => `k_${key}`;
const overrideColumn = (key: Key): string => `o_${key}`;

const REQUEST_COLUMN: Readonly<Record<(typeof REQUEST_FIELDS)[number], string>> = {
  tsMs: 'ts_ms',
  position: 'position',
  nAds: 'n_ads',
  menuSize: 'menu_size',
  leadMs: 'lead_ms',
};
const CANDIDATE_COLUMN: Readonly<Record<(typeof CANDIDATE_FIELDS)[number], string>> = {
  priceMicros: 'price_micros',
  estPayoutMicros: 'est_payout_micros',
  rank: 'rank',
};

/** A spine SELECT with every column, the missing ones filled in. */
export function spineSql(columns: Readonly<Record<string, string>>, from: string): string {
  const defaults: Record<string, string> = {
    ordinal: '0',
    as_of_ms: '0',
    ts_ms: 'as_of_ms',
    publication_id: "''",
    campaign_id: "''",
    creative_id: "''",
    position: '0',
    n_ads: 'nan',
    menu_size: 'nan',
    lead_ms: 'nan',
    price_micros: 'nan',
    est_payout_micros: 'nan',
    rank: 'nan',
  };
  for (const key of DERIVED_KEYS) defaults[overrideColumn(key)] = "''";
  const types: Record<string, string> = {
    ordinal: 'UInt64',
    as_of_ms: 'Int64',
    ts_ms: 'Int64',
    position: 'UInt8',
    n_ads: 'Float64',
    menu_size: 'Float64',
    lead_ms: 'Float64',
    price_micros: 'Float64',
    est_payout_micros: 'Float64',
    rank: 'Float64',
  };
  const select = Object.entries({ ...defaults, ...columns }).map(
    ([name, sql]) => `CAST(${sql} AS ${types[name] ?? 'String'}) AS ${name}`,
  );
  return `SELECT ${select.join(', ')} FROM ${from}`;
}

export interface CompileOptions {
  readonly set: FeatureSet;
  readonly params: Readonly<Record<string, number>>;
  readonly read: TableReader;
  /** Deduplicated versions of an entity table, as a sub-select in brackets. */
  readonly entities: (table: string) => string;
  /** SELECT with the columns of `spineSql`. */
  readonly spine: string;
  /** Least and greatest `as_of_ms` of the spine. */
  readonly fromMs: number;
  readonly toMs: number;
  /** Model whose vectors `similarity` reads. */
  readonly embeddingModel: string;
  /** Sub-select in brackets with entity_kind, entity_id, vector of that model. */
  readonly embeddings: (kind: EntityName) => string;
}

/**
 * What every spine row's features are made of: `ordinal`, `as_of_ms`, `l<i>` per leaf of the set that `keep` lets through (NaN where
 * missing) and `k_<key>` per key, ordered by `ordinal`. Effects of fits are not among them: see `computeLeaves`.
 */
export function compileLeaves(options: CompileOptions, keep: (leaf: Leaf) => boolean): string {
  const leaves = options.set.leaves.map((leaf) =>
    leaf.op !== 'effect' && keep(leaf) ? leaf : undefined,
  );
  return `SELECT * FROM (${leavesSql(options, leaves, KEYS)}\n)\nORDER BY ordinal`;
}

/** One expression as SQL; `leaf` names the column of each leaf. Everything is Float64, NaN is missing. */
export function expressionSql(
  expression: Expression,
  leaf: (leaf: Leaf) => string,
  params: Readonly<Record<string, number>>,
): string {
  if (isLeaf(expression)) return leaf(expression);
  const sql = (e: Expression): string => expressionSql(e, leaf, params);
  switch (expression.op) {
    case 'const':
      return numberSql(expression.value);
    case 'param': {
      const value = params[expression.name];
      if (value === undefined) {
        throw featuresError('WAGGLE_FEATURES_PARAM', `parameter ${expression.name} has no value`);
      }
      return numberSql(value);
    }
    case 'neg':
      return `(-${sql(expression.arg)})`;
    case 'logit': {
      const arg = sql(expression.arg);
      return `log(${arg} / (1.0 - ${arg}))`;
    }
    case 'sigmoid':
      return `(1.0 / (1.0 + exp(-${sql(expression.arg)})))`;
    case 'log':
    case 'log1p':
    case 'exp':
    case 'sqrt':
    case 'abs':
    case 'sin':
    case 'cos':
    case 'floor':
      return `${expression.op}(${sql(expression.arg)})`;
    case 'add':
      return `(${sql(expression.left)} + ${sql(expression.right)})`;
    case 'sub':
      return `(${sql(expression.left)} - ${sql(expression.right)})`;
    case 'mul':
      return `(${sql(expression.left)} * ${sql(expression.right)})`;
    case 'div':
      return `(${sql(expression.left)} / ${sql(expression.right)})`;
    case 'min':
    case 'max': {
      const compare = expression.op === 'min' ? '<' : '>';
      const left = sql(expression.left);
      const right = sql(expression.right);
      return `if(${left} ${compare} ${right}, ${left}, ${right})`;
    }
    case 'coalesce':
      return `ifNotFinite(${sql(expression.left)}, ${sql(expression.right)})`;
    case 'if': {
      const compare = { lt: '<', le: '<=', gt: '>', ge: '>=', eq: '=' }[expression.compare];
      return `if(${sql(expression.left)} ${compare} ${sql(expression.right)}, ${sql(expression.yes)}, ${sql(expression.no)})`;
    }
  }
}

/** A number as a Float64 literal that parses back to the same bits. */
export function numberSql(value: number): string {
  if (Number.isNaN(value)) return 'nan';
  if (value === Number.POSITIVE_INFINITY) return 'inf';
  if (value === Number.NEGATIVE_INFINITY) return '(-inf)';
  const text = Object.is(value, -0) ? '-0.0' : String(value);
  const literal = /[.eE]/.test(text) ? text : `${text}.0`;
  return value < 0 || Object.is(value, -0) ? `(${literal})` : literal;
}

/** A text literal. */
export function stringSql(value: string): string {
  return `'${value.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
}

function attributeSql(ref: AttributeRef, read: AttributeRead): string {
  switch (read.as) {
    case 'number':
    case 'flag':
      return `toFloat64(${ref.column})`;
    case 'timeMs':
      return `toFloat64(toUnixTimestamp64Milli(${ref.column}))`;
    case 'length':
      return `toFloat64(lengthUTF8(${ref.column}))`;
    case 'size':
      return `toFloat64(length(${ref.column}))`;
    case 'is':
      return `toFloat64(${ref.column} = ${stringSql(read.literal)})`;
  }
}

const ENTITY: Readonly<Record<EntityName, { table: string; id: string }>> = {
  publication: { table: 'publications', id: 'publication_id' },
  campaign: { table: 'campaigns', id: 'campaign_id' },
  creative: { table: 'creatives', id: 'creative_id' },
};

/** Versions of an entity: `v_id`, `v_ms` (valid from) and the given columns. */
function versionsSql(
  options: CompileOptions,
  entity: EntityName,
  columns: readonly string[],
): string {
  const { table, id } = ENTITY[entity];
  return `SELECT ${[`${id} AS v_id`, 'toUnixTimestamp64Milli(updated_at) AS v_ms', ...columns].join(', ')} FROM ${options.entities(table)} ORDER BY v_id, v_ms, version DESC LIMIT 1 BY v_id, v_ms`;
}

/** Adds `k_<key>` columns to rows that have event_ms, the ids, position and the overrides. */
function keyedSql(
  options: CompileOptions,
  rows: string,
  keys: ReadonlySet<Key>,
  carried: readonly string[],
): string {
  const need = (...names: Key[]) => names.some((k) => keys.has(k));
  let sql = `SELECT ${[...carried, 'event_ms', ...SPINE_ID_COLUMNS, 'position', ...DERIVED_KEYS.filter((k) => keys.has(k)).map(overrideColumn)].join(', ')} FROM (${rows})`;
  const derived: string[] = [];
  const pick = (key: Key, from: string) =>
    derived.push(
      `if(r.${overrideColumn(key)} != '', r.${overrideColumn(key)}, ${from}) AS ${keyColumn(key)}`,
    );
  let joins = '';
  if (need('pubCategory', 'pubAudience', 'pubSize', 'pubLanguage')) {
    joins += `\nASOF LEFT JOIN (${versionsSql(options, 'publication', ['toString(category) AS v_category', 'toString(audience) AS v_audience', 'toString(language) AS v_language', 'toString(floor(log10(active_subscribers + 1.0) * 2.0)) AS v_size'])}) AS p ON p.v_id = r.publication_id AND p.v_ms <= r.event_ms`;
    if (need('pubCategory')) pick('pubCategory', 'p.v_category');
    if (need('pubAudience')) pick('pubAudience', 'p.v_audience');
    if (need('pubSize')) pick('pubSize', 'p.v_size');
    if (need('pubLanguage')) pick('pubLanguage', 'p.v_language');
  }
  if (need('advertiser', 'campCategory', 'campPricing')) {
    joins += `\nASOF LEFT JOIN (${versionsSql(options, 'campaign', ['advertiser_id AS v_advertiser', 'toString(category) AS v_category', 'toString(pricing) AS v_pricing'])}) AS c ON c.v_id = r.campaign_id AND c.v_ms <= r.event_ms`;
    if (need('advertiser')) pick('advertiser', 'c.v_advertiser');
    if (need('campCategory')) pick('campCategory', 'c.v_category');
    if (need('campPricing')) pick('campPricing', 'c.v_pricing');
  }
  if (need('publication')) derived.push(`r.publication_id AS ${keyColumn('publication')}`);
  if (need('campaign')) derived.push(`r.campaign_id AS ${keyColumn('campaign')}`);
  if (need('creative')) derived.push(`r.creative_id AS ${keyColumn('creative')}`);
  if (need('position')) {
    derived.push(`if(r.position = 0, '', toString(r.position)) AS ${keyColumn('position')}`);
  }
  sql = `SELECT ${[...carried.map((c) => `r.${c} AS ${c}`), ...derived].join(', ')} FROM (${sql}) AS r${joins}`;
  return sql;
}

/**
 * Distinct keys that facts of the set's sources carried by `asOfMs`, each set of keys on its own: what a sparse
 * pair table has to hold. Columns: one per key of `KEYS`, '' where the set has no such key.
 */
export function observedKeysSql(
  options: Omit<CompileOptions, 'spine' | 'fromMs' | 'toMs'>,
  keySets: readonly (readonly Key[])[],
  asOfMs: number,
): string {
  const all = new Set(keySets.flat());
  const { sources } = options.set;
  const facts = sources
    .filter((s) => !sources.some((other) => other.name === s.keysFrom))
    .map(
      (s) =>
        `SELECT event_ms, ${SPINE_ID_COLUMNS.join(', ')}, position, ${DERIVED_KEYS.map((k) => `'' AS ${overrideColumn(k)}`).join(', ')} FROM (${s.sql(options.read)}) WHERE available_ms <= ${asOfMs}`,
    )
    .join('\nUNION ALL\n');
  const keyed = keyedSql({ ...options, spine: '', fromMs: 0, toMs: 0 }, facts, all, []);
  const grouped = keySets.map((keys) => `(${keys.map((k) => keyColumn(k)).join(', ')})`).join(', ');
  const columns = KEYS.filter((k) => all.has(k)).map(keyColumn);
  return `SELECT ${columns.join(', ')} FROM (${keyed}) GROUP BY GROUPING SETS (${grouped}) SETTINGS group_by_use_nulls = 0`;
}

function leavesSql(
  options: CompileOptions,
  leaves: readonly (Leaf | undefined)[],
  keysOut: readonly Key[],
): string {
  const { spine } = options;
  const select: string[] = ['s.ordinal AS ordinal', 's.as_of_ms AS as_of_ms'];
  const joins: string[] = [];

  const aggregates = leaves.flatMap((leaf, i) => (leaf?.op === 'aggregate' ? [{ leaf, i }] : []));
  if (aggregates.length > 0) {
    joins.push(`\nLEFT JOIN (${aggregatesSql(options, aggregates)}) AS w ON w.ordinal = s.ordinal`);
    for (const { i } of aggregates) select.push(`w.l${i} AS l${i}`);
  }
  const described = describedLeaves(options, leaves, 'as_of_ms');
  select.push(...described.select);
  joins.push(...described.joins);
  if (keysOut.length > 0) {
    const spineRows = `SELECT *, as_of_ms AS event_ms FROM (${spine})`;
    joins.push(
      `\nLEFT JOIN (${keyedSql(options, spineRows, new Set(keysOut), ['ordinal'])}) AS k ON k.ordinal = s.ordinal`,
    );
    for (const key of keysOut) select.push(`k.${keyColumn(key)} AS ${keyColumn(key)}`);
  }
  return `\nSELECT ${select.join(',\n  ')}\nFROM (${spine}) AS s${joins.join('')}`;
}

/**
 * Leaves that describe a row `s` rather than count facts: attributes, comparisons, similarities, request and
 * candidate fields. Entity versions are those valid at `s.<timeColumn>`.
 */
function describedLeaves(
  options: CompileOptions,
  leaves: readonly (Leaf | undefined)[],
  timeColumn: string,
): { select: string[]; joins: string[] } {
  const select: string[] = [];
  const joins: string[] = [];
  // Attributes and the strings that matches compare, from the version valid at the decision.
  for (const entity of ['publication', 'campaign', 'creative'] as const) {
    const columns = new Map<string, string>();
    leaves.forEach((leaf, i) => {
      if (leaf?.op === 'attribute' && leaf.ref.entity === entity) {
        columns.set(`a${i}`, attributeSql(leaf.ref, leaf.read));
      }
      if (leaf?.op === 'match') {
        for (const ref of [leaf.left, leaf.right])
          if (ref.entity === entity) columns.set(`m_${ref.column}`, ref.column);
      }
    });
    const alias = `v_${entity}`;
    if (columns.size === 0) continue;
    joins.push(
      `\nASOF LEFT JOIN (${versionsSql(
        options,
        entity,
        [...columns].map(([name, sql]) => `${sql} AS ${name}`),
      )}) AS ${alias} ON ${alias}.v_id = s.${ENTITY[entity].id} AND ${alias}.v_ms <= s.${timeColumn}`,
    );
    leaves.forEach((leaf, i) => {
      if (leaf?.op === 'attribute' && leaf.ref.entity === entity) {
        select.push(`if(${alias}.v_ms > 0, ${alias}.a${i}, nan) AS l${i}`);
      }
    });
  }
  leaves.forEach((leaf, i) => {
    if (leaf?.op !== 'match') return;
    const left = `v_${leaf.left.entity}.m_${leaf.left.column}`;
    const right = `v_${leaf.right.entity}.m_${leaf.right.column}`;
    const test = {
      equal: () => `${left} = ${right}`,
      contains: () => `has(${left}, ${right})`,
      containsOrEmpty: () => `empty(${left}) OR has(${left}, ${right})`,
    }[leaf.how]();
    select.push(
      `if(v_${leaf.left.entity}.v_ms > 0 AND v_${leaf.right.entity}.v_ms > 0, toFloat64(${test}), nan) AS l${i}`,
    );
  });
  const embedded = new Map<string, { entity: EntityName; centered: boolean }>();
  leaves.forEach((leaf, i) => {
    if (leaf?.op !== 'similarity') return;
    const vectorOf = (entity: EntityName): string => {
      const alias = `${leaf.centered ? 'c' : 'e'}_${entity}`;
      embedded.set(alias, { entity, centered: leaf.centered });
      return `${alias}.vector`;
    };
    const left = vectorOf(leaf.left);
    const right = vectorOf(leaf.right);
    select.push(
      `if(empty(${left}) OR length(${left}) != length(${right}), nan, toFloat64(dotProduct(if(length(${left}) = length(${right}), ${left}, ${right}), ${right}))) AS l${i}`,
    );
  });
  for (const [alias, { entity, centered }] of embedded) {
    joins.push(
      `\nLEFT JOIN (${embeddingSql(options, entity, centered)}) AS ${alias} ON ${alias}.entity_id = s.${ENTITY[entity].id}`,
    );
  }
  leaves.forEach((leaf, i) => {
    if (leaf?.op === 'request') select.push(`toFloat64(s.${REQUEST_COLUMN[leaf.field]}) AS l${i}`);
    if (leaf?.op === 'candidate') select.push(`s.${CANDIDATE_COLUMN[leaf.field]} AS l${i}`);
  });
  return { select, joins };
}

/**
 * Unit vectors of an entity; centred ones have the mean vector of their kind taken away first. What all texts
 * of a kind have in common says nothing about which of them go together, but takes up most of a plain cosine.
 */
export function embeddingSql(
  options: Pick<CompileOptions, 'embeddings'>,
  entity: EntityName,
  centered: boolean,
): string {
  const from = options.embeddings(entity);
  if (!centered) return `SELECT entity_id, vector FROM ${from}`;
  return `SELECT entity_id, arrayMap(x -> toFloat32(x / norm), difference) AS vector FROM (SELECT entity_id, arrayMap((x, m) -> x - m, vector, (SELECT avgForEach(vector) FROM ${from})) AS difference, sqrt(arraySum(x -> x * x, difference)) AS norm FROM ${from})`;
}

/** Running sums: `ordinal` and `l<i>` per aggregate leaf, for spine rows. */
function aggregatesSql(
  options: CompileOptions,
  aggregates: readonly { leaf: Extract<Leaf, { op: 'aggregate' }>; i: number }[],
): string {
  const keys = new Set(aggregates.flatMap(({ leaf }) => leaf.by));
  const windows = [
    ...new Set(
      aggregates.flatMap(({ leaf }) => (leaf.windowDays === null ? [] : [leaf.windowDays])),
    ),
  ];
  const signs = ['g_all', ...windows.map((w) => `g_${windowName(w)}`)];
  const measure = (source: string, name: string) => `m_${source}_${name}`;
  const used = options.set.sources.filter((s) =>
    aggregates.some(({ leaf }) => leaf.source === s.name),
  );
  const measures = used.flatMap((s) =>
    ['count', ...s.measures]
      .filter((m) => aggregates.some(({ leaf }) => leaf.source === s.name && leaf.measure === m))
      .map((m) => ({ source: s.name, name: m, column: measure(s.name, m) })),
  );
  const blank = DERIVED_KEYS.map((k) => `'' AS ${overrideColumn(k)}`).join(', ');
  const facts = used.map((s) => {
    const own = windows.filter((w) =>
      aggregates.some(({ leaf }) => leaf.source === s.name && leaf.windowDays === w),
    );
    // Shift 0 puts the fact in, shift w takes it out of windows of w days.
    const shifts = [0, ...own.map(windowMs)];
    const sign = (window: number | null) =>
      window === null
        ? 'toFloat64(shift = 0)'
        : own.includes(window)
          ? `multiIf(shift = 0, 1., shift = ${windowMs(window)}, -1., 0.)`
          : '0.';
    return `SELECT toUInt64(0) AS ordinal, toInt64(available_ms + shift) AS t_ms, toInt64(event_ms) AS event_ms, publication_id, campaign_id, creative_id, toUInt8(position) AS position, ${blank}, ${[null, ...windows].map((w, i) => `${sign(w)} AS ${signs[i]}`).join(', ')}, ${measures
      .map(
        (m) =>
          `${m.source !== s.name ? '0.' : m.name === 'count' ? '1.' : `round(toFloat64(${m.name}))`} AS ${m.column}`,
      )
      .join(
        ', ',
      )} FROM (${s.sql(options.read)}) ARRAY JOIN [${shifts.map((x) => `toInt64(${x})`).join(', ')}] AS shift WHERE t_ms <= ${options.toMs}`;
  });
  const spineRows = `SELECT ordinal, as_of_ms AS t_ms, as_of_ms AS event_ms, publication_id, campaign_id, creative_id, position, ${DERIVED_KEYS.map(overrideColumn).join(', ')}, ${signs.map((g) => `0. AS ${g}`).join(', ')}, ${measures.map((m) => `0. AS ${m.column}`).join(', ')} FROM (${options.spine})`;
  const carried = ['ordinal', 't_ms', ...signs, ...measures.map((m) => m.column)];
  const keyed = keyedSql(options, [...facts, spineRows].join('\nUNION ALL\n'), keys, carried);
  const frames = new Map<string, string>();
  const frameOf = (by: readonly Key[]): string => {
    const name = by.length === 0 ? 'by_all' : `by_${[...by].sort().join('_')}`;
    const partition =
      by.length === 0 ? '' : `PARTITION BY ${[...by].sort().map(keyColumn).join(', ')} `;
    frames.set(
      name,
      `${name} AS (${partition}ORDER BY t_ms RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)`,
    );
    return name;
  };
  const columns = aggregates.map(({ leaf, i }) => {
    const present = leaf.by.map((k) => `${keyColumn(k)} != ''`).join(' AND ') || '1';
    const m = measure(leaf.source, leaf.measure);
    const frame = frameOf(leaf.by);
    if (leaf.stat === 'last') {
      return `if(${present} AND (max(if(${m} > 0 AND g_all > 0, t_ms, 0)) OVER ${frame}) > 0, toFloat64(max(if(${m} > 0 AND g_all > 0, t_ms, 0)) OVER ${frame}), nan) AS l${i}`;
    }
    const sign = leaf.windowDays === null ? 'g_all' : `g_${windowName(leaf.windowDays)}`;
    return `if(${present}, sum(${m} * ${sign}) OVER ${frame}, 0.) AS l${i}`;
  });
  return `SELECT * FROM (SELECT ordinal, ${columns.join(',\n  ')}\nFROM (${keyed})\nWINDOW ${[...frames.values()].join(',\n  ')}) WHERE ordinal > 0`;
}

const windowMs = (days: number): number => Math.max(1, Math.round(days * DAY_MS));
const windowName = (days: number): string => String(windowMs(days));

/**
 * Facts of a fit that are available by `lastMs`: `unit` they belong to, `t_ms` they can take part from, successes `n`, trials `d`,
 * offset `o` and `k_<key>` per key of its levels; in an order of their own, so that sums come out the same each time.
 */
export function fitFactsSql(options: CompileOptions, fit: EffectFit, lastMs: number): string {
  const source = options.set.sources.find((s) => s.name === fit.source)!;
  const context = new Set(source.context ?? []);
  const has = (column: string) => (context.has(column) ? `toFloat64(${column})` : 'nan');
  const facts = `SELECT ${source.unit === undefined ? "''" : source.unit} AS unit, toInt64(event_ms) AS event_ms, toInt64(available_ms) AS t_ms, toInt64(event_ms) AS ts_ms, publication_id, campaign_id, creative_id, toUInt8(position) AS position, ${['n_ads', 'menu_size', 'lead_ms', 'price_micros', 'est_payout_micros', 'rank'].map((c) => `${has(c)} AS ${c}`).join(', ')}, toFloat64(${fit.successes}) AS n, toFloat64(${fit.trials}) AS d FROM (${source.sql(options.read)}) WHERE t_ms <= ${lastMs} AND d > 0`;
  const described =
    fit.offset === undefined
      ? { select: [], joins: [] }
      : describedLeaves(options, offsetLeaves(fit.offset), 'event_ms');
  const carried = ['unit', 't_ms', 'n', 'd'];
  const rows = `SELECT ${[...carried, 'event_ms', ...SPINE_ID_COLUMNS, 'position'].map((c) => `s.${c} AS ${c}`).join(', ')}, ${DERIVED_KEYS.map((k) => `'' AS ${overrideColumn(k)}`).join(', ')}${described.select.map((c) => `, ${c}`).join('')} FROM (${facts}) AS s${described.joins.join('')}`;
  const keys = new Set(fit.levels.flatMap((l) => l.by));
  const keyed = keyedSql(
    options,
    `SELECT *, ${offsetSql(options, fit)} AS o FROM (${rows})`,
    keys,
    [...carried, 'o'],
  );
  const order = ['t_ms', 'unit', ...KEYS.filter((k) => keys.has(k)).map(keyColumn), 'n', 'd', 'o'];
  return `SELECT * FROM (${keyed}) ORDER BY ${order.join(', ')}`;
}

function offsetSql(options: CompileOptions, fit: EffectFit): string {
  if (fit.offset === undefined) return '0.';
  const leaves = offsetLeaves(fit.offset).map(canonicalJson);
  const sql = expressionSql(
    fit.offset,
    (leaf) => `l${leaves.indexOf(canonicalJson(leaf))}`,
    options.params,
  );
  return `ifNotFinite(${sql}, 0.)`;
}

function offsetLeaves(offset: Expression): Leaf[] {
  const found = new Map<string, Leaf>();
  walk(offset, (node) => {
    if (isLeaf(node)) found.set(canonicalJson(node), node);
  });
  return [...found.values()];
}

/** Keys of every leaf that is looked up by more than one entity: the sparse pair tables of a snapshot. */
export function pairKeySets(
  set: FeatureSet,
  isPair: (keys: readonly Key[]) => boolean,
): (readonly Key[])[] {
  const fits = new Map(set.fits.map((f) => [f.name, f]));
  const found = new Map<string, readonly Key[]>();
  for (const leaf of set.leaves) {
    const by = leafKeysBy(leaf, fits);
    if (by !== undefined && isPair(by)) found.set([...by].sort().join('*'), [...by].sort());
  }
  return [...found.values()];
}
