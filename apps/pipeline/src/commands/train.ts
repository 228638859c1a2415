import { acceptFeatures, ctrFeatures, type FeatureSet, sentFeatures } from '@waggle/features';
import type { LinearModelName } from '@waggle/ranking';
import type { Store } from '@waggle/store';
import {
  estimateAcceptParams,
  estimateCtrParams,
  estimateSentParams,
  linearModelCard,
  type SelectionVerdict,
  type TrainedModel,
  type TrainedTrees,
  type TrainingDataset,
  type TrainOptions,
  trainAccept,
  trainCtr,
  trainSent,
  trainTrees,
  treesModelCard,
  weighSuccesses,
} from '@waggle/training';
import type { CommandContext } from '../context.js';
import { asOfOption, type DataRange } from '../data-range.js';
import { pipelineError } from '../errors.js';
import { type ModelName, openRegistry } from '../model-registry.js';
import { table } from '../output.js';
import { type Correctable, type CorrectionData, correctForSelection } from '../selection.js';
import { dataset } from './features.js';
import { seedOption } from './simulate.js';
import { SUITE_NAMES, type SuiteName, trainSuiteModel } from './train-suite.js';

export interface TrainedSet extends TrainedModel {
  /** Parameters that the feature set was computed with; a release must use the same. */
  readonly params: Readonly<Record<string, number>>;
  readonly nRows: number;
  /** Version under which the registry keeps it. */
  readonly registered: string;
  /** Of a pCTR: what became of its correction for selection. */
  readonly selection?: SelectionVerdict | undefined;
}

export type TrainedModels = Readonly<Record<ModelName, TrainedSet>>;

interface Job {
  readonly name: LinearModelName;
  readonly set: FeatureSet;
  readonly train: (rows: TrainingDataset, options: TrainOptions) => Promise<TrainedModel>;
  /** Parameters of the feature set from the tenant's own history. */
  readonly estimate: typeof estimateCtrParams;
}

const JOBS: Readonly<Record<LinearModelName, Job>> = {
  pctr: { name: 'pctr', set: ctrFeatures, train: trainCtr, estimate: estimateCtrParams },
  accept: {
    name: 'accept',
    set: acceptFeatures,
    train: trainAccept,
    estimate: estimateAcceptParams,
  },
  sent: { name: 'sent', set: sentFeatures, train: trainSent, estimate: estimateSentParams },
};

/** Every model that `waggle train --model` knows; the first two are what a release cannot do without. */
const MODEL_NAMES = ['pctr', 'accept', 'sent', ...SUITE_NAMES] as const;
type AnyModelName = (typeof MODEL_NAMES)[number];

type TrainContext = Pick<
  CommandContext,
  'config' | 'dir' | 'logger' | 'clock' | 'signal' | 'steps'
>;
interface TrainRange {
  readonly range: DataRange;
  readonly seed: number;
}

/** Trains the models that a release serves and keeps each in the registry, passed or not. */
export async function train(
  context: TrainContext,
  store: Store,
  options: TrainRange,
): Promise<TrainedModels> {
  return {
    pctr: await trainLinear(context, store, JOBS.pctr, options),
    accept: await trainLinear(context, store, JOBS.accept, options),
  };
}

interface HeadRange extends TrainRange {
  /** People who clicked, by placement, where they were told from machines. */
  readonly clicks?: ReadonlyMap<string, number> | undefined;
}

/** The rows that a model of a release learns from, and how it is told to. */
async function rowsOf(
  context: TrainContext,
  store: Store,
  job: Job,
  { range, clicks }: HeadRange,
): Promise<TrainingDataset & Pick<TrainedSet, 'params'>> {
  const params = await context.steps.step(`Estimating priors of ${job.name}`, () =>
    job.estimate(store, {
      tenantId: context.config.tenantId,
      fromMs: range.fromMs,
      toMs: range.asOfMs,
      asOfMs: range.asOfMs,
      signal: context.signal,
    }),
  );
  const counted = await dataset(context, store, job.set, range, params);
  return clicks === undefined
    ? counted
    : { ...weighSuccesses(counted, clicks), params: counted.params };
}

