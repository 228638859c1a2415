import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { OnnxRunner } from '@waggle/models';
import { afterAll, describe, expect, it } from 'vitest';
import { transformerEmbedder } from '../src/index.js';
import { dataFolder, realModel } from './fixtures/real-parts.js';

/** What the int8 model must reach on public data. */
const LEAST_SPEARMAN = 0.84;
const LEAST_MEAN_COSINE = 0.97;
const DIM = 384;
/** About a minute on two idle cores; a busy machine may take many times that. */
const TIMEOUT_MS = 1_800_000;

const model = await realModel();
const sts = dataFolder('stsbenchmark', 'sts-dev.csv');
const published = dataFolder('vectors', 'sap-fiori-embeddings');
const runner = new OnnxRunner({ threads: 2, workers: 2 });
afterAll(() => runner.close());

function cosine(a: Float32Array, i: number, b: Float32Array, j: number): number {
  let sum = 0;
  for (let d = 0; d < DIM; d++) sum += a[i * DIM + d]! * b[j * DIM + d]!;
  return sum;
}

/** Ranks with ties averaged. */
function ranks(values: readonly number[]): number[] {
  const order = values.map((_, i) => i).sort((a, b) => values[a]! - values[b]!);
  const out = new Array<number>(values.length);
  for (let from = 0; from < order.length; ) {
    let to = from;
    while (to < order.length && values[order[to]!] === values[order[from]!]) to++;
    for (let k = from; k < to; k++) out[order[k]!] = (from + to - 1) / 2;
    from = to;
  }
  return out;
}

function pearson(a: readonly number[], b: readonly number[]): number {
  const mean = (x: readonly number[]) => x.reduce((sum, value) => sum + value, 0) / x.length;
  const [ma, mb] = [mean(a), mean(b)];
  let [ab, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    ab += (a[i]! - ma) * (b[i]! - mb);
    aa += (a[i]! - ma) ** 2;
    bb += (b[i]! - mb) ** 2;
  }
  return ab / Math.sqrt(aa * bb);
}

describe('the sentence transformer on public data', () => {
  it.skipIf(model === undefined || sts === undefined)(
    `ranks sentence pairs of STS-B dev like people do (Spearman ≥ ${LEAST_SPEARMAN})`,
    async () => {
      const pairs = readFileSync(sts!, 'utf8')
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => line.split('\t'));
      expect(pairs.length).toBe(1500);
      const embedder = await transformerEmbedder({ model: model!, runner });
      const rows = await embedder.embed([
        ...pairs.map((pair) => pair[5]!),
        ...pairs.map((pair) => pair[6]!),
      ]);
      const cosines = pairs.map((_, i) => cosine(rows, i, rows, i + pairs.length));
      const spearman = pearson(ranks(pairs.map((pair) => Number(pair[4]))), ranks(cosines));
      console.info(
        `STS-B dev: Spearman ${spearman.toFixed(4)}, padding ${(embedder.stats().paddingWaste * 100).toFixed(1)} %`,
      );
      expect(spearman).toBeGreaterThanOrEqual(LEAST_SPEARMAN);
      expect(embedder.stats().paddingWaste).toBeLessThan(0.1);
    },
    TIMEOUT_MS,
  );

  it.skipIf(model === undefined || published === undefined)(
    `matches published vectors of the float model (mean cosine ≥ ${LEAST_MEAN_COSINE})`,
    async () => {
      const texts = gunzipSync(readFileSync(join(published!, 'records.jsonl.gz')))
        .toString('utf8')
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => (JSON.parse(line) as { content: string }).content);
      const file = readFileSync(join(published!, 'embeddings.bin'));
      const reference = new Float32Array(
        file.buffer.slice(file.byteOffset, file.byteOffset + file.byteLength),
      );
      expect(texts.length).toBe(778);
      // They were made by transformers.js, which cuts at 512 tokens, not at 256 as sentence-transformers does.
      const embedder = await transformerEmbedder({ model: model!, runner, maxTokens: 512 });
      const rows = await embedder.embed(texts);
      const cosines = texts.map((_, i) => cosine(rows, i, reference, i));
      const mean = cosines.reduce((sum, value) => sum + value, 0) / cosines.length;
      console.info(
        `published vectors: mean cosine ${mean.toFixed(4)}, least ${Math.min(...cosines).toFixed(4)}`,
      );
      expect(mean).toBeGreaterThanOrEqual(LEAST_MEAN_COSINE);
    },
    TIMEOUT_MS,
  );
});
