import {
  type ColumnTable,
  isWaggleError,
  type Logger,
  numericData,
  type StringColumn,
  stringAt,
  stringData,
  stringListData,
  stringsAt,
  WaggleError,
} from '@waggle/core';
import type { Degradation, PricingModel } from '@waggle/core/contract';
import {
  acceptFeatures,
  ctrFeatures,
  decodeSnapshot,
  type FeatureSet,
  OnlineFeatures,
} from '@waggle/features';
import type { Runner } from '@waggle/models';
import { boundedLogit, type HeadModel, OnnxScorer, sigmoid } from '@waggle/ranking';
import type { Release } from '@waggle/releases';
import { EligibilityIndex, ExactIndex, type PublicationRules, SERVABLE } from '@waggle/retrieval';
import type { LedgerShare } from '@waggle/store/ledger';
import { type Duals, parseDuals } from './duals.js';
import { engineError } from './errors.js';
import { Networks, within } from './networks.js';
import { type EnginePolicy, parsePolicy } from './policy.js';
import {
  type ImportedEntry,
  importedEntry,
  namesOf,
  openImported,
  openServedModel,
  type ServedHead,
  type ServedModel,
  sha256Hex,
} from './served-model.js';

export interface LoadDependencies {
  readonly logger: Logger;
  /**
   * Runs the models' ONNX twins once, to see that they are what the release says. Serving itself uses the linear
   * models: a logistic row costs less than the way to a thread. A function is called when there is a twin to run,
   * and its runner closed afterwards. Without a runner only the hashes are compared.
   */
  readonly runner?: Runner | (() => Runner);
  /**
   * Makes the runner that a release's networks live in, when it has some; `RankingRelease.networks` closes it. Without it such a
   * release is refused.
   */
  readonly networkRunner?: () => Runner;
  /** A runner that has not answered for all twins by then counts as unavailable. @default 10 s */
  readonly twinTimeoutMs?: number;
  /** A release whose networks are not open and warm by then is refused. @default 30 s */
  readonly networkTimeoutMs?: number;
}

export const PRICING_CODES = { cpc: 0, cpm: 1, flat: 2 } as const satisfies Record<
  PricingModel,
  number
>;
export const PRICING_NAMES: readonly PricingModel[] = ['cpc', 'cpm', 'flat'];

export interface CampaignColumns {
  readonly n: number;
  /** When budgets and what is spent of them were so, at the earliest when features were; UTC ms. */
  readonly asOfMs: number;
  readonly ids: readonly string[];
  /** Code of the advertiser, int32 [n]. */
  readonly advertiser: Int32Array;
  /** Code of the advertiser's competitor group, int32 [n], −1 for none. */
  readonly competitorGroup: Int32Array;
  readonly nCompetitorGroups: number;
  /** PRICING_CODES, uint8 [n]. */
  readonly pricing: Uint8Array;
  readonly bidMicros: Float64Array;
  readonly budgetMicros: Float64Array;
  readonly dailyBudgetMicros: Float64Array;
  /** Committed before the release was built, by no live ledger. */
  readonly spentMicros: Float64Array;
  /** What live ledgers had committed when the release was built. */
  readonly ledgerShares: readonly (readonly LedgerShare[])[];
  /** 1 where a goal unit is an eligible open, 0 where it is a click. */
  readonly goalOpens: Uint8Array;
  /** Servable creatives of campaign c: creativeRows[creativeOffsets[c] … creativeOffsets[c + 1]). */
  readonly creativeOffsets: Int32Array;
  readonly creativeRows: Int32Array;
  /** ln(p/(1 − p)) of a click on an average publication, for preselection and the deadline's fallback. */
  readonly priorLogit: Float64Array;
  /** Shadow prices; undefined where all are 0. */
  readonly mu: Float32Array | undefined;
  readonly omega: Float32Array | undefined;
}

export interface PublicationColumns {
  readonly n: number;
  readonly ids: readonly string[];
  readonly rowOf: ReadonlyMap<string, number>;
  readonly language: readonly string[];
  readonly rules: readonly PublicationRules[];
  readonly maxAdsPerSend: Float64Array;
  readonly minPayoutMicros: Float64Array;
  readonly deliveredPerSend: Float64Array;
  readonly eligibleOpenRate: Float64Array;
  readonly rho: Float64Array | undefined;
}

