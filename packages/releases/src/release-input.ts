import {
  checkName,
  makeManifest,
  type ReleaseFile,
  type ReleaseManifest,
  sha256,
} from './manifest.js';
import { LoadedRelease, type Release } from './release.js';

export interface ReleaseInput {
  readonly sections: Readonly<Record<string, Readonly<Record<string, Uint8Array>>>>;
  readonly lineage: Readonly<Record<string, unknown>>;
}

/** @throws WAGGLE_RELEASE_NAME */
export function manifestOf(input: ReleaseInput, createdAt: string): ReleaseManifest {
  const files: ReleaseFile[] = [];
  for (const [section, content] of Object.entries(input.sections)) {
    checkName(section, 'section');
    for (const [file, bytes] of Object.entries(content)) {
      checkName(file, 'file');
      files.push({ section, file, bytes: bytes.byteLength, sha256: sha256(bytes) });
    }
  }
  // Through JSON once, so that what is hashed is what will be read back.
  const lineage = JSON.parse(JSON.stringify(input.lineage)) as Record<string, unknown>;
  return makeManifest(lineage, files, createdAt);
}

/** A release that is looked at and never stored. O(bytes). @throws WAGGLE_RELEASE_NAME */
export function releaseInMemory(input: ReleaseInput, createdAtMs: number): Release {
  const files = Object.entries(input.sections).flatMap(([section, content]) =>
    Object.entries(content).map(([file, bytes]) => [`${section}/${file}`, bytes] as const),
  );
  const manifest = manifestOf(input, new Date(createdAtMs).toISOString());
  return new LoadedRelease(manifest, new Map(files));
}
