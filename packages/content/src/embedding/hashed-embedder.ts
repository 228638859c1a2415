import { coreError, hash32, throwIfAborted } from '@waggle/core';
import { contentError } from '../errors.js';
import type { Embedder } from './embedder.js';
import { normalizeRow } from './pooling.js';
import { wellFormed } from './tokens.js';

/** Longest prefix of a text that is looked at, in characters. */
const MAX_CHARS = 8192;
/** A text yields control to the event loop after this many. */
const TEXTS_PER_TURN = 256;

/**
 * Vectors without a model: signed feature hashing (Weinberger et al., "Feature hashing for large scale multitask
 * learning", ICML 2009) of words, word pairs and character 3- to 5-grams, square-root damped, unit length.
 * Texts that share words or stems come out near each other; meaning is not understood. It stands in where no
 * sentence transformer is to be had, and says so in `degraded`.
 *
 * @param dim width of the vectors, 8 to 4096
 * @returns an embedder whose vectors depend on nothing but the text; O(characters) per text
 * @throws WAGGLE_INVALID_ARGUMENT
 */
export function hashedEmbedder(dim = 384): Embedder {
  if (!Number.isSafeInteger(dim) || dim < 8 || dim > 4096) {
    throw coreError(
      'WAGGLE_INVALID_ARGUMENT',
      `dim must be a whole number from 8 to 4096, not ${dim}`,
    );
  }
  let closed = false;
  let nTexts = 0;
  return {
    dim,
    modelId: `hashed-ngram-${dim}`,
    degraded: 'hashed_embedder',
    async embed(texts, options = {}) {
      if (closed) throw contentError('WAGGLE_EMBEDDER_CLOSED', 'the embedder is closed');
      const out = new Float32Array(texts.length * dim);
      for (let i = 0; i < texts.length; i++) {
        if (i % TEXTS_PER_TURN === 0) {
          if (i > 0) await new Promise<void>((resolve) => setImmediate(resolve));
          throwIfAborted(options.signal);
          options.progress?.({ step: 'embed', done: i, total: texts.length, unit: 'texts' });
        }
        hashText(texts[i]!, out.subarray(i * dim, (i + 1) * dim));
      }
      throwIfAborted(options.signal);
      options.progress?.({ step: 'embed', done: texts.length, total: texts.length, unit: 'texts' });
      nTexts += texts.length;
      return out;
    },
    stats: () => ({
      texts: nTexts,
      uniqueTexts: nTexts,
      truncatedTexts: 0,
      tokens: 0,
      paddedTokens: 0,
      paddingWaste: 0,
      batches: 0,
    }),
    async close() {
      closed = true;
    },
  };
}

function hashText(text: string, row: Float32Array): void {
  const counts = new Map<string, number>();
  const add = (feature: string, weight: number) =>
    counts.set(feature, (counts.get(feature) ?? 0) + weight);
  const words = wellFormed(text.slice(0, MAX_CHARS))
    .normalize('NFKD')
    .toLowerCase()
    .match(/[\p{L}\p{N}]+/gu);
  if (words === null) {
    // Nothing to go by: one fixed direction, so that the row has unit length all the same.
    add('\0empty', 1);
  } else {
    for (let i = 0; i < words.length; i++) {
      const word = words[i]!;
      add(`w ${word}`, 1);
      if (i > 0) add(`p ${words[i - 1]} ${word}`, 0.5);
      const framed = `<${word}>`;
      for (let n = 3; n <= 5; n++) {
        // A long word has many n-grams; together they weigh as much as the word.
        const count = Math.max(1, framed.length - n + 1);
        for (let at = 0; at + n <= framed.length; at++)
          add(`g ${framed.slice(at, at + n)}`, 1 / count);
      }
    }
  }
  for (const [feature, weight] of counts) {
    const hash = hash32(feature, 0x5741);
    row[hash % row.length]! += (hash32(feature, 0x4747) & 1 ? 1 : -1) * Math.sqrt(weight);
  }
  // Opposite signs may cancel to nothing in a tiny text.
  if (row.every((value) => value === 0)) row[hash32(text, 0x5741) % row.length] = 1;
  normalizeRow(row);
}
