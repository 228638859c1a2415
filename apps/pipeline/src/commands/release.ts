import { stringData } from '@waggle/core';
import {
  buildCatalog,
  type ClickReleaseInput,
  checkServable,
  countServable,
  type ImportedModel,
  loadRankingRelease,
  parsePolicy,
  rankingReleaseFiles,
  readEmbeddings,
  zeroDuals,
} from '@waggle/engine';
import { acceptFeatures, buildSnapshot, ctrFeatures } from '@waggle/features';
import { OnnxRunner } from '@waggle/models';
import { priorOnlyModel } from '@waggle/ranking';
import type { ReleaseManifest } from '@waggle/releases';
import type { Store } from '@waggle/store';
import { exportLinearOnnx, type GateReport } from '@waggle/training';
import type { CommandContext } from '../context.js';
import { asOfOption, type DataRange, knownAsOf } from '../data-range.js';
import { pipelineError } from '../errors.js';
import { type ModelName, openRegistry, type ServableModel } from '../model-registry.js';
import { count, table } from '../output.js';
import { policyOption } from '../policy-file.js';
import { releaseStore } from '../release-store.js';
import { isSimulated } from '../simulated-network.js';

/** What a release serves with: the trained models, or the prior alone. */
export type ServableModels = Readonly<Record<ModelName, ServableModel>>;

/** Models of other tools that answer in place of them, each with its verdict where it has one. */
type ImportedModels = Readonly<
  Partial<Record<ModelName, (ImportedModel & { gate: GateReport | null }) | undefined>>
>;

export interface BuiltRelease {
  readonly id: string;
  readonly activated: boolean;
  readonly priorOnly: Readonly<Record<string, boolean>>;
  readonly publications: number;
  readonly campaigns: number;
  /** What of them statuses let be served. */
  readonly servable: ReturnType<typeof countServable>;
  readonly embeddingModel: string;
}

/** Width of a vector when there is none to measure: the sentence transformer's. */
const EMBEDDING_DIM = 384;

/** The hierarchical prior as the model of both decisions, for a network without trained models. */
export function priorModels(): ServableModels {
  const prior = (set: typeof ctrFeatures): ServableModel => {
    const model = priorOnlyModel(set);
    return { model, onnx: exportLinearOnnx(model).bytes, gate: null, params: {} };
  };
  return { pctr: prior(ctrFeatures), accept: prior(acceptFeatures) };
}

type ReleaseContext = Pick<
  CommandContext,
  'config' | 'dir' | 'clock' | 'logger' | 'signal' | 'steps'
>;

export interface ReleaseParts {
  readonly range: DataRange;
  /** Entities and money as they stood then, UTC ms. @default the end of the range */
  readonly knownAsOfMs?: number;
  /** Without p(accept) for who asks about clicks alone. */
  readonly models: Pick<ServableModels, 'pctr'> & Partial<ServableModels>;
  readonly imported?: ImportedModels;
  /** @default what `parsePolicy` fills in */
  readonly policy?: ReturnType<typeof parsePolicy>;
}

const FEATURE_SETS = { pctr: ctrFeatures, accept: acceptFeatures } as const satisfies Record<
  ModelName,
  unknown
>;

