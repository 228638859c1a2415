import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { Trees, type TreesFitInput, treesFit } from '../../ts/index.js';
import { addonFile, codeOf, randomNumbers } from './arrays.js';

/** Feature 0 has missing values, feature 1 is a category of 12, the label follows both and feature 2. */
function problem(nRows: number, seed: number): TreesFitInput & { readonly logits: Float64Array } {
  const next = randomNumbers(seed);
  const nFeatures = 4;
  const x = new Float32Array(nRows * nFeatures);
  const y = new Float64Array(nRows);
  const logits = new Float64Array(nRows);
  for (let r = 0; r < nRows; r++) {
    const missing = next() < 0.2;
    const row = [
      missing ? Number.NaN : next() * 4 - 2,
      Math.floor(next() * 12),
      next() * 4 - 2,
      next(),
    ];
    x.set(row, r * nFeatures);
    logits[r] =
      (missing ? 0.8 : Math.sin(2 * row[0]!)) + (row[1]! % 3 === 0 ? 1 : -0.5) + 0.7 * row[2]!;
    y[r] = next() < 1 / (1 + Math.exp(-logits[r]!)) ? 1 : 0;
  }
  return { x, nRows, nFeatures, y, objective: 'logistic', categorical: [1], logits };
}

function logLoss(y: Float64Array, p: Float32Array | Float64Array): number {
  let sum = 0;
  for (const [i, label] of y.entries()) sum -= Math.log(label === 1 ? p[i]! : 1 - p[i]!);
  return sum / y.length;
}

