import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  hash32,
  manualClock,
  Rng,
  type StringColumn,
  silentLogger,
  stringAt,
  stringData,
} from '@waggle/core';
import { acceptFeatures, buildSnapshot, ctrFeatures } from '@waggle/features';
import { type LinearModel, priorOnlyModel } from '@waggle/ranking';
import { type Release, ReleaseStore } from '@waggle/releases';
import { type WorldOptions, writeWorld } from '@waggle/simulator';
import { migrate, openEmbeddedStore, type Store } from '@waggle/store';
import {
  buildCatalog,
  type Catalog,
  loadRankingRelease,
  parsePolicy,
  type RankingRelease,
  type RankingReleaseInput,
  rankingReleaseFiles,
  zeroDuals,
} from '../../src/index.js';

export const TENANT = 'ten_sample';
const DIM = 32;

/** A simulated network, loaded into an embedded store and made into the parts of a release. */
export interface TestWorld {
  readonly store: Store;
  readonly asOfMs: number;
  readonly catalog: Catalog;
  readonly input: RankingReleaseInput;
  /** Builds, stores and loads a release with some parts replaced. */
  release(over?: Partial<RankingReleaseInput>): Promise<RankingRelease>;
  stored(over?: Partial<RankingReleaseInput>): Promise<Release>;
  readonly releases: ReleaseStore;
  close(): Promise<void>;
}

export async function openTestWorld(options: WorldOptions): Promise<TestWorld> {
  const dir = mkdtempSync(join(tmpdir(), 'waggle-engine-'));
  const { manifest } = writeWorld(options, join(dir, 'world'));
  const store = await openEmbeddedStore({ path: join(dir, 'store') });
  await migrate(store);
  for (const [table, { path }] of Object.entries(manifest.tables)) {
    await store.load(table, { path: join(dir, 'world', path), format: 'parquet' });
  }
  const asOfMs = Date.parse(manifest.end);
  const catalog = await buildCatalog(store, { tenantId: TENANT, asOfMs });
  const ids = {
    publications: texts(stringData(catalog.publications, 'publication_id')),
    campaigns: texts(stringData(catalog.campaigns, 'campaign_id')),
    creatives: texts(stringData(catalog.creatives, 'creative_id')),
    advertisers: texts(stringData(catalog.advertisers, 'advertiser_id')),
  };
  const snapshot = await buildSnapshot(store, [ctrFeatures, acceptFeatures], {
    tenantId: TENANT,
    asOfMs,
    ids,
    embeddingModel: 'test',
  });
  const input: RankingReleaseInput = {
    catalog,
    snapshot,
    embeddings: {
      publication: unitVectors(ids.publications),
      campaign: unitVectors(ids.campaigns),
      creative: unitVectors(ids.creatives),
      model: 'test',
    },
    models: { pctr: priorOnlyModel(ctrFeatures), accept: priorOnlyModel(acceptFeatures) },
    duals: zeroDuals(),
    policy: parsePolicy({}),
    gate: null,
    lineage: { test: true },
  };
  const releases = new ReleaseStore({
    dir: join(dir, 'releases'),
    clock: manualClock(asOfMs),
    logger: silentLogger,
  });
  const stored = async (over: Partial<RankingReleaseInput> = {}) => {
    const { id } = await releases.create(rankingReleaseFiles({ ...input, ...over }));
    return releases.open(id);
  };
  return {
    store,
    asOfMs,
    catalog,
    input,
    releases,
    stored,
    release: async (over) => loadRankingRelease(await stored(over), { logger: silentLogger }),
    async close() {
      await store.close();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

/** Some vector per id, with a common part so that similarities are not all near 0. */
function unitVectors(ids: readonly string[]): { vectors: Float32Array; dim: number } {
  const vectors = new Float32Array(ids.length * DIM);
  ids.forEach((id, row) => {
    const rng = new Rng(hash32(id));
    let norm = 0;
    for (let d = 0; d < DIM; d++) {
      const value = rng.normal() + (d === row % 4 ? 3 : 0);
      vectors[row * DIM + d] = value;
      norm += value * value;
    }
    for (let d = 0; d < DIM; d++) vectors[row * DIM + d]! /= Math.sqrt(norm);
  });
  return { vectors, dim: DIM };
}

export function texts(column: StringColumn): string[] {
  return Array.from(column.codes, (_, row) => stringAt(column, row));
}

/** A model that is not the prior alone, with every feature given some weight. */
export function wigglyModel(
  prior: LinearModel,
  seal: (m: Omit<LinearModel, 'version'>) => LinearModel,
): LinearModel {
  const { version: _, ...rest } = prior;
  return seal({
    ...rest,
    coefficients: prior.coefficients.map((c, i) => c + 0.01 * Math.sin(i)),
    priorOnly: false,
  });
}
