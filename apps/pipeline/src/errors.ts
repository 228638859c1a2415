import { defineErrors } from '@waggle/core';

const pipeline = defineErrors({
  WAGGLE_USAGE: {
    summary: 'A command was called with an unknown name, option or value.',
    remedy: 'Run `npx waggle --help`, or `npx waggle <command> --help`.',
  },
  WAGGLE_NO_DATA: {
    summary: 'A step needs data that is not in the store yet.',
    remedy: 'Load events first: `npx waggle simulate` and `npx waggle ingest`, or your own files.',
  },
  WAGGLE_NO_MODEL: {
    summary: 'A release was asked for before any model was trained.',
    remedy: 'Run `npx waggle train` first.',
  },
  WAGGLE_MODEL_NOT_GATED: {
    summary: 'A release was asked for an imported model that has not passed its gate.',
    remedy:
      'Run `waggle models gate <version>`, on data later than it learned from; or release it on your word with --ungated, which every answer then says.',
  },
  WAGGLE_POLICY_INVALID: {
    summary:
      'The policy file of a release cannot be read, or does not match the schema of policies.',
    remedy:
      'Correct what the message names; fields, limits and defaults are listed in packages/engine/README.md.',
  },
  WAGGLE_INGEST_INVALID: {
    summary: 'A row or column of an input file does not match the event contract.',
    remedy:
      'Correct the named line or column and load again: no file was loaded. The contract is packages/core/src/contract/events.ts.',
  },
  WAGGLE_INGEST_UNREADABLE: {
    summary: 'An input file or folder is missing, empty or of an unknown format.',
    remedy: 'Give a folder of <table>.parquet or <table>.ndjson files, or one such file.',
  },
  WAGGLE_SERVER_UNREACHABLE: {
    summary: 'No gateway answered at the given address.',
    remedy: 'Start one with `npx waggle serve` (or `npm start`), or correct --url.',
  },
  WAGGLE_BENCH_FAILED: {
    summary: 'A benchmark suite could not be run.',
    remedy: 'Read its output above; suites are listed by `npm run bench -- --help`.',
  },
});

export const pipelineErrors = pipeline.specs;
export const pipelineError = pipeline.error;
