import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Ffm, type FfmFitInput, Ftrl } from '../../ts/index.js';
import { codeOf, detached } from './arrays.js';
import { logLoss, part, stream } from './sparse-data.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'waggle-ffm-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const shape = { nFields: 4, perField: 12 };
const options = { nFeatures: 48, nFields: 4 };

describe('Ffm', () => {
  it('learns what no linear model can: which pairs go together', async () => {
    const s = stream({ n: 30_000, ...shape, seed: 1 });
    const [train, test] = [part(s, 0, 24_000), part(s, 24_000, 30_000)];
    const linear = await Ftrl.create({ nFeatures: 48 });
    for (let pass = 0; pass < 3; pass++) await linear.learn(train);
    const model = await Ffm.create(options);
    const fit = await model.fit({ ...train, epochs: 30, validation: test, patience: 3 });
    const best = logLoss(await model.predict(test), test.successes);
    expect(best).toBeCloseTo(Math.min(...fit.validationLoss), 12);
    expect(fit.validationLoss[fit.bestEpoch - 1]).toBe(Math.min(...fit.validationLoss));
    // 12 × 12 pairs of two rates: the entropy of the truth is 0.455, of the best linear model about 0.55.
    expect(best).toBeLessThan(0.93 * logLoss(await linear.predict(test), test.successes));
    await Promise.all([model.close(), linear.close()]);
  });

  it('predicts what its weights say', async () => {
    const s = stream({ n: 500, ...shape, seed: 2 });
    const values = Float32Array.from({ length: s.indices.length }, (_, i) => 0.5 + (i % 3));
    for (const k of [3, 4, 20]) {
      const model = await Ffm.create({ ...options, k, normalize: true });
      await model.fit({ ...s, values, epochs: 2 });
      const { intercept, linear, interactions } = await model.weights();
      const probabilities = await model.predict({ ...s, values });
      for (let i = 0; i < s.nRows; i++) {
        const at = [0, 1, 2, 3].map((f) => 4 * i + f);
        const length = Math.sqrt(at.reduce((sum, e) => sum + values[e]! ** 2, 0));
        let eta = intercept;
        for (const e of at) eta += (linear[s.indices[e]!]! * values[e]!) / length;
        for (let f = 0; f < 4; f++) {
          for (let g = f + 1; g < 4; g++) {
            let dot = 0;
            for (let d = 0; d < k; d++) {
              dot +=
                interactions[(s.indices[at[f]!]! * 4 + g) * k + d]! *
                interactions[(s.indices[at[g]!]! * 4 + f) * k + d]!;
            }
            eta += (dot * values[at[f]!]! * values[at[g]!]!) / length ** 2;
          }
        }
        expect(Math.abs(probabilities[i]! - 1 / (1 + Math.exp(-eta)))).toBeLessThan(1e-6);
      }
      await model.close();
    }
  });

  it('is the same model for a seed, whatever else the threads do, and another for another', async () => {
    const s = stream({ n: 5_000, ...shape, seed: 3 });
    const fitted = async (seed: number) => {
      const model = await Ffm.create({ ...options, seed });
      await model.fit({ ...s, epochs: 3 });
      const weights = await model.weights();
      await model.close();
      return weights;
    };
    const [a, b, c] = await Promise.all([fitted(1), fitted(1), fitted(2)]);
    expect(a).toEqual(b);
    expect(c).not.toEqual(a);
  });

  it('fitted for 2 epochs, saved, loaded and fitted for 3 has the bits of 5', async () => {
    const s = stream({ n: 4_000, ...shape, seed: 4 });
    const whole = await Ffm.create({ ...options, k: 6, seed: 5 });
    await whole.fit({ ...s, epochs: 5 });
    const first = await Ffm.create({ ...options, k: 6, seed: 5 });
    await first.fit({ ...s, epochs: 2 });
    const path = join(folder, 'half.ffm');
    await first.save(path);
    const second = await Ffm.load(path);
    expect(second.options).toEqual(first.options);
    await second.fit({ ...s, epochs: 3 });
    expect(await second.weights()).toEqual(await whole.weights());
    expect((await second.stats()).epochs).toBe(5);
    await Promise.all([whole.close(), first.close(), second.close()]);
  });

  it('hogwild learns as well, though never the same way twice', async () => {
    const s = stream({ n: 30_000, ...shape, seed: 6 });
    const ordered = await Ffm.create(options);
    const hogwild = await Ffm.create(options);
    await ordered.fit({ ...s, epochs: 5 });
    await hogwild.fit({ ...s, epochs: 5, schedule: 'hogwild' });
    const [a, b] = [await ordered.predict(s), await hogwild.predict(s)];
    expect(logLoss(b, s.successes)).toBeLessThan(1.02 * logLoss(a, s.successes));
    await Promise.all([ordered.close(), hogwild.close()]);
  });

  it('starts at the log-odds of its rows, counts included', async () => {
    const model = await Ffm.create({ ...options, learningRate: 1e-9 });
    await model.fit({
      nRows: 2,
      indptr: Int32Array.of(0, 0, 0),
      indices: new Int32Array(0),
      successes: Float64Array.of(30, 10),
      trials: Float64Array.of(100, 100),
      weights: Float64Array.of(2, 1),
      epochs: 1,
    });
    const [p] = await model.predict({
      nRows: 1,
      indptr: Int32Array.of(0, 0),
      indices: new Int32Array(0),
    });
    expect(p).toBeCloseTo(70.5 / 301, 7);
    await model.close();
  });

  it('aborted, is what it was before', async () => {
    const s = stream({ n: 100_000, ...shape, seed: 7 });
    const model = await Ffm.create(options);
    const before = await model.weights();
    const controller = new AbortController();
    const running = model.fit({ ...s, epochs: 1_000, signal: controller.signal });
    setImmediate(() => controller.abort());
    expect(await codeOf(() => running)).toBe('WAGGLE_ABORTED');
    expect(await model.weights()).toEqual(before);
    await model.close();
  });

  it('tells how far it is', async () => {
    const s = stream({ n: 60_000, ...shape, seed: 8 });
    const model = await Ffm.create(options);
    const seen: number[] = [];
    await model.fit({ ...s, epochs: 30, onProgress: (epochs) => seen.push(epochs) });
    expect(seen.at(-1)).toBe(30);
    expect(seen.every((v, i) => i === 0 || v >= seen[i - 1]!)).toBe(true);
    await model.close();
  });

  const base = stream({ n: 50, ...shape, seed: 9 });
  const refusals: [string, Partial<FfmFitInput>, string][] = [
    [
      'an index too high',
      { indices: base.indices.slice().fill(48, 7, 8) },
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    ],
    ['a field too high', { fields: new Int32Array(200).fill(4) }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    [
      'a negative field',
      { fields: new Int32Array(200).fill(-1) },
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    ],
    [
      'rows longer than the fields',
      { nRows: 1, indptr: Int32Array.of(0, 5) },
      'WAGGLE_NATIVE_SHAPE',
    ],
    [
      'an indptr that falls',
      { indptr: base.indptr.slice().fill(0, 7, 8) },
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    ],
    ['infinite values', { values: new Float32Array(200).fill(Infinity) }, 'WAGGLE_NATIVE_NAN'],
    [
      'a label above 1',
      { successes: new Float64Array(50).fill(2) },
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    ],
    ['no weight at all', { weights: new Float64Array(50) }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['no rows', { nRows: 0, indptr: Int32Array.of(0) }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['no epochs', { epochs: 0 }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['patience without validation', { patience: 1 }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    ['an unknown schedule', { schedule: 'fast' as 'hogwild' }, 'WAGGLE_NATIVE_INVALID_ARGUMENT'],
    [
      'validation rows that are wrong',
      { validation: { ...base, indices: base.indices.slice().fill(-1, 0, 1) } },
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
    ],
    [
      'values that make it diverge',
      { values: new Float32Array(200).fill(1e30), weights: new Float64Array(50).fill(1e45) },
      'WAGGLE_NATIVE_NAN',
    ],
    ['detached memory', { fields: detached(new Int32Array(200)) }, 'WAGGLE_NATIVE_DETACHED'],
  ];

  it.each(refusals)('refuses %s and changes nothing', async (_title, wrong, code) => {
    const model = await Ffm.create(options);
    const before = await model.weights();
    expect(await codeOf(() => model.fit({ ...base, epochs: 1, ...wrong }))).toBe(code);
    expect(await model.weights()).toEqual(before);
    await model.close();
  });

  it('refuses files that are truncated, altered or of another kind', async () => {
    const model = await Ffm.create(options);
    const path = join(folder, 'good.ffm');
    await model.save(path);
    const good = readFileSync(path);
    const bad = join(folder, 'bad.ffm');
    const altered = Buffer.from(good);
    altered[good.length >> 1]! ^= 1;
    for (const bytes of [
      good.subarray(0, good.length - 1),
      altered,
      Buffer.from('something else'),
    ]) {
      writeFileSync(bad, bytes);
      expect(await codeOf(() => Ffm.load(bad))).toBe('WAGGLE_NATIVE_FILE');
    }
    const other = await Ftrl.create({ nFeatures: 3 });
    await other.save(bad);
    expect(await codeOf(() => Ffm.load(bad))).toBe('WAGGLE_NATIVE_FILE');
    await Promise.all([model.close(), other.close()]);
    expect(await codeOf(() => model.predict(base))).toBe('WAGGLE_NATIVE_CLOSED');
  });
});