/** What a release knows of clicks and of everybody who may run: all of it but p(accept). */
export interface ClickRelease {
  readonly id: string;
  readonly tenantId: string;
  /** Features hold what was known then; a sample network's clock starts here. UTC ms. */
  readonly asOfMs: number;
  readonly policy: Readonly<EnginePolicy>;
  readonly duals: Duals;
  readonly campaigns: CampaignColumns;
  readonly creativeIds: readonly string[];
  readonly publications: PublicationColumns;
  readonly eligibility: EligibilityIndex;
  readonly dim: number;
  readonly publicationVectors: Float32Array;
  readonly campaignVectors: Float32Array;
  readonly similar: ExactIndex;
  readonly pctr: ServedModel;
  /**
   * Where its networks run; undefined when everything is answered on the calling thread. Whoever loaded the release closes them
   * once it is out of service.
   */
  readonly networks: Networks | undefined;
}

/** One release, checked and turned into columns that requests only read. */
export interface RankingRelease extends ClickRelease {
  readonly versions: {
    readonly release: string;
    readonly model: string;
    readonly calibration: string;
    readonly duals: string;
    readonly features_asof: string;
  };
  /** What every answer of this release must admit. */
  readonly degraded: readonly Degradation[];
  readonly accept: ServedModel;
}

/** Publications that the campaigns' average click rate is taken over. */
const PRIOR_SAMPLE = 8;

/**
 * Builds what is served from an opened release, checking that its parts belong together: catalog, snapshot and
 * embeddings row by row, models against the feature sets of this build.
 * @throws WAGGLE_RELEASE_UNSERVABLE (cause: the part's own error), WAGGLE_RELEASE_TWIN_MISMATCH,
 *   WAGGLE_RELEASE_INCOMPLETE, WAGGLE_RELEASE_CORRUPT
 */
export async function loadRankingRelease(
  release: Release,
  deps: LoadDependencies,
): Promise<RankingRelease> {
  return opened(release, deps, ['pctr', 'accept'], async (parts, inTime) =>
    checkTwins(release, await inTime(loadAll(parts, deps.logger)), deps),
  );
}

/**
 * As `loadRankingRelease`, for who asks about clicks alone: p(accept) is not opened and its features need not be there, nor is
 * pCTR's twin compared.
 * @throws as `loadRankingRelease`
 */
export async function loadClickRelease(
  release: Release,
  deps: Pick<LoadDependencies, 'logger' | 'networkRunner' | 'networkTimeoutMs'>,
): Promise<ClickRelease> {
  return opened(release, deps, ['pctr'], async (parts, inTime) => {
    const { clicks } = await inTime(loadClicks(parts));
    return clicks;
  });
}

/** A release, the models of other tools in it and where their networks run. */
interface OpenParts {
  readonly release: Release;
  readonly entries: Readonly<Partial<Record<ModelName, ImportedEntry | undefined>>>;
  readonly networks: Networks | undefined;
}

type ModelName = HeadModel['name'] & ('pctr' | 'accept');

/**
 * Opens what loading needs, and closes it again when that fails.
 * @param load is given what bounds the time of work that waits for networks
 */
async function opened<T>(
  release: Release,
  deps: LoadDependencies,
  names: readonly ModelName[],
  load: (parts: OpenParts, inTime: <V>(loading: Promise<V>) => Promise<V>) => Promise<T>,
): Promise<T> {
  let networks: Networks | undefined;
  try {
    const entries = Object.fromEntries(names.map((name) => [name, importedEntry(release, name)]));
    const hasNetworks = Object.values(entries).some(
      (entry) => entry?.contract.tensors !== undefined,
    );
    if (hasNetworks && deps.networkRunner !== undefined) {
      networks = new Networks(deps.networkRunner(), deps.logger);
    }
    const timeMs = deps.networkTimeoutMs ?? NETWORK_TIMEOUT_MS;
    return await load({ release, entries, networks }, async (loading) => {
      const loaded = await within(hasNetworks ? timeMs : Number.POSITIVE_INFINITY, loading);
      if (loaded !== undefined) return loaded.value;
      loading.catch(() => {});
      throw new Error(`its networks have not answered within ${timeMs} ms`);
    });
  } catch (cause) {
    // What hangs is left behind.
    networks?.close().catch((err) => deps.logger.debug({ err }, 'networks did not close'));
    if (cause instanceof WaggleError && /^WAGGLE_RELEASE_/.test(cause.code)) throw cause;
    throw engineError(
      'WAGGLE_RELEASE_UNSERVABLE',
      `release ${release.id}: ${cause instanceof Error ? cause.message : String(cause)}`,
      { cause, details: { release: release.id } },
    );
  }
}

