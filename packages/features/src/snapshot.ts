import {
  type Column,
  type ColumnTable,
  decodeColumns,
  encodeColumns,
  numericColumn,
  type StringColumn,
  type StringListColumn,
  stringAt,
  stringColumn,
  stringData,
  stringListColumn,
  stringsAt,
} from '@waggle/core';
import {
  type CompileOptions,
  DERIVED_KEYS,
  keyColumn,
  observedKeysSql,
  pairKeySets,
  spineSql,
} from './compile-sql.js';
import { type FeatureSet, keyDependency, leafKeysBy, resolveParams } from './definition.js';
import { featuresError } from './errors.js';
import {
  type AttributeRef,
  canonicalJson,
  type EntityName,
  KEYS,
  type Key,
  type Leaf,
} from './expression.js';
import {
  compileOptions,
  embeddingsOf,
  type FeatureStore,
  latestEmbeddingModel,
  QUERY_SETTINGS,
} from './feature-store.js';
import { computeLeaves } from './leaves.js';

/** Where a leaf's values are stored: by entity row, by position, once, or by observed combination of keys. */
export type Home =
  | 'global'
  | 'publication'
  | 'campaign'
  | 'creative'
  | 'position'
  | `pair:${string}`;

/** Entity rows in catalog order; a row number below is an index into these. */
export interface SnapshotIds {
  readonly publications: readonly string[];
  readonly campaigns: readonly string[];
  readonly creatives: readonly string[];
  readonly advertisers?: readonly string[];
}

/**
 * Everything that online evaluation needs about the past, as of one time. `tables.publication` etc. have one
 * row per id in catalog order and a float64 column per leaf (named by `leafColumn`), `key:<key>` string columns
 * and `text:<column>` columns for comparisons; `pair:<a>*<b>` tables hold observed combinations only.
 */
export interface FeatureSnapshot {
  readonly asOfMs: number;
  readonly tenantId: string;
  readonly embeddingModel: string;
  /** Fingerprint and parameters by set name. */
  readonly sets: Readonly<
    Record<
      string,
      { readonly fingerprint: string; readonly params: Readonly<Record<string, number>> }
    >
  >;
  readonly tables: Readonly<Record<string, ColumnTable>>;
}

const SNAPSHOT_VERSION = 1;
const ENTITIES = ['publication', 'campaign', 'creative'] as const;
const LAST_POSITION = 16;

/** Column of a leaf in its home table. Leaves of fits differ between sets that name them alike, so they carry the set. */
export function leafColumn(set: FeatureSet, leaf: Leaf): string {
  return leaf.op === 'effect' ? `${set.name}:${canonicalJson(leaf)}` : canonicalJson(leaf);
}

export function pairHome(keys: readonly Key[]): Home {
  return `pair:${[...keys].sort().join('*')}`;
}

/** Home of a leaf that is stored; undefined for one that is computed from the request, texts or embeddings. */
export function homeOf(set: FeatureSet, leaf: Leaf): Home | undefined {
  if (leaf.op === 'attribute') return leaf.ref.entity;
  const by = leafKeysBy(leaf, new Map(set.fits.map((f) => [f.name, f])));
  return by === undefined ? undefined : homeOfKeys(by);
}

function homeOfKeys(by: readonly Key[]): Home {
  const kinds = new Set(by.map(keyDependency));
  if (kinds.size === 0) return 'global';
  if (kinds.size > 1) return pairHome(by);
  const [kind] = kinds;
  return kind === 'request' ? 'position' : (kind as EntityName);
}

/** What an absent entity or combination has: no facts, no effect, unknown attributes. */
export function absentValue(leaf: Leaf): number {
  if (leaf.op === 'attribute') return Number.NaN;
  if (leaf.op === 'aggregate' && leaf.stat === 'last') return Number.NaN;
  return 0;
}

