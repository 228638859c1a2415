import { TOPK_MAX_K, TOPK_SYNC_MAX_WORK, topk, topkSync } from '@waggle/native';
import { BitSet } from './bit-set.js';
import { retrievalError } from './errors.js';

export interface Neighbours {
  /** int32, best first, as many as were found (at most k). */
  readonly rows: Int32Array;
  /** float32, inner products in the same order. */
  readonly scores: Float32Array;
}

interface Wanted {
  readonly k: number;
  readonly filter?: BitSet;
}

/** Exact inner-product search over unit vectors, restricted to a bitmap. */
export class ExactIndex {
  readonly nRows: number;
  readonly dim: number;
  readonly #matrix: Float32Array;

  /**
   * @param matrix float32 [nRows × dim], row-major, unit-norm; borrowed for the life of the index
   * @throws WAGGLE_RETRIEVAL_SHAPE
   */
  constructor(matrix: Float32Array, dim: number) {
    if (dim < 1 || matrix.length % dim !== 0) {
      throw retrievalError(
        'WAGGLE_RETRIEVAL_SHAPE',
        `${matrix.length} values do not fill rows of dimension ${dim}`,
      );
    }
    this.nRows = matrix.length / dim;
    this.dim = dim;
    this.#matrix = matrix;
  }

  /**
   * The k rows most similar to the query among those in `filter`; ties go to the lower row.
   * @param query float32 [dim]
   * @throws WAGGLE_RETRIEVAL_SHAPE; O(nRows · dim) off the event loop
   */
  async search(
    query: Float32Array,
    options: { k: number; filter?: BitSet; signal?: AbortSignal },
  ): Promise<Neighbours> {
    const { signal } = options;
    const pages = this.#pages(options);
    let page = pages.next();
    while (page.done !== true) {
      const input = this.#input(query, page.value);
      page = pages.next(trim(await topk({ ...input, ...(signal !== undefined && { signal }) })));
    }
    return page.value;
  }

  /**
   * As `search`, on the calling thread: about 10 µs per 1,000 rows of dimension 384. Large indexes are searched in
   * slices; beyond some 20,000 rows of that dimension it holds the thread for more than a quarter of a millisecond.
   */
  searchSync(query: Float32Array, options: Wanted): Neighbours {
    const pages = this.#pages(options);
    let page = pages.next();
    while (page.done !== true) page = pages.next(this.#pageSync(query, page.value));
    return page.value;
  }

  /** One native search finds so many rows; more are searched for among those that are left. */
  *#pages(wanted: Wanted): Generator<Wanted, Neighbours, Neighbours> {
    if (!(Math.min(wanted.k, this.nRows) > TOPK_MAX_K)) return yield wanted;
    const filter = wanted.filter?.clone() ?? BitSet.full(this.nRows);
    const rows: number[] = [];
    const scores: number[] = [];
    while (rows.length < wanted.k) {
      const page = yield { k: Math.min(wanted.k - rows.length, TOPK_MAX_K), filter };
      if (page.rows.length === 0) break;
      rows.push(...page.rows);
      scores.push(...page.scores);
      for (const row of page.rows) filter.delete(row);
    }
    return { rows: Int32Array.from(rows), scores: Float32Array.from(scores) };
  }

  #pageSync(query: Float32Array, options: Wanted): Neighbours {
    const { dim, nRows } = this;
    const input = this.#input(query, options);
    // Slices begin at whole words of the bitmap.
    const perSlice = Math.max(32, Math.floor(TOPK_SYNC_MAX_WORK / dim) & ~31);
    if (nRows <= perSlice) return trim(topkSync(input));
    const found: { row: number; score: number }[] = [];
    for (let from = 0; from < nRows; from += perSlice) {
      const n = Math.min(perSlice, nRows - from);
      const slice = trim(
        topkSync({
          ...input,
          matrix: this.#matrix.subarray(from * dim, (from + n) * dim),
          nRows: n,
          k: Math.min(input.k, n),
          ...(input.filter === undefined
            ? {}
            : { filter: input.filter.subarray(from >>> 3, (from + n + 7) >>> 3) }),
        }),
      );
      for (let i = 0; i < slice.rows.length; i++) {
        found.push({ row: from + slice.rows[i]!, score: slice.scores[i]! });
      }
    }
    found.sort((a, b) => b.score - a.score || a.row - b.row);
    found.length = Math.min(found.length, input.k);
    return {
      rows: Int32Array.from(found, (f) => f.row),
      scores: Float32Array.from(found, (f) => f.score),
    };
  }

  #input(query: Float32Array, { k, filter }: Wanted) {
    if (query.length !== this.dim) {
      throw retrievalError(
        'WAGGLE_RETRIEVAL_SHAPE',
        `a query of ${query.length} values against dimension ${this.dim}`,
      );
    }
    if (filter !== undefined && filter.size !== this.nRows) {
      throw retrievalError(
        'WAGGLE_RETRIEVAL_SHAPE',
        `a bitmap over ${filter.size} rows against ${this.nRows}`,
      );
    }
    return {
      queries: query,
      nQueries: 1,
      matrix: this.#matrix,
      nRows: this.nRows,
      dim: this.dim,
      k: Math.min(k, Math.max(1, this.nRows)),
      metric: 'ip' as const,
      ...(filter === undefined
        ? {}
        : { filter: filter.bytes.subarray(0, (filter.size + 7) >>> 3) }),
    };
  }
}

function trim(found: { rows: Int32Array; scores: Float32Array }): Neighbours {
  let n = 0;
  while (n < found.rows.length && found.rows[n]! >= 0) n++;
  return { rows: found.rows.slice(0, n), scores: found.scores.slice(0, n) };
}

/**
 * Cuts a large eligible set down to `limit` rows before the expensive scoring: half of the places go to the
 * most similar rows, the rest to the rows with the highest prior value; rows in both leave room for more of
 * the latter. Deterministic; ties go to the lower row.
 * @param prior float64 [nRows], any monotone measure of what a row is worth before its features are known
 * @returns a bitmap with min(limit, |eligible|) rows; O(n log n)
 */
export function preselect(o: {
  eligible: BitSet;
  similar: Int32Array;
  prior: Float64Array;
  limit: number;
}): BitSet {
  const { eligible, similar, prior, limit } = o;
  if (eligible.count() <= limit) return eligible.clone();
  const chosen = new BitSet(eligible.size);
  let n = 0;
  const half = limit >>> 1;
  for (let i = 0; i < similar.length && n < half; i++) {
    const row = similar[i]!;
    if (eligible.has(row) && !chosen.has(row)) {
      chosen.add(row);
      n++;
    }
  }
  const byPrior = eligible.toRows().sort((a, b) => prior[b]! - prior[a]! || a - b);
  for (let i = 0; i < byPrior.length && n < limit; i++) {
    const row = byPrior[i]!;
    if (!chosen.has(row)) {
      chosen.add(row);
      n++;
    }
  }
  return chosen;
}