/** What is served of clicks, with what opens a further model on the same features and vectors. */
interface LoadedClicks {
  readonly clicks: ClickRelease;
  readonly served: (name: ModelName, set: FeatureSet) => Promise<ServedModel>;
  readonly embedder: string;
  /** The vectors are a stand-in's. */
  readonly hashed: boolean;
}

async function loadClicks({ release, entries, networks }: OpenParts): Promise<LoadedClicks> {
  const unservable = (why: string) =>
    engineError('WAGGLE_RELEASE_UNSERVABLE', `release ${release.id}: ${why}`, {
      details: { release: release.id },
    });
  const publicationTable = release.table('catalog', 'publications.col');
  const campaignTable = release.table('catalog', 'campaigns.col');
  const creativeTable = release.table('catalog', 'creatives.col');
  const advertiserTable = release.table('catalog', 'advertisers.col');
  const tenantId = campaignTable.meta['tenant_id'];
  if (typeof tenantId !== 'string') throw unservable('the catalog does not say whose it is');

  const snapshot = decodeSnapshot((file) => release.read('features', file));
  if (snapshot.tenantId !== tenantId) {
    throw unservable(`catalog of ${tenantId}, features of ${snapshot.tenantId}`);
  }
  const tables = {
    publication: publicationTable,
    campaign: campaignTable,
    creative: creativeTable,
  };
  let dim = 0;
  let embedder = '';
  let hashed = false;
  const vectors = (kind: keyof typeof tables): Float32Array => {
    const table = release.table('embeddings', `${kind}.col`);
    const column = table.columns['vector'];
    if (column?.kind !== 'numeric' || column.dtype !== 'f32') {
      throw unservable(`embeddings/${kind}.col has no float32 column "vector"`);
    }
    if (dim !== 0 && dim !== column.width) {
      throw unservable(`embeddings have ${dim} and ${column.width} dimensions`);
    }
    dim = column.width;
    if (table.nRows !== tables[kind].nRows) {
      throw unservable(
        `${table.nRows} ${kind} embeddings for ${tables[kind].nRows} in the catalog`,
      );
    }
    embedder = String(table.meta['model'] ?? '');
    hashed ||= table.meta['degraded'] === 'hashed_embedder' || embedder.startsWith('hashed-');
    const data = column.data as Float32Array;
    for (let i = 0; i < data.length; i++) {
      if (!Number.isFinite(data[i]))
        throw unservable(`${kind} embedding ${Math.floor(i / dim)} is not a number`);
    }
    return data;
  };
  const embeddings = {
    publication: vectors('publication'),
    campaign: vectors('campaign'),
    creative: vectors('creative'),
    dim,
  };
  for (const kind of ['publication', 'campaign', 'creative'] as const) {
    const rows = snapshot.tables[kind]?.columns['id'];
    const ids = stringData(tables[kind], `${kind}_id`);
    if (rows?.kind !== 'string' || rows.codes.length !== ids.codes.length) {
      throw unservable(`the snapshot's ${kind} rows are not the catalog's`);
    }
    for (let r = 0; r < ids.codes.length; r++) {
      if (stringAt(rows, r) !== stringAt(ids, r)) {
        throw unservable(
          `row ${r} is ${kind} ${stringAt(ids, r)} in the catalog, ${stringAt(rows, r)} in the snapshot`,
        );
      }
    }
  }

  const served = async (name: ModelName, set: FeatureSet): Promise<ServedModel> => {
    const entry = entries[name];
    return openServedModel(
      {
        json: release.json('models', `${name}.json`),
        imported: entry && {
          scorer: await openImported(release, name, entry, set, networks),
          selection: entry.selection,
        },
        trees: () => release.read('models', `${name}.trees`),
        online: () => new OnlineFeatures(set, snapshot, embeddings),
      },
      `${name}.json`,
      name,
      set,
      unservable,
    );
  };
  const pctr = await served('pctr', ctrFeatures);

  const policy = parsePolicy(release.json('engine', 'policy.json'));
  const duals = parseDuals(release.json('duals', 'duals.json'));
  const publications = publicationColumns(publicationTable, duals);
  const eligibility = new EligibilityIndex({
    campaigns: campaignTable,
    advertisers: advertiserTable,
    creatives: creativeTable,
  });
  const knownAsOfMs = campaignTable.meta['as_of_ms'];
  const campaigns = await campaignColumns({
    asOfMs: Math.max(snapshot.asOfMs, typeof knownAsOfMs === 'number' ? knownAsOfMs : 0),
    campaignTable,
    creativeTable,
    advertiserTable,
    eligibility,
    duals,
    priorLogits: (c) => averageLogits(pctr, c, publications.n, snapshot.asOfMs),
  });
  const clicks: ClickRelease = {
    id: release.id,
    tenantId,
    asOfMs: snapshot.asOfMs,
    policy,
    duals,
    campaigns,
    creativeIds: texts(creativeTable, 'creative_id'),
    publications,
    eligibility,
    dim,
    publicationVectors: embeddings.publication,
    campaignVectors: embeddings.campaign,
    similar: new ExactIndex(embeddings.campaign, dim),
    pctr,
    networks,
  };
  return { clicks, served, embedder, hashed };
}

