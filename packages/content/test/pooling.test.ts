import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { normalizeRow, poolMean } from '../src/index.js';

/** float32 sums of at most 12 values against doubles. */
const FLOAT_TOLERANCE = 1e-5;
const finite = fc.float({ min: -10, max: 10, noNaN: true });

describe('poolMean', () => {
  it('is the unit vector of the mean over the tokens that count, whatever the padding holds', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 1, max: 12 }),
        fc.integer({ min: 1, max: 5 }),
        fc.infiniteStream(finite),
        fc.infiniteStream(fc.nat()),
        (nTexts, width, dim, values, draws) => {
          const hidden = Float32Array.from(
            { length: nTexts * width * dim },
            () => values.next().value as number,
          );
          const lengths = Int32Array.from(
            { length: nTexts },
            () => 1 + ((draws.next().value as number) % width),
          );
          const out = new Float32Array(nTexts * dim).fill(7);
          poolMean(hidden, lengths, { width, dim }, out);
          for (let text = 0; text < nTexts; text++) {
            const mean = Array.from({ length: dim }, (_, d) => {
              let sum = 0;
              for (let t = 0; t < lengths[text]!; t++) sum += hidden[(text * width + t) * dim + d]!;
              return sum / lengths[text]!;
            });
            const norm = Math.hypot(...mean);
            if (norm < 1e-3) continue;
            for (let d = 0; d < dim; d++) {
              expect(Math.abs(out[text * dim + d]! - mean[d]! / norm)).toBeLessThan(
                FLOAT_TOLERANCE,
              );
            }
          }
        },
      ),
    );
  });

  it('matches a case worked by hand', () => {
    // Two texts of width 2 and dim 2; the second has one token, its padding is (9, 9).
    const hidden = Float32Array.of(1, 2, 5, 6, 0, -2, 9, 9);
    const out = new Float32Array(4);
    poolMean(hidden, Int32Array.of(2, 1), { width: 2, dim: 2 }, out);
    expect([...out]).toEqual([Math.fround(0.6), Math.fround(0.8), 0, -1]);
  });

  it('leaves a zero vector zero', () => {
    const row = new Float32Array(3);
    normalizeRow(row);
    expect([...row]).toEqual([0, 0, 0]);
  });
});
