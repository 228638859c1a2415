import { rankingError } from './errors.js';

/**
 * A row-major float32 matrix [nRows × nFeatures] that is filled again for every request: it grows when
 * needed and never shrinks. `data` may be longer than the rows in use.
 */
export class FeatureMatrix {
  readonly featureNames: readonly string[];
  readonly nFeatures: number;
  data: Float32Array;
  nRows = 0;

  constructor(featureNames: readonly string[], capacityRows = 0) {
    this.featureNames = featureNames;
    this.nFeatures = featureNames.length;
    this.data = new Float32Array(capacityRows * this.nFeatures);
  }

  /** Makes room for `nRows` rows and returns the data; what was in it is stale. */
  resize(nRows: number): Float32Array {
    const needed = nRows * this.nFeatures;
    if (this.data.length < needed) this.data = new Float32Array(needed);
    this.nRows = nRows;
    return this.data;
  }

  /** One row as a view, not a copy. @throws WAGGLE_RANKING_SHAPE */
  row(index: number): Float32Array {
    if (!Number.isInteger(index) || index < 0 || index >= this.nRows) {
      throw rankingError('WAGGLE_RANKING_SHAPE', `row ${index} of a matrix of ${this.nRows}`);
    }
    return this.data.subarray(index * this.nFeatures, (index + 1) * this.nFeatures);
  }

  /** One row by feature name, for explanations. @throws WAGGLE_RANKING_SHAPE */
  record(index: number): Record<string, number> {
    const row = this.row(index);
    const out: Record<string, number> = {};
    for (let f = 0; f < this.nFeatures; f++) out[this.featureNames[f]!] = row[f]!;
    return out;
  }
}
