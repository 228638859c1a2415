import { copyFileSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  type FeatureExtractionPipeline,
  pipeline,
  env as transformersEnv,
} from '@huggingface/transformers';
import { type ResolvedModel, transformerEmbedder } from '@waggle/content';
import { Rng } from '@waggle/core';
import { OnnxRunner } from '@waggle/models';
import { benchModel } from '../data/sentence-model.js';
import { type Measurement, type SuiteOptions, summarize } from '../record.js';
import { openScratch, removeScratch } from '../scratch.js';

const THREADS = 2;
const MAX_TOKENS = 256;
/** What users of the peer commonly pass at a time. */
const PEER_BATCH = 32;
/**
 * Both run the same file: in float arithmetic only the order of additions differs; files that quantise per batch
 * what flows through them depend on the batch as well.
 */
const leastAgreement = (modelId: string): number =>
  modelId === 'all-MiniLM-L6-v2-int8' ? 0.999 : 0.97;

/**
 * `embed/mixed-lengths`: tokens per second (padding and repeats not counted) over texts whose lengths are
 * log-normal (median 32 tokens, σ 1, cut to 4 … 256): subject lines, ad copy, descriptions and whole
 * introductions, in random order. The peer gets the same model file, texts, threads and text length, in batches
 * as they come. Runs alternate, so that a slow moment of the machine meets both.
 */
export async function embedSuite({ quick, seed }: SuiteOptions): Promise<Measurement[]> {
  const texts = mixedTexts(quick ? 128 : 512, seed);
  const runs = quick ? 3 : 5;
  const model = await benchModel();
  const folder = openScratch('waggle-bench-embed-');
  const runner = new OnnxRunner({ workers: THREADS, threads: THREADS });
  try {
    const embedder = await transformerEmbedder({ model, runner, maxTokens: MAX_TOKENS });
    const peer = await openPeer(model, folder);
    const ours = async () => embedder.embed(texts);
    const theirs = async () => peerEmbed(peer, texts, model.dim);
    // Warm both, and make sure they do the same work.
    const [a, b] = [await ours(), await theirs()];
    checkAgreement(a, b, model);
    const { tokens: nTokens, paddingWaste } = embedder.stats();
    const ourRates: number[] = [];
    const peerRates: number[] = [];
    for (let run = 0; run < runs; run++) {
      ourRates.push(nTokens / (await secondsOf(ours)));
      peerRates.push(nTokens / (await secondsOf(theirs)));
    }
    await peer.dispose();
    const common = { suite: 'embed', case: 'mixed-lengths', seed } as const;
    const rate = summarize(ourRates);
    const peerRate = summarize(peerRates).value;
    return [
      {
        ...common,
        metric: 'tokens_per_s',
        unit: 'tokens/s',
        better: 'higher',
        ...rate,
        peer: {
          name: '@huggingface/transformers',
          version: transformersEnv.version,
          value: peerRate,
        },
        ratio: rate.value / peerRate,
      },
      {
        ...common,
        metric: 'padding',
        unit: 'fraction',
        better: 'lower',
        value: paddingWaste,
        runs: 1,
        iqr: 0,
      },
    ];
  } finally {
    await runner.close();
    removeScratch(folder);
  }
}

/** Lays the same files out as the peer wants them and loads them offline. */
async function openPeer(model: ResolvedModel, folder: string): Promise<FeatureExtractionPipeline> {
  const name = 'sentence-model';
  const root = join(folder, name);
  mkdirSync(join(root, 'onnx'), { recursive: true });
  const onnx = model.files['model.onnx'].path;
  try {
    symlinkSync(onnx, join(root, 'onnx', 'model.onnx'));
  } catch {
    copyFileSync(onnx, join(root, 'onnx', 'model.onnx'));
  }
  copyFileSync(model.files['tokenizer.json'].path, join(root, 'tokenizer.json'));
  writeFileSync(
    join(root, 'tokenizer_config.json'),
    JSON.stringify({
      tokenizer_class: 'BertTokenizer',
      do_lower_case: true,
      model_max_length: MAX_TOKENS,
      unk_token: '[UNK]',
      sep_token: '[SEP]',
      pad_token: '[PAD]',
      cls_token: '[CLS]',
      mask_token: '[MASK]',
    }),
  );
  writeFileSync(
    join(root, 'config.json'),
    JSON.stringify({ model_type: 'bert', architectures: ['BertModel'], hidden_size: model.dim }),
  );
  transformersEnv.allowRemoteModels = false;
  transformersEnv.allowLocalModels = true;
  transformersEnv.localModelPath = `${folder}/`;
  return pipeline('feature-extraction', name, {
    dtype: 'fp32',
    device: 'cpu',
    session_options: { intraOpNumThreads: THREADS, interOpNumThreads: 1 },
  });
}

async function peerEmbed(
  peer: FeatureExtractionPipeline,
  texts: readonly string[],
  dim: number,
): Promise<Float32Array> {
  const out = new Float32Array(texts.length * dim);
  for (let from = 0; from < texts.length; from += PEER_BATCH) {
    const vectors = await peer(texts.slice(from, from + PEER_BATCH), {
      pooling: 'mean',
      normalize: true,
    });
    out.set(vectors.data as Float32Array, from * dim);
  }
  return out;
}

function checkAgreement(a: Float32Array, b: Float32Array, { dim, modelId }: ResolvedModel): void {
  for (let row = 0; row < a.length / dim; row++) {
    let cosine = 0;
    for (let d = row * dim; d < (row + 1) * dim; d++) cosine += a[d]! * b[d]!;
    if (!(cosine >= leastAgreement(modelId))) {
      throw new Error(`the peer's vector of text ${row} differs: cosine ${cosine.toFixed(4)}`);
    }
  }
}

async function secondsOf(action: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await action();
  return (performance.now() - start) / 1000;
}

const WORDS =
  'the a of and to in for with your new from how why this week our free guide market brand coffee garden health team build learn money travel design energy story reader letter offer home school music science kitchen founder climate product budget sleep market recipe startup invest policy fashion football weather language history'.split(
    ' ',
  );

/** Each of these words is one token. */
function mixedTexts(count: number, seed: number): string[] {
  const rng = new Rng(seed, 0x656d62);
  return Array.from({ length: count }, (_, i) => {
    const nWords = Math.round(
      Math.min(MAX_TOKENS - 2, Math.max(2, 32 * Math.exp(rng.normal()) - 2)),
    );
    const words = Array.from({ length: nWords }, () => WORDS[rng.integer(WORDS.length)]!);
    // No two texts are equal, so that computing equal ones once gains nothing here.
    words[0] = String(i);
    return words.join(' ');
  });
}