async function loadAll(parts: OpenParts, logger: Logger): Promise<RankingRelease> {
  const { clicks, served, embedder, hashed } = await loadClicks(parts);
  const { pctr } = clicks;
  const accept = await served('accept', acceptFeatures);
  const degraded: Degradation[] = [];
  const priorOnly = ({ model, imported }: ServedModel) => imported === undefined && model.priorOnly;
  if (priorOnly(pctr) || priorOnly(accept)) degraded.push('prior_only_model');
  if (Object.values(parts.entries).some((entry) => entry?.gated === false))
    degraded.push('ungated_model');
  const names = { pctr: namesOf(pctr), accept: namesOf(accept) };
  if (hashed) degraded.push('hashed_embedder');
  logger.info(
    {
      release: clicks.id,
      publications: clicks.publications.n,
      campaigns: clicks.campaigns.n,
      model: names.pctr.version,
      embedder,
      degraded,
    },
    'release loaded',
  );
  return {
    ...clicks,
    versions: {
      release: clicks.id,
      model: `${names.pctr.version}+${names.accept.version}`,
      calibration: `${names.pctr.calibration}+${names.accept.calibration}`,
      duals: clicks.duals.version,
      features_asof: new Date(clicks.asOfMs).toISOString(),
    },
    degraded,
    accept,
  };
}

/** float32 sums of some 60 terms, on the logits of features that can be large, against double ones. */
const TWIN_TOLERANCE = 1e-4;
/** Rows that a model and its twin are compared on: so many campaigns for each of so many publications. */
const TWIN_CAMPAIGNS = 12;
const TWIN_PUBLICATIONS = 4;
const TWIN_TIMEOUT_MS = 10_000;
const NETWORK_TIMEOUT_MS = 30_000;

/**
 * Compares each model with its ONNX twin: by hash, and by answers when there is a runner. A twin that answers
 * differently means that one of the two is not the model that passed its gate. Models that are nothing but the prior
 * have no twin, and there is nothing to compare.
 * @throws WAGGLE_RELEASE_TWIN_MISMATCH
 */
