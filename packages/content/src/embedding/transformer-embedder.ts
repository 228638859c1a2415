import { coreError, throwIfAborted } from '@waggle/core';
import {
  compiledFile,
  type HookReference,
  type ModelLocation,
  type ModelSignature,
  modelsError,
  type Runner,
} from '@waggle/models';
import { contentError } from '../errors.js';
import type { ResolvedModel } from '../model/resolve.js';
import type { Embedder, EmbedOptions } from './embedder.js';
import { DEFAULT_PACKING, type PackedBatch, type PackingLimits, packByLength } from './packing.js';
import type { EmbedJob, TokenizedTexts, TokenizeJob } from './worker.js';

export interface TransformerEmbedderOptions {
  readonly model: ResolvedModel;
  /** Threads that tokenise and run the model; shared ones stay open after `close()`. */
  readonly runner: Runner;
  /** Close the runner together with the embedder. @default false */
  readonly ownsRunner?: boolean;
  /** Tokens per text, special ones included, at most 512. @default what the lock file says: 256 */
  readonly maxTokens?: number;
  readonly packing?: Partial<PackingLimits>;
}

/** Texts that are tokenised, sorted and packed together: bounds memory, still packs well. */
const TEXTS_PER_WINDOW = 8192;
const TEXTS_PER_TOKENIZE_TASK = 64;
/** BERT's position embeddings end here. */
const MOST_TOKENS = 512;

/** What a BERT-like sentence transformer declares; `token_type_ids` is optional. */
const KNOWN_INPUTS = ['input_ids', 'attention_mask', 'token_type_ids'];

interface Tally {
  texts: number;
  uniqueTexts: number;
  truncatedTexts: number;
  tokens: number;
  paddedTokens: number;
  batches: number;
}

/**
 * A sentence transformer in ONNX on worker threads. Equal texts are computed once; texts are sorted by length
 * and packed by token budget, so that less than `maxPadding` of the work is padding.
 *
 * @throws WAGGLE_MODEL_NOT_FOUND, WAGGLE_MODEL_CORRUPT, WAGGLE_MODEL_INVALID, WAGGLE_MODEL_INPUT_MISMATCH
 */