export interface SnapshotOptions {
  readonly tenantId: string;
  readonly asOfMs: number;
  /** Attributes of entities as they stood then, though events end before; UTC ms. @default asOfMs */
  readonly entitiesAsOfMs?: number;
  readonly ids: SnapshotIds;
  /** Parameters by set name. */
  readonly params?: Readonly<Record<string, Readonly<Record<string, number>>>>;
  readonly embeddingModel?: string;
  readonly signal?: AbortSignal;
}

const SECTION_STEP = 1e12;

/**
 * Computes all stored leaves as training does, over a spine that names every entity, every
 * position and every combination that facts have shown. Cost: one pass over the tenant's events per set.
 */
export async function buildSnapshot(
  store: FeatureStore,
  sets: readonly FeatureSet[],
  options: SnapshotOptions,
): Promise<FeatureSnapshot> {
  const { asOfMs, entitiesAsOfMs = asOfMs, tenantId, ids } = options;
  const embeddingModel =
    options.embeddingModel ?? (await latestEmbeddingModel(store, tenantId, options.signal));
  const query = {
    params: { tenant_id: tenantId, embedding_model: embeddingModel },
    settings: QUERY_SETTINGS,
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  };
  const tables: Record<string, { nRows: number; columns: Record<string, Column> }> = {
    global: { nRows: 1, columns: {} },
    position: { nRows: LAST_POSITION + 1, columns: {} },
  };
  const rowOf = {
    publication: ordinals(ids.publications),
    campaign: ordinals(ids.campaigns),
    creative: ordinals(ids.creatives),
  };
  const idsOf = { publication: ids.publications, campaign: ids.campaigns, creative: ids.creatives };
  for (const entity of ENTITIES) {
    tables[entity] = {
      nRows: idsOf[entity].length,
      columns: { id: stringColumn(idsOf[entity]) },
    };
  }
  for (const set of sets) {
    const params = resolveParams(set, options.params?.[set.name]);
    const request = {
      params,
      spine: '',
      fromMs: asOfMs,
      toMs: asOfMs,
      embeddingModel,
      untilMs: asOfMs,
      entitiesUntilMs: entitiesAsOfMs,
    };
    const pairs = pairKeySets(set, (keys) => homeOfKeys(keys).startsWith('pair:'));
    const compile = compileOptions(set, request);
    const spine = snapshotSpineSql(compile, pairs, asOfMs);
    const stored = (leaf: Leaf) => homeOf(set, leaf) !== undefined;
    const leaves = await computeLeaves(store, { ...compile, spine }, query, stored);
    const { keys } = leaves;
    const sectionRows = splitSections(leaves.ordinal);

    const sections: { home: Home; section: number; target: (row: number) => number }[] = [
      { home: 'global', section: 0, target: () => 0 },
      { home: 'position', section: 1, target: (row) => Number(stringAt(keys.position, row)) },
      ...ENTITIES.map((entity, i) => ({
        home: entity as Home,
        section: 2 + i,
        target: (row: number) => rowOf[entity].get(stringAt(keys[entity], row)) ?? -1,
      })),
    ];
    pairs.forEach((by, i) => {
      const home = pairHome(by);
      const rows = sectionRows.get(5 + i) ?? [];
      const existing = tables[home];
      // Two sets may share a pair table; the rows of both are kept, looked up by key.
      const index = new Map<string, number>();
      const keyRows: string[][] = [];
      const keyOf = (values: readonly string[]) => JSON.stringify(values);
      if (existing !== undefined) {
        const columns = by.map((key) => stringData({ ...existing, meta: {} }, `key:${key}`));
        for (let r = 0; r < existing.nRows; r++) {
          const values = columns.map((c) => stringAt(c, r));
          index.set(keyOf(values), r);
          keyRows.push(values);
        }
      }
      const targets = new Map<number, number>();
      for (const row of rows) {
        const values = by.map((key) => stringAt(keys[key], row));
        let at = index.get(keyOf(values));
        if (at === undefined) {
          at = keyRows.length;
          index.set(keyOf(values), at);
          keyRows.push(values);
        }
        targets.set(row, at);
      }
      const columns: Record<string, Column> = {};
      by.forEach((key, k) => {
        columns[`key:${key}`] = stringColumn(keyRows.map((values) => values[k]!));
      });
      for (const [name, column] of Object.entries(existing?.columns ?? {})) {
        if (column.kind !== 'numeric') continue;
        const leaf = leafOfColumn(sets, name);
        const grown = new Float64Array(keyRows.length).fill(
          leaf === undefined ? 0 : absentValue(leaf),
        );
        grown.set(column.data as Float64Array);
        columns[name] = numericColumn('f64', grown);
      }
      tables[home] = { nRows: keyRows.length, columns };
      sections.push({ home, section: 5 + i, target: (row) => targets.get(row) ?? -1 });
    });

    for (const { home, section, target } of sections) {
      const table = tables[home]!;
      const rows = sectionRows.get(section) ?? [];
      const to = Int32Array.from(rows, target);
      set.leaves.forEach((leaf, i) => {
        if (homeOf(set, leaf) !== home) return;
        const values = leaves.values[i]!;
        const data = new Float64Array(table.nRows).fill(absentValue(leaf));
        for (let j = 0; j < rows.length; j++) if (to[j]! >= 0) data[to[j]!] = values[rows[j]!]!;
        table.columns[leafColumn(set, leaf)] = numericColumn('f64', data);
      });
      // The keys that entities resolve to, so that pair tables can be looked up by row.
      if (home === 'publication' || home === 'campaign') {
        for (const key of DERIVED_KEYS) {
          if (keyDependency(key) !== home) continue;
          const values = new Array<string>(table.nRows).fill('');
          for (let j = 0; j < rows.length; j++) {
            if (to[j]! >= 0) values[to[j]!] = stringAt(keys[key], rows[j]!);
          }
          table.columns[`key:${key}`] = stringColumn(values);
        }
      }
    }
  }
  await addMeans(store, sets, { ...query, tables });
  await addTexts(store, sets, { ...query, entitiesAsOfMs, rowOf, tables });
  return {
    asOfMs,
    tenantId,
    embeddingModel,
    sets: Object.fromEntries(
      sets.map((set) => [
        set.name,
        { fingerprint: set.fingerprint, params: resolveParams(set, options.params?.[set.name]) },
      ]),
    ),
    tables: Object.fromEntries(
      Object.entries(tables).map(([name, t]) => [name, { ...t, meta: { kind: name } }]),
    ),
  };
}

