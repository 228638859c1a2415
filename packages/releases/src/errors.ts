import { defineErrors } from '@waggle/core';

const releases = defineErrors({
  WAGGLE_RELEASE_NOT_FOUND: {
    summary: 'No release of that id is stored here.',
    remedy: 'List the releases with `waggle release list`, or build one with `waggle run`.',
  },
  WAGGLE_RELEASE_INCOMPLETE: {
    summary: 'A file that the release should hold is missing.',
    remedy:
      'Build the release again with `waggle release` (same inputs give the same id), or go back with `waggle release rollback`.',
  },
  WAGGLE_RELEASE_CORRUPT: {
    summary: 'A file of the release, or a pointer to it, does not hold what was written.',
    remedy:
      'Build the release again with `waggle release` (same inputs give the same id), or go back with `waggle release rollback`.',
  },
  WAGGLE_RELEASE_FORMAT: {
    summary: 'The release was written in a format that this build does not read.',
    remedy: 'Serve it with the version that built it, or build it again with this one.',
  },
  WAGGLE_RELEASE_NAME: {
    summary: 'A section or file name is not a plain name.',
    remedy: 'Use letters, digits, dot, underscore and hyphen, at most 64 characters.',
  },
  WAGGLE_RELEASE_NO_PREVIOUS: {
    summary: 'There is no earlier release to roll back to that still opens.',
    remedy: 'Activate a release by id, or build a new one.',
  },
  WAGGLE_RELEASE_NO_SPACE: {
    summary: 'The disk is full; nothing of the release was kept.',
    remedy: 'Free some space in the data directory and repeat.',
  },
  WAGGLE_RELEASE_READ_ONLY: {
    summary: 'The release directory cannot be written.',
    remedy: 'Make the data directory writable for this user, or choose another one.',
  },
  WAGGLE_RELEASE_IO: {
    summary: 'The file system refused an operation on the release directory.',
    remedy: 'See the cause; check that the data directory is a directory on a healthy disk.',
  },
});

export const releaseErrors = releases.specs;
export const releaseError = releases.error;
