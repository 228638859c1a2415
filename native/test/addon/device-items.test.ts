import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { DeviceItems } from '../../ts/index.js';
import { built, emulated } from './emulated-plugin.js';

// The same batch wherever it runs; prints the bits of its answer.
const SCRIPT = `
  import { backendInfo, DeviceItems, kmeans, rankBatch, scoreRank } from ${JSON.stringify(built)};
  let seed = 1;
  const next = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
  const floats = (n) => Float32Array.from({ length: n }, next);
  const nItems = 400, nRequests = 5, dim = 24, nItemFeatures = 3;
  const embeddings = floats(nItems * dim), itemFeatures = floats(nItems * nItemFeatures);
  const input = {
    nRequests, nItems, k: 6,
    eligiblePerRequest: Uint8Array.from({ length: nRequests * Math.ceil(nItems / 8) }, () => next() * 256),
    similarity: { queries: floats(nRequests * dim), embeddings, dim, metric: 'cosine', isFeature: true },
    itemFeatures, nItemFeatures,
    model: { coefficients: Float64Array.from({ length: 4 }, () => next() - 0.5), intercept: 0.1 },
    columns: { price: floats(nItems), mu: floats(nItems), frequency: floats(nItems) },
    group: Int32Array.from({ length: nItems }, () => next() * 40), maxPerGroup: 1,
    weights: { margin: 0.3, fit: 1.5, advertiser: 0.5, payout: 0.1, explore: 1 },
  };
  const onDevice = backendInfo().chosen.backend === 'cuda';
  const resident = onDevice
    ? await DeviceItems.open({ nItems, embeddings, dim, itemFeatures, nItemFeatures })
    : undefined;
  const bits = (...arrays) => arrays.map((a) => Buffer.from(a.buffer, a.byteOffset, a.byteLength).toString('base64'));
  const say = (r) => bits(r.items, r.scores, r.terms, r.predictions, r.counts);
  const answers = [say(await rankBatch({ ...input, resident })), say(await rankBatch(input))];
  const ranked = await scoreRank({
    nCandidates: nItems, k: 9, q: floats(nItems), spend: floats(nItems), payout: floats(nItems), fit: floats(nItems),
    weights: input.weights,
  });
  const clusters = await kmeans({ x: embeddings, nRows: nItems, dim, k: 12 });
  let closed = '', other = '';
  if (resident !== undefined) {
    other = await rankBatch({ ...input, resident, nItemFeatures: 0, itemFeatures: undefined,
      model: { ...input.model, coefficients: new Float64Array(1) } }).catch((e) => e.code);
    resident.close();
    resident.close();
    closed = await rankBatch({ ...input, resident }).catch((e) => e.code);
  }
  console.log(JSON.stringify({
    answers, ranked: bits(ranked.rows, ranked.scores, ranked.terms), clusters: bits(clusters.centroids),
    closed, other, bytes: resident?.deviceBytes, operations: backendInfo().device?.operations,
  }));
`;

function run(env: Record<string, string>) {
  const child = spawnSync(process.execPath, ['--input-type=module', '-e', SCRIPT], {
    encoding: 'utf8',
    env: { ...process.env, ...env },
  });
  expect(child.stderr).toBe('');
  return JSON.parse(child.stdout);
}

describe('DeviceItems', () => {
  test('refuses shapes and types before anything starts', async () => {
    const embeddings = new Float32Array(6);
    await expect(DeviceItems.open({ nItems: 4, embeddings, dim: 2 })).rejects.toMatchObject({
      code: 'WAGGLE_NATIVE_SHAPE',
    });
    for (const uncounted of [{ embeddings }, { itemFeatures: embeddings }]) {
      await expect(DeviceItems.open({ nItems: 3, ...uncounted })).rejects.toMatchObject({
        code: 'WAGGLE_NATIVE_INVALID_ARGUMENT',
      });
    }
    await expect(DeviceItems.open({ nItems: -1 })).rejects.toMatchObject({
      code: 'WAGGLE_NATIVE_INVALID_ARGUMENT',
    });
  });

  test.skipIf(emulated === undefined || !existsSync(built))(
    'rank to the bits of the CPU, resident or not, and are closed for good',
    () => {
      const device = run({ WAGGLE_BACKEND: 'cuda', WAGGLE_BACKEND_DIR: emulated ?? '' });
      const cpu = run({ WAGGLE_BACKEND: 'cpu' });
      expect(device.answers[0]).toEqual(cpu.answers[0]);
      expect(device.answers[1]).toEqual(cpu.answers[0]);
      expect(device.ranked).toEqual(cpu.ranked);
      expect(device.clusters).toEqual(cpu.clusters);
      expect(device.other).toBe('WAGGLE_NATIVE_SHAPE');
      expect(device.closed).toBe('WAGGLE_NATIVE_CLOSED');
      expect(device.bytes).toBe(400 * 4 * (24 + 3 + 1));
      expect(device.operations).toEqual([
        'topk',
        'deviceMatrix',
        'trees.predict',
        'trees.fit',
        'scoreRank',
        'rankBatch',
        'deviceItems',
        'kmeans',
        'ivf.build',
      ]);
      expect(cpu.operations).toBeUndefined();
    },
  );
});
