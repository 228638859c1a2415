import { defineErrors } from '@waggle/core';

const engine = defineErrors({
  WAGGLE_UNKNOWN_PUBLICATION: {
    summary: 'The release that is served does not know the publication.',
    remedy:
      'Check the id; a publication is served after the first release built since it was ingested.',
  },
  WAGGLE_UNKNOWN_CANDIDATES: {
    summary: 'The list of candidates names campaigns that the release does not know.',
    remedy: 'Remove the named ids, or build a release that contains them.',
  },
  WAGGLE_RANK_INVALID: {
    summary: 'A ranking request is well-formed but contradicts itself.',
    remedy: 'Correct the named field; the message says what is allowed.',
  },
  WAGGLE_DEADLINE_EXCEEDED: {
    summary: 'The deadline of the request had passed before ranking could start.',
    remedy: 'Allow more time with deadline_ms, or send fewer requests at once.',
  },
  WAGGLE_DECISION_NOT_RECORDED: {
    summary:
      'A fill could not be written to the decision log, so it was not made; nothing stays set aside.',
    remedy: 'Check the disk of the data directory, then repeat the request.',
  },
  WAGGLE_NO_ACTIVE_RELEASE: {
    summary: 'No release is active, so nothing can be ranked.',
    remedy:
      'Build one with `waggle run`, or activate a stored one with `waggle release activate <id>`.',
  },
  WAGGLE_PIN_UNKNOWN: {
    summary: 'The request pins a release that this server does not hold.',
    remedy: 'Pin the active release or one that is kept loaded, or leave the pin out.',
  },
  WAGGLE_RELEASE_UNSERVABLE: {
    summary: 'A release opens but its parts do not fit together.',
    remedy: 'Build the release again with this version; the previous one stays in service.',
  },
  WAGGLE_RELEASE_TWIN_MISMATCH: {
    summary:
      'The ONNX file of a model in a release is not that model: another file, unusable, or with other answers.',
    remedy: 'Train and build the release again; the previous one stays in service.',
  },
  WAGGLE_CATALOG_EMPTY: {
    summary: 'The store holds no publications or no campaigns for the tenant at that time.',
    remedy: 'Ingest entities first, or check the tenant id and the as-of time.',
  },
  WAGGLE_REPLAY_MISMATCH: {
    summary: 'A logged decision cannot be replayed with the given release.',
    remedy: 'Replay with the release that the decision names.',
  },
});

export const engineErrors = engine.specs;
export const engineError = engine.error;
