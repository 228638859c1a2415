import { DAY_MS, HOUR_MS, Rng, stringColumn } from '@waggle/core';
import type { FeatureSetShape } from '@waggle/ranking';
import type { TrainingDataset } from '../src/index.js';

export const START_MS = Date.UTC(2026, 1, 1);

export const ctrSet: FeatureSetShape = {
  name: 'ctr',
  names: ['prior_logit_ctr', 'cosine', 'position', 'noise', 'always_one'],
  fingerprint: 'ctr_test',
};

export interface SyntheticOptions {
  seed: number;
  nPublications?: number;
  nCampaigns?: number;
  nRows?: number;
  days?: number;
  /** Spread of what the prior does not know but the features do. */
  signal?: number;
  /** Spread of each send's own luck. */
  sendNoise?: number;
  /** Spread of what nobody knows about a publication. */
  publicationNoise?: number;
  /** Level of the true logit after day `shiftDay`, over what it was before. */
  levelShift?: number;
  shiftDay?: number;
}

export interface Synthetic {
  dataset: TrainingDataset;
  /** True probability without send noise. */
  oracle: Float64Array;
}

/** Decisions whose true logit is prior + 1·signal·cosine − 0.2·(position − 1) + shocks. */
export function synthetic(options: SyntheticOptions): Synthetic {
  const {
    seed,
    nPublications = 150,
    nCampaigns = 20,
    nRows = 4_000,
    days = 30,
    signal = 0.4,
    sendNoise = 0.25,
    publicationNoise = 0.2,
    levelShift = 0,
    shiftDay = 0,
  } = options;
  const rng = new Rng(seed, 77);
  const size = Array.from({ length: nPublications }, () => 3_000 * Math.exp(1.2 * rng.normal()));
  const known = Array.from({ length: nPublications }, () => 0.4 * rng.normal());
  const hidden = Array.from({ length: nPublications }, () => publicationNoise * rng.normal());
  const nFeatures = ctrSet.names.length;
  const x = new Float32Array(nRows * nFeatures);
  const successes = new Float64Array(nRows);
  const trials = new Float64Array(nRows);
  const decisionTsMs = new Float64Array(nRows);
  const oracle = new Float64Array(nRows);
  const publication: string[] = [];
  const campaign: string[] = [];
  const creative: string[] = [];
  for (let i = 0; i < nRows; i++) {
    const p = rng.integer(nPublications);
    const c = rng.integer(nCampaigns);
    decisionTsMs[i] = START_MS + Math.floor(rng.uniform() * days * 24) * HOUR_MS;
    publication.push(`pub_${p}`);
    campaign.push(`cmp_${c}`);
    creative.push(`crv_${c}_${rng.integer(2)}`);
    const cosine = rng.normal();
    const position = 1 + rng.integer(3);
    const row = [-6 + known[p]!, cosine, position, rng.normal(), 1];
    x.set(row, i * nFeatures);
    const shift = decisionTsMs[i]! >= START_MS + shiftDay * DAY_MS ? levelShift : 0;
    const truth = x[i * nFeatures]! + signal * cosine - 0.2 * (position - 1) + hidden[p]! + shift;
    oracle[i] = 1 / (1 + Math.exp(-truth));
    const shocked = 1 / (1 + Math.exp(-truth - sendNoise * rng.normal()));
    trials[i] = Math.round(size[p]! * (0.9 + 0.2 * rng.uniform()));
    successes[i] = rng.binomial(trials[i]!, shocked);
  }
  return {
    dataset: {
      nRows,
      x,
      featureNames: ctrSet.names,
      decisionTsMs,
      successes,
      trials,
      maturity: new Float64Array(nRows).fill(1),
      publication: stringColumn(publication),
      campaign: stringColumn(campaign),
      creative: stringColumn(creative),
      rowIds: stringColumn(Array.from({ length: nRows }, (_, i) => `plc_${i}`)),
    },
    oracle,
  };
}
