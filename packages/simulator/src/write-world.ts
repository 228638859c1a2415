import { randomUUID } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import type { Progress } from '@waggle/core';
import { simulatorError } from './errors.js';
import { runNetwork } from './network.js';
import { ParquetTable } from './parquet.js';
import { resolveWorld, type WorldConfig, type WorldOptions } from './scales.js';
import { TABLES, TRUTH_TABLES, type TruthName } from './tables.js';
import { SIMULATOR_VERSION } from './world.js';

export interface WorldFile {
  /** Path relative to the world's directory. */
  readonly path: string;
  readonly rows: number;
  readonly bytes: number;
  readonly sha256: string;
}

/** `world.json`: what a world directory holds. */
export interface WorldManifest {
  readonly simulatorVersion: number;
  readonly config: WorldConfig;
  /** RFC 3339; the observed past is [start, end). */
  readonly start: string;
  readonly end: string;
  /** One Parquet file per ClickHouse table; tables without rows have none. */
  readonly tables: Readonly<Record<string, WorldFile>>;
  /** Hidden truth, for the simulator's tests and evaluation only. */
  readonly truth: Readonly<Record<string, WorldFile>>;
}

export interface WriteWorldOptions {
  readonly progress?: Progress;
  /** Simulate again even when the directory already holds this very world. Default false. */
  readonly force?: boolean;
}

export const MANIFEST_NAME = 'world.json';

/**
 * Simulates a world straight into Parquet files: `<table>.parquet` and `truth/<name>.parquet`, then
 * `world.json`. Memory does not grow with the number of events. A directory that already holds the same
 * world is left alone. The directory appears complete or not at all.
 * @throws WAGGLE_SIMULATOR_OPTION, WAGGLE_SIMULATOR_WRITE
 */
export function writeWorld(
  options: WorldOptions,
  directory: string,
  { progress, force = false }: WriteWorldOptions = {},
): { manifest: WorldManifest; reused: boolean } {
  const config = resolveWorld(options);
  const target = resolve(directory);
  if (!force) {
    const existing = matchingManifest(target, config);
    if (existing !== undefined) return { manifest: existing, reused: true };
  }
  if (
    existsSync(target) &&
    readdirSync(target).length > 0 &&
    !existsSync(join(target, MANIFEST_NAME))
  ) {
    throw simulatorError(
      'WAGGLE_SIMULATOR_WRITE',
      `${target} holds something that is not a world; it will not be replaced`,
      { remedy: 'Name an empty or new directory.' },
    );
  }
  const work = join(dirname(target), `.${basename(target)}.${randomUUID()}`);
  const open: ParquetTable[] = [];
  try {
    mkdirSync(join(work, 'truth'), { recursive: true });
    const tables = new Map<string, ParquetTable>();
    const truth = new Map<TruthName, ParquetTable>();
    for (const [name, spec] of Object.entries(TABLES)) {
      tables.set(name, new ParquetTable(spec, join(work, `${name}.parquet`)));
    }
    for (const name of Object.keys(TRUTH_TABLES) as TruthName[]) {
      truth.set(name, new ParquetTable(TRUTH_TABLES[name], join(work, 'truth', `${name}.parquet`)));
    }
    open.push(...tables.values(), ...truth.values());
    runNetwork(
      config,
      { table: (name) => tables.get(name)!, truth: (name) => truth.get(name)! },
      progress,
    );
    const files = (group: Map<string, ParquetTable>, folder: string): Record<string, WorldFile> => {
      const out: Record<string, WorldFile> = {};
      for (const [name, table] of group) {
        open.splice(open.indexOf(table), 1);
        const path = `${folder}${name}.parquet`;
        const { sha256, bytes } = table.finish();
        if (table.nRows === 0) rmSync(join(work, path));
        else out[name] = { path, rows: table.nRows, bytes, sha256 };
      }
      return out;
    };
    const manifest: WorldManifest = {
      simulatorVersion: SIMULATOR_VERSION,
      config,
      start: new Date(config.startMs).toISOString(),
      end: new Date(config.endMs).toISOString(),
      tables: files(tables, ''),
      truth: files(truth, 'truth/'),
    };
    writeFileSync(join(work, MANIFEST_NAME), `${JSON.stringify(manifest, null, 2)}\n`);
    replaceDirectory(target, work);
    return { manifest, reused: false };
  } catch (cause) {
    for (const table of open) table.abandon();
    if (existsSync(work)) rmSync(work, { recursive: true, force: true });
    throw simulatorError(
      'WAGGLE_SIMULATOR_WRITE',
      `writing the world to ${target} failed: ${cause instanceof Error ? cause.message : String(cause)}`,
      { cause },
    );
  }
}

/** Puts `work` in the place of `target`; the old world is deleted only once the new one stands. */
function replaceDirectory(target: string, work: string): void {
  const old = `${work}.old`;
  const replacing = existsSync(target);
  if (replacing) renameSync(target, old);
  renameSync(work, target);
  if (replacing) rmSync(old, { recursive: true, force: true });
}

/** The manifest of a world directory. @throws WAGGLE_SIMULATOR_WORLD */
export function readManifest(directory: string): WorldManifest {
  const path = join(directory, MANIFEST_NAME);
  let manifest: WorldManifest;
  try {
    manifest = JSON.parse(readFileSync(path, 'utf8')) as WorldManifest;
  } catch (cause) {
    throw simulatorError('WAGGLE_SIMULATOR_WORLD', `${path} cannot be read`, { cause });
  }
  if (manifest.simulatorVersion !== SIMULATOR_VERSION) {
    throw simulatorError(
      'WAGGLE_SIMULATOR_WORLD',
      `${path} was made by simulator version ${manifest.simulatorVersion}, this is ${SIMULATOR_VERSION}`,
    );
  }
  return manifest;
}

/** The manifest when the directory holds exactly this world with all files at their sizes. */
function matchingManifest(directory: string, config: WorldConfig): WorldManifest | undefined {
  if (!existsSync(join(directory, MANIFEST_NAME))) return undefined;
  let manifest: WorldManifest;
  try {
    manifest = readManifest(directory);
  } catch {
    return undefined;
  }
  if (JSON.stringify(manifest.config) !== JSON.stringify(config)) return undefined;
  for (const file of [...Object.values(manifest.tables), ...Object.values(manifest.truth)]) {
    const path = join(directory, file.path);
    if (!existsSync(path) || statSync(path).size !== file.bytes) return undefined;
  }
  return manifest;
}
