import { join } from 'node:path';
import {
  type ForeignModel,
  type ModelLineage,
  ModelRegistry,
  openForeign,
  registerForeign,
  type ServedFeatures,
} from '@waggle/models';
import { type HeadModel, parseHeadModel, type SelectionCalibration } from '@waggle/ranking';
import {
  type GateReport,
  type ModelCard,
  renderModelCard,
  type SuiteModel,
} from '@waggle/training';
import type { CommandContext } from './context.js';
import type { DataRange } from './data-range.js';
import { pipelineError } from './errors.js';
import { CODE_VERSION } from './version.js';

/** A model as a release needs it. */
export interface ServableModel {
  readonly model: HeadModel;
  /** The ensemble of a model that is trees. */
  readonly trees?: Uint8Array;
  readonly onnx: Uint8Array;
  readonly gate: GateReport | null;
  /** Parameters of its feature set. */
  readonly params: Readonly<Record<string, number>>;
}

export type ModelName = 'pctr' | 'accept';

/** The file of a version that holds its trees. */
const TREES_FILE = 'model.trees';

/** The file of a version that tells people about it. */
export const CARD_FILE = 'card.md';

const utf8 = new TextDecoder('utf-8', { fatal: true });

/** A model of another tool with what its gate said, where it was gated. */
export interface ImportedFromRegistry extends ForeignModel, Verdict {}

/** What gating found out about a model of another tool. */
export interface Verdict {
  readonly gate: GateReport | undefined;
  /** Of a pCTR that passed, where enough ran since. */
  readonly selection: SelectionCalibration | undefined;
}

/** The file of a version that holds its verdict. */
const GATE_FILE = 'gate.json';

/** The file of an imported version that holds its correction for selection; models trained here carry their own. */
const SELECTION_FILE = 'selection.json';

/** The models that training made on this machine, over the registry of @waggle/models. */
export interface NetworkModels {
  /** Keeps a model with its card; the active one, which releases take, unless it is not to be. @returns its version in the registry */
  save(
    trained: ServableModel,
    card: ModelCard,
    o: { readonly range: DataRange; readonly promote?: boolean },
  ): Promise<string>;
  /** Keeps a further model with its card; active only when it passed its gate. @returns its version */
  saveSuite(model: SuiteModel, range: DataRange): Promise<string>;
  /** The models that training promoted last. @throws WAGGLE_NO_MODEL */
  latest(): Promise<Readonly<Record<ModelName, ServableModel>>>;
  /** Parameters of the feature set of the model promoted last; none before there is one. */
  params(name: ModelName): Promise<Readonly<Record<string, number>>>;
  /** A model of another tool by its version, or the last version of a name. @throws WAGGLE_MODEL_NOT_FOUND, WAGGLE_MODEL_CORRUPT, WAGGLE_MODEL_CONTRACT_MISMATCH */
  imported(version: string, served?: ServedFeatures): Promise<ImportedFromRegistry>;
  /** Keeps a model of another tool with its verdict and card; the active one of its name when it passed. @returns its version */
  saveGated(
    model: ForeignModel,
    verdict: Verdict & { readonly gate: GateReport },
    card: ModelCard,
  ): Promise<string>;
}

