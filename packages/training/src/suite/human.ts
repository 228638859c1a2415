import { createHash } from 'node:crypto';
import { stringAt } from '@waggle/core';
import { CLICK_SIGNALS, type ClickRows } from '@waggle/features';
import { rowLogLoss } from '@waggle/measurement';
import { type Trees, treesFit } from '@waggle/native';
import type { TrainingDataset } from '../dataset.js';
import { trainingError } from '../errors.js';
import { exportTreesOnnx } from '../export/trees-onnx.js';
import type { GateCheck } from '../gate.js';
import { sliceTable } from './slice-table.js';
import { gateOnSlices, type SuiteGate } from './suite-gate.js';
import { firstSeen, isoOrNull, jsonBytes, type SuiteModel } from './suite-model.js';

/** What turns the trees' answer, a probability to touch the hidden link, into one to be a person; stored beside them. */
export interface HumanHead {
  readonly kind: 'hidden_link_trees';
  /** Share of machines that touch the hidden link, and of people. */
  readonly touch: number;
  readonly accident: number;
  readonly signals: readonly string[];
}

export interface TrainedHuman extends SuiteModel {
  readonly head: HumanHead;
  readonly trees: Trees;
  readonly gate: SuiteGate;
  /** Probability that a person made each click; float64 [nRows]. */
  predict(rows: ClickRows): Promise<Float64Array>;
}

const MIN_TRAPPED = 200;
const MIN_FREE = 200;
/** Clicks that the trees learn from; more teach them nothing. */
const MAX_TRAIN = 200_000;
/** Share of the clicks, the earlier ones, that the trees see, and from where on clicks judge. */
const TRAIN_SHARE = 0.55;
const GATE_FROM = 0.75;
/** Clicks that the trees are this sure about tell how often people stray onto the hidden link. */
const SURELY_PEOPLE = 0.01;
/** People who converted must be recognised as such: machines do not buy. */
const MIN_CONVERTERS_KEPT = 0.97;
const MIN_CONVERTERS = 50;

/**
 * Trains the probability that a click is a person's, without anybody having labelled clicks: link scanners touch a link that
 * people cannot see. Trees learn the hidden link from everything else, g(x) = P(touched | x); as machines touch it with a rate c
 * that does not depend on x, P(machine | x) = g(x)/c, with c the mean of g over clicks that touched it (Elkan & Noto 2008).
 * Whether the click itself touched the link then enters by Bayes' rule. Rings of paid clickers never touch it; they show
 * as address ranges from which many more subscribers click in one publication than elsewhere (`ringShare`).
 * Gated on later clicks: the hidden link's log-loss against its base rate, and the share of buyers taken for people.
 * Deterministic for a seed. Pure.
 * @throws WAGGLE_TRAINING_SHAPE, _NOT_FINITE, _TOO_FEW where hardly any click touched the hidden link; WAGGLE_ABORTED
 */