const trainOptions = (context: TrainContext, job: Job, { range, seed }: TrainRange) => ({
  featureSet: job.set,
  seed,
  asOfMs: range.asOfMs,
  logger: context.logger,
  signal: context.signal,
});

/** What is chosen by clicks is corrected for having been chosen. */
async function corrected<M extends Correctable>(
  context: TrainContext,
  store: Store,
  job: Job,
  { trained, ...data }: { trained: M } & CorrectionData,
): Promise<M & Pick<TrainedSet, 'selection'>> {
  if (job.name !== 'pctr') return trained;
  return context.steps.step('Correcting for selection', () =>
    correctForSelection(context, store, trained, data),
  );
}

async function trainLinear(
  context: TrainContext,
  store: Store,
  job: Job,
  options: HeadRange,
): Promise<TrainedSet> {
  const registry = await openRegistry(context);
  const rows = await rowsOf(context, store, job, options);
  const model = await context.steps.step(`Training ${job.name}`, (progress) =>
    job.train(rows, { ...trainOptions(context, job, options), progress }),
  );
  const { range } = options;
  const trained = await corrected(context, store, job, { trained: model, rows, range });
  const servable = { ...trained, params: rows.params };
  const registered = await registry.save(servable, linearModelCard(servable, job.set), { range });
  return { ...servable, nRows: rows.nRows, registered };
}

/** What training a tree head came to: it answers from now on, or the linear model of the same rows does. */
interface TrainedTreesSet {
  readonly trained: TrainedTrees;
  readonly nRows: number;
  /** Versions under which the registry keeps both; none for trees that could not be fitted. */
  readonly registered: string | undefined;
  readonly linear: string;
  readonly selection: SelectionVerdict | undefined;
}

/** Both versions are kept, and the one that is to answer is made active, trees only when they passed. */
async function trainTreesHead(
  context: TrainContext,
  store: Store,
  job: Job,
  options: HeadRange,
): Promise<TrainedTreesSet> {
  const registry = await openRegistry(context);
  const rows = await rowsOf(context, store, job, options);
  const found = await context.steps.step(`Training trees of ${job.name}`, () =>
    trainTrees(job.name, rows, trainOptions(context, job, options)),
  );
  const { range } = options;
  const { params } = rows;
  const { gate } = found;
  const promoted = found.head !== undefined && gate.passed;
  const correct = <M extends Correctable>(model: M) =>
    corrected(context, store, job, { trained: model, rows, range });
  // What answers is corrected; the other waits as it came.
  type Told = Pick<TrainedSet, 'selection'>;
  const head: (NonNullable<TrainedTrees['head']> & Told) | undefined = promoted
    ? await correct(found.head)
    : found.head;
  const linear: TrainedModel & Told = promoted ? found.linear : await correct(found.linear);
  const { selection } = promoted ? { ...head } : linear;
  const trained = { ...found, head, linear };
  const linearVersion = await registry.save(
    { ...linear, params },
    linearModelCard(linear, job.set),
    { range, promote: !promoted },
  );
  const registered =
    head === undefined
      ? undefined
      : await registry.save({ ...head, gate, params }, treesModelCard(trained, job.set), {
          range,
          promote: promoted,
        });
  return { trained, nRows: rows.nRows, registered, linear: linearVersion, selection };
}

const isSuiteName = (name: AnyModelName): name is SuiteName =>
  (SUITE_NAMES as readonly string[]).includes(name);

/** What every trained model can say about itself, whatever its form. */
interface Gated {
  readonly version: string;
  readonly passed: boolean;
  readonly summary: string;
}

const gated = ({ registered, gate, selection }: TrainedSet): Gated => ({
  version: registered,
  passed: gate.passed,
  summary: withVerdict(gate.summary, selection),
});

/** What a gate says, and that there is no correction for selection where there might be one. */
export function withVerdict(summary: string, selection: SelectionVerdict | undefined): string {
  return selection === undefined || selection.passed
    ? summary
    : `${summary} It is ${selection.explanation}.`;
}