export async function openRegistry(
  context: Pick<CommandContext, 'dir' | 'clock' | 'logger'>,
): Promise<NetworkModels> {
  const registry = await ModelRegistry.open({
    dir: join(context.dir, 'models'),
    clock: context.clock,
    logger: context.logger,
  });
  const json = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));
  const load = async (name: ModelName): Promise<ServableModel> => {
    const version = await registry.active(name);
    if (version === undefined) {
      throw pipelineError('WAGGLE_NO_MODEL', `the registry holds no ${name} model`);
    }
    const found = await registry.get(version);
    const read = async (file: string): Promise<unknown> =>
      JSON.parse(utf8.decode(await found.artifact(file)));
    const model = parseHeadModel(await read('model.json'));
    return {
      model,
      ...(model.kind === 'trees_logistic' && { trees: await found.artifact(TREES_FILE) }),
      onnx: await found.artifact('model.onnx'),
      gate: (await read(GATE_FILE)) as GateReport,
      params: (await read('params.json')) as Record<string, number>,
    };
  };
  return {
    async save(trained, card, { range, promote = true }) {
      // A model's own file keeps the difference with its limits, the registry lists the number.
      const { relativeLogLoss, ...others } = trained.model.metrics;
      const metrics = plainMetrics({
        ...others,
        ...(relativeLogLoss !== undefined && {
          relativeLogLoss: trained.gate?.relativeLogLoss?.estimate,
        }),
      });
      const manifest = await registry.register({
        name: trained.model.name,
        artifacts: {
          [CARD_FILE]: new TextEncoder().encode(renderModelCard(card)),
          'model.json': json(trained.model),
          ...(trained.trees !== undefined && { [TREES_FILE]: trained.trees }),
          'model.onnx': trained.onnx,
          [GATE_FILE]: json(trained.gate),
          'params.json': json(trained.params),
        },
        lineage: { ...lineageOf(range, trained.model.featureSetFingerprint), metrics },
      });
      if (promote) {
        const reason = (trained.gate?.summary ?? '').slice(0, 4096);
        await registry.promote({ version: manifest.version, by: 'waggle train', reason });
      }
      return manifest.version;
    },
    async saveSuite({ name, artifacts, card, fingerprint, metrics }, range) {
      const { version } = await registry.register({
        name,
        artifacts: { ...artifacts, [CARD_FILE]: new TextEncoder().encode(renderModelCard(card)) },
        lineage: { ...lineageOf(range, fingerprint), metrics },
      });
      if (card.gate.passed) {
        const reason = card.gate.summary.slice(0, 4096);
        await registry.promote({ version, by: 'waggle train', reason });
      }
      return version;
    },
    async params(name) {
      return (await registry.active(name)) === undefined ? {} : (await load(name)).params;
    },
    async imported(version, served) {
      const last = version.includes('@') ? undefined : (await registry.versions(version)).at(-1);
      const model = await openForeign(registry, last?.version ?? version, served);
      const { artifacts, version: found } = model.manifest;
      const read = async <T>(file: string): Promise<T | undefined> => {
        if (!Object.hasOwn(artifacts, file)) return undefined;
        return JSON.parse(utf8.decode(await (await registry.get(found)).artifact(file))) as T;
      };
      return {
        ...model,
        gate: await read<GateReport>(GATE_FILE),
        selection: await read<SelectionCalibration>(SELECTION_FILE),
      };
    },
    async saveGated({ contract, bytes }, { gate, selection }, card) {
      const { modelMetrics, relativeLogLoss, passed, summary } = gate;
      const { version } = await registerForeign(registry, bytes, contract, {
        artifacts: {
          [GATE_FILE]: json(gate),
          ...(selection !== undefined && { [SELECTION_FILE]: json(selection) }),
          [CARD_FILE]: new TextEncoder().encode(renderModelCard(card)),
        },
        metrics: plainMetrics({
          ...modelMetrics,
          relativeLogLoss: relativeLogLoss?.estimate,
          gatePassed: passed,
        }),
      });
      if (passed) {
        await registry.promote({
          ...{ version, by: 'waggle models gate', reason: summary.slice(0, 4096) },
        });
      }
      return version;
    },
    async latest() {
      return { pctr: await load('pctr'), accept: await load('accept') };
    },
  };
}

/** What the registry lists of a model's numbers: finite ones, and yes or no as 1 or 0. */
function plainMetrics(metrics: Readonly<Record<string, unknown>>): ModelLineage['metrics'] {
  const plain: ModelLineage['metrics'] = {};
  for (const [key, value] of Object.entries(metrics)) {
    plain[key] =
      typeof value === 'number' && Number.isFinite(value)
        ? value
        : typeof value === 'boolean'
          ? Number(value)
          : null;
  }
  return plain;
}

function lineageOf(range: DataRange, featureSetFingerprint: string): Omit<ModelLineage, 'metrics'> {
  return {
    dataRange: {
      from: new Date(range.fromMs).toISOString(),
      to: new Date(range.asOfMs).toISOString(),
    },
    featureSetFingerprint,
    codeVersion: CODE_VERSION,
  };
}
