import type { Rng } from '@waggle/core';

/** One split of a random LightGBM model: numerical with any missing rule, or categorical. */
interface Shape {
  readonly nTrees: number;
  readonly nLeaves: number;
  /** Features before `firstCategory` are numbers, the others categories below 70. */
  readonly nFeatures: number;
  readonly firstCategory: number;
  /** Trees per iteration. */
  readonly nTargets: number;
  readonly objective: string;
}

/** What LightGBM writes (text format v4), grown at random: thresholds of few values, so that rows meet them. */
export function randomLightgbm(shape: Shape, rng: Rng): string {
  const header = [
    'tree',
    'version=v4',
    `num_class=${shape.nTargets}`,
    `num_tree_per_iteration=${shape.nTargets}`,
    `max_feature_idx=${shape.nFeatures - 1}`,
    `objective=${shape.objective}`,
    '',
  ];
  const missingOf = Array.from({ length: shape.nFeatures }, () => rng.integer(3));
  const trees = Array.from({ length: shape.nTrees * shape.nTargets }, (_, t) => {
    const left: number[] = [];
    const right: number[] = [];
    const feature: number[] = [];
    const threshold: number[] = [];
    const decision: number[] = [];
    const boundaries = [0];
    const words: number[] = [];
    // Slots that hold a leaf, each to be replaced by a split and two leaves.
    const leaves: { side: number[]; at: number }[] = [{ side: [0], at: 0 }];
    let nLeaves = 1;
    const target = 1 + rng.integer(shape.nLeaves);
    while (nLeaves < target) {
      const split = feature.length;
      const pick = rng.integer(leaves.length);
      const { side, at } = leaves[pick]!;
      const kept = side[at]!;
      if (split > 0) side[at] = split;
      const f = rng.integer(shape.nFeatures);
      feature.push(f);
      left.push(split === 0 ? -1 : kept);
      right.push(~nLeaves);
      if (f < shape.firstCategory) {
        threshold.push((rng.integer(21) - 10) / 4);
        decision.push((rng.integer(2) === 0 ? 0 : 2) | (missingOf[f]! << 2));
      } else {
        threshold.push(boundaries.length - 1);
        decision.push(1 | (2 << 2));
        const n = 1 + rng.integer(3);
        for (let w = 0; w < n; w++) words.push((rng.integer(2 ** 31) & rng.integer(2 ** 31)) >>> 0);
        boundaries.push(words.length);
      }
      leaves[pick] = { side: left, at: split };
      leaves.push({ side: right, at: split });
      nLeaves++;
    }
    const values = Array.from({ length: nLeaves }, () => rng.normal() / Math.sqrt(shape.nTrees));
    return [
      `Tree=${t}`,
      `num_leaves=${nLeaves}`,
      `num_cat=${boundaries.length - 1}`,
      `split_feature=${feature.join(' ')}`,
      `threshold=${threshold.join(' ')}`,
      `decision_type=${decision.join(' ')}`,
      `left_child=${left.join(' ')}`,
      `right_child=${right.join(' ')}`,
      `leaf_value=${values.join(' ')}`,
      ...(boundaries.length > 1
        ? [`cat_boundaries=${boundaries.join(' ')}`, `cat_threshold=${words.join(' ')}`]
        : []),
      'is_linear=0',
      '',
    ].join('\n');
  });
  return `${[...header, ...trees].join('\n')}\nend of trees\n`;
}

/** Rows that meet thresholds and their neighbours, categories in and out of range, zeros, NaN and infinities. */
export function randomTreeRows(nRows: number, nFeatures: number, rng: Rng): Float32Array {
  const special = [0, -0, 1e-45, -1e-45, 1e-35, -1e-35, 2e-35, Infinity, -Infinity, -0.5, -1, 1e9];
  return Float32Array.from({ length: nRows * nFeatures }, () => {
    switch (rng.integer(8)) {
      case 0:
        return Number.NaN;
      case 1:
        return special[rng.integer(special.length)]!;
      case 2:
      case 3:
        return rng.integer(80) - 3 + (rng.integer(3) === 0 ? 0.5 : 0);
      case 4:
        return (rng.integer(21) - 10) / 4;
      case 5:
        return (rng.integer(21) - 10) / 4 + 2 ** -22 * (rng.integer(3) - 1);
      default:
        return rng.normal();
    }
  });
}
