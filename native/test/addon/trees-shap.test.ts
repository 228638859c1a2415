import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { TREES_DECISIONS, TREES_MISSINGS, Trees, type TreesDump } from '../../ts/index.js';

const folder = fileURLToPath(new URL('../trees/', import.meta.url));
const explained = readdirSync(`${folder}contributions`).map((name) =>
  name.replace(/\.contributions$/, ''),
);

function words(path: string): ArrayBuffer {
  const file = readFileSync(path);
  return file.buffer.slice(file.byteOffset, file.byteOffset + file.length);
}

function rowsOf(name: string): { nRows: number; x: Float32Array } {
  const bytes = words(`${folder}models/${name}.rows`);
  const [nRows = 0, nFeatures = 0] = new Int32Array(bytes, 0, 2);
  return { nRows, x: new Float32Array(bytes, 12, nRows * nFeatures).slice() };
}

/** Scores by walking the dumped structure: base + scale · Σ leaves. */
function scores(dump: TreesDump, nFeatures: number, x: Float32Array, nRows: number): Float64Array {
  const nTargets = dump.base.length;
  const out = new Float64Array(nRows * nTargets);
  for (let r = 0; r < nRows; r++) {
    for (let t = 0; t < nTargets; t++) out[r * nTargets + t] = dump.base[t]!;
    for (const [tree, root] of dump.treeFirstNode.entries()) {
      let at = root;
      while (dump.feature[at]! >= 0) {
        let value = x[r * nFeatures + dump.feature[at]!]!;
        const missing = TREES_MISSINGS[dump.missing[at]!];
        let left: boolean;
        if (Number.isNaN(value) && missing === 'nan-is-zero') value = 0;
        if (
          Number.isNaN(value) ||
          (missing === 'zero-or-nan' && Math.abs(value) <= Math.fround(1e-35))
        ) {
          left = dump.defaultLeft[at] === 1;
        } else {
          const limit = dump.threshold[at]!;
          const list = (from: Float32Array) =>
            from.subarray(dump.first[at]!, dump.first[at]! + dump.count[at]!);
          const inSet = (category: number) =>
            category >= 0 &&
            category < 32 * dump.count[at]! &&
            ((dump.categories[dump.first[at]! + (category >> 5)]! >>> (category & 31)) & 1) === 1;
          switch (TREES_DECISIONS[dump.decision[at]!]) {
            case 'less':
              left = value < limit;
              break;
            case 'less-or-equal':
              left = value <= limit;
              break;
            case 'equal':
              left = value === limit;
              break;
            case 'member':
              left = list(dump.members).includes(value);
              break;
            case 'category':
              left = value >= 0 && inSet(Math.trunc(value));
              break;
            default:
              left = inSet(Math.trunc(value));
          }
        }
        at = root + (left ? dump.left[at]! : dump.right[at]!);
      }
      for (let v = 0; v < dump.treeValues[tree]!; v++) {
        out[r * nTargets + dump.treeTarget[tree]! + v]! +=
          dump.scale * dump.values[dump.first[at]! + v]!;
      }
    }
  }
  return out;
}

