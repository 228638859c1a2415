import { DAY_MS, HOUR_MS, Rng, stringAt, stringColumn } from '@waggle/core';
import { CONVERSION_KEYS, type ConversionRows } from '@waggle/features';
import { parseEffectsModel, scoreEffects } from '@waggle/ranking';
import * as ort from 'onnxruntime-node';
import { describe, expect, test } from 'vitest';
import { type ConversionLabels, fitPcvr, scorePcvr, trainPcvr } from '../src/index.js';
import { START_MS } from './synthetic.js';

/** Half comes within the day, the rest over four weeks: slower and of another shape than the usual delays. */
const DELAYS = [
  { part: 0.5, meanMs: 0.4 * DAY_MS },
  { part: 0.5, meanMs: 9 * DAY_MS },
];
const BUCKETS = [6 * HOUR_MS, DAY_MS, 3 * DAY_MS, 7 * DAY_MS, 14 * DAY_MS];
const WINDOW = BUCKETS.at(-1)!;
const shareBy = (ms: number) => DELAYS.reduce((s, d) => s - d.part * Math.expm1(-ms / d.meanMs), 0);

interface Click {
  readonly ad: number;
  readonly clickMs: number;
  readonly conversionMs: number;
}

/** A month of ads of 40 campaigns, half of which began in its last third; every click with its fate. */
function network(seed: number) {
  const rng = new Rng(seed, 3);
  const nAds = 1_500;
  const campaigns = Array.from({ length: 40 }, (_, c) => ({
    rate: 0.03 * Math.exp(0.7 * rng.normal()),
    fromMs: START_MS + (c % 2 === 0 ? 0 : 18 * DAY_MS) + rng.uniform() * 4 * DAY_MS,
  }));
  const ads = Array.from({ length: nAds }, () => {
    const sentMs = START_MS + rng.uniform() * 30 * DAY_MS;
    const live = campaigns.flatMap((c, i) => (c.fromMs <= sentMs ? [i] : []));
    return {
      sentMs,
      campaign: live.length > 0 ? live[rng.integer(live.length)]! : 0,
      publication: rng.integer(100),
    };
  }).sort((a, b) => a.sentMs - b.sentMs);
  const clicks: Click[] = ads.flatMap(({ sentMs, campaign }, ad) =>
    Array.from({ length: 60 }, () => {
      const clickMs = sentMs + rng.exponential() * 8 * HOUR_MS;
      const { meanMs } = DELAYS[rng.bernoulli(0.5) ? 0 : 1]!;
      const converts = rng.bernoulli(campaigns[campaign]!.rate);
      return {
        ad,
        clickMs,
        conversionMs: converts ? clickMs + rng.exponential() * meanMs : Number.POSITIVE_INFINITY,
      };
    }),
  );
  return { campaigns, ads, clicks };
}

type Network = ReturnType<typeof network>;

