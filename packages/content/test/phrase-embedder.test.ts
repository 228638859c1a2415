import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { hashedEmbedder, MAX_PHRASES, phraseEmbedder, phrasesOf } from '../src/index.js';

const cosine = (a: Float32Array, b: Float32Array): number =>
  a.reduce((sum, value, i) => sum + value * b[i]!, 0);

describe('phrases', () => {
  it('end at clause punctuation and at the word for "and"', () => {
    expect(phrasesOf('Bread, cheese and wine. Every day!')).toEqual([
      'Bread',
      'cheese',
      'wine',
      'Every day',
    ]);
    expect(phrasesOf('Brot und Käse')).toEqual(['Brot', 'Käse']);
    expect(phrasesOf('sandwiches')).toEqual(['sandwiches']);
  });

  it('are never none, never blank, never too many', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), (text) => {
        const phrases = phrasesOf(text);
        expect(phrases.length).toBeGreaterThan(0);
        expect(phrases.length).toBeLessThanOrEqual(MAX_PHRASES);
        if (phrases.length > 1) for (const p of phrases) expect(p.trim()).not.toBe('');
      }),
    );
    expect(phrasesOf('')).toEqual(['']);
    expect(phrasesOf('a, '.repeat(1000))).toHaveLength(MAX_PHRASES);
  });
});

describe('phraseEmbedder', () => {
  const embedder = phraseEmbedder(hashedEmbedder());

  it('gives unit rows that do not depend on the company of other texts', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.string({ minLength: 1 }).filter((t) => /[a-z]/i.test(t)),
          { minLength: 1, maxLength: 8 },
        ),
        async (texts) => {
          const together = await embedder.embed(texts);
          for (const [i, text] of texts.entries()) {
            const row = together.subarray(i * embedder.dim, (i + 1) * embedder.dim);
            expect(Math.abs(cosine(row, row) - 1)).toBeLessThan(1e-5);
            expect(cosine(row, await embedder.embed([text]))).toBeCloseTo(1, 5);
          }
        },
      ),
      { numRuns: 30 },
    );
  });

  it('keeps every subject of a text in proportion', async () => {
    const [both, bread, wine, chess] = await Promise.all(
      ['sourdough bread and red wine', 'sourdough bread', 'red wine', 'chess openings'].map((t) =>
        embedder.embed([t]),
      ),
    );
    expect(cosine(both!, bread!)).toBeGreaterThan(0.6);
    expect(Math.abs(cosine(both!, bread!) - cosine(both!, wine!))).toBeLessThan(0.05);
    expect(cosine(both!, chess!)).toBeLessThan(0.4);
  });

  it('is another model than the one inside, and admits to a stand-in', () => {
    expect(embedder.modelId).toBe(`${hashedEmbedder().modelId}+phrases`);
    expect(embedder.degraded).toBe('hashed_embedder');
  });
});
