/**
 * Every error Waggle raises on purpose is a `WaggleError` with a stable `code`. Each package keeps a
 * registry of its codes in its own `errors.ts`; `docs/errors.md` is compared with all of them by a test.
 */
export type ErrorCode = `WAGGLE_${string}`;

export interface ErrorSpec {
  /** What happened, in one sentence. */
  readonly summary: string;
  /** What the reader can do about it, in one sentence. */
  readonly remedy: string;
}

export type ErrorRegistry = Readonly<Record<ErrorCode, ErrorSpec>>;

export interface WaggleErrorOptions {
  readonly cause?: unknown;
  /** Small, JSON-serialisable facts: sizes, names, limits. Never secrets. */
  readonly details?: Readonly<Record<string, unknown>>;
  /** Replaces the registry's remedy where the place of failure knows a better one. */
  readonly remedy?: string;
}

/** Known to every copy of this module: a bundle has one, the packages beside it another. */
const BRAND = Symbol.for('@waggle/core/WaggleError');

export class WaggleError extends Error {
  override readonly name: string = 'WaggleError';
  readonly code: ErrorCode;
  readonly remedy: string | undefined;
  readonly details: Readonly<Record<string, unknown>>;

  constructor(code: ErrorCode, message: string, options: WaggleErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.remedy = options.remedy;
    this.details = options.details ?? {};
  }

  /** Plain data for logs, HTTP bodies and thread boundaries (an Error posted between threads loses its code). */
  toJSON(): SerializedWaggleError {
    return {
      code: this.code,
      message: this.message,
      ...(this.remedy === undefined ? {} : { remedy: this.remedy }),
      details: this.details,
    };
  }
}

export interface SerializedWaggleError {
  readonly code: ErrorCode;
  readonly message: string;
  readonly remedy?: string;
  readonly details: Readonly<Record<string, unknown>>;
}

Object.defineProperty(WaggleError.prototype, BRAND, { value: true });
// Errors of another copy of this module are WaggleErrors too; classes that extend it are told apart as usual.
Object.defineProperty(WaggleError, Symbol.hasInstance, {
  value(this: (...args: never) => unknown, value: unknown): boolean {
    if ((this as unknown) !== WaggleError) {
      return Function.prototype[Symbol.hasInstance].call(this, value);
    }
    return typeof value === 'object' && value !== null && BRAND in value;
  },
});

/** Inverse of `toJSON`, for errors that crossed a thread or process as data. */
export function reviveError(data: SerializedWaggleError, cause?: unknown): WaggleError {
  return new WaggleError(data.code, data.message, {
    details: data.details,
    ...(data.remedy === undefined ? {} : { remedy: data.remedy }),
    ...(cause === undefined ? {} : { cause }),
  });
}

export function isWaggleError(value: unknown): value is WaggleError {
  return value instanceof WaggleError;
}

/**
 * Declares a package's codes and returns the function that makes their errors, so that a code which is not
 * in the registry does not compile and every error carries a remedy.
 */
export function defineErrors<const R extends Record<ErrorCode, ErrorSpec>>(registry: R) {
  type Code = keyof R & ErrorCode;
  return {
    specs: registry as R & ErrorRegistry,
    error(code: Code, message: string, options: WaggleErrorOptions = {}): WaggleError {
      const spec = (registry as ErrorRegistry)[code];
      return new WaggleError(code, message, {
        ...options,
        ...(options.remedy === undefined && spec !== undefined ? { remedy: spec.remedy } : {}),
      });
    },
  };
}

const core = defineErrors({
  WAGGLE_INTERNAL: {
    summary: 'An invariant of Waggle itself was broken.',
    remedy: 'Report it with the message and stack; the process keeps running.',
  },
  WAGGLE_INVALID_ARGUMENT: {
    summary: 'A function was called with a value outside its documented domain.',
    remedy: 'Correct the named argument; the message says what is allowed.',
  },
  WAGGLE_CONFIG_INVALID: {
    summary: 'A configuration value is unknown, missing or of the wrong type.',
    remedy: 'Correct or remove the named option or environment variable.',
  },
  WAGGLE_COLUMNS_CORRUPT: {
    summary: 'A column file is truncated, altered or of an unknown version.',
    remedy: 'Rebuild the file that contains it; never edit release files by hand.',
  },
  WAGGLE_ABORTED: {
    summary: 'The caller cancelled the operation.',
    remedy: 'Nothing to do: nothing was applied.',
  },
});

export const coreErrors = core.specs;
export const coreError = core.error;

/** Wraps anything thrown into a WaggleError, keeping one that already is. */
export function toWaggleError(thrown: unknown): WaggleError {
  if (thrown instanceof WaggleError) return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return coreError('WAGGLE_INTERNAL', message, { cause: thrown });
}

/** Throws WAGGLE_ABORTED when the signal has fired. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) {
    throw coreError('WAGGLE_ABORTED', 'the operation was aborted', { cause: signal.reason });
  }
}
