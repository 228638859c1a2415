import { unknownOption, unknownOptionText } from '@waggle/core';
import { nativeError } from './errors.js';

interface ArrayClasses {
  Float32Array: Float32Array;
  Float64Array: Float64Array;
  Int32Array: Int32Array;
  Int8Array: Int8Array;
  Uint16Array: Uint16Array;
  Uint32Array: Uint32Array;
  Uint8Array: Uint8Array;
  BigUint64Array: BigUint64Array;
  BigInt64Array: BigInt64Array;
}

/**
 * Checks what a native call is about to borrow: class, length, and memory that is neither shared, resizable nor
 * detached. The addon checks again; this one knows better words.
 */
export function checkArray<C extends keyof ArrayClasses>(
  name: string,
  value: unknown,
  className: C,
  atLeast: number,
): asserts value is ArrayClasses[C] {
  // The tag, not instanceof: vm contexts and test runners have their own constructors.
  if (
    !ArrayBuffer.isView(value) ||
    (value as { [Symbol.toStringTag]?: unknown })[Symbol.toStringTag] !== className
  ) {
    const found =
      value === null || value === undefined
        ? String(value)
        : Object.prototype.toString.call(value).slice(8, -1);
    throw nativeError('WAGGLE_NATIVE_DTYPE', `${name} must be a ${className}, not ${found}`, {
      details: { argument: name },
    });
  }
  const array = value as ArrayClasses[C];
  if (array.length >= atLeast && isPlain(array.buffer)) return;
  refuse(name, array, atLeast);
}

function isPlain(buffer: ArrayBufferLike): boolean {
  return (
    Object.prototype.toString.call(buffer) === '[object ArrayBuffer]' &&
    (buffer as { resizable?: boolean }).resizable !== true
  );
}

function refuse(name: string, array: ArrayClasses[keyof ArrayClasses], atLeast: number): never {
  const { buffer } = array;
  const details = { argument: name };
  if (Object.prototype.toString.call(buffer) !== '[object ArrayBuffer]') {
    throw nativeError('WAGGLE_NATIVE_DTYPE', `${name} is backed by a SharedArrayBuffer`, {
      details,
    });
  }
  if ((buffer as { resizable?: boolean }).resizable === true) {
    throw nativeError('WAGGLE_NATIVE_DTYPE', `${name} is backed by a resizable ArrayBuffer`, {
      details,
    });
  }
  if (isDetached(buffer)) {
    throw nativeError('WAGGLE_NATIVE_DETACHED', `the buffer of ${name} is detached`, { details });
  }
  throw nativeError(
    'WAGGLE_NATIVE_SHAPE',
    `${name} has ${array.length} elements; ${atLeast} are needed`,
    {
      details: { ...details, found: array.length, needed: atLeast },
    },
  );
}

/** `ArrayBuffer.prototype.detached` is newer than our floor; making a view of a detached buffer throws. */
function isDetached(buffer: ArrayBufferLike): boolean {
  if (buffer.byteLength > 0) return false;
  try {
    new Uint8Array(buffer);
    return false;
  } catch {
    return true;
  }
}

/**
 * Refuses what has no fields to look at, such as null, and fields that are none of `names`, where they are given
 * (`spare`: other columns may be there).
 * @throws WAGGLE_NATIVE_INVALID_ARGUMENT
 */
export function checkObject(
  name: string,
  value: unknown,
  names?: ReadonlySet<string>,
  spare?: 'columns',
): void {
  if (typeof value === 'object' && value !== null) {
    if (names === undefined) return;
    const unknown = unknownOption(value, names, spare);
    if (unknown === undefined) return;
    throw nativeError('WAGGLE_NATIVE_INVALID_ARGUMENT', unknownOptionText(unknown, names, name), {
      details: { argument: unknown },
    });
  }
  throw nativeError(
    'WAGGLE_NATIVE_INVALID_ARGUMENT',
    `${name} must be an object, not ${value === null ? 'null' : typeof value}`,
    { details: { argument: name } },
  );
}

export function checkBoolean(name: string, value: unknown): asserts value is boolean {
  if (typeof value === 'boolean') return;
  throw nativeError('WAGGLE_NATIVE_INVALID_ARGUMENT', `${name} must be true or false`, {
    details: { argument: name },
  });
}

export function checkInteger(
  name: string,
  value: unknown,
  least: number,
  most: number,
): asserts value is number {
  if (!Number.isSafeInteger(value) || (value as number) < least || (value as number) > most) {
    throw nativeError(
      'WAGGLE_NATIVE_INVALID_ARGUMENT',
      `${name} is ${String(value)}; it must be an integer from ${least} to ${most}`,
      { details: { argument: name } },
    );
  }
}

export function checkFinite(name: string, value: unknown): asserts value is number {
  if (typeof value === 'number' && Number.isFinite(value)) return;
  throw nativeError(
    typeof value === 'number' ? 'WAGGLE_NATIVE_NAN' : 'WAGGLE_NATIVE_INVALID_ARGUMENT',
    `${name} is ${String(value)}; it must be a finite number`,
    { details: { argument: name } },
  );
}

/** Where a name stands among those that are allowed. @throws WAGGLE_NATIVE_INVALID_ARGUMENT */
export function positionOf<V extends string>(name: string, values: readonly V[], value: V): number {
  const at = values.indexOf(value);
  if (at >= 0) return at;
  throw nativeError(
    'WAGGLE_NATIVE_INVALID_ARGUMENT',
    `${name} is ${String(value)}; it must be one of ${values.join(', ')}`,
    { details: { argument: name } },
  );
}

/** Refuses an array whose row length was forgotten: it would be ignored. @throws WAGGLE_NATIVE_INVALID_ARGUMENT */
export function checkCounted(
  name: string,
  array: unknown,
  countName: string,
  count: unknown,
): void {
  if (array === undefined || count !== undefined) return;
  throw nativeError('WAGGLE_NATIVE_INVALID_ARGUMENT', `${name} needs ${countName}`, {
    details: { argument: countName },
  });
}

export const MAX_ROWS = 2_147_483_647;