/** Everything that is served, as of the end of a range and who is known at `knownAsOfMs`: catalog, feature snapshot, vectors, models, duals, policy, gates. */
export async function gatherRelease(
  context: Pick<ReleaseContext, 'config' | 'signal'>,
  store: Store,
  {
    range,
    knownAsOfMs = range.asOfMs,
    models,
    imported = {},
    policy = parsePolicy(),
  }: ReleaseParts,
  tell: (part: string, done: number) => void = () => {},
): Promise<ClickReleaseInput> {
  const names = Object.keys(models) as ModelName[];
  /** Something of each model, by a name of its own. */
  const each = <T>(of: (model: ServableModel, name: ModelName) => T) =>
    Object.fromEntries(names.map((name) => [name, of(models[name]!, name)]));
  const sets = names.map((name) => FEATURE_SETS[name]);
  const params = names.map(
    (name) => imported[name]?.contract.featureParams ?? models[name]!.params,
  );
  const tenantId = context.config.tenantId;
  tell('catalog', 0);
  const catalog = await buildCatalog(store, {
    tenantId,
    asOfMs: range.asOfMs,
    knownAsOfMs,
    signal: context.signal,
  });
  const idsOf = (columns: (typeof catalog)['publications'], name: string): string[] => {
    const { dictionary, codes } = stringData(columns, name);
    return Array.from(codes, (code) => dictionary[code]!);
  };
  const ids = {
    publications: idsOf(catalog.publications, 'publication_id'),
    campaigns: idsOf(catalog.campaigns, 'campaign_id'),
    creatives: idsOf(catalog.creatives, 'creative_id'),
    advertisers: idsOf(catalog.advertisers, 'advertiser_id'),
  };
  tell('snapshot', 1);
  const snapshot = await buildSnapshot(store, sets, {
    tenantId,
    asOfMs: range.asOfMs,
    entitiesAsOfMs: knownAsOfMs,
    ids,
    params: Object.fromEntries(sets.map((set, i) => [set.name, params[i]!])),
    signal: context.signal,
  });
  tell('vectors', 2);
  const vectors = (kind: 'publication' | 'campaign' | 'creative') =>
    readEmbeddings(store, {
      tenantId,
      kind,
      model: snapshot.embeddingModel,
      ids: ids[`${kind}s`],
      dim: EMBEDDING_DIM,
      signal: context.signal,
    });
  const embeddings = {
    publication: await vectors('publication'),
    campaign: await vectors('campaign'),
    creative: await vectors('creative'),
    model: snapshot.embeddingModel,
    ...(snapshot.embeddingModel.startsWith('hashed') || snapshot.embeddingModel === ''
      ? { degraded: 'hashed_embedder' as const }
      : {}),
  };
  return {
    catalog,
    snapshot,
    embeddings,
    models: {
      pctr: models.pctr.model,
      ...(models.pctr.trees !== undefined && { pctrTrees: models.pctr.trees }),
      pctrOnnx: models.pctr.onnx,
      ...(models.accept !== undefined && {
        accept: models.accept.model,
        ...(models.accept.trees !== undefined && { acceptTrees: models.accept.trees }),
        acceptOnnx: models.accept.onnx,
      }),
      imported,
    },
    duals: zeroDuals(),
    policy,
    gate: each((model, name) => (imported[name] ?? model).gate),
    lineage: {
      tenant_id: tenantId,
      data_from: new Date(range.fromMs).toISOString(),
      data_as_of: new Date(range.asOfMs).toISOString(),
      sample: await isSimulated(store, tenantId, context.signal),
      models: each(({ model }, name) => imported[name]?.version ?? model.version),
      features: Object.fromEntries(sets.map((set) => [set.name, set.fingerprint])),
      embedding_model: snapshot.embeddingModel,
    },
  };
}

/** What a release is made as of: the `--as-of` option, or the end of the data with entities and money as they stand. */
export async function releaseTimes(
  context: Pick<CommandContext, 'config' | 'clock'>,
  store: Store,
  option?: unknown,
): Promise<Required<Pick<ReleaseParts, 'range' | 'knownAsOfMs'>>> {
  const { tenantId } = context.config;
  const range = await asOfOption(store, tenantId, option);
  const nowMs = context.clock.nowMs();
  const knownAsOfMs =
    option === undefined
      ? await knownAsOf(store, tenantId, { asOfMs: range.asOfMs, nowMs })
      : range.asOfMs;
  return { range, knownAsOfMs };
}

/** Makes one immutable release of it all. It is loaded once as the gateway would before it is activated. */
export async function buildRelease(
  context: ReleaseContext,
  store: Store,
  options: ReleaseParts & { readonly models: ServableModels; readonly activate: boolean },
): Promise<BuiltRelease> {
  const { models, imported = {} } = options;
  return context.steps.step('Building the release', async (progress) => {
    const tell = (step: string, done: number) => progress({ step, done, total: 4, unit: 'parts' });
    const parts = await gatherRelease(context, store, options, tell);
    tell('files', 3);
    const releases = releaseStore(context);
    const manifest = await releases.create(rankingReleaseFiles(parts));
    const ranking = await loadRankingRelease(await releases.open(manifest.id), {
      logger: context.logger,
      networkRunner: () => new OnnxRunner({ workers: 1, threads: 1 }),
    });
    await ranking.networks?.close();
    if (options.activate) await releases.activate(manifest.id);
    tell('done', 4);
    return {
      id: manifest.id,
      activated: options.activate,
      priorOnly: {
        pctr: imported.pctr === undefined && models.pctr.model.priorOnly,
        accept: imported.accept === undefined && models.accept.model.priorOnly,
      },
      publications: parts.catalog.publications.nRows,
      campaigns: parts.catalog.campaigns.nRows,
      servable: countServable(parts.catalog),
      embeddingModel: parts.embeddings.model,
    };
  });
}

