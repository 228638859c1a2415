import { ErrorResponse } from '@waggle/core/contract';
import { Compile } from 'typebox/compile';

const validator = Compile(ErrorResponse);

/** Exactly the contract's error body: its fields and no others. */
export function isErrorShape(body: unknown): boolean {
  if (!validator.Check(body)) return false;
  const allowed = new Set(['code', 'message', 'remedy', 'details', 'request_id']);
  const { error } = body;
  return (
    Object.keys(body).length === 1 &&
    Object.keys(error).every((key) => allowed.has(key)) &&
    /^WAGGLE_[A-Z_]+$/.test(error.code)
  );
}