/** Models with what came of their gates. */
export function tableOf(rows: readonly (readonly [name: string, told: Gated])[]): string {
  return table(
    ['model', 'version', 'gate', 'why'],
    rows.map(([name, t]) => [name, t.version, t.passed ? 'passed' : 'FAILED', t.summary]),
  );
}

export function gateTable(models: TrainedModels): string {
  return tableOf(Object.entries(models).map(([name, t]) => [name, gated(t)]));
}

/** The `--model` option: names between commas; what a release needs by default. */
function modelsOption(option: unknown): readonly AnyModelName[] {
  if (option === undefined) return ['pctr', 'accept'];
  const names = [
    ...new Set(
      String(option)
        .split(',')
        .map((name) => name.trim()),
    ),
  ];
  for (const name of names) {
    if (!(MODEL_NAMES as readonly string[]).includes(name)) {
      throw pipelineError(
        'WAGGLE_USAGE',
        `--model must name some of ${MODEL_NAMES.join(', ')}, got "${name}"`,
      );
    }
  }
  return names as AnyModelName[];
}

const HEADS = ['linear', 'trees'] as const;
type Head = (typeof HEADS)[number];

/** The `--head` option: the form of the models that a release serves. */
function headOption(option: unknown, names: readonly AnyModelName[]): Head {
  if (option === undefined) return 'linear';
  if (!(HEADS as readonly unknown[]).includes(option)) {
    throw pipelineError('WAGGLE_USAGE', `--head must be linear or trees, got "${String(option)}"`);
  }
  const other = names.find(isSuiteName);
  if (option === 'trees' && other !== undefined && other !== 'human') {
    throw pipelineError('WAGGLE_USAGE', `--head trees is for pctr, accept and sent, not ${other}`);
  }
  return option as Head;
}

export async function trainCommand(
  context: CommandContext,
  options: Record<string, unknown>,
): Promise<undefined> {
  const seed = seedOption(options['seed']);
  const names = modelsOption(options['model']);
  const head = headOption(options['head'], names);
  const told: [string, Gated][] = [];
  const answer: Record<string, unknown> = {};
  await context.withStore(async (store) => {
    const range = await asOfOption(store, context.config.tenantId, options['asOf']);
    // Who counts as a person is settled before anything learns from clicks.
    const inOrder = [...names].sort((a, b) => Number(b === 'human') - Number(a === 'human'));
    let clicks: ReadonlyMap<string, number> | undefined;
    for (const name of inOrder) {
      if (isSuiteName(name)) {
        const { model, registered } = await trainSuiteModel(context, store, name, { range, seed });
        const { gate, slices } = model.card;
        if (gate.passed) clicks = model.clicks ?? clicks;
        told.push([name, { version: registered, passed: gate.passed, summary: gate.summary }]);
        answer[name] = { version: registered, gate, slices, metrics: model.metrics };
        continue;
      }
      const job = { range, seed, clicks: name === 'pctr' ? clicks : undefined };
      if (head === 'trees') {
        const t = await trainTreesHead(context, store, JOBS[name], job);
        const { gate, summary, linear } = t.trained;
        told.push([
          name,
          {
            version: t.registered ?? '–',
            passed: gate.passed,
            summary: withVerdict(gate.summary, t.selection),
          },
        ]);
        answer[name] = {
          version: t.trained.head?.model.version ?? null,
          registered: t.registered ?? null,
          linear: { registered: t.linear, priorOnly: linear.model.priorOnly, gate: linear.gate },
          ...{ gate, summary, rows: t.nRows, selection: t.selection ?? null },
        };
        continue;
      }
      const t = await trainLinear(context, store, JOBS[name], job);
      told.push([name, gated(t)]);
      answer[name] = {
        version: t.model.version,
        registered: t.registered,
        priorOnly: t.model.priorOnly,
        gate: t.gate,
        summary: t.summary,
        rows: t.nRows,
        selection: t.selection ?? null,
      };
    }
  });
  context.output.result(answer, () => tableOf(told));
  return undefined;
}
