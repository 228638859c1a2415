import { DAY_MS, hash32 } from '@waggle/core';
import { simulatorError } from './errors.js';

export interface ScaleSpec {
  readonly publications: number;
  readonly campaigns: number;
  readonly days: number;
  /** Without labels a world has its catalog, posts and sends, but no ads, opens or clicks. */
  readonly labels: boolean;
  /** Share of campaigns that target categories, and at most how many. */
  readonly targeting: readonly [share: number, categories: number];
}

const BROAD = [0.3, 14] as const;
const NARROW = [0.92, 6] as const;

export const SCALES = {
  tiny: { publications: 50, campaigns: 10, days: 7, labels: true, targeting: BROAD },
  ci: { publications: 500, campaigns: 60, days: 14, labels: true, targeting: BROAD },
  demo: { publications: 2_000, campaigns: 200, days: 30, labels: true, targeting: BROAD },
  serving: { publications: 300, campaigns: 4_000, days: 14, labels: false, targeting: NARROW },
  base: { publications: 10_000, campaigns: 1_000, days: 30, labels: true, targeting: BROAD },
} as const satisfies Record<string, ScaleSpec>;

export type ScaleName = keyof typeof SCALES;
export const SCALE_NAMES = Object.keys(SCALES) as ScaleName[];

/** 2026-03-02T00:00:00Z, a Monday. */
export const DEFAULT_END_MS = Date.UTC(2026, 2, 2);

export interface WorldOptions {
  readonly scale: ScaleName;
  /** Unsigned integer below 2^32. Default 1. */
  readonly seed?: number;
  /** End of the observed past, UTC milliseconds, a full hour. Default 2026-03-02T00:00:00Z. */
  readonly endMs?: number;
  readonly tenantId?: string;
  /** Sizes other than the scale's own; the economics (budget level) stay the scale's. */
  readonly overrides?: Partial<ScaleSpec>;
}

/** A world fully determined: equal configurations give equal worlds, byte for byte. */
export interface WorldConfig extends ScaleSpec {
  readonly scale: ScaleName;
  readonly seed: number;
  readonly startMs: number;
  readonly endMs: number;
  readonly tenantId: string;
  /** Median campaign budget, dollars. */
  readonly budgetMedian: number;
  /** Size of the pool of people who may read several publications. */
  readonly sharedReaders: number;
}

const LIMITS = { publications: 100_000, campaigns: 10_000, days: 365 } as const;

/**
 * Mean list size of a LogNormal(3000, 1.6) audience, and the share of list memberships that belong to
 * people drawn from the shared pool: with 2.5 expected memberships per pool member, 12 % of all people
 * end up on two publications or more.
 */
export const MEAN_AUDIENCE = 10_790;
export const SHARED_MEMBERSHIP = 0.332;
const MEMBERSHIPS_PER_SHARED_READER = 2.5;

/** Budget level that leaves 40–70 % of campaigns bound by their budget; found by simulation. */
const BUDGET_PRESSURE = 1.6;

/** @throws WAGGLE_SIMULATOR_OPTION */
export function resolveWorld(options: WorldOptions): WorldConfig {
  const spec: ScaleSpec | undefined = SCALES[options.scale];
  if (spec === undefined) {
    throw simulatorError(
      'WAGGLE_SIMULATOR_OPTION',
      `unknown scale ${JSON.stringify(options.scale)}`,
      {
        details: { scales: SCALE_NAMES },
      },
    );
  }
  const size = { ...spec, ...options.overrides };
  for (const name of ['publications', 'campaigns', 'days'] as const) {
    const value = size[name];
    if (!Number.isInteger(value) || value < 1 || value > LIMITS[name]) {
      throw simulatorError(
        'WAGGLE_SIMULATOR_OPTION',
        `${name} must be a whole number from 1 to ${LIMITS[name]}, got ${value}`,
      );
    }
  }
  const seed = options.seed ?? 1;
  if (!Number.isInteger(seed) || seed < 0 || seed > 0xffff_ffff) {
    throw simulatorError('WAGGLE_SIMULATOR_OPTION', `seed must be 0 … 2^32-1, got ${seed}`);
  }
  const endMs = options.endMs ?? DEFAULT_END_MS;
  if (
    !Number.isInteger(endMs) ||
    endMs % 3_600_000 !== 0 ||
    endMs < Date.UTC(2000) ||
    endMs > Date.UTC(2100)
  ) {
    throw simulatorError(
      'WAGGLE_SIMULATOR_OPTION',
      `endMs must be a full hour between 2000 and 2100 in UTC milliseconds, got ${endMs}`,
    );
  }
  // Two sends a week, 1.2 ads each, 0.3 % of delivered at about two dollars.
  const grossValue = spec.publications * MEAN_AUDIENCE * (spec.days / 7) * 2.2 * 1.2 * 0.003 * 2;
  return {
    ...size,
    scale: options.scale,
    seed,
    endMs,
    startMs: endMs - size.days * DAY_MS,
    tenantId: options.tenantId ?? 'ten_sample',
    budgetMedian: (BUDGET_PRESSURE * grossValue) / spec.campaigns,
    sharedReaders: Math.max(
      64,
      Math.round(
        (spec.publications * MEAN_AUDIENCE * SHARED_MEMBERSHIP) / MEMBERSHIPS_PER_SHARED_READER,
      ),
    ),
  };
}

/** A number that names the configuration, for ids and caches. */
export function configHash(config: WorldConfig): number {
  return hash32(`${config.scale}/${config.seed}`);
}
