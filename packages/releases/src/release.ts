import { type ColumnTable, decodeColumns } from '@waggle/core';
import { releaseError } from './errors.js';
import type { ReleaseManifest } from './manifest.js';

/** One opened release: every byte was checked against the manifest before this object existed. */
export interface Release {
  readonly id: string;
  readonly manifest: ReleaseManifest;
  has(section: string, file: string): boolean;
  /** The file's bytes, shared: do not write to them. @throws WAGGLE_RELEASE_INCOMPLETE */
  read(section: string, file: string): Uint8Array;
  /** @throws WAGGLE_RELEASE_INCOMPLETE, WAGGLE_RELEASE_CORRUPT */
  json<T>(section: string, file: string): T;
  /** @throws WAGGLE_RELEASE_INCOMPLETE, WAGGLE_RELEASE_CORRUPT */
  table(section: string, file: string): ColumnTable;
}

/** Keeps the whole release in memory (its size is the sum in the manifest); drop it once loaded. */
export class LoadedRelease implements Release {
  readonly manifest: ReleaseManifest;
  readonly #files: ReadonlyMap<string, Uint8Array>;

  constructor(manifest: ReleaseManifest, files: ReadonlyMap<string, Uint8Array>) {
    this.manifest = manifest;
    this.#files = files;
  }

  get id(): string {
    return this.manifest.id;
  }

  has(section: string, file: string): boolean {
    return this.#files.has(`${section}/${file}`);
  }

  read(section: string, file: string): Uint8Array {
    const bytes = this.#files.get(`${section}/${file}`);
    if (bytes === undefined) {
      throw releaseError(
        'WAGGLE_RELEASE_INCOMPLETE',
        `release ${this.id} has no ${section}/${file}`,
        {
          details: { release: this.id, section, file },
        },
      );
    }
    return bytes;
  }

  json<T>(section: string, file: string): T {
    return this.#decode(section, file, (bytes) =>
      JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes)),
    );
  }

  table(section: string, file: string): ColumnTable {
    return this.#decode(section, file, decodeColumns);
  }

  #decode<T>(section: string, file: string, decode: (bytes: Uint8Array) => T): T {
    const bytes = this.read(section, file);
    try {
      return decode(bytes);
    } catch (cause) {
      throw releaseError(
        'WAGGLE_RELEASE_CORRUPT',
        `release ${this.id}: ${section}/${file} cannot be read: ${cause instanceof Error ? cause.message : String(cause)}`,
        { cause, details: { release: this.id, section, file } },
      );
    }
  }
}
