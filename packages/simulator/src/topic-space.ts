import type { Rng } from '@waggle/core';
import { RELATEDNESS } from './relatedness.js';
import { TOPIC_COUNT } from './topics.js';

/**
 * The affinity of a publication (mixture θ) and a campaign (mixture φ) is the cosine
 * θ̂ᵀSφ̂ / √(θ̂ᵀSθ̂ · φ̂ᵀSφ̂) under the relatedness S of topics, where θ̂ ∝ θ^1.5 because main topics count
 * for more than side ones; standardised over independent pairs.
 */
const EMPHASIS = 1.5;

export interface Mixture {
  readonly weights: Float64Array;
  /** weights^1.5, sum 1 */
  readonly emphasis: Float64Array;
  /** S·emphasis */
  readonly smoothed: Float64Array;
  /** √(emphasisᵀ S emphasis) */
  readonly norm: number;
  /** Topic with the largest weight. */
  readonly top: number;
}

export function mixtureOf(weights: Float64Array): Mixture {
  const emphasis = sharpen(weights, EMPHASIS);
  let top = 0;
  for (let k = 1; k < TOPIC_COUNT; k++) if (weights[k]! > weights[top]!) top = k;
  const smoothed = new Float64Array(TOPIC_COUNT);
  let square = 0;
  for (let k = 0; k < TOPIC_COUNT; k++) {
    let sum = 0;
    for (let j = 0; j < TOPIC_COUNT; j++) sum += RELATEDNESS[k * TOPIC_COUNT + j]! * emphasis[j]!;
    smoothed[k] = sum;
    square += emphasis[k]! * sum;
  }
  return { weights, emphasis, smoothed, norm: Math.sqrt(square), top };
}

/** weights^power, scaled to sum 1. */
export function sharpen(weights: ArrayLike<number>, power: number): Float64Array {
  const out = new Float64Array(weights.length);
  let total = 0;
  for (let k = 0; k < out.length; k++) {
    out[k] = weights[k]! ** power;
    total += out[k]!;
  }
  for (let k = 0; k < out.length; k++) out[k]! /= total;
  return out;
}

/** Cosine in [0, 1]. */
export function resemblance(a: Mixture, b: Mixture): number {
  let dot = 0;
  for (let k = 0; k < TOPIC_COUNT; k++) dot += a.emphasis[k]! * b.smoothed[k]!;
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

/** Mean and deviation of the resemblance of independent pairs, from 40,000 of them. */
export const RESEMBLANCE_MEAN = 0.5314;
export const RESEMBLANCE_DEVIATION = 0.1228;

/** Affinity in standard deviations. */
export function affinity(a: Mixture, b: Mixture): number {
  return (resemblance(a, b) - RESEMBLANCE_MEAN) / RESEMBLANCE_DEVIATION;
}
