import { Tokenizer } from '@huggingface/tokenizers';
import { contentError } from '../errors.js';

/** Token ids of one text, with its special tokens, cut to the model's length. */
export interface TextTokenizer {
  encode(text: string, maxTokens: number): number[];
}

/** Characters looked at per token at first; English has 4 to 5. */
const CHARS_PER_TOKEN = 16;

/**
 * @param json contents of a `tokenizer.json`
 * @throws WAGGLE_EMBEDDER_TOKENIZER
 */
export function createTokenizer(json: string): TextTokenizer {
  let tokenizer: Tokenizer;
  let start: number[];
  let end: number[];
  try {
    tokenizer = new Tokenizer(JSON.parse(json) as object, {});
    const empty = tokenizer.encode('').ids;
    // A one-sentence template is [CLS] text [SEP]: the special tokens that stand before and after.
    start = empty.slice(0, 1);
    end = empty.slice(1);
    if (start.length !== 1 || end.length !== 1)
      throw new Error('its template is not [CLS] text [SEP]');
  } catch (cause) {
    throw contentError(
      'WAGGLE_EMBEDDER_TOKENIZER',
      `the tokenizer cannot be used: ${cause instanceof Error ? cause.message : String(cause)}`,
      { cause },
    );
  }
  const encodeHead = (text: string, maxTokens: number): number[] => {
    const room = maxTokens - 2;
    // A megabyte of text gives no more tokens than its beginning: widen the beginning until it is enough.
    // The word that a cut may have split is never among the tokens that count, because more than `room`
    // tokens must come before it, unless the text has no space at all.
    for (let chars = Math.max(256, maxTokens * CHARS_PER_TOKEN); ; chars *= 4) {
      const whole = chars >= text.length;
      const head = whole ? text : text.slice(0, lastBreak(text, chars));
      const ids = tokenizer.encode(head, { add_special_tokens: false }).ids;
      if (whole || ids.length > room) return ids.length > room ? ids.slice(0, room) : ids;
    }
  };
  return {
    encode: (text, maxTokens) => [...start, ...encodeHead(wellFormed(text), maxTokens), ...end],
  };
}

/** Where to cut at or before `limit`: after the last white space, else before a split surrogate pair. */
function lastBreak(text: string, limit: number): number {
  for (let at = limit; at > limit / 2; at--) {
    const code = text.charCodeAt(at - 1);
    if (code === 32 || code === 10 || code === 9 || code === 13) return at;
  }
  const last = text.charCodeAt(limit - 1);
  return last >= 0xd800 && last <= 0xdbff ? limit - 1 : limit;
}

/** Lone surrogates become U+FFFD, as they would on their way through UTF-8. */
export function wellFormed(text: string): string {
  return text.replace(
    /[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/g,
    '\uFFFD',
  );
}
