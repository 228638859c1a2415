import { acceptFeatures, ctrFeatures, type FeatureSet } from '@waggle/features';
import type { Store } from '@waggle/store';
import {
  estimateAcceptParams,
  estimateCtrParams,
  type TrainedModel,
  type TrainingDataset,
  type TrainOptions,
  trainAccept,
  trainCtr,
} from '@waggle/training';
import type { CommandContext } from '../context.js';
import { asOfOption, type DataRange } from '../data-range.js';
import { openRegistry } from '../model-registry.js';
import { table } from '../output.js';
import { dataset } from './features.js';
import { seedOption } from './simulate.js';

export interface TrainedSet extends TrainedModel {
  /** Parameters that the feature set was computed with; a release must use the same. */
  readonly params: Readonly<Record<string, number>>;
  readonly nRows: number;
}

export type TrainedModels = Readonly<Record<'pctr' | 'accept', TrainedSet>>;

const JOBS: readonly {
  name: 'pctr' | 'accept';
  set: FeatureSet;
  train: (rows: TrainingDataset, options: TrainOptions) => Promise<TrainedModel>;
  /** Parameters of the feature set from the tenant's own history. */
  estimate: typeof estimateCtrParams;
}[] = [
  { name: 'pctr', set: ctrFeatures, train: trainCtr, estimate: estimateCtrParams },
  { name: 'accept', set: acceptFeatures, train: trainAccept, estimate: estimateAcceptParams },
];

/** Trains every model of the network and keeps each in the registry, passed or not. */
export async function train(
  context: Pick<CommandContext, 'config' | 'dir' | 'logger' | 'clock' | 'signal' | 'steps'>,
  store: Store,
  options: { range: DataRange; seed: number },
): Promise<TrainedModels> {
  const registry = await openRegistry(context);
  const trained: Partial<Record<'pctr' | 'accept', TrainedSet>> = {};
  for (const job of JOBS) {
    const { range } = options;
    const params = await context.steps.step(`Estimating priors of ${job.name}`, () =>
      job.estimate(store, {
        tenantId: context.config.tenantId,
        fromMs: range.fromMs,
        toMs: range.asOfMs,
        asOfMs: range.asOfMs,
        signal: context.signal,
      }),
    );
    const rows = await dataset(context, store, job.set, range, params);
    const model = await context.steps.step(`Training ${job.name}`, (progress) =>
      job.train(rows, {
        featureSet: job.set,
        seed: options.seed,
        asOfMs: range.asOfMs,
        logger: context.logger,
        signal: context.signal,
        progress,
      }),
    );
    const set: TrainedSet = { ...model, params: rows.params, nRows: rows.nRows };
    await registry.save(job.name, set, range);
    trained[job.name] = set;
  }
  return trained as TrainedModels;
}

export function gateTable(models: TrainedModels): string {
  return table(
    ['model', 'version', 'gate', 'why'],
    Object.entries(models).map(([name, t]) => [
      name,
      t.model.version,
      t.gate.passed ? 'passed' : 'FAILED (prior released)',
      t.gate.summary,
    ]),
  );
}

export async function trainCommand(
  context: CommandContext,
  options: Record<string, unknown>,
): Promise<undefined> {
  const seed = seedOption(options['seed']);
  const models = await context.withStore(async (store) =>
    train(context, store, {
      range: await asOfOption(store, context.config.tenantId, options['asOf']),
      seed,
    }),
  );
  context.output.result(
    Object.fromEntries(
      Object.entries(models).map(([name, t]) => [
        name,
        {
          version: t.model.version,
          priorOnly: t.model.priorOnly,
          gate: t.gate,
          summary: t.summary,
          rows: t.nRows,
        },
      ]),
    ),
    () => gateTable(models),
  );
  return undefined;
}
