import type { RankingRelease } from './ranking-release.js';
import type { ScoringScratch } from './scoring-scratch.js';
import { fillProbabilities } from './served-model.js';

/** Candidate × servable creative: pair p of candidate i lies in [offsets[i], offsets[i + 1]). */
interface Pairs {
  readonly offsets: Int32Array;
  readonly campaigns: Int32Array;
  readonly creatives: Int32Array;
}

function pairsOf(release: RankingRelease, campaignRows: Int32Array): Pairs {
  const { creativeOffsets, creativeRows } = release.campaigns;
  const n = campaignRows.length;
  const offsets = new Int32Array(n + 1);
  for (let i = 0; i < n; i++) {
    const c = campaignRows[i]!;
    offsets[i + 1] = offsets[i]! + creativeOffsets[c + 1]! - creativeOffsets[c]!;
  }
  const campaigns = new Int32Array(offsets[n]!);
  const creatives = new Int32Array(offsets[n]!);
  for (let i = 0; i < n; i++) {
    const c = campaignRows[i]!;
    for (let p = offsets[i]!, from = creativeOffsets[c]!; p < offsets[i + 1]!; p++) {
      campaigns[p] = c;
      creatives[p] = creativeRows[from++]!;
    }
  }
  return { offsets, campaigns, creatives };
}

/**
 * Chooses the creative of each campaign that has none yet: the one most likely to be clicked at the top of a send
 * that carries no other ad, as of the release; ties go to the lower row. One choice per publication and release,
 * so that the same campaign does not change its face with the slot. O(new pairs · features)
 * @param best int32 [nCampaigns], −1 = not chosen
 */
export function fillBestCreatives(
  release: RankingRelease,
  publicationRow: number,
  campaignRows: Int32Array,
  best: Int32Array,
  scratch: ScoringScratch,
): void {
  const missing = campaignRows.filter((row) => best[row]! < 0);
  if (missing.length === 0) return;
  const { offsets, campaigns, creatives } = pairsOf(release, missing);
  const p = scratch.p(campaigns.length);
  const at = { publicationRow, tsMs: release.asOfMs, position: 1, nAds: 1 };
  const candidates = { at, campaignRows: campaigns, creativeRows: creatives };
  fillProbabilities(release.pctr, candidates, p, p);
  for (let i = 0; i < missing.length; i++) {
    let winner = offsets[i]!;
    for (let j = winner + 1; j < offsets[i + 1]!; j++) if (p[j]! > p[winner]!) winner = j;
    best[missing[i]!] = creatives[winner]!;
  }
}
