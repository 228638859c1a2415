import { Rng } from '@waggle/core';
import { treesFit } from '@waggle/native';
import { describe, expect, test } from 'vitest';
import { boostedLearner, constantLearner } from '../src/index.js';

const N_ROWS = 3_000;
const N_FEATURES = 3;

/** Rows whose first feature shifts the target by so much, before or after the seventh tenth. */
function rowsOf(shift: (row: number) => number) {
  const rng = new Rng(4);
  const x = Float32Array.from({ length: N_ROWS * N_FEATURES }, () => rng.uniform() - 0.5);
  const y = Float64Array.from(
    { length: N_ROWS },
    (_, i) => rng.normal() + shift(i) * Math.sign(x[i * N_FEATURES]!),
  );
  return { x, y, nRows: N_ROWS, nFeatures: N_FEATURES };
}

const meanError = async (
  learner: typeof constantLearner,
  data: ReturnType<typeof rowsOf>,
): Promise<number> => {
  const model = await learner.fit({ ...data, level: 0.5 });
  const q = await model.predict(data.x, N_ROWS);
  return data.y.reduce((sum, y, i) => sum + Math.abs(y - q[i]!), 0) / N_ROWS;
};

describe('boosted quantiles', () => {
  test('find what the features tell', async () => {
    const data = rowsOf(() => 2);
    // E|N| = 0.80 around the two medians, 2.02 around their common one.
    expect(await meanError(constantLearner, data)).toBeGreaterThan(1.9);
    expect(await meanError(boostedLearner(treesFit), data)).toBeLessThan(0.9);
  });

  test('are the same for all rows where what was found did not hold later', async () => {
    const data = rowsOf((row) => (row < 0.7 * N_ROWS ? 1 : -1));
    const model = await boostedLearner(treesFit).fit({ ...data, level: 0.9 });
    const q = await model.predict(data.x, N_ROWS);
    const constant = await constantLearner.fit({ ...data, level: 0.9 });
    expect(q).toEqual(await constant.predict(data.x, N_ROWS));
  });

  test('are the same twice, and none for no rows', async () => {
    const data = rowsOf(() => 1);
    const [one, two] = await Promise.all(
      [1, 2].map(() => boostedLearner(treesFit).fit({ ...data, level: 0.1 })),
    );
    expect(await one!.predict(data.x, N_ROWS)).toEqual(await two!.predict(data.x, N_ROWS));
    expect(await one!.predict(new Float32Array(0), 0)).toEqual(new Float64Array(0));
  });
});