export async function transformerEmbedder(options: TransformerEmbedderOptions): Promise<Embedder> {
  const { model, runner } = options;
  const maxTokens = options.maxTokens ?? model.maxTokens;
  if (!Number.isSafeInteger(maxTokens) || maxTokens < 3 || maxTokens > MOST_TOKENS) {
    throw coreError(
      'WAGGLE_INVALID_ARGUMENT',
      `maxTokens must be a whole number from 3 to ${MOST_TOKENS}, not ${maxTokens}`,
    );
  }
  const packing: PackingLimits = { ...DEFAULT_PACKING, ...options.packing };
  const file = model.files['model.onnx'];
  const location: ModelLocation = { id: model.modelId, path: file.path, sha256: file.sha256 };
  const signature = await runner.load({
    id: model.modelId,
    path: file.path,
    sha256: file.sha256,
    batch: false,
    expected: {
      outputs: [{ name: 'last_hidden_state', dtype: 'float32', dims: [null, null, model.dim] }],
    },
  });
  const inputNames = checkInputNames(model.modelId, signature);
  const worker = compiledFile('./worker.js', import.meta.url);
  const tokenizeHook: HookReference = { module: worker, name: 'tokenizeTexts' };
  const embedHook: HookReference = { module: worker, name: 'embedTokens' };
  const inFlight = Math.max(2, runner.stats().workers * 2);
  const tally: Tally = {
    texts: 0,
    uniqueTexts: 0,
    truncatedTexts: 0,
    tokens: 0,
    paddedTokens: 0,
    batches: 0,
  };
  let closed = false;

  const tokenize = async (
    texts: readonly string[],
    signal: AbortSignal | undefined,
  ): Promise<Int32Array[]> => {
    const nTasks = Math.ceil(texts.length / TEXTS_PER_TOKENIZE_TASK);
    const encoded: Int32Array[] = new Array(texts.length);
    await forEachLimited(nTasks, inFlight, async (task) => {
      const from = task * TEXTS_PER_TOKENIZE_TASK;
      const job: TokenizeJob = {
        tokenizerPath: model.files['tokenizer.json'].path,
        texts: texts.slice(from, from + TEXTS_PER_TOKENIZE_TASK),
        maxTokens,
      };
      const { ids, lengths } = await runner.call<TokenizedTexts>(
        tokenizeHook,
        job,
        signal ? { signal } : {},
      );
      let at = 0;
      for (let i = 0; i < lengths.length; i++) {
        encoded[from + i] = ids.subarray(at, at + lengths[i]!);
        at += lengths[i]!;
      }
    });
    return encoded;
  };

  const embedBatch = async (
    encoded: readonly Int32Array[],
    batch: PackedBatch,
    signal: AbortSignal | undefined,
  ): Promise<Float32Array> => {
    const lengths = Int32Array.from(batch.rows, (row) => encoded[row]!.length);
    const ids = new Int32Array(lengths.reduce((sum, length) => sum + length, 0));
    let at = 0;
    for (const row of batch.rows) {
      ids.set(encoded[row]!, at);
      at += encoded[row]!.length;
    }
    const job: EmbedJob = {
      model: location,
      ids,
      lengths,
      width: batch.width,
      dim: model.dim,
      inputNames,
      outputName: 'last_hidden_state',
    };
    tally.tokens += ids.length;
    tally.paddedTokens += batch.width * lengths.length;
    tally.batches++;
    return runner.call<Float32Array>(embedHook, job, {
      transfer: [ids.buffer, lengths.buffer],
      ...(signal ? { signal } : {}),
    });
  };

  const embed = async (
    texts: readonly string[],
    { signal, progress }: EmbedOptions = {},
  ): Promise<Float32Array> => {
    if (closed) throw contentError('WAGGLE_EMBEDDER_CLOSED', 'the embedder is closed');
    throwIfAborted(signal);
    const { dim } = model;
    const out = new Float32Array(texts.length * dim);
    const unique = new Map<string, number[]>();
    for (let row = 0; row < texts.length; row++) {
      const rows = unique.get(texts[row]!);
      if (rows === undefined) unique.set(texts[row]!, [row]);
      else rows.push(row);
    }
    const entries = [...unique.entries()];
    let done = 0;
    progress?.({ step: 'embed', done, total: texts.length, unit: 'texts' });
    for (let from = 0; from < entries.length; from += TEXTS_PER_WINDOW) {
      const window = entries.slice(from, from + TEXTS_PER_WINDOW);
      const encoded = await tokenize(
        window.map(([text]) => text),
        signal,
      );
      const lengths = Uint32Array.from(encoded, (ids) => ids.length);
      for (const length of lengths) if (length === maxTokens) tally.truncatedTexts++;
      const batches = packByLength(lengths, packing);
      await forEachLimited(batches.length, inFlight, async (index) => {
        const batch = batches[index]!;
        const vectors = await embedBatch(encoded, batch, signal);
        for (let i = 0; i < batch.rows.length; i++) {
          const vector = vectors.subarray(i * dim, (i + 1) * dim);
          const rows = window[batch.rows[i]!]![1];
          for (const row of rows) out.set(vector, row * dim);
          done += rows.length;
        }
        progress?.({ step: 'embed', done, total: texts.length, unit: 'texts' });
      });
    }
    tally.texts += texts.length;
    tally.uniqueTexts += entries.length;
    return out;
  };

  return {
    dim: model.dim,
    modelId: maxTokens === model.maxTokens ? model.modelId : `${model.modelId}-t${maxTokens}`,
    embed,
    stats: () => ({
      ...tally,
      paddingWaste: tally.paddedTokens === 0 ? 0 : 1 - tally.tokens / tally.paddedTokens,
    }),
    async close() {
      closed = true;
      if (options.ownsRunner === true) await runner.close();
    },
  };
}

function checkInputNames(modelId: string, signature: ModelSignature): string[] {
  const names = signature.inputs.map((input) => input.name);
  const fits =
    names.includes('input_ids') &&
    names.includes('attention_mask') &&
    signature.inputs.every(
      (input) =>
        KNOWN_INPUTS.includes(input.name) && input.dtype === 'int64' && input.dims.length === 2,
    );
  if (!fits) {
    throw modelMismatch(modelId, names);
  }
  return names;
}

function modelMismatch(modelId: string, names: readonly string[]): Error {
  return modelsError(
    'WAGGLE_MODEL_INPUT_MISMATCH',
    `model ${modelId} takes (${names.join(', ')}), not the int64 inputs (${KNOWN_INPUTS.join(', ')}) of a sentence transformer`,
  );
}

/** Runs `task(0 … count − 1)`, at most `limit` at a time; the first failure stops the rest from starting. */
async function forEachLimited(
  count: number,
  limit: number,
  task: (index: number) => Promise<void>,
): Promise<void> {
  let next = 0;
  let failed = false;
  const lane = async (): Promise<void> => {
    while (next < count && !failed) {
      const index = next++;
      try {
        await task(index);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  const lanes = await Promise.allSettled(Array.from({ length: Math.min(limit, count) }, lane));
  const failure = lanes.find((result) => result.status === 'rejected');
  if (failure !== undefined) throw failure.reason;
}