function leafOfColumn(sets: readonly FeatureSet[], name: string): Leaf | undefined {
  for (const set of sets) {
    const found = set.leaves.find((leaf) => leafColumn(set, leaf) === name);
    if (found !== undefined) return found;
  }
  return undefined;
}

function ordinals(ids: readonly string[]): Map<string, number> {
  return new Map(ids.map((id, i) => [id, i]));
}

function splitSections(ordinal: ArrayLike<number>): Map<number, number[]> {
  const rows = new Map<number, number[]>();
  for (let i = 0; i < ordinal.length; i++) {
    const section = Math.floor((ordinal[i]! - 1) / SECTION_STEP);
    const list = rows.get(section);
    if (list === undefined) rows.set(section, [i]);
    else list.push(i);
  }
  return rows;
}

/** Sections in order: the whole, positions, publications, campaigns, creatives, then one per pair key set. */
export function snapshotSpineSql(
  compile: CompileOptions,
  pairs: readonly (readonly Key[])[],
  asOfMs: number,
): string {
  const ordinal = (section: number | string, order: string) =>
    `toUInt64(${section}) * ${SECTION_STEP} + row_number() OVER (ORDER BY ${order})`;
  const at = { as_of_ms: String(asOfMs) };
  const parts = [
    spineSql({ ...at, ordinal: '1' }, 'system.one'),
    spineSql(
      { ...at, ordinal: `${SECTION_STEP} + number`, position: 'number' },
      `numbers(1, ${LAST_POSITION})`,
    ),
  ];
  ENTITIES.forEach((entity, i) => {
    const id = `${entity}_id`;
    parts.push(
      spineSql(
        { ...at, ordinal: ordinal(2 + i, id), [id]: id },
        // Also those that came later: nothing is known of them but their texts.
        `(SELECT DISTINCT ${id} FROM ${entity}s WHERE tenant_id = {tenant_id:String})`,
      ),
    );
  });
  if (pairs.length > 0) {
    const all = KEYS.filter((key) => pairs.some((by) => by.includes(key)));
    const column = (key: Key) => (all.includes(key) ? keyColumn(key) : "''");
    const section = `multiIf(${pairs
      .map(
        (by, i) =>
          `${all.map((key) => `${keyColumn(key)} ${by.includes(key) ? '!=' : '='} ''`).join(' AND ')}, ${5 + i}`,
      )
      .join(', ')}, 0)`;
    const columns: Record<string, string> = {
      ...at,
      ordinal: ordinal('section', all.map(keyColumn).join(', ')),
      publication_id: column('publication'),
      campaign_id: column('campaign'),
      creative_id: column('creative'),
      position: `toUInt8OrZero(${column('position')})`,
    };
    for (const key of DERIVED_KEYS) columns[`o_${key}`] = column(key);
    parts.push(
      spineSql(
        columns,
        `(SELECT *, ${section} AS section FROM (${observedKeysSql(compile, pairs, asOfMs)}) WHERE section > 0)`,
      ),
    );
  }
  return parts.join('\nUNION ALL\n');
}

