import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { hashedEmbedder, MAX_PASSAGES, passageEmbedder, passagesOf } from '../src/index.js';

const cosine = (a: Float32Array, b: Float32Array): number =>
  a.reduce((sum, value, i) => sum + value * b[i]!, 0);

describe('passages', () => {
  it('end with sentences and with items of a list of subjects, not at commas', () => {
    expect(
      passagesOf('Bread, cheese and wine. Sections: travel (flights, hotels) abroad; chess!'),
    ).toEqual([
      'Bread, cheese and wine',
      'Sections',
      'travel (flights) abroad',
      'travel (hotels) abroad',
      'chess',
    ]);
    expect(passagesOf('sandwiches')).toEqual(['sandwiches']);
    expect(passagesOf('wine (red)')).toEqual(['wine (red)']);
    expect(passagesOf('wine (,red, , )')).toEqual(['wine (red)']);
    expect(passagesOf('(a, b) and (c, d)')).toEqual(['(a, b) and (c, d)']);
    expect(passagesOf('(, ,)')).toEqual(['(, ,)']);
  });

  it('are never none, never blank, never too many', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), (text) => {
        const passages = passagesOf(text);
        expect(passages.length).toBeGreaterThan(0);
        expect(passages.length).toBeLessThanOrEqual(MAX_PASSAGES);
        if (passages.length > 1) for (const p of passages) expect(p.trim()).not.toBe('');
      }),
    );
    expect(passagesOf('')).toEqual(['']);
    expect(passagesOf('a. '.repeat(1000))).toHaveLength(MAX_PASSAGES);
  });
});

describe('passageEmbedder', () => {
  const embedder = passageEmbedder(hashedEmbedder());

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
      [
        'sourdough bread. mellow red wine',
        'sourdough bread',
        'mellow red wine',
        'chess openings',
      ].map((t) => embedder.embed([t])),
    );
    expect(cosine(both!, bread!)).toBeGreaterThan(0.6);
    expect(Math.abs(cosine(both!, bread!) - cosine(both!, wine!))).toBeLessThan(0.05);
    expect(cosine(both!, chess!)).toBeLessThan(0.4);
  });

  it('lets longer passages count more', async () => {
    const [both, short, long] = await Promise.all(
      ['chess. sourdough bread and rye', 'chess', 'sourdough bread and rye'].map((t) =>
        embedder.embed([t]),
      ),
    );
    expect(cosine(both!, long!)).toBeGreaterThan(cosine(both!, short!) + 0.4);
    expect(cosine(both!, short!)).toBeGreaterThan(0);
  });

  it('is another model than the one inside, and admits to a stand-in', () => {
    expect(embedder.modelId).toBe(`${hashedEmbedder().modelId}+passages.2`);
    expect(embedder.degraded).toBe('hashed_embedder');
  });
});