export async function trainHuman(o: {
  readonly rows: ClickRows;
  readonly seed: number;
  readonly signal?: AbortSignal | undefined;
}): Promise<TrainedHuman> {
  const { rows, seed, signal } = o;
  checkClickRows(rows);
  const width = CLICK_SIGNALS.length;
  const nTrain = Math.floor(rows.nRows * TRAIN_SHARE);
  const gateFrom = Math.floor(rows.nRows * GATE_FROM);
  const trapped = sum(rows.trapped.subarray(0, nTrain));
  if (trapped < MIN_TRAPPED || nTrain - trapped < MIN_FREE) {
    throw trainingError(
      'WAGGLE_TRAINING_TOO_FEW',
      `human: ${trapped} of ${nTrain} clicks touched the hidden link; ${MIN_TRAPPED} that did and ${MIN_FREE} that did not are needed`,
      { details: { clicks: nTrain, trapped } },
    );
  }
  const step = Math.max(1, Math.ceil(nTrain / MAX_TRAIN));
  const part = (from: number, to: number, every: number) => {
    const numbers = Array.from(
      { length: Math.ceil((to - from) / every) },
      (_, i) => from + i * every,
    );
    const x = new Float32Array(numbers.length * width);
    for (const [i, row] of numbers.entries()) {
      x.set(rows.x.subarray(row * width, (row + 1) * width), i * width);
    }
    return { x, nRows: numbers.length, y: Float64Array.from(numbers, (i) => rows.trapped[i]!) };
  };
  const { trees } = await treesFit({
    ...part(0, nTrain, step),
    ...TREES,
    nFeatures: width,
    objective: 'logistic',
    validation: part(nTrain, gateFrom, step),
    seed,
    signal,
  });
  const touched = async (of: ClickRows) => trees.predict({ x: of.x, nRows: of.nRows, signal });
  const g = await touched(rows);
  const head: HumanHead = {
    kind: 'hidden_link_trees',
    ...rates(g, rows.trapped, nTrain, gateFrom),
    signals: CLICK_SIGNALS.map((s) => s.name),
  };
  const predict = async (of: ClickRows): Promise<Float64Array> => {
    const answers = await touched(of);
    return Float64Array.from(answers, (p, i) => {
      const person = 1 - machine(p, of.trapped[i] === 1, head);
      return person * (1 - ringShare(of.addressSubscribers[i]!, of.addressExpected[i]!));
    });
  };
  const p = await predict(rows);

  const gateRows = Uint32Array.from({ length: rows.nRows - gateFrom }, (_, i) => gateFrom + i);
  const base = trapped / nTrain;
  const loss = (of: (i: number) => number) =>
    Float64Array.from(gateRows, (i) => rowLogLoss(of(i), rows.trapped[i]!, 1 - rows.trapped[i]!));
  const judgedRows = {
    loss: loss((i) => g[i]!),
    baselineLoss: loss(() => base),
    mass: new Float64Array(gateRows.length).fill(1),
    expected: Float64Array.from(gateRows, (i) => g[i]!),
    observed: Float64Array.from(gateRows, (i) => rows.trapped[i]!),
    publications: Uint32Array.from(gateRows, (i) => rows.publication.codes[i]!),
    publicationFirstMs: firstSeen(rows.publication, rows.tsMs, gateRows),
    campaignFirstMs: firstSeen(rows.campaign, rows.tsMs, gateRows),
    decisionTsMs: Float64Array.from(gateRows, (i) => rows.tsMs[i]!),
  };
  const slices = sliceTable(judgedRows, seed);
  const campaigns = Uint32Array.from(gateRows, (i) => rows.campaign.codes[i]!);
  const checks = convertersCheck(rows, p, gateFrom);
  const gate = gateOnSlices('human', slices[0]!, { ...judgedRows, campaigns }, checks);
  const fingerprint = `click_${createHash('sha256')
    .update(JSON.stringify(CLICK_SIGNALS))
    .digest('hex')
    .slice(0, 24)}`;
  const ruled = sum(rows.verified);
  const metrics = {
    gatePassed: gate.passed ? 1 : 0,
    relativeLogLoss: slices[0]!.relative?.estimate ?? null,
    touch: head.touch,
    accident: head.accident,
    humanShare: sum(p) / rows.nRows,
    ruleShare: ruled / rows.nRows,
  };
  return {
    name: 'human',
    head,
    trees,
    gate,
    predict,
    fingerprint,
    metrics,
    artifacts: {
      'model.trees': trees.toBytes(),
      'model.onnx': exportTreesOnnx(trees, {
        name: 'human',
        featureNames: head.signals,
        featureSetFingerprint: fingerprint,
      }).bytes,
      'head.json': jsonBytes(head),
      'gate.json': jsonBytes(gate),
    },
    card: {
      name: 'human',
      predicts: 'The probability that a person made a click, as a weight for labels.',
      unit: 'a click of any verdict',
      label:
        'none by hand: machines touch a hidden link (rate c), people hardly ever (rate ε); rings of paid clickers show as crowded address ranges',
      maturity:
        'a click is judged by all that is known when labels are made, later clicks of the subscriber included',
      baseline: 'the share of clicks that touch the hidden link',
      form: `${trees.nTrees} trees for the hidden link, c = ${head.touch.toFixed(3)}, ε = ${head.accident.toExponential(1)}; ONNX gives P(touched)`,
      data: {
        fromTs: isoOrNull(rows.tsMs[0] ?? Number.NaN),
        toTs: isoOrNull(rows.tsMs[rows.nRows - 1] ?? Number.NaN),
        rows: { train: nTrain, 'stop and rates': gateFrom - nTrain, gate: gateRows.length },
      },
      features: CLICK_SIGNALS,
      featureSetFingerprint: fingerprint,
      slices,
      metrics: {
        'share of people, by weight': metrics.humanShare,
        'share of people, by rule': metrics.ruleShare,
      },
      calibration: 'none needed: c and ε are estimated on clicks later than the fit',
      gate,
      limits: [
        'Assumes that every kind of machine touches the hidden link at the same rate: one that never does, and clicks slowly from many addresses, passes.',
        'A ring is found once some subscribers have clicked from its addresses, not at its first clicks.',
      ],
    },
  };
}

