import { Rng } from '@waggle/core';
import { TOPIC_COUNT, TOPICS } from './topics.js';

/**
 * Topics of one cluster resemble each other; the affinity of a publication (mixture θ) and a campaign
 * (mixture φ) is the cosine θᵀSφ / √(θᵀSθ · φᵀSφ) under that resemblance S, standardised over
 * independent pairs.
 */
const SAME_CLUSTER = 0.3;
const ANY_OTHER = 0.05;

export interface Mixture {
  readonly weights: Float64Array;
  /** S·weights */
  readonly smoothed: Float64Array;
  /** √(weightsᵀ S weights) */
  readonly norm: number;
  /** Topic with the largest weight. */
  readonly top: number;
}

export function mixtureOf(weights: Float64Array): Mixture {
  const clusterSums = new Float64Array(8);
  let total = 0;
  let top = 0;
  for (let k = 0; k < TOPIC_COUNT; k++) {
    clusterSums[TOPICS[k]!.cluster]! += weights[k]!;
    total += weights[k]!;
    if (weights[k]! > weights[top]!) top = k;
  }
  const smoothed = new Float64Array(TOPIC_COUNT);
  let square = 0;
  for (let k = 0; k < TOPIC_COUNT; k++) {
    const cluster = clusterSums[TOPICS[k]!.cluster]!;
    smoothed[k] =
      weights[k]! * (1 - SAME_CLUSTER) + cluster * (SAME_CLUSTER - ANY_OTHER) + total * ANY_OTHER;
    square += weights[k]! * smoothed[k]!;
  }
  return { weights, smoothed, norm: Math.sqrt(square), top };
}

/** Cosine in [0, 1]. */
export function resemblance(a: Mixture, b: Mixture): number {
  let dot = 0;
  for (let k = 0; k < TOPIC_COUNT; k++) dot += a.weights[k]! * b.smoothed[k]!;
  return dot / (a.norm * b.norm);
}

/** Symmetric Dirichlet draw over the topics. */
export function dirichlet(rng: Rng, concentration: number): Float64Array {
  const weights = new Float64Array(TOPIC_COUNT);
  let total = 0;
  for (let k = 0; k < TOPIC_COUNT; k++) {
    weights[k] = rng.gamma(concentration);
    total += weights[k]!;
  }
  for (let k = 0; k < TOPIC_COUNT; k++) weights[k]! /= total;
  return weights;
}

export const PUBLICATION_CONCENTRATION = 0.15;
export const CAMPAIGN_CONCENTRATION = 0.1;

let moments: { mean: number; deviation: number } | undefined;

/** Mean and deviation of the resemblance of independent pairs, from 4,096 fixed ones. */
export function resemblanceMoments(): { mean: number; deviation: number } {
  if (moments === undefined) {
    const rng = new Rng(0x70_7069_63, 0, 0);
    let sum = 0;
    let squares = 0;
    const n = 4096;
    for (let i = 0; i < n; i++) {
      const r = resemblance(
        mixtureOf(dirichlet(rng, PUBLICATION_CONCENTRATION)),
        mixtureOf(dirichlet(rng, CAMPAIGN_CONCENTRATION)),
      );
      sum += r;
      squares += r * r;
    }
    const mean = sum / n;
    moments = { mean, deviation: Math.sqrt(squares / n - mean * mean) };
  }
  return moments;
}

/** Affinity in standard deviations. */
export function affinity(a: Mixture, b: Mixture): number {
  const { mean, deviation } = resemblanceMoments();
  return (resemblance(a, b) - mean) / deviation;
}
