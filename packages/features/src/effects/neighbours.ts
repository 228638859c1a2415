import { topk } from '@waggle/native';
import { centredRows, type EntityVectors } from '../entity-vectors.js';

/**
 * Texts that count as near. On headlines of real tests (benchmarks, `train/neighbours`) more of them say more about one that nobody
 * has seen, up to about this many.
 */
const MAX_NEIGHBOURS = 64;
/** Entities' worth of doubt: with a single weak neighbour its effect is believed by half. */
const DOUBT = 1;

/** Who is near to whom by text: row e has the rows `rows[e·width …]`, best first, −1 where there are no more. */
export interface Neighbourhoods {
  readonly rowOf: ReadonlyMap<string, number>;
  readonly width: number;
  /** int32 [n × width] */
  readonly rows: Int32Array;
  /** float32 [n × width]: square of the cosine with the kind's mean vector taken away; 0 for opposites. */
  readonly weights: Float32Array;
}

/**
 * The texts nearest to each text of a kind. Exact search: O(n² · dim) by `topk` of @waggle/native, 7 s of two cores for 30,000.
 * @throws what `topk` throws
 */
export async function findNeighbourhoods({
  vectors,
  dim,
  rowOf,
}: EntityVectors): Promise<Neighbourhoods> {
  const n = dim === 0 ? 0 : vectors.length / dim;
  const width = Math.min(MAX_NEIGHBOURS, Math.max(n - 1, 0));
  const rows = new Int32Array(n * width).fill(-1);
  const weights = new Float32Array(n * width);
  if (width === 0) return { rowOf, width, rows, weights };
  const centred = centredRows(vectors, meanRow(vectors, dim));
  const found = await topk({
    queries: centred,
    nQueries: n,
    matrix: centred,
    nRows: n,
    dim,
    k: width + 1,
    metric: 'ip',
  });
  for (let e = 0; e < n; e++) {
    let at = e * width;
    for (let j = e * (width + 1); j < (e + 1) * (width + 1); j++) {
      const cosine = found.scores[j]!;
      if (found.rows[j] === e || at === (e + 1) * width || !(cosine > 0)) continue;
      rows[at] = found.rows[j]!;
      weights[at] = cosine * cosine;
      at++;
    }
  }
  return { rowOf, width, rows, weights };
}

/**
 * What an entity's neighbours suggest of its effect: Σ w·effect / (Σ w·ρ + 1) over those with evidence, where shrunken effects are
 * ρ of what was seen, ρ = evidence / (evidence + strength). 0 where no neighbour has been seen.
 * @param groupOfRow int32 [n]: group of each row, −1 for those without facts
 */
export function neighbourEffect(
  { width, rows, weights }: Neighbourhoods,
  row: number,
  o: {
    readonly groupOfRow: Int32Array;
    readonly effects: Float64Array;
    readonly evidence: Float64Array;
    readonly strength: number;
  },
): number {
  let sum = 0;
  let known = DOUBT;
  for (let j = row * width; j < (row + 1) * width && rows[j]! >= 0; j++) {
    const group = o.groupOfRow[rows[j]!]!;
    const seen = group < 0 ? 0 : o.evidence[group]!;
    if (!(seen > 0)) continue;
    sum += weights[j]! * o.effects[group]!;
    known += (weights[j]! * seen) / (seen + o.strength);
  }
  return sum / known;
}

function meanRow(rows: Float32Array, dim: number): Float64Array {
  const n = rows.length / dim;
  const mean = new Float64Array(dim);
  for (let i = 0; i < rows.length; i++) mean[i % dim]! += rows[i]! / n;
  return mean;
}
