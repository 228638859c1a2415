import { numericColumn, stringColumn, stringListColumn } from '@waggle/core';
import { FILTER_NAMES, type FilterName } from '@waggle/core/contract';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { BitSet, EligibilityIndex, explainFilters, FlightIndex } from '../src/index.js';

interface Row {
  advertiser: string;
  category: string;
  status: string;
  languages: string[];
  targets: string[];
  start: number;
  end: number;
  creative: string | undefined;
}

const words = ['a', 'b', 'c'];
const row: fc.Arbitrary<Row> = fc.record({
  advertiser: fc.constantFrom('adv_1', 'adv_2', 'adv_unknown', 'adv_off'),
  category: fc.constantFrom(...words),
  status: fc.constantFrom('live', 'scheduled', 'active', 'paused'),
  languages: fc.subarray(['en', 'de']),
  targets: fc.subarray(words),
  start: fc.nat(10),
  end: fc.nat(20),
  creative: fc.constantFrom('active', 'retired', undefined),
});

function indexOf(rows: readonly Row[]): EligibilityIndex {
  const creatives = rows.flatMap((r, i) =>
    r.creative === undefined ? [] : [{ campaign: `cmp_${i}`, status: r.creative }],
  );
  return new EligibilityIndex({
    campaigns: {
      nRows: rows.length,
      meta: {},
      columns: {
        campaign_id: stringColumn(rows.map((_, i) => `cmp_${i}`)),
        advertiser_id: stringColumn(rows.map((r) => r.advertiser)),
        category: stringColumn(rows.map((r) => r.category)),
        status: stringColumn(rows.map((r) => r.status)),
        target_languages: stringListColumn(rows.map((r) => r.languages)),
        target_categories: stringListColumn(rows.map((r) => r.targets)),
        flight_start_ms: numericColumn(
          'f64',
          Float64Array.from(rows, (r) => r.start),
        ),
        flight_end_ms: numericColumn(
          'f64',
          Float64Array.from(rows, (r) => r.end),
        ),
      },
    },
    advertisers: {
      nRows: 3,
      meta: {},
      columns: {
        advertiser_id: stringColumn(['adv_1', 'adv_2', 'adv_off']),
        status: stringColumn(['active', 'active', 'suspended']),
      },
    },
    creatives: {
      nRows: creatives.length,
      meta: {},
      columns: {
        campaign_id: stringColumn(creatives.map((c) => c.campaign)),
        status: stringColumn(creatives.map((c) => c.status)),
      },
    },
  });
}

test('bitmaps agree with asking each campaign, and each rejected one is counted once under its first filter', () => {
  const publication = fc.record({
    status: fc.constantFrom('eligible', 'paused'),
    category: fc.constantFrom(...words, 'unheard'),
    allowedCategories: fc.subarray([...words, 'unheard']),
    blockedCategories: fc.subarray(words),
    blockedAdvertisers: fc.subarray(['adv_1', 'adv_2', 'adv_nobody']),
  });
  fc.assert(
    fc.property(
      fc.array(row, { minLength: 1, maxLength: 70 }),
      publication,
      fc.constantFrom('en', 'de', 'fr'),
      fc.integer({ min: -1, max: 21 }),
      (rows, pub, language, at) => {
        const index = indexOf(rows);
        const own = index.publicationFilters(pub);
        const { eligible, filtered } = explainFilters(BitSet.full(rows.length), {
          status: own.status,
          flight: index.flights.at(at).inFlight,
          language: index.language(language),
          target: own.target,
          blocked_category: own.blockedCategory,
          blocked_advertiser: own.blockedAdvertiser,
          creative: index.creative,
        });
        const expected: Partial<Record<FilterName, number>> = {};
        rows.forEach((r, i) => {
          const passes: Record<FilterName, boolean> = {
            status:
              pub.status === 'eligible' &&
              r.status !== 'paused' &&
              (r.advertiser === 'adv_1' || r.advertiser === 'adv_2'),
            flight: r.start <= at && at < r.end,
            budget: true,
            language: r.languages.length === 0 || r.languages.includes(language),
            target: r.targets.length === 0 || r.targets.includes(pub.category),
            blocked_category:
              !pub.blockedCategories.includes(r.category) &&
              (pub.allowedCategories.length === 0 || pub.allowedCategories.includes(r.category)),
            blocked_advertiser: !pub.blockedAdvertisers.includes(r.advertiser),
            excluded: true,
            floor: true,
            capacity: true,
            creative: r.creative === 'active',
          };
          const first = FILTER_NAMES.find((name) => !passes[name]);
          expect(eligible.has(i)).toBe(first === undefined);
          if (first !== undefined) expected[first] = (expected[first] ?? 0) + 1;
        });
        expect(filtered).toEqual(expected);
      },
    ),
  );
});

test('filters of one publication do not leak into the shared bitmaps', () => {
  const index = indexOf([
    {
      advertiser: 'adv_1',
      category: 'a',
      status: 'live',
      languages: [],
      targets: [],
      start: 0,
      end: 9,
      creative: 'active',
    },
  ]);
  const rules = {
    status: 'eligible',
    category: 'a',
    allowedCategories: [],
    blockedCategories: [],
    blockedAdvertisers: [],
  };
  index.publicationFilters({
    ...rules,
    status: 'paused',
    blockedCategories: ['a'],
    blockedAdvertisers: ['adv_1'],
  });
  const own = index.publicationFilters(rules);
  expect(own.status.count() + own.blockedCategory.count() + own.blockedAdvertiser.count()).toBe(3);
  expect(index.rowOf('cmp_0')).toBe(0);
  expect(index.rowOf('cmp_9')).toBeUndefined();
});

test('flight stretches hold from their start up to, not including, their end', () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.integer({ min: 0, max: 30 }), fc.integer({ min: 0, max: 30 })), {
        maxLength: 40,
      }),
      fc.array(fc.double({ min: -5, max: 35, noNaN: true }), { minLength: 1, maxLength: 30 }),
      (flights, times) => {
        const index = new FlightIndex(
          Float64Array.from(flights, (f) => f[0]),
          Float64Array.from(flights, (f) => f[1]),
        );
        for (const at of times) {
          const found = index.at(at);
          expect(found.fromMs <= at && at < found.untilMs).toBe(true);
          flights.forEach(([start, end], r) => {
            expect(found.inFlight.has(r)).toBe(start <= at && at < end);
          });
        }
      },
    ),
  );
});
