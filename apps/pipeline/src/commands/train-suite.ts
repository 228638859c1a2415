import {
  acceptFeatures,
  buildClickRows,
  buildConversionRows,
  buildOfferAnswers,
  ctrFeatures,
  readEntityVectors,
} from '@waggle/features';
import type { Store } from '@waggle/store';
import {
  estimateAcceptParams,
  estimateCtrParams,
  humanClicks,
  type SuiteModel,
  trainAnswers,
  trainContentFit,
  trainContentQuality,
  trainHuman,
  trainPcvr,
} from '@waggle/training';
import type { CommandContext } from '../context.js';
import type { DataRange } from '../data-range.js';
import { openRegistry } from '../model-registry.js';
import { dataset } from './features.js';

type TrainContext = Pick<
  CommandContext,
  'config' | 'dir' | 'logger' | 'clock' | 'signal' | 'steps'
>;
interface TrainRange {
  readonly range: DataRange;
  readonly seed: number;
}

/** A model of the suite, and what it says about labels of others where it does. */
interface Suited extends SuiteModel {
  /** People who clicked on each ad, by placement. */
  readonly clicks?: ReadonlyMap<string, number>;
}

/** Of the time that the data covers, the last part judges models that are fitted on what was known before it. */
const LATER_SHARE = 0.25;

const pcvr = async (
  { config, steps, signal }: TrainContext,
  store: Store,
  { range, seed }: TrainRange,
): Promise<Suited> => {
  const { fromMs, asOfMs } = range;
  const cutMs = Math.floor(asOfMs - LATER_SHARE * (asOfMs - fromMs));
  const rows = (from: number, to: number) =>
    buildConversionRows(store, {
      tenantId: config.tenantId,
      fromMs: from,
      toMs: to,
      asOfMs: to,
      signal,
    });
  const past = await steps.step('Counting conversions', () => rows(fromMs, cutMs));
  const later = await steps.step('Counting later conversions', () => rows(cutMs, asOfMs));
  return steps.step('Training pcvr', () => trainPcvr({ past, later, seed, signal }));
};

const answers = async (
  context: TrainContext,
  store: Store,
  { range, seed }: TrainRange,
): Promise<Suited> => {
  const { config, steps, signal } = context;
  const { tenantId } = config;
  const { fromMs, asOfMs } = range;
  const params = await steps.step('Estimating priors of answers', () =>
    estimateAcceptParams(store, { tenantId, fromMs, toMs: asOfMs, asOfMs, signal }),
  );
  const rows = await dataset(context, store, acceptFeatures, range, params);
  const given = await buildOfferAnswers(store, { tenantId, asOfMs, signal });
  return steps.step('Training answers', () =>
    trainAnswers({ dataset: rows, answers: given, featureSet: acceptFeatures, seed, signal }),
  );
};

const human = async (
  { config, steps, signal }: TrainContext,
  store: Store,
  { range, seed }: TrainRange,
): Promise<Suited> => {
  const rows = await steps.step('Reading signals of clicks', () =>
    buildClickRows(store, { tenantId: config.tenantId, asOfMs: range.asOfMs, signal }),
  );
  return steps.step('Training human', async () => {
    const model = await trainHuman({ rows, seed, signal });
    return { ...model, clicks: humanClicks(rows, await model.predict(rows)) };
  });
};

/** Sent ads with the features of pCTR, and the vectors of texts. */
const clicksAndTexts = async (
  context: TrainContext,
  store: Store,
  name: string,
  range: DataRange,
) => {
  const { config, steps, signal } = context;
  const { fromMs, asOfMs } = range;
  const tenant = { tenantId: config.tenantId, signal };
  const params = await steps.step(`Estimating priors of ${name}`, () =>
    estimateCtrParams(store, { ...tenant, fromMs, toMs: asOfMs, asOfMs }),
  );
  return {
    dataset: await dataset(context, store, ctrFeatures, range, params),
    featureSet: ctrFeatures,
    publications: await readEntityVectors(store, 'publication', tenant),
    campaigns: await readEntityVectors(store, 'campaign', tenant),
  };
};

const contentFit = async (
  context: TrainContext,
  store: Store,
  { range, seed }: TrainRange,
): Promise<Suited> => {
  const rows = await clicksAndTexts(context, store, 'content_fit', range);
  const { signal } = context;
  return context.steps.step('Training content_fit', () =>
    trainContentFit({ ...rows, seed, signal }),
  );
};

const contentQuality = async (
  context: TrainContext,
  store: Store,
  { range, seed }: TrainRange,
): Promise<Suited> => {
  const rows = await clicksAndTexts(context, store, 'content_quality', range);
  const { signal } = context;
  const tenant = { tenantId: context.config.tenantId, signal };
  const creatives = await readEntityVectors(store, 'creative', tenant);
  return context.steps.step('Training content_quality', () =>
    trainContentQuality({ ...rows, creatives, seed, signal }),
  );
};

const JOBS: Readonly<
  Record<
    'human' | 'pcvr' | 'answers' | 'content_fit' | 'content_quality',
    (context: TrainContext, store: Store, options: TrainRange) => Promise<Suited>
  >
> = {
  ...{ human, pcvr, answers },
  content_fit: contentFit,
  content_quality: contentQuality,
};

export type SuiteName = keyof typeof JOBS;
export const SUITE_NAMES = Object.keys(JOBS) as SuiteName[];

/** Trains one further model, keeps it in the registry, and promotes it when it passed its gate. */
export async function trainSuiteModel(
  context: TrainContext,
  store: Store,
  name: SuiteName,
  options: TrainRange,
): Promise<{ readonly model: Suited; readonly registered: string }> {
  const model = await JOBS[name](context, store, options);
  const registry = await openRegistry(context);
  return { model, registered: await registry.saveSuite(model, options.range) };
}
