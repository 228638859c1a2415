import { BitSet } from '@waggle/retrieval';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { decodeRows, encodeRows } from '../src/row-list.js';

test('rows survive the log, short lists and long ones alike', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 3_000 }), fc.nat(3), fc.nat(100), (n, every, offset) => {
      const rows = new BitSet(n);
      for (let r = offset % n; r < n; r += every * 20 + 1) rows.add(r);
      const list = JSON.parse(JSON.stringify(encodeRows(rows)));
      expect([...decodeRows(list, n).toRows()]).toEqual([...rows.toRows()]);
      expect(JSON.stringify(list).length).toBeLessThan(600);
    }),
  );
});