describe('treesFit', () => {
  it('takes a category that it has not seen for a rare one, also as a row of a batch', async () => {
    const { x, nRows, y } = problem(4_000, 3);
    const { trees } = await treesFit({
      ...{ x, y, nRows, nFeatures: 4, objective: 'logistic', categorical: [1] },
      ...{ nTrees: 30, maxLeaves: 15 },
    });
    const row = Float32Array.of(0.3, 3, -0.4, 0.1);
    const unseen = Float32Array.of(0.3, 12, -0.4, 0.1);
    const far = Float32Array.of(0.3, 2 ** 24, -0.4, 0.1);
    const p = await trees.predict({ x: Float32Array.of(...row, ...unseen, ...far), nRows: 3 });
    for (const value of p) expect(value > 0 && value < 1).toBe(true);
    expect(p[1]).toBe(p[2]);
    expect(p[0]).not.toBe(p[1]);
    await trees.close();
  });

  it('does not single out rare categories where a node has few of many left', async () => {
    // Feature 0 takes 60 of 400 rows with categories 9 (54 rows), 10 and 11 (3 rows each) apart from all others. Those of 10 succeed.
    const nRows = 400;
    const x = new Float32Array(nRows * 2);
    const y = new Float64Array(nRows);
    for (let r = 0; r < nRows; r++) {
      const apart = r >= 340;
      x[r * 2] = Number(apart);
      x[r * 2 + 1] = apart ? 9 + Number(r >= 394) + Number(r >= 397) : r % 9;
      y[r] = Number(apart ? r % 3 !== 0 : r % 10 === 0);
      if (x[r * 2 + 1] === 10) y[r] = 1;
    }
    const { trees } = await treesFit({
      ...{ x, y, nRows, nFeatures: 2, objective: 'logistic', categorical: [1] },
      ...{ nTrees: 1, maxLeaves: 8, learningRate: 1, minChildRows: 1, minChildWeight: 0, l2: 0 },
    });
    const of = (category: number) =>
      trees.predict({ x: Float32Array.of(1, category), nRows: 1 }).then(([p]) => p!);
    expect(await of(9)).toBeGreaterThan(0.5);
    expect(await of(10)).toBe(await of(9));
    expect(await of(11)).toBe(await of(9));
    await trees.close();
  });

  it('comes close to the truth on rows it has not seen, and predicts as it was trained', async () => {
    const train = problem(20_000, 1);
    const test = problem(20_000, 2);
    const fitted = await treesFit({ ...train, nTrees: 150, maxLeaves: 15, validation: test });
    expect(fitted.bestTree).toBe(150);
    expect(fitted.trees.nTrees).toBe(150);
    expect(fitted.trees.kind).toBe('classification');
    const truth = logLoss(
      test.y,
      test.logits.map((s) => 1 / (1 + Math.exp(-s))),
    );
    const found = logLoss(test.y, await fitted.trees.predict({ x: test.x, nRows: test.nRows }));
    expect(found).toBeLessThan(truth + 0.01);
    expect(found).toBeCloseTo(fitted.validationLoss.at(-1)!, 5);
    const learned = logLoss(
      train.y,
      await fitted.trees.predict({ x: train.x, nRows: train.nRows }),
    );
    expect(learned).toBeCloseTo(fitted.trainLoss.at(-1)!, 5);
    // Feature 3 is noise.
    expect(fitted.gain[3]!).toBeLessThan(0.5 * Math.min(...fitted.gain.subarray(0, 3)));
    await fitted.trees.close();
  });

  it('gives the same bytes for a seed at any number of threads, and others for another seed', async () => {
    const input = { ...problem(5_000, 3), nTrees: 10, rowSample: 0.7, featureSample: 0.8 };
    const bytes = async (o: Partial<TreesFitInput>): Promise<Uint8Array> => {
      const { trees } = await treesFit({ ...input, ...o });
      const written = trees.toBytes();
      await trees.close();
      return written;
    };
    const first = await bytes({ threads: 1 });
    expect(await bytes({ threads: 2 })).toEqual(first);
    expect(await bytes({})).toEqual(first);
    expect(await bytes({ seed: 9 })).not.toEqual(first);
    const again = await Trees.load(first);
    expect(again.nTrees).toBe(10);
    await again.close();
  });

  it('learns binomial counts as it learns their single trials', async () => {
    // Each row is four trials with one to three successes: as counts, and written out.
    const { x, nFeatures } = problem(500, 4);
    const y = Float64Array.from({ length: 500 }, (_, r) => 1 + ((r * 7) % 3));
    const single = { x: new Float32Array(500 * 4 * nFeatures), y: new Float64Array(2_000) };
    for (let r = 0; r < 500; r++) {
      for (let t = 0; t < 4; t++) {
        single.x.set(x.subarray(r * nFeatures, (r + 1) * nFeatures), (r * 4 + t) * nFeatures);
        single.y[r * 4 + t] = t < y[r]! ? 1 : 0;
      }
    }
    const shared = { nFeatures, objective: 'logistic', nTrees: 5, minChildWeight: 5 } as const;
    const counts = await treesFit({
      ...shared,
      x,
      nRows: 500,
      y,
      trials: new Float64Array(500).fill(4),
      minChildRows: 1,
    });
    const singles = await treesFit({ ...shared, ...single, nRows: 2_000, minChildRows: 4 });
    const a = await counts.trees.predict({ x, nRows: 500 });
    const b = await singles.trees.predict({ x, nRows: 500 });
    for (const [r, p] of a.entries()) expect(Math.abs(p - b[r]!)).toBeLessThan(1e-6);
    await Promise.all([counts.trees.close(), singles.trees.close()]);
  });

  it('stops early, keeps the best round, and tells its progress', async () => {
    const told: number[] = [];
    const fitted = await treesFit({
      ...problem(400, 5),
      nTrees: 2_000,
      learningRate: 0.3,
      validation: problem(2_000, 6),
      earlyStoppingRounds: 5,
      progress: ({ done, total, unit }) => {
        expect(unit).toBe('rounds');
        expect(total).toBe(2_000);
        told.push(done);
      },
    });
    expect(fitted.validationLoss.length).toBe(fitted.bestTree + 5);
    expect(fitted.trees.nTrees).toBe(fitted.bestTree);
    expect(Math.min(...fitted.validationLoss)).toBe(fitted.validationLoss[fitted.bestTree - 1]);
    expect(told.at(-1)).toBe(fitted.bestTree + 5);
    await fitted.trees.close();
  });

  it('fits classes, counts, quantiles and rankings', async () => {
    const base = problem(4_000, 7);
    const { x, nRows } = base;
    const classes = await treesFit({
      ...base,
      objective: 'softmax',
      nClasses: 3,
      y: base.logits.map((s) => (s < -0.5 ? 0 : s < 0.5 ? 1 : 2)),
      nTrees: 30,
    });
    expect(classes.trees.nOutputs).toBe(3);
    const shares = await classes.trees.predict({ x, nRows: 1 });
    expect(shares[0]! + shares[1]! + shares[2]!).toBeCloseTo(1, 5);
    expect(classes.trainLoss.at(-1)!).toBeLessThan(0.2);
    const target = base.logits.map((s, r) => s + ((r * 31) % 97) / 97);
    const upper = await treesFit({ ...base, objective: 'quantile', quantile: 0.9, y: target });
    const bounds = await upper.trees.predict({ x, nRows });
    const below = target.filter((t, r) => t <= bounds[r]!).length / nRows;
    expect(below).toBeGreaterThan(0.86);
    expect(below).toBeLessThan(0.94);
    const counts = await treesFit({
      ...base,
      objective: 'poisson',
      y: target.map((t) => Math.max(0, Math.round(t))),
    });
    expect(Math.min(...(await counts.trees.predict({ x, nRows })))).toBeGreaterThan(0);
    const ranking = await treesFit({
      ...base,
      objective: 'lambdarank',
      y: base.logits.map((s) => Math.min(4, Math.max(0, Math.round(s + 2)))),
      groups: new Uint32Array(200).fill(20),
    });
    expect(ranking.trees.kind).toBe('ranking');
    expect(ranking.trainLoss.at(-1)!).toBeLessThan(0.1);
    await Promise.all([classes, upper, counts, ranking].map(({ trees }) => trees.close()));
  });

  it('is aborted between waves of splits', async () => {
    const controller = new AbortController();
    const running = treesFit({ ...problem(20_000, 8), nTrees: 100_000, signal: controller.signal });
    setTimeout(() => controller.abort(), 50);
    expect(await codeOf(() => running)).toBe('WAGGLE_ABORTED');
  });

  it('runs in a worker, and an ended worker stops it', async () => {
    // Workers run plain JavaScript, so this one uses the addon itself; the numbers are those of treesFit.
    const source = `
      const addon = require(${JSON.stringify(addonFile)});
      addon.start();
      const n = 20000;
      const x = Float32Array.from({ length: n * 2 }, (_, i) => (i * 7919) % 1000);
      const y = Float64Array.from({ length: n }, (_, r) => (x[2 * r] > 500 ? 1 : r % 2));
      const none = Array(4).fill(undefined);
      const fit = (nTrees) => addon.treesFit(x, n, y, ...none, undefined, 0, undefined, ...none, 2, 1, undefined, undefined,
        Float64Array.of(0, 0, 0.5, nTrees, 0.1, 31, 0, 0, 255, 0.001, 20, 0, 1, 0, 1, 1, 1, 0, 0), new Float64Array(1)).promise;
      fit(3).then(({ trees }) => {
        fit(100000).catch(() => {});
        require('node:worker_threads').parentPort.postMessage(trees.nTrees);
      });
    `;
    const worker = new Worker(source, { eval: true });
    const [nTrees] = await once(worker, 'message');
    expect(nTrees).toBe(3);
    await worker.terminate();
  });

  it('names what is wrong, before it starts or by row and feature', async () => {
    const good = problem(100, 9);
    const refused = async (o: object): Promise<string> => {
      try {
        const { trees } = await treesFit({ ...good, ...o });
        await trees.close();
        return 'accepted';
      } catch (error) {
        return `${(error as { code: string }).code} ${(error as Error).message}`;
      }
    };
    const nan = good.y.slice();
    nan[41] = Number.NaN;
    expect(await refused({ y: nan })).toMatch(/^WAGGLE_NATIVE_NAN .*row 41/);
    const infinite = good.x.slice();
    infinite[4 * 7 + 2] = Number.POSITIVE_INFINITY;
    expect(await refused({ x: infinite })).toMatch(/^WAGGLE_NATIVE_NAN .*row 7, feature 2/);
    expect(await refused({ validation: { ...good, x: infinite } })).toMatch(/validation x .*row 7/);
    expect(await refused({ categorical: [0] })).toMatch(
      /^WAGGLE_NATIVE_INVALID_ARGUMENT .*category/,
    );
    expect(await refused({ categorical: [4] })).toMatch(/^WAGGLE_NATIVE_INVALID_ARGUMENT/);
    expect(await refused({ objective: 'hinge' })).toMatch(/objective is hinge/);
    expect(await refused({ objective: 'softmax' })).toMatch(/nClasses/);
    expect(await refused({ objective: 'lambdarank' })).toMatch(/^WAGGLE_NATIVE_SHAPE .*groups/);
    expect(await refused({ y: new Float64Array(100) })).toMatch(/both outcomes/);
    expect(await refused({ y: new Float64Array(99) })).toMatch(/^WAGGLE_NATIVE_SHAPE/);
    expect(await refused({ weights: new Float64Array(100).fill(-1) })).toMatch(/negative at row 0/);
    expect(await refused({ nRows: 0 })).toMatch(/^WAGGLE_NATIVE_INVALID_ARGUMENT nRows/);
    expect(await refused({ nRows: 2 ** 31 })).toMatch(/^WAGGLE_NATIVE_INVALID_ARGUMENT nRows/);
    expect(await refused({ earlyStoppingRounds: 3 })).toMatch(/validation/);
    expect(await refused({ signal: AbortSignal.abort() })).toMatch(/^WAGGLE_ABORTED/);
    expect(await refused({})).toBe('accepted');
  });
});
