import { describe, expect, it } from 'vitest';
import {
  DeviceItems,
  DeviceMatrix,
  effectsFit,
  encodeMatrix,
  Ffm,
  Ftrl,
  glmFit,
  glmFitSparse,
  glmPath,
  glmPathSparse,
  hashFeatures,
  IvfIndex,
  kmeans,
  probeMachine,
  rankBatch,
  scoreRank,
  scoreRankSync,
  Trees,
  topk,
  topkEncoded,
  topkSync,
  treesFit,
  VectorIndex,
} from '../../ts/index.js';
import { codeOf } from './arrays.js';

type Call = (o: never) => unknown;

const functions: Record<string, Call> = {
  effectsFit,
  encodeMatrix,
  glmFit,
  glmFitSparse,
  glmPath,
  glmPathSparse,
  hashFeatures,
  kmeans,
  rankBatch,
  scoreRank,
  scoreRankSync,
  topk,
  topkEncoded,
  topkSync,
  treesFit,
  'DeviceItems.open': (o) => DeviceItems.open(o),
  'DeviceMatrix.open': (o) => DeviceMatrix.open(o),
  'Ffm.create': (o) => Ffm.create(o),
  'Ftrl.create': (o) => Ftrl.create(o),
  'IvfIndex.build': (o) => IvfIndex.build(o),
  'VectorIndex.create': (o) => VectorIndex.create(o),
};

const INVALID = 'WAGGLE_NATIVE_INVALID_ARGUMENT';

describe('options', () => {
  it.each(Object.entries(functions))('of %s that are none are refused', async (_name, call) => {
    for (const none of [undefined, null, 7, 'text']) {
      expect(await codeOf(() => call(none as never))).toBe(INVALID);
    }
  });

  it('beside other arguments may be absent but not null', async () => {
    const none = null as unknown as undefined;
    const calls: Record<string, () => unknown> = {
      'Ffm.load': () => Ffm.load('x', none),
      'Ftrl.load': () => Ftrl.load('x', none),
      glmPath: () => glmPath({} as never, none),
      'IvfIndex.load': () => IvfIndex.load('x', none),
      probeMachine: () => probeMachine(none),
      'Trees.load': () => Trees.load('x', none),
      'VectorIndex.load': () => VectorIndex.load('x', none),
    };
    for (const [name, call] of Object.entries(calls)) {
      expect([name, await codeOf(call)]).toEqual([name, INVALID]);
    }
  });

  it('of an index that are none are refused, filters included', async () => {
    const index = VectorIndex.create({ dim: 1, metric: 'ip', idType: 'uint64' });
    const [ids, none] = [BigUint64Array.of(1n), null as never];
    const query = { queries: new Float32Array(1), nQueries: 1, k: 1 };
    for (const call of [
      () => index.search(none),
      () => index.search({ ...query, filter: none }),
      () => index.search({ ...query, filter: 7 as never }),
      () => index.search({ ...query, filter: {} as never }),
      () => index.upsert(ids, new Float32Array(1), none),
      () => index.delete(ids, none),
      () => index.compact(none),
      () => index.save('x', none),
    ]) {
      expect(await codeOf(call)).toBe(INVALID);
    }
    await index.close();
  });

  it('that are misspelt are refused where they would change the answer', async () => {
    const calls: Record<string, readonly [call: Call, misspelt: string, meant: string]> = {
      'DeviceMatrix.open': [DeviceMatrix.open.bind(DeviceMatrix), 'keepexact', 'keepExact'],
      encodeMatrix: [encodeMatrix, 'loseless', 'lossless'],
      glmFit: [glmFit, 'L2', 'l2'],
      'IvfIndex.build': [IvfIndex.build.bind(IvfIndex), 'target', 'recall'],
      rankBatch: [rankBatch, 'filter', 'eligible'],
      scoreRank: [scoreRank, 'groups', 'group'],
      scoreRankSync: [scoreRankSync, 'eligible', 'filter'],
      topk: [topk, 'allowedRows', 'allowRows'],
      topkEncoded: [topkEncoded, 'filterPerQuery', 'filters'],
      topkSync: [topkSync, 'bitmap', 'filter'],
      treesFit: [treesFit, 'learning_rate', 'learningRate'],
      'VectorIndex.create': [VectorIndex.create.bind(VectorIndex), 'type', 'dtype'],
    };
    for (const [name, [call, misspelt, meant]] of Object.entries(calls)) {
      const error = await Promise.resolve()
        .then(() => call({ [misspelt]: 1 } as never))
        .catch((thrown: Error & { code: string }) => thrown);
      expect([name, error]).toEqual([name, expect.objectContaining({ code: INVALID })]);
      expect((error as Error).message).toMatch(
        new RegExp(`there is no ${misspelt}, but .*\\b${meant}\\b`),
      );
    }
  });

  it('may come with more columns than a fit asks for', async () => {
    const data = { y: Float64Array.of(0, 1), z: new Float64Array(2) };
    const x = Float32Array.of(1, 2);
    const o = { ...data, x, nRows: 2, nFeatures: 1, objective: 'squared' as const, nTrees: 1 };
    const { trees } = await treesFit({ ...o, minChildRows: 1, validation: { ...o, ...data } });
    await trees.close();
  });

  it('of a search that are misspelt are refused, and undefined is as good as absent', async () => {
    const index = VectorIndex.create({ dim: 1, metric: 'ip', idType: 'uint64' });
    const query = { queries: new Float32Array(1), nQueries: 1, k: 1 };
    for (const more of [{ filters: { ids: [] } }, { filter: { bitmap: null, bits: 1 } }]) {
      expect(await codeOf(() => index.search({ ...query, ...(more as object) }))).toBe(INVALID);
    }
    await index.search({ ...query, ...{ filters: undefined } });
    await index.close();
  });

  it('that lack a part of theirs are refused', async () => {
    const part = { nRequests: 1, nItems: 1, k: 1, nRows: 1, bits: 4, nQueries: 1, metric: 'ip' };
    const calls: Call[] = [rankBatch, hashFeatures, effectsFit, topkEncoded];
    for (const call of calls) expect(await codeOf(() => call(part as never))).toBe(INVALID);
  });
});
