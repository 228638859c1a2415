import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { manualClock, type StringColumn, silentLogger, stringAt, stringData } from '@waggle/core';
import {
  buildCatalog,
  type ImportedModel,
  parsePolicy,
  rankingReleaseFiles,
  zeroDuals,
} from '@waggle/engine';
import { acceptFeatures, buildSnapshot, ctrFeatures } from '@waggle/features';
import { priorOnlyModel } from '@waggle/ranking';
import { ReleaseStore } from '@waggle/releases';
import { writeWorld } from '@waggle/simulator';
import { migrate, openEmbeddedStore, type Store } from '@waggle/store';

const DIM = 8;
export const TENANT = 'ten_sample';

/** A tiny simulated network with its store and two releases, in a folder like `.waggle`. */
export interface SampleNetwork {
  readonly dir: string;
  readonly store: Store;
  readonly releases: ReleaseStore;
  /** Both rank the same network; the second weighs similarity of texts not at all. */
  readonly releaseIds: readonly [string, string];
  /** Adds a release in which a model of another tool predicts clicks; it weighs similarity as it is told to. */
  withPctr(pctr: ImportedModel, fitPerMille?: number): Promise<string>;
  /** Adds a release of the same network under another tenant's name. */
  ofTenant(tenantId: string): Promise<string>;
  readonly asOfMs: number;
  readonly ids: {
    readonly publications: string[];
    readonly campaigns: string[];
    readonly creatives: string[];
  };
  close(): Promise<void>;
}

export async function sampleNetwork(): Promise<SampleNetwork> {
  const dir = await mkdtemp(join(tmpdir(), 'waggle-gateway-'));
  const { manifest } = writeWorld({ scale: 'tiny', seed: 7 }, join(dir, 'world'));
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
  const releases = new ReleaseStore({
    dir: join(dir, 'releases'),
    clock: manualClock(asOfMs),
    logger: silentLogger,
  });
  const create = async (
    fitPerMille: number,
    pctr?: ImportedModel,
    tenantId = TENANT,
  ): Promise<string> => {
    const { campaigns } = catalog;
    const files = rankingReleaseFiles({
      catalog: {
        ...catalog,
        campaigns: { ...campaigns, meta: { ...campaigns.meta, tenant_id: tenantId } },
      },
      snapshot: { ...snapshot, tenantId },
      embeddings: {
        publication: unitVectors(ids.publications.length),
        campaign: unitVectors(ids.campaigns.length),
        creative: unitVectors(ids.creatives.length),
        model: 'test',
      },
      models: {
        pctr: priorOnlyModel(ctrFeatures),
        accept: priorOnlyModel(acceptFeatures),
        imported: { pctr },
      },
      duals: zeroDuals(),
      policy: parsePolicy({ weights: { fit_per_mille: fitPerMille } }),
      gate: null,
      lineage: { sample: true, fitPerMille },
    });
    return (await releases.create(files)).id;
  };
  const releaseIds = [await create(200_000), await create(0)] as const;
  await releases.activate(releaseIds[0]);
  return {
    dir,
    store,
    releases,
    releaseIds,
    ofTenant: (tenantId) => create(0, undefined, tenantId),
    withPctr: (pctr, fitPerMille = 0) => create(fitPerMille, pctr),
    asOfMs,
    ids,
    async close() {
      await store.close();
      await rm(dir, { recursive: true, force: true });
    },
  };
}

/** Row r points along axis r mod DIM. */
function unitVectors(nRows: number): { vectors: Float32Array; dim: number } {
  const vectors = new Float32Array(nRows * DIM);
  for (let row = 0; row < nRows; row++) vectors[row * DIM + (row % DIM)] = 1;
  return { vectors, dim: DIM };
}

function texts(column: StringColumn): string[] {
  return Array.from(column.codes, (_, row) => stringAt(column, row));
}