/** Adds `mean:<entity>` [1 × dim] for similarities that are centred. */
async function addMeans(
  store: FeatureStore,
  sets: readonly FeatureSet[],
  o: {
    readonly params: Record<string, unknown>;
    readonly settings: Record<string, string | number>;
    readonly signal?: AbortSignal;
    readonly tables: Record<string, { nRows: number; columns: Record<string, Column> }>;
  },
): Promise<void> {
  const { tables, ...query } = o;
  const entities = new Set(
    sets.flatMap((set) =>
      set.leaves.flatMap((leaf) =>
        leaf.op === 'similarity' && leaf.centered ? [leaf.left, leaf.right] : [],
      ),
    ),
  );
  for (const entity of entities) {
    const result = await store.queryColumns(
      `SELECT avgForEach(vector) AS mean FROM ${embeddingsOf(entity)} HAVING count() > 0`,
      query,
    );
    const mean = result.columns['mean'];
    if (result.nRows === 0 || mean?.kind !== 'numeric') continue;
    tables['global']!.columns[`mean:${entity}`] = numericColumn(
      'f64',
      Float64Array.from(mean.data as Float64Array),
      mean.width,
    );
  }
}

/** Adds the strings that `match` compares: `text:<column>` per entity, '' or [] where unknown. */
async function addTexts(
  store: FeatureStore,
  sets: readonly FeatureSet[],
  o: {
    readonly params: Record<string, unknown>;
    readonly settings: Record<string, string | number>;
    readonly signal?: AbortSignal;
    readonly entitiesAsOfMs: number;
    readonly rowOf: Readonly<Record<EntityName, Map<string, number>>>;
    readonly tables: Record<string, { nRows: number; columns: Record<string, Column> }>;
  },
): Promise<void> {
  for (const entity of ENTITIES) {
    const refs = new Map<string, 'one' | 'many'>();
    for (const set of sets) {
      for (const leaf of set.leaves) {
        if (leaf.op !== 'match') continue;
        const add = (ref: AttributeRef, kind: 'one' | 'many') => {
          if (ref.entity === entity) refs.set(ref.column, kind);
        };
        add(leaf.left, leaf.how === 'equal' ? 'one' : 'many');
        add(leaf.right, 'one');
      }
    }
    if (refs.size === 0) continue;
    const table = o.tables[entity]!;
    const columns = [...refs].map(([name, kind]) =>
      kind === 'one'
        ? `toString(${name}) AS t_${name}`
        : `arrayMap(x -> toString(x), ${name}) AS t_${name}`,
    );
    const result = await store.queryColumns(
      `SELECT ${entity}_id AS v_id, ${columns.join(', ')} FROM ${entity}s FINAL WHERE tenant_id = {tenant_id:String} AND toUnixTimestamp64Milli(updated_at) <= ${o.entitiesAsOfMs} ORDER BY v_id, updated_at DESC, version DESC LIMIT 1 BY v_id`,
      {
        params: o.params,
        settings: o.settings,
        ...(o.signal === undefined ? {} : { signal: o.signal }),
      },
    );
    const ids = result.nRows === 0 ? undefined : stringData(result, 'v_id');
    const known = new Float64Array(table.nRows);
    for (const [name, kind] of refs) {
      const one = new Array<string>(table.nRows).fill('');
      const many = new Array<readonly string[]>(table.nRows).fill([]);
      const column = result.columns[`t_${name}`];
      for (let i = 0; ids !== undefined && i < result.nRows; i++) {
        const row = o.rowOf[entity].get(stringAt(ids, i));
        if (row === undefined) continue;
        known[row] = 1;
        if (kind === 'one') one[row] = stringAt(column as StringColumn, i);
        else many[row] = stringsAt(column as StringListColumn, i);
      }
      table.columns[`text:${name}`] = kind === 'one' ? stringColumn(one) : stringListColumn(many);
    }
    table.columns['known'] = numericColumn('f64', known);
  }
}