const TREES = {
  nTrees: 120,
  learningRate: 0.15,
  maxLeaves: 16,
  minChildRows: 100,
  l2: 5,
  earlyStoppingRounds: 10,
} as const;

/** P(machine) of a click from P(touched | the rest) and whether it did touch. */
function machine(g: number, touchedIt: boolean, { touch, accident }: HumanHead): number {
  const prior = Math.min(Math.max((g - accident) / (touch - accident), 0), 1);
  const ifMachine = touchedIt ? touch : 1 - touch;
  const ifPerson = touchedIt ? accident : 1 - accident;
  const whole = prior * ifMachine + (1 - prior) * ifPerson;
  return whole > 0 ? (prior * ifMachine) / whole : prior;
}

function rates(
  g: ArrayLike<number>,
  trapped: Float64Array,
  from: number,
  to: number,
): { touch: number; accident: number } {
  let [sumTouched, nTouched, strayed, nSure] = [0, 0, 1, 2_000];
  for (let i = from; i < to; i++) {
    if (trapped[i] === 1) {
      sumTouched += g[i]!;
      nTouched++;
    }
    if (g[i]! < SURELY_PEOPLE) {
      strayed += trapped[i]!;
      nSure++;
    }
  }
  const accident = strayed / nSure;
  const touch = nTouched > 0 ? sumTouched / nTouched : 1;
  // Machines must touch it more often than people, or the link tells nothing.
  return { touch: Math.min(Math.max(touch, accident + 0.05), 1 - 1e-6), accident };
}

/** Address ranges that are rings, before looking; and how many subscribers click from one that is, on average. */
const RING_PRIOR = 1e-3;
const RING_SIZE = 20;
/** Households and offices share a range: so many subscribers are expected from any that shows at all. */
const LEAST_EXPECTED = 0.5;

/**
 * Share of the clicks from an address range that a ring made: posterior of a ring, whose size is geometric, against chance,
 * Poisson around what other publications let expect; times the part of its subscribers that chance does not explain.
 */
export function ringShare(subscribers: number, expected: number): number {
  const n = Math.max(subscribers, 1);
  const mean = Math.max(expected, LEAST_EXPECTED);
  let logChance = -mean + n * Math.log(mean);
  for (let k = 2; k <= n; k++) logChance -= Math.log(k);
  const logRing = -Math.log1p(RING_SIZE) + n * Math.log(RING_SIZE / (RING_SIZE + 1));
  const odds = (RING_PRIOR / (1 - RING_PRIOR)) * Math.exp(Math.min(logRing - logChance, 500));
  return (odds / (1 + odds)) * Math.max(0, 1 - mean / n);
}

