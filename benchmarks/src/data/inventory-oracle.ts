import { Rng, stringAt, stringData } from '@waggle/core';
import type { NamedSendHistory } from '@waggle/features';
import type { InventoryTarget } from '@waggle/forecasting';
import { logit } from '@waggle/ranking';
import {
  expectedSend,
  type HiddenOdds,
  readHiddenOdds,
  readTruth,
  type TruthTable,
} from '@waggle/simulator/truth';
import type { Store } from '@waggle/store';

/** Worlds that each send is lived through in; the median of so many is off by 4 % of a deviation, which costs 0.1 % of the error. */
const N_DRAWS = 601;
/** Places of the network that a publication's own filled places are weighed against. */
const FILL_WORTH = 4;
/** Times that every campaign counts as having run: one that has not yet may. */
const POPULARITY_WORTH = 0.5;
const DRAW_STREAM = 0x696e7665; // 'inve'

export interface InventoryOracle {
  readonly medians: Readonly<Record<InventoryTarget, Float64Array>>;
  readonly clickInterval: { readonly low: Float64Array; readonly high: Float64Array };
}

/** An ad that ran, as the oracle needs it. */
interface RanAd {
  readonly send: number;
  readonly campaign: number;
}

/** What could run in a send: log-odds of each ad at the top place and alone, without send noise. */
interface Choice {
  readonly campaigns: readonly number[];
  /** Per campaign, of its creatives. */
  readonly logits: readonly Float64Array[];
  /** Per campaign, mean of its creatives' log-odds. */
  readonly mean: Float64Array;
}

/**
 * What one who knows the truth answers when asked for a send's counts as it is planned: the median of each, which no forecast
 * can beat in absolute error. Known are the list exactly, its readers' habits, the places for ads and every ad's odds in this
 * send; not known are which of the ads that may run will, whether a place is filled, the send's own luck and the counting. Which
 * ad runs follows the campaigns' popularity in these sends (the send's own ads left out) times the odds to the power γ that
 * explains best which did (conditional logit). A fraud ring's clicks, 0.3 % of all, are not foreseen.
 * @param rows sends to answer for, all sent
 * @returns [rows.length] each; P10 and P90 of clicks beside the medians
 */
export async function inventoryOracle(
  store: Store,
  world: string,
  o: {
    readonly history: NamedSendHistory;
    readonly rows: readonly number[];
    readonly seed: number;
  },
): Promise<InventoryOracle> {
  const { history, rows, seed } = o;
  const publications = await readTruth(world, 'publications');
  const expected = expectations(publications, history, rows);
  const placements = await readTruth(world, 'placements');
  const odds = await readHiddenOdds(world);
  const campaignOf = new Map<string, number>();
  const campaignIds: string[] = [];
  const numberOf = (id: string): number => {
    let number = campaignOf.get(id);
    if (number === undefined) {
      number = campaignIds.push(id) - 1;
      campaignOf.set(id, number);
    }
    return number;
  };
  const ran = await adsOf(store, history, placements, numberOf);
  const posts = rows.map((i) => stringAt(history.posts, i));
  const choices = rows.map((i, r) =>
    choiceOf(odds, {
      ...{ postId: posts[r]!, publicationId: history.publicationIds[history.publication[i]!]! },
      ...{ plannedMs: history.plannedMs[i]!, numberOf, idOf: (c: number) => campaignIds[c]! },
    }),
  );
  const weights = chances(choices, rows, ran);
  const filled = filledShares(history, ran);
  const shifts = placeShifts(odds, posts, choices, campaignIds);
  const noise = Math.sqrt(
    placements.numbers('send_noise').reduce((sum, v) => sum + v * v, 0) / placements.nRows,
  );
  const rng = new Rng(seed, DRAW_STREAM);
  const draws = new Float64Array(N_DRAWS);
  const low = new Float64Array(rows.length);
  const high = new Float64Array(rows.length);
  const clicks = Float64Array.from(rows, (i, r) => {
    const slots = history.nSlots[i]!;
    const choice = choices[r]!;
    if (slots === 0 || choice.campaigns.length === 0) return 0;
    const scale = expected.delivered[r]! * odds.send(posts[r]!).share72h;
    for (let d = 0; d < N_DRAWS; d++) {
      let nAds = 0;
      for (let s = 0; s < slots; s++) nAds += rng.uniform() < filled(i) ? 1 : 0;
      nAds = Math.min(nAds, choice.campaigns.length, shifts.length - 1);
      const open = Float64Array.from(weights[r]!);
      let mean = 0;
      for (let place = 0; place < nAds; place++) {
        const ad = rng.weighted(open);
        open[ad] = 0;
        const creatives = choice.logits[ad]!;
        const z =
          creatives[rng.integer(creatives.length)]! +
          shifts[nAds]![place]! +
          noise * rng.normal() -
          noise ** 2 / 2;
        mean += scale / (1 + Math.exp(-z));
      }
      draws[d] = rng.poisson(mean);
    }
    draws.sort();
    low[r] = draws[Math.floor(0.1 * N_DRAWS)]!;
    high[r] = draws[Math.floor(0.9 * N_DRAWS)]!;
    return draws[N_DRAWS >> 1]!;
  });
  const medians = { delivered: expected.delivered.map(Math.round), opens: expected.opens, clicks };
  return { medians, clickInterval: { low, high } };
}

