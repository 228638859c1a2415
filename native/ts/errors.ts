import { coreErrors, defineErrors, type ErrorCode, WaggleError } from '@waggle/core';

const native = defineErrors({
  WAGGLE_NATIVE_LOAD: {
    summary: 'The compiled engine could not be loaded.',
    remedy:
      'Build it, with CMake ≥ 3.22 and a C++20 compiler: npm rebuild @waggle/native, or npm run build in its repository.',
  },
  WAGGLE_NATIVE_BACKEND: {
    summary:
      'A backend or instruction set that was asked for by name cannot be used, or its device failed.',
    remedy:
      'Unset WAGGLE_BACKEND and WAGGLE_SIMD to choose automatically, or fix the stated reason.',
  },
  WAGGLE_NATIVE_INVALID_ARGUMENT: {
    summary: 'An argument of a native operation is outside its documented domain.',
    remedy: 'Correct the named argument; the message says what is allowed.',
  },
  WAGGLE_NATIVE_SHAPE: {
    summary: 'An array is too short for the stated sizes, or the sizes contradict each other.',
    remedy: 'Pass arrays with at least the stated number of elements.',
  },
  WAGGLE_NATIVE_DTYPE: {
    summary: 'An array has the wrong element type, or its memory is shared or resizable.',
    remedy: 'Pass the documented typed array over a plain ArrayBuffer.',
  },
  WAGGLE_NATIVE_DETACHED: {
    summary: "An array's buffer was transferred away.",
    remedy: 'Do not transfer buffers that are still needed; copy them first.',
  },
  WAGGLE_NATIVE_NAN: {
    summary: 'An input holds NaN or infinity, or a value computed from it overflows.',
    remedy: 'Clean the named column or row before the call.',
  },
  WAGGLE_NATIVE_LEASED: {
    summary:
      'Memory of a running job was passed to another one that would write it, or the other way round.',
    remedy: 'Wait for the first job to settle, or use other output arrays.',
  },
  WAGGLE_NATIVE_BUSY: {
    summary: 'Too many jobs are in flight.',
    remedy: 'Await some of them first; queueDepth() tells how many there are.',
  },
  WAGGLE_NATIVE_TOO_LARGE: {
    summary: 'A synchronous call would hold the event loop for too long.',
    remedy: 'Use the asynchronous function of the same name.',
  },
  WAGGLE_NATIVE_SINGULAR: {
    summary:
      'The model is not determined by the data: features are collinear or classes are separated.',
    remedy: 'Give l2 a value above 0, or drop the named feature.',
  },
  WAGGLE_NATIVE_OUT_OF_MEMORY: {
    summary: 'The engine could not allocate the memory an operation needs.',
    remedy: 'Use smaller batches or a smaller k.',
  },
  WAGGLE_NATIVE_CLOSED: {
    summary: 'The native object behind a handle was closed.',
    remedy: 'Open it again, or close it only after the last use.',
  },
  WAGGLE_NATIVE_FILE: {
    summary:
      'A file of the engine cannot be read or written: missing, truncated, altered, or of another kind or version.',
    remedy: 'Write the file again from its source; the message says what is wrong with it.',
  },
  WAGGLE_NATIVE_MODEL: {
    summary: 'A tree ensemble is malformed, or uses a feature of its format that is not supported.',
    remedy: 'Export the model again; the message names the field and what is supported.',
  },
});

export const nativeErrors = native.specs;
export const nativeError = native.error;
export type NativeErrorCode = keyof typeof nativeErrors & ErrorCode;

/** An error thrown by the addon (plain Error with a `code`) as a WaggleError; any other becomes WAGGLE_INTERNAL. */
export function fromAddon(thrown: unknown): WaggleError {
  if (thrown instanceof WaggleError) return thrown;
  const { code, message } = thrown as { code?: unknown; message?: unknown };
  const text = typeof message === 'string' ? message : String(thrown);
  const known: Readonly<Record<string, { remedy: string }>> = { ...coreErrors, ...nativeErrors };
  const spec = typeof code === 'string' ? known[code] : undefined;
  if (spec === undefined) {
    return new WaggleError('WAGGLE_INTERNAL', text, {
      cause: thrown,
      remedy: coreErrors.WAGGLE_INTERNAL.remedy,
    });
  }
  return new WaggleError(code as ErrorCode, text, { cause: thrown, remedy: spec.remedy });
}