async function checkTwins(
  release: Release,
  loaded: RankingRelease,
  deps: LoadDependencies,
): Promise<RankingRelease> {
  const twins: { served: ServedHead; bytes: Uint8Array }[] = [];
  for (const served of [loaded.pctr, loaded.accept]) {
    if (served.network !== undefined) continue;
    const { model, imported } = served;
    // Where an imported model answers, the examples of its contract have been compared, and the twin is nobody's.
    if (model.onnxSha256 === undefined || imported !== undefined) continue;
    const file = `${model.name}.onnx`;
    const bytes = release.read('models', file);
    if (sha256Hex(bytes) !== model.onnxSha256) {
      throw twinError(release, `models/${file} is not the twin of ${model.version}`);
    }
    twins.push({ served, bytes });
  }
  const { logger } = deps;
  if (twins.length === 0 || deps.runner === undefined) return loaded;
  const own = typeof deps.runner === 'function';
  const runner = typeof deps.runner === 'function' ? deps.runner() : deps.runner;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(resolve, deps.twinTimeoutMs ?? TWIN_TIMEOUT_MS, false);
  });
  try {
    for (const { served, bytes } of twins) {
      const answers = answersOf(runner, served, bytes, twinRows(loaded, served));
      const differs = await Promise.race([answers, late]);
      if (differs === false) {
        answers.catch(() => {});
        throw new Error('the ONNX runner has not answered in time');
      }
      if (differs !== undefined) {
        throw twinError(release, `models/${served.model.name}.onnx ${differs}`);
      }
    }
    logger.debug(
      { release: release.id, twins: twins.length },
      'ONNX twins answer as the models do',
    );
    return loaded;
  } catch (cause) {
    if (isWaggleError(cause)) {
      if (cause.code === 'WAGGLE_RELEASE_TWIN_MISMATCH') throw cause;
      if (/^WAGGLE_(MODEL_(?!RUN)|RANKING)/.test(cause.code)) {
        throw twinError(release, cause.message, cause);
      }
    }
    logger.warn(
      { err: cause, release: release.id },
      'the ONNX runner does not answer; linear models serve',
    );
    return { ...loaded, degraded: [...loaded.degraded, 'onnx_unavailable'] };
  } finally {
    clearTimeout(timer);
    // Its threads may still be busy with what came too late: nobody waits for them.
    if (own) runner.close().catch((err) => logger.debug({ err }, 'the ONNX runner did not close'));
  }
}

/** @returns how the twin differs, or undefined when it does not */
async function answersOf(
  runner: Runner,
  { model, scoreRows, features }: ServedHead,
  bytes: Uint8Array,
  x: Float32Array,
): Promise<string | undefined> {
  const n = x.length / features.nFeatures;
  const twin = await OnnxScorer.open(runner, model, bytes);
  const answers = await twin.score(x, n);
  const expected = scoreRows(x, n);
  for (let i = 0; i < n; i++) {
    if (Math.abs(answers[i]! - expected[i]!) > TWIN_TOLERANCE) {
      return `answers ${answers[i]}, ${model.version} ${expected[i]}`;
    }
  }
  return undefined;
}

/** Feature rows spread over the release's publications and campaigns; float32 [n × nFeatures]. */
function twinRows(loaded: RankingRelease, { features }: ServedHead): Float32Array {
  const { campaigns, publications } = loaded;
  const nPublications = Math.min(TWIN_PUBLICATIONS, publications.n);
  const n = Math.min(TWIN_CAMPAIGNS, campaigns.n);
  const x = new Float32Array(nPublications * n * features.nFeatures);
  for (let p = 0; p < nPublications; p++) {
    // Other campaigns for each publication.
    const rows = Int32Array.from({ length: n }, (_, i) =>
      Math.floor(((i + p / nPublications) * campaigns.n) / n),
    );
    const creatives = rows.map((c) => campaigns.creativeRows[campaigns.creativeOffsets[c]!] ?? -1);
    features.evaluate(
      {
        publicationRow: Math.floor((p * publications.n) / nPublications),
        tsMs: loaded.asOfMs,
        position: 1 + p,
        nAds: 1 + p,
        menuSize: 10,
        priceMicros: Float64Array.from(rows, (c) => campaigns.bidMicros[c]!),
        estPayoutMicros: new Float64Array(n).fill(10_000_000),
        rank: new Float64Array(n).fill(1 + p),
      },
      rows,
      creatives,
      x.subarray(p * n * features.nFeatures),
    );
  }
  return x;
}

