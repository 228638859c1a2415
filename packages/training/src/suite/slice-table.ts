import { Rng } from '@waggle/core';
import { clusterBootstrap, rowLogLoss } from '@waggle/measurement';
import { LABEL_HORIZON_MS } from '../dataset.js';
import { trainingError } from '../errors.js';

/** Judged rows, later than training: what each cost the model and its baseline, and what was promised. */
export interface JudgedRows {
  /** [nRows] loss of the row in nats, times its mass. */
  readonly loss: Float64Array;
  readonly baselineLoss: Float64Array;
  /** [nRows] trials times weight. */
  readonly mass: Float64Array;
  /** [nRows] successes promised and seen; absent where a model promises no count. */
  readonly expected?: Float64Array;
  readonly observed?: Float64Array;
  /** [nRows] publication codes, whose rows are drawn together. */
  readonly publications: ArrayLike<number>;
  /** [nRows] when the row's publication and campaign were first decided on. */
  readonly publicationFirstMs: Float64Array;
  readonly campaignFirstMs: Float64Array;
  readonly decisionTsMs: Float64Array;
}

/** Judged rows of counts: successes among trials, under the model's probabilities and its baseline's. */
export function judgedCounts(
  o: {
    readonly model: Float64Array;
    readonly baseline: Float64Array;
    readonly successes: Float64Array;
    readonly trials: Float64Array;
  } & Pick<JudgedRows, 'publications' | 'publicationFirstMs' | 'campaignFirstMs' | 'decisionTsMs'>,
): JudgedRows {
  const { model, baseline, successes, trials, ...of } = o;
  const losses = (p: Float64Array) =>
    p.map((v, i) => rowLogLoss(v, successes[i]!, trials[i]! - successes[i]!));
  return {
    ...of,
    loss: losses(model),
    baselineLoss: losses(baseline),
    mass: trials,
    expected: model.map((p, i) => p * trials[i]!),
    observed: successes,
  };
}

export interface Limits {
  readonly estimate: number;
  readonly lower: number;
  readonly upper: number;
}

export interface SliceOfModel {
  readonly name: string;
  readonly rows: number;
  readonly mass: number;
  readonly publications: number;
  /** Nats per trial; null where the slice has too few publications to say. */
  readonly logLoss: Limits | null;
  readonly baselineLogLoss: number | null;
  /** (loss − baseline's) / baseline's. */
  readonly relative: Limits | null;
  /** Expected over observed; null too where nothing was observed or counts mean nothing. */
  readonly calibration: Limits | null;
}

/** Below these a slice is listed with its size alone: its numbers would be noise. */
const MIN_SLICE_ROWS = 30;
const MIN_SLICE_PUBLICATIONS = 5;
const REPLICATES = 400;
const STREAM = 0x736c6963; // 'slic'

/**
 * All rows, and known and new publications and campaigns each by themselves, with 95 % limits by bootstrap over
 * publications. New is what was first decided on less than a label's horizon before the first judged row, or after it.
 * O(n + replicates · publications · slices).
 * @throws WAGGLE_TRAINING_SHAPE when columns differ in length
 */
export function sliceTable(rows: JudgedRows, seed: number): SliceOfModel[] {
  const nRows = rows.loss.length;
  for (const [name, column] of Object.entries(rows)) {
    if ((column as ArrayLike<number>).length !== nRows) {
      throw trainingError('WAGGLE_TRAINING_SHAPE', `${name} has other than ${nRows} rows`);
    }
  }
  const fromMs = rows.decisionTsMs.reduce(
    (least, ts) => Math.min(least, ts),
    Number.POSITIVE_INFINITY,
  );
  const isNew = (firstMs: number): boolean => firstMs > fromMs - LABEL_HORIZON_MS;
  const slices: [string, (i: number) => boolean][] = [
    ['all', () => true],
    ['known publications', (i) => !isNew(rows.publicationFirstMs[i]!)],
    ['new publications', (i) => isNew(rows.publicationFirstMs[i]!)],
    ['known campaigns', (i) => !isNew(rows.campaignFirstMs[i]!)],
    ['new campaigns', (i) => isNew(rows.campaignFirstMs[i]!)],
  ];
  return slices.map(([name, belongs]) => sliceOf(name, rows, belongs, seed));
}

function sliceOf(
  name: string,
  rows: JudgedRows,
  belongs: (i: number) => boolean,
  seed: number,
): SliceOfModel {
  const { expected, observed } = rows;
  const numbers = new Map<number, number>();
  const sums: { loss: number; baseline: number; mass: number; hope: number; seen: number }[] = [];
  let nRows = 0;
  for (let i = 0; i < rows.loss.length; i++) {
    if (!(rows.mass[i]! > 0) || !belongs(i)) continue;
    nRows++;
    const code = rows.publications[i]!;
    let g = numbers.get(code);
    if (g === undefined) {
      g = sums.length;
      numbers.set(code, g);
      sums.push({ loss: 0, baseline: 0, mass: 0, hope: 0, seen: 0 });
    }
    const own = sums[g]!;
    own.loss += rows.loss[i]!;
    own.baseline += rows.baselineLoss[i]!;
    own.mass += rows.mass[i]!;
    own.hope += expected?.[i] ?? 0;
    own.seen += observed?.[i] ?? 0;
  }
  const total = (key: keyof (typeof sums)[number]): number =>
    sums.reduce((sum, own) => sum + own[key], 0);
  const size = { name, rows: nRows, mass: total('mass'), publications: sums.length };
  if (nRows < MIN_SLICE_ROWS || sums.length < MIN_SLICE_PUBLICATIONS) {
    return { ...size, logLoss: null, baselineLogLoss: null, relative: null, calibration: null };
  }
  type Key = keyof (typeof sums)[number];
  const ratio = (above: (own: Record<Key, number>) => number, below: Key): Limits | null => {
    if (!(total(below) > 0)) return null;
    const { estimate, lower, upper } = clusterBootstrap(
      sums.length,
      (multiplicity) => {
        let a = 0;
        let b = 0;
        for (let g = 0; g < sums.length; g++) {
          a += multiplicity[g]! * above(sums[g]!);
          b += multiplicity[g]! * sums[g]![below];
        }
        return b > 0 ? a / b : Number.NaN;
      },
      { rng: new Rng(seed, STREAM), nReplicates: REPLICATES },
    );
    return { estimate, lower, upper };
  };
  return {
    ...size,
    logLoss: ratio((own) => own.loss, 'mass'),
    baselineLogLoss: total('baseline') / size.mass,
    relative: ratio((own) => own.loss - own.baseline, 'baseline'),
    calibration:
      expected === undefined || observed === undefined || sums.filter((s) => s.seen > 0).length < 2
        ? null
        : ratio((own) => own.hope, 'seen'),
  };
}