function convertersCheck(rows: ClickRows, p: Float64Array, from: number): GateCheck[] {
  let kept = 0;
  let all = 0;
  for (let i = from; i < rows.nRows; i++) {
    if (rows.converted[i] !== 1) continue;
    all++;
    kept += p[i]!;
  }
  if (all < MIN_CONVERTERS) return [];
  const share = kept / all;
  return [
    {
      name: 'converters',
      passed: share >= MIN_CONVERTERS_KEPT,
      value: share,
      limit: MIN_CONVERTERS_KEPT,
      explanation: `${(100 * share).toFixed(2)} % of ${all} later clicks that led to a conversion count as people's; at least ${100 * MIN_CONVERTERS_KEPT} % are asked for, since machines do not buy`,
    },
  ];
}

/** @throws WAGGLE_TRAINING_SHAPE, _LABEL, _NOT_FINITE (Infinity; NaN means missing) */
function checkClickRows(rows: ClickRows): void {
  const { nRows, x } = rows;
  const width = CLICK_SIGNALS.length;
  const columns = {
    trapped: rows.trapped,
    converted: rows.converted,
    tsMs: rows.tsMs,
    addressSubscribers: rows.addressSubscribers,
    addressExpected: rows.addressExpected,
  };
  if (x.length !== nRows * width) {
    throw trainingError(
      'WAGGLE_TRAINING_SHAPE',
      `${x.length} signals for ${nRows} clicks of ${width}`,
    );
  }
  for (const [name, column] of Object.entries(columns)) {
    if (column.length !== nRows) {
      throw trainingError(
        'WAGGLE_TRAINING_SHAPE',
        `${name} has ${column.length} rows where ${nRows} are expected`,
      );
    }
    const bad = column.findIndex((v) => !Number.isFinite(v));
    if (bad >= 0) {
      throw trainingError('WAGGLE_TRAINING_NOT_FINITE', `${name} is ${column[bad]} in row ${bad}`, {
        details: { row: bad },
      });
    }
  }
  const odd = rows.trapped.findIndex((v) => v !== 0 && v !== 1);
  if (odd >= 0) {
    throw trainingError(
      'WAGGLE_TRAINING_LABEL',
      `click ${odd} touched the hidden link ${rows.trapped[odd]} times`,
      { details: { row: odd } },
    );
  }
  const infinite = x.findIndex(
    (v) => v === Number.POSITIVE_INFINITY || v === Number.NEGATIVE_INFINITY,
  );
  if (infinite >= 0) {
    const name = CLICK_SIGNALS[infinite % width]!.name;
    throw trainingError(
      'WAGGLE_TRAINING_NOT_FINITE',
      `signal ${name} is ${x[infinite]} in row ${Math.floor(infinite / width)}`,
    );
  }
}

/**
 * People who clicked on each ad within 72 h, in expectation: each subscriber counts once, by the click that is most likely a
 * person's. Placement id → weight; O(clicks).
 */
export function humanClicks(rows: ClickRows, human: ArrayLike<number>): Map<string, number> {
  const best = new Map<string, number>();
  const placementOf = new Map<string, string>();
  for (let i = 0; i < rows.nRows; i++) {
    if (rows.inWindow[i] !== 1) continue;
    const placement = stringAt(rows.placement, i);
    const key = `${placement}/${stringAt(rows.subscriber, i)}`;
    best.set(key, Math.max(best.get(key) ?? 0, human[i]!));
    placementOf.set(key, placement);
  }
  const out = new Map<string, number>();
  for (const [key, p] of best) {
    const placement = placementOf.get(key)!;
    out.set(placement, (out.get(placement) ?? 0) + p);
  }
  return out;
}

/** A pCTR dataset whose successes are people in expectation instead of clicks that pass the rule. */
export function weighSuccesses(
  dataset: TrainingDataset,
  clicks: ReadonlyMap<string, number>,
): TrainingDataset {
  return {
    ...dataset,
    successes: dataset.successes.map((_, i) =>
      Math.min(clicks.get(stringAt(dataset.rowIds, i)) ?? 0, dataset.trials[i]!),
    ),
  };
}

function sum(values: Float64Array): number {
  let total = 0;
  for (const v of values) total += v;
  return total;
}