/** What the rows of ads sent in [fromMs, toMs) look like at `asOfMs`. */
function rowsAt(
  { ads, clicks }: Network,
  o: { fromMs: number; toMs: number; asOfMs: number },
): ConversionRows {
  const own = ads.flatMap(({ sentMs }, ad) => (sentMs >= o.fromMs && sentMs < o.toMs ? [ad] : []));
  const rowOf = new Map(own.map((ad, row) => [ad, row]));
  const nRows = own.length;
  const nBuckets = BUCKETS.length;
  const column = () => new Float64Array(nRows);
  const [clicked, converted, matured] = [column(), column(), column()];
  const observed = new Float64Array(nRows * nBuckets);
  const conversions = new Float64Array(nRows * nBuckets);
  for (const { ad, clickMs, conversionMs } of clicks) {
    const row = rowOf.get(ad);
    if (row === undefined || clickMs > o.asOfMs) continue;
    clicked[row]!++;
    if (conversionMs <= o.asOfMs) converted[row]!++;
    const delay = conversionMs - clickMs;
    BUCKETS.forEach((end, b) => {
      if (clickMs + end > o.asOfMs) return;
      observed[row * nBuckets + b]!++;
      if (delay >= (BUCKETS[b - 1] ?? 0) && delay < end) conversions[row * nBuckets + b]!++;
    });
    if (clickMs + WINDOW <= o.asOfMs && delay < WINDOW) matured[row]!++;
  }
  // Ads without a click yet have no row.
  const kept = own.flatMap((_, row) => (clicked[row]! > 0 ? [row] : []));
  const pick = (values: Float64Array, width = 1) =>
    Float64Array.from(
      { length: kept.length * width },
      (_, i) => values[kept[Math.floor(i / width)]! * width + (i % width)]!,
    );
  const text = (of: (ad: number) => string) => stringColumn(kept.map((row) => of(own[row]!)));
  const named: Record<string, (ad: number) => string> = {
    campaign: (ad) => `cmp_${ads[ad]!.campaign}`,
    publication: (ad) => `pub_${ads[ad]!.publication}`,
  };
  return {
    nRows: kept.length,
    bucketsMs: BUCKETS,
    asOfMs: o.asOfMs,
    decisionTsMs: Float64Array.from(kept, (row) => ads[own[row]!]!.sentMs),
    clicks: pick(clicked),
    converted: pick(converted),
    maturedConversions: pick(matured),
    observed: pick(observed, nBuckets),
    conversions: pick(conversions, nBuckets),
    keys: Object.fromEntries(
      CONVERSION_KEYS.map((key) => [key, text(named[key] ?? (() => 'same'))]),
    ) as ConversionRows['keys'],
    placement: text((ad) => `plc_${ad}`),
  };
}

const CUT = START_MS + 23 * DAY_MS;
const END = START_MS + 30 * DAY_MS;
const past = { fromMs: START_MS, toMs: CUT, asOfMs: CUT };
const later = { fromMs: CUT, toMs: END, asOfMs: END };

/** Mean log-loss in expectation over the truth, and what was promised over what is true. */
function againstTruth(world: Network, rows: ConversionRows, p: ArrayLike<number>) {
  const share = shareBy(WINDOW);
  let [loss, mass, promised, truth] = [0, 0, 0, 0];
  for (let i = 0; i < rows.nRows; i++) {
    const campaign = Number(stringAt(rows.keys.campaign, i).slice(4));
    const t = world.campaigns[campaign]!.rate * share;
    const n = rows.clicks[i]!;
    loss -= n * (t * Math.log(p[i]!) + (1 - t) * Math.log1p(-p[i]!));
    mass += n;
    promised += n * p[i]!;
    truth += n * t;
  }
  return { loss: loss / mass, ratio: promised / truth };
}

describe('conversions that come late', () => {
  test.each([1, 2, 3])(
    'delay buckets beat "not yet is never" and "mature clicks only" against the truth, seed %i',
    async (seed) => {
      const world = network(seed);
      const rows = rowsAt(world, past);
      const judged = rowsAt(world, later);
      const of = async (labels: ConversionLabels) =>
        againstTruth(world, judged, scorePcvr(await fitPcvr(rows, { labels }), judged));
      const buckets = await of('buckets');
      const naive = await of('immature_negative');
      const mature = await of('mature_only');
      expect(buckets.loss).toBeLessThan(naive.loss);
      expect(buckets.loss).toBeLessThan(mature.loss);
      expect(Math.abs(Math.log(buckets.ratio))).toBeLessThan(0.12);
      // Not yet is not never: a quarter of the conversions is missed.
      expect(naive.ratio).toBeLessThan(0.85);
    },
  );

  test('shares are learned where they differ from the usual, and kept usual where no click is old enough', async () => {
    const world = network(4);
    const learned = await fitPcvr(rowsAt(world, { ...past, toMs: END, asOfMs: END + 20 * DAY_MS }));
    const total = shareBy(WINDOW);
    BUCKETS.forEach((end, b) => {
      const truth = (shareBy(end) - shareBy(BUCKETS[b - 1] ?? 0)) / total;
      expect(Math.abs(learned.shares[b]! - truth)).toBeLessThan(0.035);
    });
    const young = await fitPcvr(
      rowsAt(world, {
        fromMs: START_MS,
        toMs: START_MS + 6 * DAY_MS,
        asOfMs: START_MS + 6 * DAY_MS,
      }),
    );
    expect(young.shares.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 9);
    // The last two buckets have not been seen: their ratio is that of the usual delays.
    expect(young.shares[4]! / young.shares[3]!).toBeGreaterThan(0.5);
  });

  test('a conversion that comes after the window, or after now, changes nothing', () => {
    const world = network(5);
    const rows = rowsAt(world, past);
    const cut = {
      ...world,
      clicks: world.clicks.map((c) =>
        c.conversionMs > CUT || c.conversionMs - c.clickMs >= WINDOW
          ? { ...c, conversionMs: Number.POSITIVE_INFINITY }
          : c,
      ),
    };
    expect(rowsAt(cut, past).conversions).toEqual(rows.conversions);
  });
});