/** Medians of deliveries and opens: sums of many small chances, whose median lies a third below the mean's next integer (Choi 1994). */
function expectations(
  publications: TruthTable,
  history: NamedSendHistory,
  rows: readonly number[],
): { readonly delivered: Float64Array; readonly opens: Float64Array } {
  const rowOf = new Map(publications.strings('publication_id').map((id, row) => [id, row]));
  const mppShare = publications.numbers('mpp_share');
  const humanOpenRate = publications.numbers('human_open_rate');
  const sends = rows.map((i) => {
    const row = rowOf.get(history.publicationIds[history.publication[i]!]!)!;
    return expectedSend({
      recipients: history.recipients[i]!,
      mppShare: mppShare[row]!,
      humanOpenRate: humanOpenRate[row]!,
      plannedMs: history.plannedMs[i]!,
      localWeekday: history.localWeekday[i]!,
      localHour: history.localHour[i]!,
    });
  });
  return {
    delivered: Float64Array.from(sends, (s) => s.delivered),
    opens: Float64Array.from(sends, (s) => Math.floor(s.opens72h + 1 / 3)),
  };
}

/** The ads that ran, by the send they ran in. */
async function adsOf(
  store: Store,
  history: NamedSendHistory,
  placements: TruthTable,
  numberOf: (campaignId: string) => number,
): Promise<RanAd[]> {
  const run = await store.queryColumns(
    "SELECT placement_id, post_id FROM placements FINAL WHERE type = 'placement.sent'",
  );
  const placementIds = stringData(run, 'placement_id');
  const postIds = stringData(run, 'post_id');
  const postOf = new Map(
    Array.from({ length: run.nRows }, (_, i) => [stringAt(placementIds, i), stringAt(postIds, i)]),
  );
  const sendOf = new Map(
    Array.from({ length: history.nSends }, (_, i) => [stringAt(history.posts, i), i] as const),
  );
  const campaigns = placements.strings('campaign_id');
  return placements.strings('placement_id').flatMap((id, row) => {
    const send = sendOf.get(postOf.get(id) ?? '');
    return send === undefined ? [] : [{ send, campaign: numberOf(campaigns[row]!) }];
  });
}

function choiceOf(
  odds: HiddenOdds,
  o: {
    readonly postId: string;
    readonly publicationId: string;
    readonly plannedMs: number;
    readonly numberOf: (campaignId: string) => number;
    readonly idOf: (campaign: number) => string;
  },
): Choice {
  const campaigns = odds.eligibleCampaigns(o.publicationId, o.plannedMs).map(o.numberOf);
  const logits = campaigns.map((c) => {
    const campaignId = o.idOf(c);
    return Float64Array.from(odds.creativesOf(campaignId), (creativeId) =>
      logit(odds.probability({ postId: o.postId, campaignId, creativeId, position: 1, nAds: 1 })),
    );
  });
  return {
    campaigns,
    logits,
    mean: Float64Array.from(logits, (own) => own.reduce((sum, v) => sum + v, 0) / own.length),
  };
}

