import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isWaggleError } from '@waggle/core';
import { InlineRunner, OnnxRunner } from '@waggle/models';
import { afterAll, describe, expect, it } from 'vitest';
import { createTokenizer } from '../src/embedding/tokens.js';
import { type Embedder, transformerEmbedder } from '../src/index.js';
import { sha256Hex } from '../src/model/download.js';
import { realModel } from './fixtures/real-parts.js';

const model = await realModel();
/**
 * Vectors of one text computed in differently shaped batches: order of float additions, or, for files that
 * quantise per batch what flows through them, that quantisation.
 */
const BATCH_TOLERANCE = model?.modelId === 'all-MiniLM-L6-v2-int8' ? 1e-4 : 0.03;
const dot = (a: Float32Array, b: Float32Array) =>
  a.reduce((sum, value, i) => sum + value * b[i]!, 0);
const rowOf = (rows: Float32Array, i: number) => rows.subarray(i * 384, (i + 1) * 384);
const codeOf = (action: Promise<unknown>) =>
  action.then(
    () => 'nothing was thrown',
    (error: unknown) => (isWaggleError(error) ? error.code : String(error)),
  );

describe.skipIf(model === undefined)('transformerEmbedder', async () => {
  const runner = new OnnxRunner({ workers: 2, threads: 2 });
  const embedder: Embedder =
    model === undefined ? (undefined as never) : await transformerEmbedder({ model, runner });
  afterAll(() => runner.close());

  it('answers nothing for no texts', async () => {
    expect((await embedder.embed([])).length).toBe(0);
  });

  it('puts meanings next to each other that share no word', async () => {
    const rows = await embedder.embed([
      'How to bake sourdough at home',
      'A recipe for artisan bread',
      'Quarterly earnings of semiconductor makers',
    ]);
    expect(dot(rowOf(rows, 0), rowOf(rows, 1))).toBeGreaterThan(
      dot(rowOf(rows, 0), rowOf(rows, 2)) + 0.3,
    );
  });

  it('gives unit rows to empty, blank, lone-surrogate and very long texts', async () => {
    const texts = [
      '',
      '   \n',
      '\ud83d',
      'a\udc00b',
      '\u0000\u0007',
      'x'.repeat(300_000),
      'bee '.repeat(50_000),
      '🐝'.repeat(20_000),
    ];
    const rows = await embedder.embed(texts);
    for (let i = 0; i < texts.length; i++) {
      expect(Math.abs(dot(rowOf(rows, i), rowOf(rows, i)) - 1)).toBeLessThan(1e-4);
    }
  });

  it('answers a text alike in any company, and equal texts equally', async () => {
    const texts = Array.from({ length: 40 }, (_, i) => `${'word '.repeat(i * 3)}number ${i}`);
    const together = await embedder.embed([...texts, texts[7]!]);
    expect(rowOf(together, 40)).toEqual(rowOf(together, 7));
    for (const i of [0, 7, 39]) {
      const alone = await embedder.embed([texts[i]!]);
      expect(dot(alone, rowOf(together, i))).toBeGreaterThan(1 - BATCH_TOLERANCE);
    }
  });

  it('wastes less than a tenth on padding for texts of mixed lengths', async () => {
    const own = await transformerEmbedder({ model: model!, runner });
    await own.embed(Array.from({ length: 150 }, (_, i) => `${'bee '.repeat((i * 37) % 120)}${i}`));
    const stats = own.stats();
    expect(stats.paddingWaste).toBeLessThan(0.1);
    expect(stats.tokens).toBeGreaterThan(150 * 30);
    expect(stats.batches).toBeGreaterThan(1);
  });

  it('reports progress up to the end', async () => {
    const seen: number[] = [];
    await embedder.embed(['one', 'two', 'two', 'three'], {
      progress: ({ done }) => seen.push(done),
    });
    expect(seen[0]).toBe(0);
    expect(seen.at(-1)).toBe(4);
  });

  it('stops when aborted, before and during', async () => {
    expect(await codeOf(embedder.embed(['a'], { signal: AbortSignal.abort() }))).toBe(
      'WAGGLE_ABORTED',
    );
    const abort = new AbortController();
    const texts = Array.from({ length: 600 }, (_, i) => `${'long text '.repeat(20)}${i}`);
    const running = embedder.embed(texts, {
      signal: abort.signal,
      progress: ({ done }) => {
        if (done > 0) abort.abort();
      },
    });
    expect(await codeOf(running)).toBe('WAGGLE_ABORTED');
    await expect(embedder.embed(['still works'])).resolves.toHaveLength(384);
  });

  it('marks vectors of another text length by another id', async () => {
    const longer = await transformerEmbedder({ model: model!, runner, maxTokens: 512 });
    expect(longer.modelId).not.toBe(embedder.modelId);
    await expect(transformerEmbedder({ model: model!, runner, maxTokens: 513 })).rejects.toThrow(
      /maxTokens/,
    );
  });

  it('agrees with a runner on the calling thread', async () => {
    const inline = await transformerEmbedder({ model: model!, runner: new InlineRunner() });
    const texts = ['one hive', 'two hives and a meadow'];
    const [here, there] = [await inline.embed(texts), await embedder.embed(texts)];
    for (const i of [0, 1])
      expect(dot(rowOf(here, i), rowOf(there, i))).toBeGreaterThan(1 - BATCH_TOLERANCE);
  });

  it('refuses work after close', async () => {
    const own = await transformerEmbedder({ model: model!, runner });
    await own.close();
    expect(await codeOf(own.embed(['a']))).toBe('WAGGLE_EMBEDDER_CLOSED');
  });
});

