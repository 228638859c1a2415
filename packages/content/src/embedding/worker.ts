import { readFile } from 'node:fs/promises';
import type { ModelLocation, TensorValue, WorkerContext, WorkerHookResult } from '@waggle/models';
import { poolMean } from './pooling.js';
import { createTokenizer, type TextTokenizer } from './tokens.js';

/**
 * What the embedder runs inside the worker threads of `@waggle/models`: tokenising and the transformer with
 * its pooling, so that only ids go in and only finished vectors come out.
 */
export interface TokenizeJob {
  readonly tokenizerPath: string;
  readonly texts: readonly string[];
  readonly maxTokens: number;
}

/** `ids` holds the texts one after the other; `lengths` their tokens. */
export interface TokenizedTexts {
  readonly ids: Int32Array;
  readonly lengths: Int32Array;
}

export interface EmbedJob {
  readonly model: ModelLocation;
  readonly ids: Int32Array;
  readonly lengths: Int32Array;
  readonly width: number;
  readonly dim: number;
  readonly inputNames: readonly string[];
  readonly outputName: string;
}

const tokenizers = new Map<string, Promise<TextTokenizer>>();

function openTokenizer(path: string): Promise<TextTokenizer> {
  let tokenizer = tokenizers.get(path);
  if (tokenizer === undefined) {
    tokenizer = readFile(path, 'utf8').then(createTokenizer);
    tokenizers.set(path, tokenizer);
    tokenizer.catch(() => tokenizers.delete(path));
  }
  return tokenizer;
}

export async function tokenizeTexts(job: TokenizeJob): Promise<WorkerHookResult<TokenizedTexts>> {
  const tokenizer = await openTokenizer(job.tokenizerPath);
  const encoded = job.texts.map((text) => tokenizer.encode(text, job.maxTokens));
  const lengths = Int32Array.from(encoded, (ids) => ids.length);
  const ids = new Int32Array(lengths.reduce((sum, length) => sum + length, 0));
  let at = 0;
  for (const text of encoded) {
    ids.set(text, at);
    at += text.length;
  }
  return { value: { ids, lengths }, transfer: [ids.buffer, lengths.buffer] };
}

export async function embedTokens(
  job: EmbedJob,
  context: WorkerContext,
): Promise<WorkerHookResult<Float32Array>> {
  const session = await context.open(job.model);
  const nTexts = job.lengths.length;
  const dims = [nTexts, job.width];
  const size = nTexts * job.width;
  const inputIds = new BigInt64Array(size);
  const mask = new BigInt64Array(size);
  let from = 0;
  for (let text = 0; text < nTexts; text++) {
    const at = text * job.width;
    const length = job.lengths[text]!;
    for (let t = 0; t < length; t++) inputIds[at + t] = BigInt(job.ids[from + t]!);
    mask.fill(1n, at, at + length);
    from += length;
  }
  const known: Record<string, TensorValue> = {
    input_ids: { dtype: 'int64', dims, data: inputIds },
    attention_mask: { dtype: 'int64', dims, data: mask },
    token_type_ids: { dtype: 'int64', dims, data: new BigInt64Array(size) },
  };
  const inputs = Object.fromEntries(job.inputNames.map((name) => [name, known[name]!]));
  const outputs = await session.run(inputs);
  const hidden = outputs[job.outputName]!.data as Float32Array;
  const vectors = new Float32Array(nTexts * job.dim);
  poolMean(hidden, job.lengths, { width: job.width, dim: job.dim }, vectors);
  return { value: vectors, transfer: [vectors.buffer] };
}