/** Per send, how likely each of its possible ads is to be the next one taken. */
function chances(
  choices: readonly Choice[],
  rows: readonly number[],
  ran: readonly RanAd[],
): Float64Array[] {
  const rowOf = new Map(rows.map((i, r) => [i, r]));
  const own = rows.map((): number[] => []);
  for (const { send, campaign } of ran) {
    const r = rowOf.get(send);
    if (r !== undefined) own[r]!.push(campaign);
  }
  const times: number[] = [];
  const possible: number[] = [];
  choices.forEach(({ campaigns }, r) => {
    for (const c of campaigns) possible[c] = (possible[c] ?? 0) + 1;
    for (const c of own[r]!) times[c] = (times[c] ?? 0) + 1;
  });
  const popularity = choices.map(({ campaigns }, r) =>
    Float64Array.from(campaigns, (c) => {
      const others = (times[c] ?? 0) - own[r]!.filter((a) => a === c).length;
      return (others + POPULARITY_WORTH) / possible[c]!;
    }),
  );
  const weightsAt = (r: number, gamma: number): Float64Array => {
    const { mean } = choices[r]!;
    const middle = mean.reduce((sum, v) => sum + v, 0) / mean.length;
    return mean.map((z, k) => popularity[r]![k]! * Math.exp(gamma * (z - middle)));
  };
  // Newton on the conditional log-likelihood of the ads that ran; concave in γ.
  let gamma = 0;
  for (let round = 0; round < 20; round++) {
    let slope = 0;
    let curvature = 0;
    choices.forEach(({ campaigns, mean }, r) => {
      const taken = own[r]!.map((c) => campaigns.indexOf(c)).filter((k) => k >= 0);
      if (taken.length === 0) return;
      const weights = weightsAt(r, gamma);
      const total = weights.reduce((sum, w) => sum + w, 0);
      const first = weights.reduce((sum, w, k) => sum + w * mean[k]!, 0) / total;
      const second = weights.reduce((sum, w, k) => sum + w * mean[k]! ** 2, 0) / total;
      for (const k of taken) {
        slope += mean[k]! - first;
        curvature += second - first ** 2;
      }
    });
    if (!(curvature > 0)) break;
    const step = slope / curvature;
    gamma += step;
    if (Math.abs(step) < 1e-4) break;
  }
  return choices.map((_, r) => weightsAt(r, gamma));
}

/** How likely a place of a send is to be filled, by the publication's other sends. */
function filledShares(history: NamedSendHistory, ran: readonly RanAd[]): (send: number) => number {
  const ads = new Float64Array(history.nSends);
  for (const { send } of ran) ads[send]!++;
  const places = new Float64Array(history.nPublications);
  const taken = new Float64Array(history.nPublications);
  let allPlaces = 0;
  let allTaken = 0;
  for (let i = 0; i < history.nSends; i++) {
    if (!(history.sentMs[i]! > 0)) continue;
    const p = history.publication[i]!;
    places[p]! += history.nSlots[i]!;
    taken[p]! += Math.min(ads[i]!, history.nSlots[i]!);
    allPlaces += history.nSlots[i]!;
    allTaken += Math.min(ads[i]!, history.nSlots[i]!);
  }
  const usual = allTaken / allPlaces;
  return (send) => {
    const p = history.publication[send]!;
    const slots = history.nSlots[send]!;
    return (
      (taken[p]! - Math.min(ads[send]!, slots) + FILL_WORTH * usual) /
      (places[p]! - slots + FILL_WORTH)
    );
  };
}

/** [nAds][place] what a place costs in log-odds against the top place alone; the same for every ad. */
function placeShifts(
  odds: HiddenOdds,
  posts: readonly string[],
  choices: readonly Choice[],
  campaignIds: readonly string[],
): readonly Float64Array[] {
  const r = choices.findIndex((choice) => choice.campaigns.length > 0);
  if (r < 0) return [new Float64Array(0)];
  const campaignId = campaignIds[choices[r]!.campaigns[0]!]!;
  const ad = { postId: posts[r]!, campaignId, creativeId: odds.creativesOf(campaignId)[0]! };
  const at = (position: number, nAds: number) => logit(odds.probability({ ...ad, position, nAds }));
  return Array.from({ length: MAX_ADS + 1 }, (_, nAds) =>
    Float64Array.from({ length: nAds }, (_unused, place) => at(place + 1, nAds) - at(1, 1)),
  );
}

/** Ads of a send at most. */
const MAX_ADS = 3;
