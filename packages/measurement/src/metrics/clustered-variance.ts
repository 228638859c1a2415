import { measurementError } from '../errors.js';

export interface ClusteredVariance {
  readonly variance: number;
  /** Clusters with mass, of the clustering with fewest. */
  readonly nClusters: number;
}

/**
 * Variance of a statistic from the influence of its rows, rows of one cluster sharing their surprises: G/(G−1)·Σ u_g² over the sums
 * u_g per cluster. Two clusterings that cross combine as in Cameron, Gelbach & Miller 2011, V₁ + V₂ − V₁∩₂, and never fall below
 * the greater single one. O(n).
 * @param influence [nRows], summing to about 0
 * @param clusters one code per row and clustering; none = each row its own cluster
 * @param hasMass rows without are left out
 * @throws WAGGLE_MEASUREMENT_TOO_FEW_CLUSTERS with fewer than two clusters
 */
export function clusteredVariance(
  influence: ArrayLike<number>,
  clusters: readonly ArrayLike<number>[],
  hasMass: (row: number) => boolean,
): ClusteredVariance {
  const of = (key: (row: number) => number | string): ClusteredVariance => {
    const sums = new Map<number | string, number>();
    for (let i = 0; i < influence.length; i++) {
      if (hasMass(i)) sums.set(key(i), (sums.get(key(i)) ?? 0) + influence[i]!);
    }
    const n = sums.size;
    if (n < 2) {
      throw measurementError(
        'WAGGLE_MEASUREMENT_TOO_FEW_CLUSTERS',
        `${n} cluster has rows, two are needed for a standard error`,
      );
    }
    let sum = 0;
    for (const u of sums.values()) sum += u * u;
    return { variance: (sum * n) / (n - 1), nClusters: n };
  };
  if (clusters.length === 0) return of((i) => i);
  const single = clusters.map((codes) => of((i) => codes[i]!));
  const nClusters = Math.min(...single.map((v) => v.nClusters));
  const greatest = Math.max(...single.map((v) => v.variance));
  const sum = single.reduce((total, v) => total + v.variance, 0);
  if (clusters.length === 1) return { variance: greatest, nClusters };
  // Bounding three and more by the sum is conservative and avoids 2^k − 1 intersections.
  if (clusters.length > 2) return { variance: sum, nClusters };
  const both = of((i) => `${clusters[0]![i]},${clusters[1]![i]}`);
  return { variance: Math.max(greatest, sum - both.variance), nClusters };
}
