import { expect, test } from 'vitest';
import { WorldIds } from '../src/ids.js';
import { createPublication, supplyLayout } from '../src/publications.js';
import { Readers, RoundSet } from '../src/readers.js';
import { resolveWorld } from '../src/scales.js';

test('12 % of people are on two lists or more, nobody twice on one', () => {
  const config = resolveWorld({ scale: 'tiny', seed: 2 });
  const ids = new WorldIds(config.seed);
  const readers = new Readers(config);
  const layout = supplyLayout(config);
  const memberships = new Map<number, number>();
  for (let i = 0; i < config.publications; i++) {
    const publication = createPublication(config, ids, i, layout);
    const arc = readers.arcOf(publication);
    const own = new Set<number>();
    const size = Math.min(publication.subscribers, 60_000);
    for (let position = 0; position < size; position++) {
      readers.at(i, arc, position);
      own.add(readers.hi * 2 ** 21 + (readers.lo >>> 11));
    }
    expect(own.size).toBe(size);
    for (const person of own) memberships.set(person, (memberships.get(person) ?? 0) + 1);
  }
  let several = 0;
  for (const lists of memberships.values()) if (lists > 1) several++;
  const share = several / memberships.size;
  expect(share).toBeGreaterThan(0.08);
  expect(share).toBeLessThan(0.16);
});

test('a round set forgets between rounds and grows', () => {
  const set = new RoundSet();
  set.begin(10);
  expect(set.add(5)).toBe(true);
  expect(set.add(5)).toBe(false);
  set.begin(10);
  expect(set.add(5)).toBe(true);
  set.begin(5_000);
  for (let i = 0; i < 5_000; i++) expect(set.add(i)).toBe(true);
  for (let i = 0; i < 5_000; i++) expect(set.add(i)).toBe(false);
});
