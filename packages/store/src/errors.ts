import { defineErrors } from '@waggle/core';

const store = defineErrors({
  WAGGLE_STORE_TIMEOUT: {
    summary: 'A statement did not finish within its time limit.',
    remedy: 'Raise timeoutMs, narrow the query, or check the load of the store.',
  },
  WAGGLE_STORE_UNAVAILABLE: {
    summary: 'The store does not answer.',
    remedy:
      'Start `waggle store`, or correct WAGGLE_CLICKHOUSE_URL; `waggle doctor` shows what was tried.',
  },
  WAGGLE_STORE_CONNECTION_LOST: {
    summary: 'The connection to the store broke during a statement.',
    remedy: 'Repeat the statement: inserts carry ids, so that writing twice changes nothing.',
  },
  WAGGLE_STORE_AUTH: {
    summary: 'The store refused the user name or password.',
    remedy:
      'Correct the credentials; for the local store remove owner.json and restart `waggle store`.',
  },
  WAGGLE_STORE_SYNTAX: {
    summary: 'ClickHouse could not parse the SQL.',
    remedy: 'Correct the statement at the position that the message names.',
  },
  WAGGLE_STORE_QUERY: {
    summary: 'ClickHouse refused or failed the statement.',
    remedy: 'Read ClickHouse’s message and code in the details.',
  },
  WAGGLE_STORE_PARAMETER: {
    summary: 'A query parameter is missing or does not fit its declared type.',
    remedy: 'Pass every {name:Type} of the statement in params, with a value of that type.',
  },
  WAGGLE_STORE_UNKNOWN_TABLE: {
    summary: 'A table or database does not exist.',
    remedy: 'Run `waggle doctor`; tables are created by the migrations at start.',
  },
  WAGGLE_STORE_UNKNOWN_COLUMN: {
    summary: 'Rows name a column that the table does not have.',
    remedy: 'Remove or rename the field; nothing of this batch was stored.',
  },
  WAGGLE_STORE_BAD_ROWS: {
    summary: 'Rows do not fit the column types of the table.',
    remedy: 'Correct the row that the message names; nothing of this batch was stored.',
  },
  WAGGLE_STORE_BAD_FILE: {
    summary: 'A file to load is truncated, malformed or of another format.',
    remedy: 'Correct or fetch the file again and repeat the load; nothing of it was stored.',
  },
  WAGGLE_STORE_FILE_NOT_FOUND: {
    summary: 'A file to load does not exist or cannot be read.',
    remedy: 'Check the path and its permissions.',
  },
  WAGGLE_STORE_MEMORY: {
    summary: 'A statement needed more memory than it may use.',
    remedy: 'Narrow the query or raise max_memory_usage.',
  },
  WAGGLE_STORE_BUSY: {
    summary: 'The store runs too many statements, or the session is in use by another one.',
    remedy: 'Repeat after a moment; use one session per concurrent statement.',
  },
  WAGGLE_STORE_DISK_FULL: {
    summary: 'The disk that holds the data directory is full.',
    remedy: 'Free space and repeat; nothing of the refused write was kept.',
  },
  WAGGLE_STORE_READ_ONLY: {
    summary: 'The data directory or the table cannot be written.',
    remedy: 'Give the process write access to the directory, or choose another one.',
  },
  WAGGLE_STORE_LOCKED: {
    summary: 'Another process owns the data directory.',
    remedy: 'Connect to that process (its address is in owner.json) or stop it first.',
  },
  WAGGLE_STORE_OPEN_FAILED: {
    summary: 'The embedded engine could not open the data directory.',
    remedy:
      'Check the free space and the owner of the directory; restore it from a copy if it is damaged.',
  },
  WAGGLE_STORE_ENGINE_MISSING: {
    summary: 'chDB has no build for this platform, or it is not installed.',
    remedy: 'Run npm install on Linux or macOS (x64, arm64), or set WAGGLE_CLICKHOUSE_URL.',
  },
  WAGGLE_STORE_SCHEMA_NEWER: {
    summary: 'The database was migrated by a newer Waggle.',
    remedy: 'Upgrade Waggle, or point it at another data directory.',
  },
  WAGGLE_STORE_MIGRATION_CHANGED: {
    summary: 'A migration that was applied earlier has other content now.',
    remedy: 'Restore the migration file; change the schema by adding a new migration.',
  },
  WAGGLE_STORE_ABORTED: {
    summary: 'The caller cancelled the statement.',
    remedy: 'Nothing to do; a cancelled insert may be repeated, its ids make that harmless.',
  },
  WAGGLE_STORE_CLOSED: {
    summary: 'The store was used after close().',
    remedy: 'Open a new store.',
  },
  WAGGLE_STORE_RESULT: {
    summary: 'A result holds a column type that has no columnar form here.',
    remedy: 'Cast the column in the SELECT, for instance with toFloat64 or toString.',
  },
  WAGGLE_STORE_PORT_IN_USE: {
    summary: 'The port of the store process is taken.',
    remedy: 'Choose another port, or 0 for any free one.',
  },
  WAGGLE_STORE_START_FAILED: {
    summary: 'The store process ended before it was ready.',
    remedy: 'Read its last lines in the details and run `waggle store` by hand.',
  },
});

