import { type ColumnTable, numericData, stringAt, stringData } from '@waggle/core';
import {
  buildDataset,
  buildSnapshot,
  ctrFeatures,
  type EmbeddingMatrices,
  OnlineFeatures,
} from '@waggle/features';
import { calibrateLogit, type LinearModel, selectedLogit, sigmoid } from '@waggle/ranking';
import { type HiddenOdds, readHiddenOdds } from '@waggle/simulator/truth';
import type { Store } from '@waggle/store';
import {
  estimateCtrParams,
  fitJudgedSelection,
  rawLogits,
  releasedInWeek,
  type SelectedRows,
  type SelectionVerdict,
  splitByTime,
  trainCtr,
  weekSince,
} from '@waggle/training';
import { type SimulatedWorld, withSimulatedWorld } from './simulated-world.js';

/** What a world's top-1 choices promised, as the model says it and as the correction does, beside what they would have brought. */
export interface SelectionWorld {
  readonly plain: SelectedRows;
  readonly corrected: SelectedRows;
  readonly nCandidates: number;
  readonly priorOnly: boolean;
  /** What came of the correction where it was not fitted. */
  readonly verdict: SelectionVerdict;
}

interface Ids {
  readonly publications: readonly string[];
  readonly campaigns: readonly string[];
  readonly creatives: readonly string[];
  readonly advertisers: readonly string[];
}

interface Slot {
  readonly placementId: string;
  readonly postId: string;
  readonly publicationId: string;
  readonly campaignId: string;
  readonly creativeId: string;
  readonly tsMs: number;
  readonly position: number;
  readonly nAds: number;
  /** Probability of the offer that led to it; NaN when it was not offered. */
  readonly propensity: number;
}

const texts = (table: ColumnTable, name: string): string[] => {
  const column = stringData(table, name);
  return Array.from(column.codes, (_, row) => stringAt(column, row));
};
const values = (table: ColumnTable, name: string): number[] =>
  Array.from(numericData(table, name, 'f64'));

async function readIds(store: Store, tenantId: string): Promise<Ids> {
  const of = async (entity: string): Promise<string[]> =>
    texts(
      await store.queryColumns(
        `SELECT DISTINCT ${entity}_id AS id FROM ${entity}s WHERE tenant_id = {tenant_id:String} ORDER BY id`,
        { params: { tenant_id: tenantId } },
      ),
      'id',
    );
  return {
    publications: await of('publication'),
    campaigns: await of('campaign'),
    creatives: await of('creative'),
    advertisers: await of('advertiser'),
  };
}

async function readVectors(store: Store, tenantId: string, ids: Ids): Promise<EmbeddingMatrices> {
  let dim = 0;
  const of = async (kind: 'publication' | 'campaign' | 'creative'): Promise<Float32Array> => {
    const table = await store.queryColumns(
      `SELECT entity_id, vector FROM embeddings FINAL WHERE tenant_id = {tenant_id:String} AND entity_kind = '${kind}' ORDER BY entity_id`,
      { params: { tenant_id: tenantId } },
    );
    const column = table.columns['vector'];
    if (column?.kind !== 'numeric') throw new TypeError(`no vectors of ${kind}s`);
    dim = column.width;
    const rowOf = new Map(ids[`${kind}s`].map((id, row) => [id, row]));
    const out = new Float32Array(rowOf.size * dim);
    texts(table, 'entity_id').forEach((id, i) => {
      const row = rowOf.get(id);
      if (row === undefined) return;
      out.set((column.data as Float32Array).subarray(i * dim, (i + 1) * dim), row * dim);
    });
    return out;
  };
  const publication = await of('publication');
  const campaign = await of('campaign');
  const creative = await of('creative');
  return { dim, publication, campaign, creative };
}