/** Files of a release's `features` section: `snapshot.json` and one column file per table. */
export function encodeSnapshot(snapshot: FeatureSnapshot): Record<string, Uint8Array> {
  const names = Object.keys(snapshot.tables).sort();
  const files: Record<string, Uint8Array> = {};
  const fileOf = (name: string) => `snapshot.${name.replace(':', '-').replaceAll('*', '-')}.col`;
  for (const name of names) files[fileOf(name)] = encodeColumns(snapshot.tables[name]!);
  files['snapshot.json'] = new TextEncoder().encode(
    JSON.stringify({
      version: SNAPSHOT_VERSION,
      asOfMs: snapshot.asOfMs,
      tenantId: snapshot.tenantId,
      embeddingModel: snapshot.embeddingModel,
      sets: snapshot.sets,
      tables: Object.fromEntries(names.map((name) => [name, fileOf(name)])),
    }),
  );
  return files;
}

/**
 * Reads what `encodeSnapshot` wrote.
 * @param read bytes of a named file; may throw for one that is absent
 * @throws WAGGLE_FEATURES_SNAPSHOT, WAGGLE_COLUMNS_CORRUPT
 */
export function decodeSnapshot(read: (file: string) => Uint8Array): FeatureSnapshot {
  const corrupt = (why: string, cause?: unknown) =>
    featuresError(
      'WAGGLE_FEATURES_SNAPSHOT',
      `feature snapshot: ${why}`,
      cause === undefined ? {} : { cause },
    );
  let head: {
    version: number;
    asOfMs: number;
    tenantId: string;
    embeddingModel: string;
    sets: FeatureSnapshot['sets'];
    tables: Record<string, string>;
  };
  try {
    head = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(read('snapshot.json')));
  } catch (cause) {
    throw corrupt('snapshot.json cannot be read', cause);
  }
  if (head.version !== SNAPSHOT_VERSION) {
    throw corrupt(`version ${head.version}, this build reads ${SNAPSHOT_VERSION}`);
  }
  if (!Number.isFinite(head.asOfMs) || typeof head.tables !== 'object' || head.tables === null) {
    throw corrupt('snapshot.json lacks its time or its tables');
  }
  const tables: Record<string, ColumnTable> = {};
  for (const [name, file] of Object.entries(head.tables)) tables[name] = decodeColumns(read(file));
  const { asOfMs, tenantId, embeddingModel, sets } = head;
  return { asOfMs, tenantId, embeddingModel, sets, tables };
}
