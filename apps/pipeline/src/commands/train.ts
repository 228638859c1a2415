import { acceptFeatures, ctrFeatures, type FeatureSet, sentFeatures } from '@waggle/features';
import type { LinearModelName } from '@waggle/ranking';
import type { Store } from '@waggle/store';
import {
  estimateAcceptParams,
  estimateCtrParams,
  estimateSentParams,
  linearModelCard,
  type TrainedModel,
  type TrainingDataset,
  type TrainOptions,
  trainAccept,
  trainCtr,
  trainSent,
  weighSuccesses,
} from '@waggle/training';
import type { CommandContext } from '../context.js';
import { asOfOption, type DataRange } from '../data-range.js';
import { pipelineError } from '../errors.js';
import { type ModelName, openRegistry } from '../model-registry.js';
import { table } from '../output.js';
import { dataset } from './features.js';
import { seedOption } from './simulate.js';
import { SUITE_NAMES, type SuiteName, trainSuiteModel } from './train-suite.js';

export interface TrainedSet extends TrainedModel {
  /** Parameters that the feature set was computed with; a release must use the same. */
  readonly params: Readonly<Record<string, number>>;
  readonly nRows: number;
  /** Version under which the registry keeps it. */
  readonly registered: string;
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

async function trainLinear(
  context: TrainContext,
  store: Store,
  job: Job,
  { range, seed, clicks }: TrainRange & { readonly clicks?: ReadonlyMap<string, number> },
): Promise<TrainedSet> {
  const registry = await openRegistry(context);
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
  const rows = clicks === undefined ? counted : weighSuccesses(counted, clicks);
  const model = await context.steps.step(`Training ${job.name}`, (progress) =>
    job.train(rows, {
      featureSet: job.set,
      seed,
      asOfMs: range.asOfMs,
      logger: context.logger,
      signal: context.signal,
      progress,
    }),
  );
  const servable = { ...model, params: counted.params };
  const registered = await registry.save(servable, linearModelCard(model, job.set), range);
  return { ...servable, nRows: counted.nRows, registered };
}

const isSuiteName = (name: AnyModelName): name is SuiteName =>
  (SUITE_NAMES as readonly string[]).includes(name);

/** What every trained model can say about itself, whatever its form. */
export interface Gated {
  readonly version: string;
  readonly passed: boolean;
  readonly summary: string;
}

const gated = ({ registered, gate }: TrainedSet): Gated => ({
  version: registered,
  passed: gate.passed,
  summary: gate.summary,
});

function tableOf(rows: readonly (readonly [name: string, told: Gated])[]): string {
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

export async function trainCommand(
  context: CommandContext,
  options: Record<string, unknown>,
): Promise<undefined> {
  const seed = seedOption(options['seed']);
  const names = modelsOption(options['model']);
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
      const t = await trainLinear(context, store, JOBS[name], {
        range,
        seed,
        ...(name === 'pctr' && clicks !== undefined && { clicks }),
      });
      told.push([name, gated(t)]);
      answer[name] = {
        version: t.model.version,
        registered: t.registered,
        priorOnly: t.model.priorOnly,
        gate: t.gate,
        summary: t.summary,
        rows: t.nRows,
      };
    }
  });
  context.output.result(answer, () => tableOf(told));
  return undefined;
}
