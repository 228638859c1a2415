import type { ClickRelease } from './ranking-release.js';
import type { ScoringScratch } from './scoring-scratch.js';
import { onThread, type ServedNetwork } from './served-model.js';

/** Candidate × servable creative: pair p of candidate i lies in [offsets[i], offsets[i + 1]). */
interface Pairs {
  readonly offsets: Int32Array;
  readonly campaigns: Int32Array;
  readonly creatives: Int32Array;
}

function pairsOf(release: ClickRelease, campaignRows: Int32Array): Pairs {
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
  release: ClickRelease,
  publicationRow: number,
  campaignRows: Int32Array,
  best: Int32Array,
  scratch: ScoringScratch,
): void {
  const missing = campaignRows.filter((row) => best[row]! < 0);
  if (missing.length === 0) return;
  const pairs = pairsOf(release, missing);
  const p = scratch.p(pairs.campaigns.length);
  const at = topOf(release, publicationRow);
  onThread(release.pctr).probabilities(at, pairs.campaigns, pairs.creatives, p);
  keepLikeliest(missing, pairs, p, best);
}

/** As `fillBestCreatives`, by a network; it is asked about campaigns with several creatives. */
export async function askBestCreatives(
  release: ClickRelease,
  pctr: ServedNetwork,
  publicationRow: number,
  campaignRows: Int32Array,
  best: Int32Array,
): Promise<void> {
  const { creativeOffsets } = release.campaigns;
  const missing = campaignRows.filter((row) => best[row]! < 0);
  const several = missing.filter((c) => creativeOffsets[c + 1]! - creativeOffsets[c]! > 1);
  const pairs = pairsOf(release, several);
  const at = topOf(release, publicationRow);
  const p = several.length === 0 ? [] : await pctr.ask(at, pairs.campaigns, pairs.creatives);
  firstCreatives(release, missing).forEach((creative, i) => {
    best[missing[i]!] = creative;
  });
  keepLikeliest(several, pairs, p, best);
}

/** The first creative of each campaign, for want of a choice. */
export function firstCreatives(release: ClickRelease, campaignRows: Int32Array): Int32Array {
  const { creativeOffsets, creativeRows } = release.campaigns;
  return campaignRows.map((c) => creativeRows[creativeOffsets[c]!]!);
}

const topOf = (release: ClickRelease, publicationRow: number) => ({
  publicationRow,
  tsMs: release.asOfMs,
  position: 1,
  nAds: 1,
});

function keepLikeliest(
  campaignRows: Int32Array,
  { offsets, creatives }: Pairs,
  p: ArrayLike<number>,
  best: Int32Array,
): void {
  for (let i = 0; i < campaignRows.length; i++) {
    let winner = offsets[i]!;
    for (let j = winner + 1; j < offsets[i + 1]!; j++) if (p[j]! > p[winner]!) winner = j;
    best[campaignRows[i]!] = creatives[winner]!;
  }
}