describe('training', () => {
  test('is calibrated and gated on later ads by what their clicks have seen, and tells newcomers apart', async () => {
    const world = network(6);
    const o = {
      past: rowsAt(world, past),
      later: rowsAt(world, later),
      seed: 1,
      bootstrapReplicates: 200,
    };
    const trained = await trainPcvr(o);
    expect(trained.gate.passed, trained.gate.summary).toBe(true);
    expect(trained.card.slices.map((s) => s.name)).toContain('new campaigns');
    expect(trained.card.slices[0]!.relative!.upper).toBeLessThan(0);
    const again = await trainPcvr(o);
    expect(
      Buffer.from(again.artifacts['model.onnx']!).equals(trained.artifacts['model.onnx']!),
    ).toBe(true);

    // What is kept parses, knows no newcomer's key, and its ONNX form answers the same.
    const model = parseEffectsModel(
      JSON.parse(new TextDecoder().decode(trained.artifacts['model.json'])),
    );
    const known = Object.keys(model.levels[0]!.effects);
    const expected = scoreEffects(model, 2, (l, row) => (l === 0 && row === 0 ? known[3]! : ''));
    const session = await ort.InferenceSession.create(trained.artifacts['model.onnx']!, {
      logSeverityLevel: 3,
    });
    const width = model.levels.length;
    const indices = new BigInt64Array(2 * width);
    indices[0] = 4n;
    const { probability } = await session.run({
      indices: new ort.Tensor('int64', indices, [2, width]),
    });
    expect(Math.abs((probability!.data as Float32Array)[0]! - expected[0]!)).toBeLessThan(1e-6);
    expect(Math.abs((probability!.data as Float32Array)[1]! - expected[1]!)).toBeLessThan(1e-6);
    expect(expected[0]).not.toBe(expected[1]);
  });

  test('rows that cannot be are refused by name and row; too few are told from wrong ones', async () => {
    const rows = rowsAt(network(7), past);
    const broken = (change: Partial<ConversionRows>) =>
      expect(fitPcvr({ ...rows, ...change })).rejects;
    const label = expect.objectContaining({ code: 'WAGGLE_TRAINING_LABEL' });
    const at = (column: Float64Array, i: number, v: number) => {
      const out = column.slice();
      out[i] = v;
      return out;
    };
    await broken({ clicks: at(rows.clicks, 3, Number.NaN) }).toEqual(label);
    await broken({ clicks: at(rows.clicks, 3, 0) }).toEqual(label);
    await broken({ conversions: at(rows.conversions, 2, 1e6) }).toEqual(label);
    await broken({ observed: at(rows.observed, 2, -1) }).toEqual(label);
    await broken({ converted: rows.converted.slice(1) }).toEqual(
      expect.objectContaining({ code: 'WAGGLE_TRAINING_SHAPE' }),
    );
    const tooFew = expect.objectContaining({ code: 'WAGGLE_TRAINING_TOO_FEW' });
    await broken({
      conversions: rows.conversions.map(() => 0),
      maturedConversions: rows.maturedConversions.map(() => 0),
    }).toEqual(tooFew);
    await expect(fitPcvr(rowsAt(network(7), { ...past, toMs: START_MS }))).rejects.toEqual(tooFew);
    expect(() =>
      parseEffectsModel({
        kind: 'effects_logit',
        name: 'x',
        base: 0,
        levels: [{ name: 'a', effects: { b: null } }],
        calibration: { kind: 'identity' },
      }),
    ).toThrow(expect.objectContaining({ code: 'WAGGLE_RANKING_MODEL_INVALID' }));
  });
});
