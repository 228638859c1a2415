export * from './budget-ledger.js';
export * from './decision-log.js';
export * from './event-journal.js';
export type { ForwarderStatus } from './forwarder.js';
export * from './ledger-peers.js';
export { IS_LEDGER_ENTRY, LEDGER_EVENT_PREFIX, LEDGER_ID_PATTERN } from './ledger-records.js';
