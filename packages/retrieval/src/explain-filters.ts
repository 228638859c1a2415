import { FILTER_NAMES, type FilterName } from '@waggle/core/contract';
import { type BitSet, popcount32 } from './bit-set.js';

/** The campaigns that pass each filter; an absent filter lets everything through. */
export type FilterPasses = Readonly<Partial<Record<FilterName, BitSet>>>;

/** How many candidates each filter left out; filters that left out none are absent. */
export type FilterCounts = Partial<Record<FilterName, number>>;

/**
 * Applies the filters in the order of FILTER_NAMES and counts each rejected candidate once, under the first
 * filter that hit it.
 * @param universe the candidates asked about; not changed
 * @returns those that pass everything, and the counts; O(filters · rows / 32)
 */
export function explainFilters(
  universe: BitSet,
  passes: FilterPasses,
): { eligible: BitSet; filtered: FilterCounts } {
  const eligible = universe.clone();
  const filtered: FilterCounts = {};
  const { words } = eligible;
  for (const name of FILTER_NAMES) {
    const pass = passes[name];
    if (pass === undefined) continue;
    if (pass.size !== eligible.size) eligible.and(pass); // throws with the sizes
    const allowed = pass.words;
    let rejected = 0;
    for (let i = 0; i < words.length; i++) {
      const before = words[i]!;
      const after = before & allowed[i]!;
      if (after !== before) {
        rejected += popcount32(before ^ after);
        words[i] = after;
      }
    }
    if (rejected > 0) filtered[name] = rejected;
  }
  return { eligible, filtered };
}
