import { createHash } from 'node:crypto';
import { type Clock, coreError, type Logger, parseConfig, silentLogger } from '@waggle/core';
import { modelsError } from '../errors.js';
import { DurableFolder } from './durable-folder.js';
import {
  type ArtifactRef,
  canonicalJson,
  Lineage,
  Manifest,
  type ModelLineage,
  type ModelManifest,
  NAME_PATTERN,
  Promotion,
  type PromotionRecord,
  parseStored,
} from './manifest.js';

export interface ModelRegistryOptions {
  readonly dir: string;
  readonly clock: Clock;
  readonly logger?: Logger;
  /** @default a DurableFolder at `dir` */
  readonly folder?: DurableFolder;
}

export interface RegisterRequest {
  readonly name: string;
  /** File name → content. */
  readonly artifacts: Readonly<Record<string, Uint8Array>>;
  readonly lineage: ModelLineage;
}

export interface RegisteredModel {
  readonly manifest: ModelManifest;
  /** The file's bytes, checked. @throws WAGGLE_MODEL_NOT_FOUND, WAGGLE_MODEL_CORRUPT */
  artifact(file: string): Promise<Uint8Array>;
}

const SEQUENCE_DIGITS = 12;

/**
 * Models and where they came from, in one folder:
 *
 *     artifacts/<2 hex>/<sha256>     content, once for equal bytes
 *     models/<name>/<12 hex>.json    manifest of a version; never changes
 *     promotions/<name>/<n>.json     ledger of what was made active and when; only grows
 *
 * Every file appears whole, in that order, so a process killed between any two steps leaves a registry that
 * reads as before. Several processes may write at once.
 */
export class ModelRegistry {
  readonly #folder: DurableFolder;
  readonly #clock: Clock;
  readonly #logger: Logger;

  private constructor(folder: DurableFolder, clock: Clock, logger: Logger) {
    this.#folder = folder;
    this.#clock = clock;
    this.#logger = logger;
  }

  /** @throws WAGGLE_MODEL_STORAGE */
  static async open(options: ModelRegistryOptions): Promise<ModelRegistry> {
    const folder = options.folder ?? new DurableFolder(options.dir);
    await folder.prepare();
    return new ModelRegistry(folder, options.clock, options.logger ?? silentLogger);
  }

