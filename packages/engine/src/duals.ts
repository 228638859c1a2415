import { engineError } from './errors.js';

/**
 * Shadow prices from the allocation, `duals/duals.json`; ids that are absent have price 0. The budget price μ
 * is per micro of spend, ω per goal unit (a click or an eligible open) in micros, ρ per micro of payout.
 */
export interface Duals {
  readonly version: string;
  readonly mu: Readonly<Record<string, number>>;
  readonly omega: Readonly<Record<string, number>>;
  /** By publication: the fairness cell it belongs to. */
  readonly rho: Readonly<Record<string, number>>;
}

/** No prices: every campaign competes on its own value. */
export function zeroDuals(): Duals {
  return { version: 'duals@zero', mu: {}, omega: {}, rho: {} };
}

/** @throws WAGGLE_RELEASE_UNSERVABLE */
export function parseDuals(value: unknown): Duals {
  const duals = value as Partial<Duals> | null;
  const bad = (why: string) =>
    engineError('WAGGLE_RELEASE_UNSERVABLE', `duals/duals.json: ${why}`, {
      details: { section: 'duals' },
    });
  if (typeof duals !== 'object' || duals === null || typeof duals.version !== 'string') {
    throw bad('version is missing');
  }
  for (const name of ['mu', 'omega', 'rho'] as const) {
    const prices = duals[name];
    if (typeof prices !== 'object' || prices === null || Array.isArray(prices)) {
      throw bad(`${name} is not an object`);
    }
    for (const [id, price] of Object.entries(prices)) {
      if (!Number.isFinite(price)) throw bad(`${name}.${id} is not a finite number`);
    }
  }
  return duals as Duals;
}