describe('Trees.shap', () => {
  it.each(explained)('explains %s as its own library does', async (name) => {
    const { nRows, x } = rowsOf(name);
    const recorded = words(`${folder}contributions/${name}.contributions`);
    const expected = new Float32Array(recorded, 12);
    const trees = await Trees.load(`${folder}models/${name}`);
    expect(trees.hasCovers).toBe(true);
    const values = await trees.shap({ x, nRows });
    expect(values.length).toBe(expected.length);
    // They answer in float32, and XGBoost adds in it.
    let most = 0;
    for (const [i, e] of expected.entries()) most = Math.max(most, Math.abs(values[i]! - e));
    expect(most).toBeLessThan(4e-6);
    const again = await Trees.load(trees.toBytes());
    expect(await again.shap({ x, nRows, threads: 1 })).toEqual(values);
    await Promise.all([trees.close(), again.close()]);
  });

  it('adds up to the score, with covers and with a background', async () => {
    const name = 'multiclass.lightgbm.txt';
    const { nRows, x } = rowsOf(name);
    const trees = await Trees.load(`${folder}models/${name}`);
    const truth = scores(trees.dump(), trees.nFeatures, x, nRows);
    const out = new Float64Array(nRows * trees.nTargets * (trees.nFeatures + 1));
    for (const background of [undefined, { x, nRows: 7 }]) {
      expect(await trees.shap({ x, nRows, background, out })).toBe(out);
      const width = trees.nFeatures + 1;
      for (const [i, score] of truth.entries()) {
        const sum = out.subarray(i * width, (i + 1) * width).reduce((a, b) => a + b, 0);
        expect(sum).toBeCloseTo(score, 12);
      }
    }
    await trees.close();
  });

  it('asks for a background where a model has no covers, and says so', async () => {
    const { nRows, x } = rowsOf('regressor.onnx');
    const trees = await Trees.load(`${folder}models/regressor.onnx`);
    expect(trees.hasCovers).toBe(false);
    await expect(trees.shap({ x, nRows })).rejects.toMatchObject({
      code: 'WAGGLE_NATIVE_MODEL',
      remedy: expect.stringContaining('background') as string,
    });
    const values = await trees.shap({ x, nRows, background: { x, nRows: 20 } });
    // The expected score is the background's mean.
    const raw = await trees.predict({ x, nRows: 20, raw: true });
    expect(values[trees.nFeatures]).toBeCloseTo(raw.reduce((a, b) => a + b, 0) / 20, 5);
    await trees.close();
  });

  it('refuses arrays and sizes that do not fit, stops on abort, and is refused once closed', async () => {
    const trees = await Trees.load(`${folder}models/regression.lightgbm.txt`);
    const x = new Float32Array(10);
    const code = (o: object): Promise<string> =>
      trees.shap({ x, nRows: 2, ...o }).then(
        () => 'accepted',
        (error: { code: string }) => error.code,
      );
    expect(await code({})).toBe('accepted');
    expect(await code({ nRows: 0 })).toBe('accepted');
    expect(await code({ nRows: 3 })).toBe('WAGGLE_NATIVE_SHAPE');
    expect(await code({ out: new Float64Array(5) })).toBe('WAGGLE_NATIVE_SHAPE');
    expect(await code({ out: new Float32Array(50) })).toBe('WAGGLE_NATIVE_DTYPE');
    expect(await code({ threads: 0 })).toBe('WAGGLE_NATIVE_INVALID_ARGUMENT');
    expect(await code({ background: { x, nRows: 0 } })).toBe('WAGGLE_NATIVE_INVALID_ARGUMENT');
    expect(await code({ background: { x, nRows: 3 } })).toBe('WAGGLE_NATIVE_SHAPE');
    expect(await code({ signal: AbortSignal.abort() })).toBe('WAGGLE_ABORTED');
    const nRows = 400_000;
    const many = new Float32Array(nRows * trees.nFeatures);
    const stop = new AbortController();
    const running = trees.shap({ x: many, nRows, signal: stop.signal });
    stop.abort();
    await expect(running).rejects.toMatchObject({ code: 'WAGGLE_ABORTED' });
    await trees.close();
    expect(await code({})).toBe('WAGGLE_NATIVE_CLOSED');
    expect(() => trees.dump()).toThrow(/closed/);
  });

  it.each(readdirSync(`${folder}models`).filter((name) => !name.endsWith('.rows')))(
    'dumps a structure of %s that scores as it does',
    async (name) => {
      const { nRows, x } = rowsOf(name);
      const trees = await Trees.load(`${folder}models/${name}`);
      const raw = await trees.predict({ x, nRows, raw: true });
      const truth = scores(trees.dump(), trees.nFeatures, x, nRows);
      for (const [i, score] of truth.entries()) expect(raw[i]).toBeCloseTo(score, 5);
      await trees.close();
    },
  );
});