  /**
   * Stores content under its hash; storing it again changes nothing, but that a file which has been damaged is whole again.
   * @throws WAGGLE_MODEL_STORAGE
   */
  async putArtifact(bytes: Uint8Array): Promise<ArtifactRef> {
    const sha256 = sha256Hex(bytes);
    const path = artifactPath(sha256);
    if (!(await this.#folder.create(path, bytes))) {
      const present = await this.#folder.read(path);
      if (present === undefined || sha256Hex(present) !== sha256) {
        await this.#folder.replace(path, bytes);
        this.#logger.warn({ path }, 'a damaged file of the registry holds again what it should');
      }
    }
    return { sha256, bytes: bytes.byteLength };
  }

  /**
   * @param called what it is to whoever reads an error
   * @throws WAGGLE_MODEL_NOT_FOUND, WAGGLE_MODEL_CORRUPT, WAGGLE_MODEL_STORAGE
   */
  async getArtifact(sha256: string, called = `artifact ${sha256}`): Promise<Uint8Array> {
    if (!/^[0-9a-f]{64}$/.test(sha256)) {
      throw coreError('WAGGLE_INVALID_ARGUMENT', 'an artifact is named by 64 hex digits');
    }
    const path = artifactPath(sha256);
    const bytes = await this.#folder.read(path);
    if (bytes === undefined) {
      throw modelsError('WAGGLE_MODEL_NOT_FOUND', `${called} is not at ${path}`, {
        details: { path, sha256 },
      });
    }
    const found = sha256Hex(bytes);
    if (found !== sha256) {
      throw modelsError(
        'WAGGLE_MODEL_CORRUPT',
        `${called}, at ${path}, is not what was registered: its SHA-256 is ${found}`,
        { details: { path, expected: sha256, found, bytes: bytes.byteLength } },
      );
    }
    return bytes;
  }

  /**
   * Adds a version. Its name depends on artifacts and lineage alone, so registering the same again answers the
   * manifest that exists.
   * @throws WAGGLE_INVALID_ARGUMENT, WAGGLE_CONFIG_INVALID (lineage), WAGGLE_MODEL_STORAGE
   */
  async register(request: RegisterRequest): Promise<ModelManifest> {
    checkName(request.name);
    const lineage = parseConfig(Lineage, request.lineage, `lineage of ${request.name}`);
    const files = Object.keys(request.artifacts).sort();
    if (files.length === 0) {
      throw coreError('WAGGLE_INVALID_ARGUMENT', `model ${request.name} has no artifacts`);
    }
    for (const file of files) {
      if (!/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/.test(file)) {
        throw coreError(
          'WAGGLE_INVALID_ARGUMENT',
          `${JSON.stringify(file)} is not a plain file name`,
        );
      }
    }
    const artifacts: Record<string, ArtifactRef> = {};
    for (const file of files) artifacts[file] = await this.putArtifact(request.artifacts[file]!);
    const hash = sha256Hex(
      Buffer.from(canonicalJson({ name: request.name, artifacts, lineage })),
    ).slice(0, 12);
    const path = manifestPath(request.name, hash);
    const manifest: ModelManifest = {
      manifestVersion: 1,
      name: request.name,
      version: `${request.name}@${hash}`,
      createdAt: new Date(this.#clock.nowMs()).toISOString(),
      lineage,
      artifacts,
    };
    const created = await this.#folder.create(path, Buffer.from(`${canonicalJson(manifest)}\n`));
    if (!created) return (await this.get(manifest.version)).manifest;
    this.#logger.info({ name: manifest.name, version: manifest.version }, 'model registered');
    return manifest;
  }

  /** @throws WAGGLE_MODEL_NOT_FOUND, WAGGLE_MODEL_CORRUPT, WAGGLE_MODEL_STORAGE */
  async get(version: string): Promise<RegisteredModel> {
    const [name = '', hash = ''] = version.split('@');
    checkName(name);
    const bytes = /^[0-9a-f]{12}$/.test(hash)
      ? await this.#folder.read(manifestPath(name, hash))
      : undefined;
    if (bytes === undefined) {
      throw modelsError('WAGGLE_MODEL_NOT_FOUND', `model version ${version} does not exist`, {
        details: { version },
      });
    }
    const path = manifestPath(name, hash);
    const manifest = parseStored(Manifest, bytes, path);
    const { artifacts, lineage } = manifest;
    if (
      manifest.version !== version ||
      sha256Hex(Buffer.from(canonicalJson({ name, artifacts, lineage }))).slice(0, 12) !== hash
    ) {
      throw modelsError('WAGGLE_MODEL_CORRUPT', `${path} does not match its own name`, {
        details: { path, version },
      });
    }
    return {
      manifest,
      artifact: async (file) => {
        const reference = Object.hasOwn(artifacts, file) ? artifacts[file] : undefined;
        if (reference === undefined) {
          throw modelsError(
            'WAGGLE_MODEL_NOT_FOUND',
            `model ${version} has no artifact named ${file}`,
            {
              details: { version, file, artifacts: Object.keys(artifacts) },
            },
          );
        }
        return this.getArtifact(reference.sha256, `${file} of ${version}`);
      },
    };
  }

  /** Names that have at least one version. */
  async names(): Promise<string[]> {
    return this.#folder.list('models');
  }

  /** Manifests of a name, oldest first. @throws WAGGLE_MODEL_CORRUPT */
  async versions(name: string): Promise<ModelManifest[]> {
    checkName(name);
    const manifests: ModelManifest[] = [];
    for (const file of await this.#folder.list(`models/${name}`)) {
      if (file.endsWith('.json'))
        manifests.push((await this.get(`${name}@${file.slice(0, -5)}`)).manifest);
    }
    return manifests.sort(
      (a, b) => compare(a.createdAt, b.createdAt) || compare(a.version, b.version),
    );
  }

  /**
   * Makes a version the active one by adding a line to the ledger; what was active stays on record.
   * @throws WAGGLE_MODEL_NOT_FOUND, WAGGLE_MODEL_CORRUPT (every artifact is checked first), WAGGLE_MODEL_STORAGE
   */
  async promote(request: {
    readonly version: string;
    readonly by: string;
    readonly reason: string;
  }): Promise<PromotionRecord> {
    const model = await this.get(request.version);
    for (const file of Object.keys(model.manifest.artifacts)) await model.artifact(file);
    const { name } = model.manifest;
    for (;;) {
      const last = (await this.promotions(name)).at(-1);
      const record: PromotionRecord = {
        sequence: (last?.sequence ?? 0) + 1,
        name,
        version: request.version,
        previous: last?.version ?? '',
        at: new Date(this.#clock.nowMs()).toISOString(),
        by: request.by,
        reason: request.reason,
      };
      const file = `${String(record.sequence).padStart(SEQUENCE_DIGITS, '0')}.json`;
      const bytes = Buffer.from(`${canonicalJson(record)}\n`);
      // Another process may have taken this number meanwhile: look again and take the next.
      if (await this.#folder.create(`promotions/${name}/${file}`, bytes)) return record;
    }
  }

  /** The ledger of a name, oldest first. @throws WAGGLE_MODEL_CORRUPT */
  async promotions(name: string): Promise<PromotionRecord[]> {
    checkName(name);
    const records: PromotionRecord[] = [];
    for (const file of await this.#folder.list(`promotions/${name}`)) {
      const path = `promotions/${name}/${file}`;
      const record = parseStored(
        Promotion,
        (await this.#folder.read(path)) ?? new Uint8Array(),
        path,
      );
      if (record.sequence !== records.length + 1 || record.name !== name) {
        throw modelsError('WAGGLE_MODEL_CORRUPT', `${path} is out of sequence`, {
          details: { path },
        });
      }
      records.push(record);
    }
    return records;
  }

  /** The version promoted last; undefined before the first promotion. */
  async active(name: string): Promise<string | undefined> {
    return (await this.promotions(name)).at(-1)?.version;
  }
}

function checkName(name: string): void {
  if (!new RegExp(NAME_PATTERN).test(name)) {
    throw coreError(
      'WAGGLE_INVALID_ARGUMENT',
      `${JSON.stringify(name)} is not a model name (${NAME_PATTERN})`,
    );
  }
}

function artifactPath(sha256: string): string {
  return `artifacts/${sha256.slice(0, 2)}/${sha256}`;
}

function manifestPath(name: string, hash: string): string {
  return `models/${name}/${hash}.json`;
}

function sha256Hex(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function compare(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}
