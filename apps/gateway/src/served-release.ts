import type { RankingRelease } from '@waggle/engine';
import type { ReleaseManifest } from '@waggle/releases';
import type { ServedRelease } from './ports.js';

/** What HTTP asks of a release: whose it is, whom it knows, what it is made of. */
export function servedRelease(manifest: ReleaseManifest, ranking: RankingRelease): ServedRelease {
  const known = {
    publication: ranking.publications.rowOf,
    campaign: new Set(ranking.campaigns.ids),
    creative: new Set(ranking.creativeIds),
  };
  const summary = {
    id: manifest.id,
    created_at: manifest.createdAt,
    tenant_id: ranking.tenantId,
    versions: ranking.versions,
    degraded: ranking.degraded,
    publications: ranking.publications.n,
    campaigns: ranking.campaigns.n,
    creatives: ranking.creativeIds.length,
    bytes: manifest.files.reduce((total, file) => total + file.bytes, 0),
    lineage: manifest.lineage,
  };
  return {
    id: manifest.id,
    tenantId: ranking.tenantId,
    knows: (kind, id) => known[kind].has(id),
    summary: () => summary,
  };
}