/** What was released, in a line: how many of the network may be served, and why the others may not. */
export function releasedText({ id, activated, servable, embeddingModel }: BuiltRelease): string {
  const of = (kind: keyof typeof servable): string => {
    const { total, servable: n, reasons } = servable[kind];
    const why = Object.entries(reasons).map(([reason, rows]) => `${reason}: ${count(rows)}`);
    if (why.length === 0) return `${count(total)} ${kind}`;
    return `${count(n)} of ${count(total)} ${kind} (${why.join(', ')})`;
  };
  const what = `Released ${id}${activated ? ' and activated it' : ''}`;
  return `${what}: ${of('publications')}, ${of('campaigns')}, embeddings ${embeddingModel || 'none'}`;
}

/**
 * Models of other tools that the command names: each has passed its gate, or is released on somebody's word.
 * @throws WAGGLE_MODEL_NOT_GATED, WAGGLE_RELEASE_UNSERVABLE, and what opening it throws
 */
async function importedModels(
  context: CommandContext,
  options: Record<string, unknown>,
): Promise<ImportedModels> {
  const registry = await openRegistry(context);
  const of = async (name: ModelName, set: typeof ctrFeatures) => {
    if (options[name] === undefined) return undefined;
    const found = await registry.imported(String(options[name]), set);
    const { contract, bytes, gate = null, selection } = found;
    const { version } = found.manifest;
    // Sooner than building a release of it would say so.
    checkServable(version, contract);
    const gated = gate?.passed === true;
    if (!gated && options['ungated'] !== true) {
      throw pipelineError(
        'WAGGLE_MODEL_NOT_GATED',
        gate === null ? `${version} has not been gated` : `${version}: ${gate.summary}`,
        { details: { version, gate: gate === null ? 'none' : 'failed' } },
      );
    }
    return { version, contract, bytes, gated, gate, selection };
  };
  return { pctr: await of('pctr', ctrFeatures), accept: await of('accept', acceptFeatures) };
}

const summaryOf = (manifest: ReleaseManifest) => ({
  id: manifest.id,
  created_at: manifest.createdAt,
  data_as_of: String(manifest.lineage['data_as_of'] ?? ''),
  models: Object.values((manifest.lineage['models'] ?? {}) as Record<string, string>).join(', '),
  bytes: manifest.files.reduce((total, file) => total + file.bytes, 0),
});

export async function releaseCommand(
  context: CommandContext,
  options: Record<string, unknown>,
  [verb, id]: readonly string[],
): Promise<undefined> {
  const releases = releaseStore(context);
  const needId = (): string => {
    if (id === undefined)
      throw pipelineError('WAGGLE_USAGE', `waggle release ${verb} <id>: the id is missing`);
    return id;
  };
  switch (verb) {
    case undefined: {
      const policy = await policyOption(options['policy']);
      const release = await context.withStore(async (store) => {
        const times = await releaseTimes(context, store, options['asOf']);
        const models =
          options['priorOnly'] === true
            ? priorModels()
            : await (await openRegistry(context)).latest();
        return buildRelease(context, store, {
          ...times,
          models,
          imported: await importedModels(context, options),
          policy,
          activate: options['activate'] !== false,
        });
      });
      context.output.result(release, () => releasedText(release));
      return undefined;
    }
    case 'list': {
      const active = await releases.active();
      const rows = (await releases.list()).map((m) => ({
        ...summaryOf(m),
        active: m.id === active,
      }));
      context.output.result(rows, () =>
        table(
          ['', 'release', 'created', 'data as of', 'models', 'KiB'],
          rows.map((r) => [
            r.active ? '●' : '',
            r.id,
            r.created_at,
            r.data_as_of,
            r.models,
            Math.round(r.bytes / 1024),
          ]),
        ),
      );
      return undefined;
    }
    case 'show': {
      const { manifest } = await releases.open(needId());
      context.output.result(manifest, () => JSON.stringify(manifest, null, 2));
      return undefined;
    }
    case 'activate': {
      await releases.activate(needId());
      context.output.result({ active: id }, () => `Active: ${id}`);
      return undefined;
    }
    case 'rollback': {
      const { from, to } = await releases.rollback();
      context.output.result({ from, to }, () => `Rolled back from ${from} to ${to}`);
      return undefined;
    }
    case 'history': {
      const rows = await releases.history();
      context.output.result(rows, () =>
        table(
          ['at', 'action', 'release', 'before'],
          rows.map((row) => [row.at, row.action, row.id, row.from ?? '–']),
        ),
      );
      return undefined;
    }
    default:
      throw pipelineError(
        'WAGGLE_USAGE',
        `waggle release has no "${verb}": leave it out to build one, or say list, show, activate, rollback or history`,
      );
  }
}
