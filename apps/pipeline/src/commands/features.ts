import { writeFile } from 'node:fs/promises';
import {
  acceptFeatures,
  buildDataset,
  ctrFeatures,
  type Dataset,
  type FeatureSet,
  sentFeatures,
} from '@waggle/features';
import type { Store } from '@waggle/store';
import type { CommandContext } from '../context.js';
import { asOfOption, type DataRange } from '../data-range.js';
import { datasetFile } from '../dataset-file.js';
import { pipelineError } from '../errors.js';
import { type ModelName, openRegistry } from '../model-registry.js';
import { count, table } from '../output.js';

/** With the model whose parameters the features are computed with; those of some sets need none. */
const FEATURE_SETS: Readonly<Record<string, { set: FeatureSet; model?: ModelName }>> = {
  ctr: { set: ctrFeatures, model: 'pctr' },
  accept: { set: acceptFeatures, model: 'accept' },
  sent: { set: sentFeatures },
};

/** Training rows of one feature set: every decision in the data, with the features as known then. */
export function dataset(
  context: Pick<CommandContext, 'config' | 'signal' | 'steps'>,
  store: Store,
  set: FeatureSet,
  range: DataRange,
  params: Readonly<Record<string, number>> = {},
): Promise<Dataset> {
  return context.steps.step(`Computing features (${set.name})`, () =>
    buildDataset(store, set, {
      tenantId: context.config.tenantId,
      fromMs: range.fromMs,
      toMs: range.asOfMs,
      asOfMs: range.asOfMs,
      params,
      signal: context.signal,
    }),
  );
}

interface FeatureSummary {
  readonly name: string;
  readonly mean: number;
  readonly sd: number;
  readonly min: number;
  readonly max: number;
  /** Share of rows at the feature's default. */
  readonly defaultShare: number;
  readonly description: string;
}

function summarizeFeatures(set: FeatureSet, rows: Dataset): FeatureSummary[] {
  const width = set.features.length;
  return set.features.map((feature, f) => {
    let sum = 0;
    let squares = 0;
    let min = Number.POSITIVE_INFINITY;
    let max = Number.NEGATIVE_INFINITY;
    let atDefault = 0;
    const fallback = Math.fround(feature.default);
    for (let i = 0; i < rows.nRows; i++) {
      const value = rows.x[i * width + f]!;
      sum += value;
      squares += value * value;
      min = Math.min(min, value);
      max = Math.max(max, value);
      if (value === fallback) atDefault++;
    }
    const mean = sum / rows.nRows;
    return {
      name: feature.name,
      mean,
      sd: Math.sqrt(Math.max(0, squares / rows.nRows - mean * mean)),
      min,
      max,
      defaultShare: atDefault / rows.nRows,
      description: feature.description,
    };
  });
}

export async function featuresCommand(
  context: CommandContext,
  options: Record<string, unknown>,
): Promise<undefined> {
  const known = FEATURE_SETS[String(options['set'])];
  if (known === undefined) {
    throw pipelineError(
      'WAGGLE_USAGE',
      `--set must be ${Object.keys(FEATURE_SETS).join(', ')}; got "${String(options['set'])}"`,
    );
  }
  const { set, model } = known;
  const params = model === undefined ? {} : await (await openRegistry(context)).params(model);
  const { rows, range } = await context.withStore(async (store) => {
    const found = await asOfOption(store, context.config.tenantId, options['asOf']);
    return { rows: await dataset(context, store, set, found, params), range: found };
  });
  if (rows.nRows === 0) {
    throw pipelineError(
      'WAGGLE_NO_DATA',
      `there is no decision of set ${set.name} to build rows from`,
    );
  }
  const features = summarizeFeatures(set, rows);
  if (options['out'] !== undefined) {
    const path = String(options['out']);
    await writeFile(path, datasetFile(path, { set, rows, asOfMs: range.asOfMs }));
  }
  const short = (value: number) =>
    Number.isFinite(value) ? Number(value.toPrecision(4)).toString() : String(value);
  context.output.result(
    {
      set: set.name,
      fingerprint: set.fingerprint,
      nRows: rows.nRows,
      embeddingModel: rows.embeddingModel,
      features,
    },
    () =>
      `${table(
        ['feature', 'mean', 'sd', 'min', 'max', 'default', 'what it is'],
        features.map((f) => [
          f.name,
          short(f.mean),
          short(f.sd),
          short(f.min),
          short(f.max),
          `${(100 * f.defaultShare).toFixed(0)} %`,
          f.description,
        ]),
      )}\n${count(rows.nRows)} rows, ${features.length} features, fingerprint ${set.fingerprint.slice(0, 12)}, embeddings ${rows.embeddingModel || 'none'}`,
  );
  return undefined;
}