const wal = defineErrors({
  WAGGLE_WAL_CORRUPT: {
    summary: 'A record in the middle of the write-ahead log does not match its checksum.',
    remedy:
      'Copy the directory away, then restore it or move the named segment aside; records before it are intact.',
  },
  WAGGLE_WAL_LOCKED: {
    summary:
      'Another process, here or in another container or machine, holds the write-ahead log or has taken it over.',
    remedy:
      'Stop that process, or give this one its own directory; a process that lost its log must be restarted.',
  },
  WAGGLE_WAL_DISK_FULL: {
    summary: 'The disk that holds the write-ahead log is full.',
    remedy:
      'Free space; appends succeed again without a restart. Nothing refused was acknowledged.',
  },
  WAGGLE_WAL_READ_ONLY: {
    summary: 'The directory of the write-ahead log cannot be written.',
    remedy: 'Give the process write access, or choose another directory.',
  },
  WAGGLE_WAL_IO: {
    summary: 'The operating system failed a read or write of the write-ahead log.',
    remedy: 'Check the disk; appends are tried again, nothing refused was acknowledged.',
  },
  WAGGLE_WAL_CLOSED: {
    summary: 'The write-ahead log was used after close().',
    remedy: 'Open it again.',
  },
  WAGGLE_WAL_RECORD_TOO_LARGE: {
    summary: 'A record is larger than the log accepts.',
    remedy: 'Split the payload; the limit is in the details.',
  },
});

const ledger = defineErrors({
  WAGGLE_LEDGER_CORRUPT: {
    summary: 'The ledger snapshot or journal cannot be understood.',
    remedy:
      'Restore the ledger directory from a copy; do not delete it: it holds what was promised.',
  },
  WAGGLE_LEDGER_NEWER: {
    summary: 'The ledger was written by a newer Waggle, and this one would lose what is new in it.',
    remedy:
      'Run the newer version again; nothing was changed. To go back for good, restore the copy of the directory from before the upgrade.',
  },
  WAGGLE_LEDGER_UNKNOWN_REFERENCE: {
    summary: 'A release or charge names a reservation that does not exist.',
    remedy: 'Pass the reference id of an earlier reserve.',
  },
  WAGGLE_LEDGER_CONFLICT: {
    summary:
      'A reference id was used before with another campaign or amount, or is already settled.',
    remedy: 'Use a fresh reference id for every reservation.',
  },
  WAGGLE_LEDGER_AMOUNT: {
    summary: 'An amount is not a whole number of micros in range.',
    remedy: 'Pass integers of micros, 0 … 2^53 − 1.',
  },
  WAGGLE_JOURNAL_CONFLICT: {
    summary: 'An event repeats the id of an earlier one with other content.',
    remedy:
      'Give a new event an id of its own; a correction is an event too. Nothing of the request was accepted.',
  },
  WAGGLE_LEDGER_CLOSED: {
    summary: 'The ledger or journal was used after close().',
    remedy: 'Open it again.',
  },
});

export const storeErrors = { ...store.specs, ...wal.specs, ...ledger.specs };
export const storeError = store.error;
export const walError = wal.error;
export const ledgerError = ledger.error;
