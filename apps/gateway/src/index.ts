export * from './app.js';
export { type ApiKey, parseApiKeys } from './auth.js';
export * from './config.js';
export { gatewayError, gatewayErrors, STATUS_BY_CODE, statusOf } from './errors.js';
export {
  IdempotencyCache,
  type IdempotencyOptions,
  type MadeAnswer,
  type StoredAnswer,
} from './idempotency.js';
export { type RunningGateway, type StartOptions, startGateway, untilSignal } from './main.js';
export * from './ports.js';
