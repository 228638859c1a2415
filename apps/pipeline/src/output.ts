import { isWaggleError, toWaggleError } from '@waggle/core';
import Table from 'cli-table3';

/** Where a command's answer goes: a table for people, one JSON document for machines. */
export interface Output {
  readonly json: boolean;
  /** The command's answer. `human` is called only when a person reads. */
  result(value: unknown, human: () => string): void;
}

export function commandOutput(json: boolean, write: (text: string) => void): Output {
  return {
    json,
    result(value, human) {
      write(json ? `${JSON.stringify(value)}\n` : `${human()}\n`);
    },
  };
}

export function table(
  head: readonly string[],
  rows: readonly (readonly (string | number)[])[],
): string {
  const plain = new Table({
    head: [...head],
    style: { head: [], border: [], compact: true },
    chars: {
      top: '',
      'top-mid': '',
      'top-left': '',
      'top-right': '',
      bottom: '',
      'bottom-mid': '',
      'bottom-left': '',
      'bottom-right': '',
      left: '',
      'left-mid': '',
      mid: '',
      'mid-mid': '',
      right: '',
      'right-mid': '',
      middle: '  ',
    },
    colAligns: head.map((_, i) => (typeof rows[0]?.[i] === 'number' ? 'right' : 'left')),
  });
  for (const row of rows) plain.push(row.map(String));
  return plain.toString();
}

/** Error text for people: what happened, then what to do about it. */
export function errorText(thrown: unknown): string {
  const error = toWaggleError(thrown);
  const lines = [`${error.code}: ${error.message}`];
  if (error.remedy) lines.push(`  → ${error.remedy}`);
  if (!isWaggleError(thrown) && thrown instanceof Error && thrown.stack) lines.push(thrown.stack);
  return lines.join('\n');
}

export const micros = (value: number): string => `$${(value / 1e6).toFixed(2)}`;
export const percent = (value: number, digits = 2): string => `${(100 * value).toFixed(digits)} %`;
export const count = (value: number): string => value.toLocaleString('en');