function twinError(release: Release, why: string, cause?: unknown): Error {
  return engineError('WAGGLE_RELEASE_TWIN_MISMATCH', `release ${release.id}: ${why}`, {
    ...(cause === undefined ? {} : { cause }),
    details: { release: release.id },
  });
}

/** What the ledger must know before a release is served; the ledger ignores it where it knows newer figures. */
export function* ledgerBudgets(release: RankingRelease): Generator<{
  campaignId: string;
  budgetMicros: number;
  dailyBudgetMicros: number;
  spentMicros: number;
  ledgers: readonly LedgerShare[];
  asOfMs: number;
}> {
  const { campaigns } = release;
  for (let r = 0; r < campaigns.n; r++) {
    yield {
      campaignId: campaigns.ids[r]!,
      budgetMicros: campaigns.budgetMicros[r]!,
      dailyBudgetMicros: campaigns.dailyBudgetMicros[r]!,
      spentMicros: campaigns.spentMicros[r]!,
      ledgers: campaigns.ledgerShares[r]!,
      asOfMs: campaigns.asOfMs,
    };
  }
}

function publicationColumns(table: ColumnTable, duals: Duals): PublicationColumns {
  const ids = texts(table, 'publication_id');
  const status = stringData(table, 'status');
  const category = stringData(table, 'category');
  const allowed = stringListData(table, 'allowed_categories');
  const blocked = stringListData(table, 'blocked_categories');
  const advertisers = stringListData(table, 'blocked_advertisers');
  return {
    n: table.nRows,
    ids,
    rowOf: new Map(ids.map((id, row) => [id, row])),
    language: texts(table, 'language'),
    rules: ids.map((_, row) => ({
      status: stringAt(status, row),
      category: stringAt(category, row),
      allowedCategories: stringsAt(allowed, row),
      blockedCategories: stringsAt(blocked, row),
      blockedAdvertisers: stringsAt(advertisers, row),
    })),
    maxAdsPerSend: numericData(table, 'max_ads_per_send', 'f64'),
    minPayoutMicros: numericData(table, 'min_payout_micros', 'f64'),
    deliveredPerSend: numericData(table, 'delivered_per_send', 'f64'),
    eligibleOpenRate: numericData(table, 'eligible_open_rate', 'f64'),
    rho: prices(ids, duals.rho),
  };
}

async function campaignColumns(o: {
  asOfMs: number;
  campaignTable: ColumnTable;
  creativeTable: ColumnTable;
  advertiserTable: ColumnTable;
  eligibility: EligibilityIndex;
  duals: Duals;
  priorLogits: (pairs: {
    campaignRows: Int32Array;
    creativeRows: Int32Array;
  }) => Promise<Float64Array>;
}): Promise<CampaignColumns> {
  const { campaignTable, creativeTable, advertiserTable, eligibility, duals } = o;
  const n = campaignTable.nRows;
  const ids = texts(campaignTable, 'campaign_id');
  const groupColumn = stringData(advertiserTable, 'competitor_group');
  const groupCodes = groupColumn.dictionary.filter((group) => group !== '');
  const groupOf = new Map<string, number>();
  texts(advertiserTable, 'advertiser_id').forEach((id, row) => {
    groupOf.set(id, groupCodes.indexOf(stringAt(groupColumn, row)));
  });
  const advertiserColumn = stringData(campaignTable, 'advertiser_id');
  const groupByCode = advertiserColumn.dictionary.map((id) => groupOf.get(id) ?? -1);
  const pricingColumn = stringData(campaignTable, 'pricing');
  const pricingByCode = pricingColumn.dictionary.map((name) => {
    const code = PRICING_CODES[name as PricingModel];
    if (code === undefined)
      throw engineError('WAGGLE_RELEASE_UNSERVABLE', `unknown pricing ${name}`);
    return code;
  });
  const goal = stringData(campaignTable, 'goal');

  const creativesOf: number[][] = Array.from({ length: n }, () => []);
  const creativeStatus = stringData(creativeTable, 'status');
  const creativeCampaign = stringData(creativeTable, 'campaign_id');
  for (let r = 0; r < creativeTable.nRows; r++) {
    if (!(SERVABLE.creative as readonly string[]).includes(stringAt(creativeStatus, r))) continue;
    const row = eligibility.rowOf(stringAt(creativeCampaign, r));
    if (row !== undefined) creativesOf[row]!.push(r);
  }
  const creativeOffsets = new Int32Array(n + 1);
  for (let r = 0; r < n; r++) creativeOffsets[r + 1] = creativeOffsets[r]! + creativesOf[r]!.length;
  const creativeRows = Int32Array.from(creativesOf.flat());
  const bidMicros = numericData(campaignTable, 'bid_micros', 'f64');

  return {
    n,
    asOfMs: o.asOfMs,
    ids,
    advertiser: Int32Array.from(advertiserColumn.codes),
    competitorGroup: Int32Array.from(advertiserColumn.codes, (code) => groupByCode[code]!),
    nCompetitorGroups: groupCodes.length,
    pricing: Uint8Array.from(pricingColumn.codes, (code) => pricingByCode[code]!),
    bidMicros,
    budgetMicros: numericData(campaignTable, 'budget_micros', 'f64'),
    dailyBudgetMicros: numericData(campaignTable, 'daily_budget_micros', 'f64'),
    spentMicros: numericData(campaignTable, 'spent_micros', 'f64'),
    ledgerShares: ledgerShares(campaignTable),
    goalOpens: Uint8Array.from({ length: n }, (_, r) => (stringAt(goal, r) === 'opens' ? 1 : 0)),
    creativeOffsets,
    creativeRows,
    priorLogit: await o.priorLogits({
      campaignRows: Int32Array.from({ length: n }, (_, r) => r),
      creativeRows: Int32Array.from({ length: n }, (_, r) => creativesOf[r]![0] ?? -1),
    }),
    mu: float32(prices(ids, duals.mu)),
    omega: float32(prices(ids, duals.omega)),
  };
}

