import { isWaggleError } from '@waggle/core';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { hashedEmbedder } from '../src/index.js';

const UNIT_TOLERANCE = 1e-5;
const anyText = fc.oneof(
  fc.string({ maxLength: 60 }),
  fc.string({ unit: 'binary', maxLength: 60 }),
  // Lone surrogates included.
  fc
    .array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 30 })
    .map((codes) => String.fromCharCode(...codes)),
);
const dot = (a: Float32Array, b: Float32Array) =>
  a.reduce((sum, value, i) => sum + value * b[i]!, 0);

describe('hashedEmbedder', () => {
  it('gives any text a unit vector that depends on the text alone', async () => {
    const embedder = hashedEmbedder();
    await fc.assert(
      fc.asyncProperty(fc.array(anyText, { maxLength: 8 }), async (texts) => {
        const together = await embedder.embed(texts);
        for (const [i, text] of texts.entries()) {
          const alone = await hashedEmbedder().embed([text]);
          expect(together.subarray(i * 384, (i + 1) * 384)).toEqual(alone);
          expect(Math.abs(Math.sqrt(dot(alone, alone)) - 1)).toBeLessThan(UNIT_TOLERANCE);
        }
      }),
    );
  });

  it('never changes its vectors from one release to the next', async () => {
    const row = await hashedEmbedder(16).embed(['Honey for every kitchen']);
    expect([...row].map((value) => Math.round(value * 1e4) / 1e4)).toMatchInlineSnapshot(`
      [
        -0.4433,
        -0.3559,
        0,
        0.042,
        -0.3787,
        0.1242,
        -0.3423,
        -0.1111,
        0.1111,
        -0.0322,
        0.2031,
        -0.4534,
        -0.0342,
        0.2696,
        0.1953,
        0.1205,
      ]
    `);
  });

  it('puts texts that share words nearer than texts that do not', async () => {
    const rows = await hashedEmbedder().embed([
      'weekly letter about sourdough bread and baking',
      'baking sourdough bread at home',
      'options trading for beginners',
    ]);
    const at = (i: number) => rows.subarray(i * 384, (i + 1) * 384);
    expect(dot(at(0), at(1))).toBeGreaterThan(dot(at(0), at(2)) + 0.2);
  });

  it('ignores case and accents', async () => {
    const rows = await hashedEmbedder().embed(['Café Society', 'cafe society']);
    expect(dot(rows.subarray(0, 384), rows.subarray(384))).toBeGreaterThan(0.5);
  });

  it('says that it stands in', () => {
    expect(hashedEmbedder().degraded).toBe('hashed_embedder');
    expect(hashedEmbedder(64).modelId).toBe('hashed-ngram-64');
  });

  it('stops when aborted, refuses work after close, and odd widths', async () => {
    const embedder = hashedEmbedder();
    const aborted = await embedder
      .embed(['a'], { signal: AbortSignal.abort() })
      .catch((error: unknown) => error);
    expect(isWaggleError(aborted) && aborted.code).toBe('WAGGLE_ABORTED');
    await embedder.close();
    const closed = await embedder.embed(['a']).catch((error: unknown) => error);
    expect(isWaggleError(closed) && closed.code).toBe('WAGGLE_EMBEDDER_CLOSED');
    expect(() => hashedEmbedder(0)).toThrow(/dim/);
    expect(() => hashedEmbedder(12.5)).toThrow(/dim/);
  });
});
