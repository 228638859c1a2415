import { normalizeRow, transformerEmbedder } from '@waggle/content';
import {
  type EffectSolution,
  type EntityVectors,
  findNeighbourhoods,
  neighbourEffect,
  solveEffects,
} from '@waggle/features';
import { OnnxRunner } from '@waggle/models';
import { type HeadlineTests, readHeadlineTests } from '../data/headline-tests.js';
import { benchModel } from '../data/sentence-model.js';
import { type Recorder, type SuiteOptions, wanted } from '../record.js';

/** Spread of log click rates between stories and between headlines of one, and beyond both. */
const VARIANCES = { campaign: 0.25, creative: 0.05 };
const DISPERSION = 0.01;

/**
 * `train/neighbours`: what the texts of other campaigns say about the click rate of one that nobody has seen. A story of the Upworthy
 * archive stands for a campaign, its headlines for the creatives. Effects are fitted on the earlier half of the tests; the later half is
 * judged. Sample networks cannot show this: their campaigns' luck does not depend on what they are about.
 */
export async function measureNeighbours(options: SuiteOptions, recorder: Recorder): Promise<void> {
  if (!wanted(options, 'neighbours')) return;
  const { quick, seed } = options;
  const tests = await readHeadlineTests(quick ? 400 : Number.POSITIVE_INFINITY);
  if (tests === undefined) {
    process.stderr.write('bench: train/neighbours SKIPPED: no upworthy in WAGGLE_DATA_DIR\n');
    return;
  }
  const { vectors, dim } = await embedded(tests.headlines);
  const nKnown = Math.floor(tests.nTests / 2);
  const solution = await effectsOf(tests, nKnown);
  const stories = new Float32Array(tests.nTests * dim);
  for (let arm = 0; arm < tests.nArms; arm++) {
    const to = tests.test[arm]! * dim;
    for (let d = 0; d < dim; d++) stories[to + d]! += vectors[arm * dim + d]!;
  }
  for (let from = 0; from < stories.length; from += dim) {
    normalizeRow(stories.subarray(from, from + dim));
  }
  const arms = Array.from({ length: tests.nArms }, (_, arm) => arm);
  const storyOf = [...tests.test];
  const clicks = sums(tests.clicks, tests.test, tests.nTests);
  const impressions = sums(tests.impressions, tests.test, tests.nTests);
  const rate = clicks.map((c, t) => c / impressions[t]!);
  const common = { suite: 'train', seed, runs: 1, iqr: 0, better: 'higher' } as const;
  const measured = [
    {
      name: 'campaigns',
      vectors: stories,
      level: 0,
      known: (t: number) => t < nKnown,
      truth: Array.from({ length: tests.nTests }, (_, t) =>
        Math.log((clicks[t]! + 0.5) / impressions[t]!),
      ),
      strength: 1 / VARIANCES.campaign,
    },
    {
      name: 'creatives',
      vectors,
      level: 1,
      known: (arm: number) => storyOf[arm]! < nKnown,
      // Within its story: against the story's own rate.
      truth: arms.map((arm) =>
        Math.log(
          (tests.clicks[arm]! + 0.5) / (tests.impressions[arm]! * rate[storyOf[arm]!]! + 0.5),
        ),
      ),
      strength: 1 / VARIANCES.creative,
    },
  ];
  for (const { name, vectors: texts, level, known, truth, strength } of measured) {
    const n = texts.length / dim;
    const near = await findNeighbourhoods(entities(texts, dim));
    const groupOfRow = Int32Array.from({ length: n }, (_, i) => (known(i) ? i : -1));
    const unseen = Array.from({ length: n }, (_, i) => i).filter((i) => !known(i));
    const suggested = unseen.map((i) =>
      neighbourEffect(near, i, {
        groupOfRow,
        effects: solution.effects[level]!,
        evidence: solution.evidence[level]!,
        strength,
      }),
    );
    recorder.push({
      ...common,
      case: 'neighbours',
      metric: `variance_explained_${name}`,
      unit: `share of the variance of log rates of ${unseen.length} unseen ${name}, sampling noise included`,
      value: squaredCorrelation(
        suggested,
        unseen.map((i) => truth[i]!),
      ),
    });
  }
}

async function embedded(texts: readonly string[]): Promise<{ vectors: Float32Array; dim: number }> {
  const embedder = await transformerEmbedder({
    model: await benchModel(),
    runner: new OnnxRunner({ workers: 2, threads: 2 }),
    ownsRunner: true,
  });
  try {
    return { vectors: await embedder.embed(texts), dim: embedder.dim };
  } finally {
    await embedder.close();
  }
}

/** Effects of campaigns and creatives from the earlier tests alone; the later ones are groups without exposure. */
function effectsOf(tests: HeadlineTests, nKnown: number): Promise<EffectSolution> {
  const { nArms, nTests, clicks, impressions, test } = tests;
  const exposure = impressions.map((n, arm) => (test[arm]! < nKnown ? n : 0));
  const total = clicks.reduce((sum, c, arm) => sum + (exposure[arm]! > 0 ? c : 0), 0);
  const rate = total / exposure.reduce((sum, n) => sum + n, 0);
  const codes = new Int32Array(nArms * 2);
  for (let arm = 0; arm < nArms; arm++) codes.set([test[arm]!, arm], arm * 2);
  return solveEffects(
    {
      successes: clicks.map((c, arm) => (exposure[arm]! > 0 ? c : 0)),
      exposure,
      offset: new Float64Array(nArms),
      codes,
    },
    {
      link: 'log',
      levels: [
        { size: nTests, variance: VARIANCES.campaign },
        { size: nArms, variance: VARIANCES.creative },
      ],
      base: { mean: Math.log(rate), variance: 1 },
      dispersion: DISPERSION,
    },
  );
}

function sums(values: Float64Array, codes: Int32Array, size: number): Float64Array {
  const out = new Float64Array(size);
  values.forEach((v, i) => {
    out[codes[i]!]! += v;
  });
  return out;
}

function entities(vectors: Float32Array, dim: number): EntityVectors {
  const n = vectors.length / dim;
  const rowOf = new Map(Array.from({ length: n }, (_, i) => [String(i), i]));
  return { model: 'bench', dim, rowOf, vectors };
}

/** Share of the variance of b that a line in a explains. */
function squaredCorrelation(a: readonly number[], b: readonly number[]): number {
  const mean = (v: readonly number[]) => v.reduce((sum, x) => sum + x, 0) / v.length;
  const [ma, mb] = [mean(a), mean(b)];
  let ab = 0;
  let aa = 0;
  let bb = 0;
  for (let i = 0; i < a.length; i++) {
    ab += (a[i]! - ma) * (b[i]! - mb);
    aa += (a[i]! - ma) ** 2;
    bb += (b[i]! - mb) ** 2;
  }
  return ab ** 2 / (aa * bb);
}