/** Releases of the time before ledgers had ids have none. */
function ledgerShares(campaigns: ColumnTable): LedgerShare[][] {
  if (campaigns.columns['ledger_micros'] === undefined) {
    return Array.from({ length: campaigns.nRows }, () => []);
  }
  const column = stringListData(campaigns, 'ledger_micros');
  return Array.from({ length: campaigns.nRows }, (_, row) =>
    stringsAt(column, row).map((share) => {
      const [ledgerId, micros] = share.split('=') as [string, string];
      return { ledgerId, micros: Number(micros) };
    }),
  );
}

/** Mean logit of each campaign over a spread of publications, position 1. */
async function averageLogits(
  served: ServedModel,
  pairs: { campaignRows: Int32Array; creativeRows: Int32Array },
  nPublications: number,
  asOfMs: number,
): Promise<Float64Array> {
  const { campaignRows, creativeRows } = pairs;
  const n = campaignRows.length;
  const { features } = served;
  const x = new Float32Array(n * features.nFeatures);
  const total = new Float64Array(n);
  const used = Math.min(PRIOR_SAMPLE, nPublications);
  for (let s = 0; s < used; s++) {
    const publicationRow = Math.floor((s * nPublications) / used);
    const at = { publicationRow, tsMs: asOfMs, position: 1, nAds: 1 };
    features.evaluate(at, campaignRows, creativeRows, x);
    const p =
      served.network === undefined ? served.scoreRows(x, n) : await served.network.score(x, n);
    for (let i = 0; i < n; i++) total[i]! += boundedLogit(p[i]!) / used;
  }
  return total;
}

/** The campaign's click probability on an average publication. */
export function priorClickRate(campaigns: CampaignColumns, row: number): number {
  return sigmoid(campaigns.priorLogit[row]!);
}

function prices(
  ids: readonly string[],
  byId: Readonly<Record<string, number>>,
): Float64Array | undefined {
  if (Object.values(byId).every((price) => price === 0)) return undefined;
  return Float64Array.from(ids, (id) => (Object.hasOwn(byId, id) ? byId[id]! : 0));
}

function float32(values: Float64Array | undefined): Float32Array | undefined {
  return values === undefined ? undefined : Float32Array.from(values);
}

export function texts(table: ColumnTable, name: string): string[] {
  const column: StringColumn = stringData(table, name);
  return Array.from(column.codes, (code) => column.dictionary[code]!);
}