/** Slots that carried an ad from a time on, in time order. */
async function readSlots(store: Store, tenantId: string, fromMs: number): Promise<Slot[]> {
  const table = await store.queryColumns(
    `SELECT p.placement_id AS placement_id, p.post_id AS post_id, p.publication_id AS publication_id, p.campaign_id AS campaign_id, p.creative_id AS creative_id,
       toFloat64(toUnixTimestamp64Milli(p.ts)) AS ms, toFloat64(p.position) AS position, toFloat64(p.n_ads) AS n_ads,
       if(p.offer_id = '' OR o.propensity = 0, nan, toFloat64(o.propensity)) AS propensity
     FROM (SELECT * FROM placements FINAL WHERE tenant_id = {tenant_id:String} AND type = 'placement.sent' AND delivered > 0
       AND toUnixTimestamp64Milli(ts) >= ${fromMs}) AS p
     LEFT JOIN (SELECT offer_id, any(propensity) AS propensity FROM offers WHERE tenant_id = {tenant_id:String}
       AND type = 'offer.shown' GROUP BY offer_id) AS o ON o.offer_id = p.offer_id
     ORDER BY ms, placement_id`,
    { params: { tenant_id: tenantId } },
  );
  const [placement, post, publication, campaign, creative] = [
    'placement_id',
    'post_id',
    'publication_id',
    'campaign_id',
    'creative_id',
  ].map((name) => texts(table, name)) as [string[], string[], string[], string[], string[]];
  const [ms, position, nAds, propensity] = ['ms', 'position', 'n_ads', 'propensity'].map((name) =>
    values(table, name),
  ) as [number[], number[], number[], number[]];
  return placement.map((placementId, i) => ({
    placementId,
    postId: post[i]!,
    publicationId: publication[i]!,
    campaignId: campaign[i]!,
    creativeId: creative[i]!,
    tsMs: ms[i]!,
    position: position[i]!,
    nAds: nAds[i]!,
    propensity: propensity[i]!,
  }));
}

