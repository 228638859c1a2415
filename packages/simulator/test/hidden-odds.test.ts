import type { PlacementRow } from '@waggle/core/contract';
import { describe, expect, test } from 'vitest';
import { type MemoryTable, simulateWorld } from '../src/index.js';
import { HiddenOdds } from '../src/truth.js';

type Truth = {
  placement_id: string;
  publication_id: string;
  campaign_id: string;
  sent_at: number;
  delivered: number;
  p_oracle: number;
  share_72h: number;
};

const world = simulateWorld({ scale: 'ci', seed: 3, overrides: { publications: 120, days: 20 } });
const rows = [...(world.truth.placements as MemoryTable).rows<Truth>()];
const odds = new HiddenOdds(world.config, {
  publicationIds: rows.map((r) => r.publication_id),
  campaignIds: rows.map((r) => r.campaign_id),
  sentAtMs: rows.map((r) => Number(new Date(r.sent_at))),
});
const sent = new Map(
  [...world.tables['placements']!.rows<PlacementRow>()]
    .filter((r) => r.type === 'placement.sent')
    .map((r) => [r.placement_id, r]),
);

describe('hidden odds', () => {
  test('repeat the truth of every ad that ran, to the bit', () => {
    let repeated = 0;
    const seen = new Set<string>();
    for (const row of rows) {
      const { post_id, campaign_id, creative_id, position, n_ads } = sent.get(row.placement_id)!;
      const pair = `${row.publication_id}/${campaign_id}`;
      if (seen.has(pair)) repeated++;
      seen.add(pair);
      expect(
        odds.probability({
          postId: post_id,
          campaignId: campaign_id,
          creativeId: creative_id,
          position,
          nAds: n_ads,
        }),
      ).toBe(row.p_oracle);
      const send = odds.send(post_id);
      expect(send).toMatchObject({
        publicationId: row.publication_id,
        delivered: row.delivered,
        share72h: row.share_72h,
      });
      expect(odds.eligibleCampaigns(row.publication_id, send.sentMs - 1)).toContain(campaign_id);
      expect(odds.creativesOf(campaign_id)).toContain(creative_id);
    }
    // Tiredness is part of what is compared.
    expect(repeated).toBeGreaterThan(20);
  });

  test('know ads that never ran: a lower place is worth less, an unknown id is refused', () => {
    const { post_id, creative_id, publication_id } = [...sent.values()][0]!;
    const { sentMs } = odds.send(post_id);
    const eligible = odds.eligibleCampaigns(publication_id, sentMs);
    expect(eligible.length).toBeGreaterThan(3);
    for (const campaignId of eligible) {
      const creativeId = odds.creativesOf(campaignId)[0]!;
      const at = (position: number) =>
        odds.probability({ postId: post_id, campaignId, creativeId, position, nAds: 2 });
      expect(at(2)).toBeLessThan(at(1));
      expect(at(1)).toBeGreaterThan(0);
    }
    const bad = { postId: post_id, campaignId: 'cmp_none', creativeId: creative_id };
    expect(() => odds.probability({ ...bad, position: 1, nAds: 1 })).toThrowError(
      expect.objectContaining({ code: 'WAGGLE_SIMULATOR_OPTION' }),
    );
    expect(() => odds.send('post_none')).toThrow('post_none');
  });
});
