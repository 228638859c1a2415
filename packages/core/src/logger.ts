/** pino's `(fields, message)` shape, so that a pino logger is one without an adapter. */
export interface Logger {
  trace(fields: object, message?: string): void;
  debug(fields: object, message?: string): void;
  info(fields: object, message?: string): void;
  warn(fields: object, message?: string): void;
  error(fields: object, message?: string): void;
  /** Check before building fields that cost something. */
  isLevelEnabled(level: 'trace' | 'debug' | 'info' | 'warn' | 'error'): boolean;
}

const nothing = (): void => {};

export const silentLogger: Logger = {
  trace: nothing,
  debug: nothing,
  info: nothing,
  warn: nothing,
  error: nothing,
  isLevelEnabled: () => false,
};

/** Progress of a long step: `done` of `total` in `unit`; total is undefined while unknown. */
export type Progress = (update: {
  step: string;
  done: number;
  total?: number;
  unit: string;
}) => void;