/** Scores every eligible campaign with every creative of its own in a slot. */
class SlotScorer {
  readonly #model: LinearModel;
  readonly #online: OnlineFeatures;
  readonly #odds: HiddenOdds;
  readonly #rows: {
    readonly publication: ReadonlyMap<string, number>;
    readonly campaign: ReadonlyMap<string, number>;
    readonly creative: ReadonlyMap<string, number>;
  };

  constructor(o: { model: LinearModel; online: OnlineFeatures; odds: HiddenOdds; ids: Ids }) {
    this.#model = o.model;
    this.#online = o.online;
    this.#odds = o.odds;
    const rows = (list: readonly string[]) => new Map(list.map((id, row) => [id, row]));
    this.#rows = {
      publication: rows(o.ids.publications),
      campaign: rows(o.ids.campaigns),
      creative: rows(o.ids.creatives),
    };
  }

  /**
   * Calibrated logits: the mean over the candidates, each campaign with the creative that is best for it, that of the ad which ran, and
   * the best one. Who may run in a slot is no secret: the catalog says it too.
   */
  score(slot: Slot): {
    readonly n: number;
    readonly mean: number;
    readonly ran: number;
    readonly best: {
      readonly campaignId: string;
      readonly creativeId: string;
      readonly logit: number;
    };
  } {
    const pairs = this.#odds
      .eligibleCampaigns(slot.publicationId, slot.tsMs)
      .flatMap((campaignId) =>
        this.#odds.creativesOf(campaignId).map((creativeId) => ({ campaignId, creativeId })),
      );
    const n = pairs.length;
    const { nFeatures } = this.#online;
    const x = new Float32Array(n * nFeatures);
    this.#online.evaluate(
      {
        publicationRow: this.#rows.publication.get(slot.publicationId) ?? -1,
        tsMs: slot.tsMs,
        position: slot.position,
        nAds: slot.nAds,
      },
      Int32Array.from(pairs, (pair) => this.#rows.campaign.get(pair.campaignId) ?? -1),
      Int32Array.from(pairs, (pair) => this.#rows.creative.get(pair.creativeId) ?? -1),
      x,
    );
    const raw = rawLogits(x, n, this.#model.coefficients, this.#model.intercept);
    const logits = raw.map((z) => calibrateLogit(this.#model.calibration, z));
    const bestOf = new Map<string, number>();
    let best = 0;
    let ran = Number.NaN;
    for (let i = 0; i < n; i++) {
      const { campaignId, creativeId } = pairs[i]!;
      bestOf.set(
        campaignId,
        Math.max(logits[i]!, bestOf.get(campaignId) ?? Number.NEGATIVE_INFINITY),
      );
      if (creativeId === slot.creativeId) ran = logits[i]!;
      if (logits[i]! > logits[best]!) best = i;
    }
    const mean = [...bestOf.values()].reduce((sum, z) => sum + z, 0) / bestOf.size;
    return {
      n,
      mean,
      // An ad whose flight ended between its choice and its send stands for the average one.
      ran: Number.isNaN(ran) ? mean : ran,
      best: { ...pairs[best]!, logit: logits[best]! },
    };
  }
}

/**
 * One world: a model of what was known a week before the end, the correction for selection fitted on rows later than the
 * model's own, then the best candidate of every slot of the last week, with the clicks that it would have brought by the truth
 * that the simulator kept to itself (without send noise, within 72 h). One release serves the week: features are as of its
 * beginning.
 */
export function selectionWorld(scale: string, seed: number): Promise<SelectionWorld> {
  return withSimulatedWorld({ scale, seed }, choose);
}

async function choose({
  store,
  world,
  config,
  seed,
  past,
}: SimulatedWorld): Promise<SelectionWorld> {
  const { tenantId } = config;
  const odds = await readHiddenOdds(world);
  const cutMs = past.asOfMs;
  const params = await estimateCtrParams(store, past);
  const history = await buildDataset(store, ctrFeatures, { ...past, params });
  const { model } = await trainCtr(history, { featureSet: ctrFeatures, seed, asOfMs: cutMs });
  const ids = await readIds(store, tenantId);
  const embeddings = await readVectors(store, tenantId, ids);
  const scorerAt = async (asOfMs: number): Promise<SlotScorer> => {
    const snapshot = await buildSnapshot(store, [ctrFeatures], {
      tenantId,
      asOfMs,
      ids,
      params: { ctr: params },
    });
    const online = new OnlineFeatures(ctrFeatures, snapshot, embeddings);
    return new SlotScorer({ model, online, odds, ids });
  };
  // The correction: rows that ran after the model's own, scored as a release made before them would have, each against the candidates
  // that its slot had.
  const split = splitByTime(history.decisionTsMs);
  const laterRows = Uint32Array.from([...split.calibrate, ...split.gate]);
  const slots = await readSlots(store, tenantId, split.calibrateFromMs);
  const slotOf = new Map(slots.map((slot) => [slot.placementId, slot]));
  // A release a week, each asked about what ran in its week, as `waggle train` does.
  const thenAt = new Map<number, SlotScorer>();
  const weekOf = ({ tsMs }: Slot): number => weekSince(split.calibrateFromMs, tsMs);
  const thenOf = async (slot: Slot): Promise<SlotScorer> => {
    const week = weekOf(slot);
    const known = thenAt.get(week) ?? (await scorerAt(releasedInWeek(split.calibrateFromMs, week)));
    thenAt.set(week, known);
    return known;
  };
  const pick = (column: ArrayLike<number>) => Float64Array.from(laterRows, (i) => column[i]!);
  const slotOfRow = Array.from(laterRows, (i) => slotOf.get(stringAt(history.rowIds, i))!);
  const scored: ReturnType<SlotScorer['score']>[] = [];
  for (const slot of slotOfRow) scored.push((await thenOf(slot)).score(slot));
  const { fit, verdict } = await fitJudgedSelection(
    {
      logits: scored.map(({ ran }) => ran),
      advantage: scored.map(({ ran, mean }) => ran - mean),
      successes: pick(history.successes),
      trials: pick(history.trials),
      maturity: pick(history.maturity),
      publications: pick(history.publication.codes),
      campaigns: pick(history.campaign.codes),
      weeks: slotOfRow.map(weekOf),
      propensity: slotOfRow.map((slot) => slot.propensity),
    },
    pick(history.decisionTsMs),
  );

  const now = await scorerAt(cutMs);
  const publicationOf = new Map(ids.publications.map((id, row) => [id, row]));
  const campaignOf = new Map(ids.campaigns.map((id, row) => [id, row]));
  const plain: number[] = [];
  const corrected: number[] = [];
  const trials: number[] = [];
  const clicks: number[] = [];
  const publications: number[] = [];
  const campaigns: number[] = [];
  let nCandidates = 0;
  for (const slot of slots) {
    if (slot.tsMs < cutMs) continue;
    const send = odds.send(slot.postId);
    const { n, mean, best } = now.score(slot);
    nCandidates += n;
    const truth = odds.probability({ ...slot, ...best });
    plain.push(sigmoid(best.logit));
    const own =
      fit === undefined
        ? best.logit
        : selectedLogit(fit.calibration, best.logit, best.logit - mean);
    corrected.push(sigmoid(own));
    trials.push(send.delivered);
    clicks.push(truth * send.share72h * send.delivered);
    publications.push(publicationOf.get(slot.publicationId)!);
    campaigns.push(campaignOf.get(best.campaignId)!);
  }
  const common = { trials, clicks, publications, campaigns };
  return {
    plain: { probability: plain, ...common },
    corrected: { probability: corrected, ...common },
    nCandidates,
    priorOnly: model.priorOnly,
    verdict,
  };
}
