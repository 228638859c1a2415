import { Rng } from '@waggle/core';
import { describe, expect, test } from 'vitest';
import { sliceTable } from '../src/index.js';
import { type CrossedRows, gateOnSlices } from '../src/suite/suite-gate.js';

const N_PUBLICATIONS = 80;
const N_CAMPAIGNS = 15;
const N_ROWS = 1_200;

/** Rows on which model and baseline are equally good but for luck, some of it shared by a publication or a campaign. */
function world(seed: number, o: { publicationSd: number; campaignSd: number }) {
  const rng = new Rng(seed, 3);
  const lucks = (n: number, sd: number) => Array.from({ length: n }, () => sd * rng.normal());
  const ofPublication = lucks(N_PUBLICATIONS, o.publicationSd);
  const ofCampaign = lucks(N_CAMPAIGNS, o.campaignSd);
  const publications = Uint32Array.from({ length: N_ROWS }, () => rng.integer(N_PUBLICATIONS));
  const campaigns = Uint32Array.from({ length: N_ROWS }, () => rng.integer(N_CAMPAIGNS));
  const column = (value: number) => new Float64Array(N_ROWS).fill(value);
  return {
    loss: Float64Array.from(publications, (p, i) => {
      return 0.5 + ofPublication[p]! + ofCampaign[campaigns[i]!]! + 0.05 * rng.normal();
    }),
    baselineLoss: column(0.5),
    mass: column(1),
    ...{ publications, campaigns },
    ...{ publicationFirstMs: column(0), campaignFirstMs: column(0), decisionTsMs: column(1e12) },
  };
}

const gateOf = (rows: ReturnType<typeof world>) => {
  const { campaigns, ...judged } = rows;
  return gateOnSlices('content_fit', sliceTable(judged, 1)[0]!, rows);
};

describe('the gate of a model of the suite tells a limit where campaigns share errors, too', () => {
  test('it holds in as many worlds as it says, where that by publication does not', () => {
    let [held, heldByPublication] = [0, 0];
    const nWorlds = 200;
    for (let seed = 1; seed <= nWorlds; seed++) {
      const { upper975, upper975Crossed } = gateOf(
        world(seed, { publicationSd: 0.01, campaignSd: 0.03 }),
      ).relativeLogLoss!;
      // In truth there is no difference.
      if (upper975 >= 0) heldByPublication++;
      if (upper975Crossed! >= 0) held++;
    }
    // Nominal 97.5 %; three binomial standard errors over 200 worlds are 3.3 points, few clusters cost some more.
    expect(held / nWorlds).toBeGreaterThan(0.925);
    expect(heldByPublication / nWorlds).toBeLessThan(0.8);
  });

  test('is near the other one where they share none, is told, and decides nothing', () => {
    const apart = gateOf(world(5, { publicationSd: 0.03, campaignSd: 0 }));
    const { estimate, upper975, upper975Crossed } = apart.relativeLogLoss!;
    const ratio = (upper975Crossed! - estimate) / (upper975 - estimate);
    expect(ratio).toBeGreaterThan(0.85);
    expect(ratio).toBeLessThan(1.5);
    const together = world(7, { publicationSd: 0, campaignSd: 0.03 });
    // Better by 2 %.
    const mean = together.loss.reduce((sum, l) => sum + l / N_ROWS, 0);
    const better = { ...together, loss: together.loss.map((l) => l - mean + 0.49) };
    const gate = gateOf(better);
    const told = gate.relativeLogLoss!;
    expect(told.estimate).toBeCloseTo(-0.02, 9);
    expect(told.upper975).toBeLessThan(0);
    expect(told.upper975Crossed).toBeGreaterThan(0.001);
    expect(gate.passed).toBe(true);
    expect(gate.summary).toContain(
      `(${(100 * told.upper975Crossed!).toFixed(2)} % where campaigns share its errors, too)`,
    );
  });

  test('rows of one campaign have no second limit, and too few rows none at all', () => {
    const rows = world(9, { publicationSd: 0.03, campaignSd: 0 });
    const alone: CrossedRows = { ...rows, campaigns: new Uint32Array(N_ROWS) };
    const { campaigns: _, ...judged } = rows;
    const all = sliceTable(judged, 1)[0]!;
    const gate = gateOnSlices('human', all, alone);
    expect(gate.relativeLogLoss).toMatchObject({ upper975Crossed: null });
    expect(gate.summary).not.toContain('campaigns share');
    expect(gateOnSlices('human', { ...all, relative: null }, rows).relativeLogLoss).toBeNull();
  });
});