describe.skipIf(model === undefined)('the tokenizer', () => {
  const tokenizer =
    model === undefined
      ? undefined!
      : createTokenizer(readFileSync(model.files['tokenizer.json'].path, 'utf8'));

  it('gives the ids of the reference implementation', () => {
    // From the Rust tokenizers crate for this tokenizer.json.
    expect(tokenizer.encode('Hello world!', 256)).toEqual([101, 7592, 2088, 999, 102]);
    expect(tokenizer.encode('', 256)).toEqual([101, 102]);
  });

  it('cuts a long text to the same tokens however much of it is looked at', () => {
    const long = 'honey-bees (Apis mellifera) pollinate 1/3 of crops; '.repeat(2000);
    const short = tokenizer.encode(long.slice(0, 4000), 4096);
    expect(tokenizer.encode(long, 256)).toEqual([...short.slice(0, 255), 102]);
    expect(tokenizer.encode(`${' '.repeat(100_000)}late word`, 256)).toEqual(
      tokenizer.encode('late word', 256),
    );
  });
});

describe('a folder with another model', () => {
  const folder = mkdtempSync(join(tmpdir(), 'waggle-embedder-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it('is refused with a reason', async () => {
    const path = join(folder, 'model.onnx');
    writeFileSync(path, 'not a model');
    const file = {
      path,
      sha256: sha256Hex(readFileSync(path)),
      bytes: 11,
      place: 'model_dir' as const,
    };
    const wrong = {
      name: 'x',
      modelId: 'x',
      dim: 384,
      maxTokens: 256,
      files: { 'model.onnx': file, 'tokenizer.json': file },
    };
    const runner = new InlineRunner();
    expect(await codeOf(transformerEmbedder({ model: wrong, runner }))).toBe(
      'WAGGLE_MODEL_INVALID',
    );
    const damaged = {
      ...wrong,
      files: { ...wrong.files, 'model.onnx': { ...file, sha256: '0'.repeat(64) } },
    };
    expect(await codeOf(transformerEmbedder({ model: damaged, runner }))).toBe(
      'WAGGLE_MODEL_CORRUPT',
    );
  });
});
