import { describe, expect, it } from 'vitest';
import { optionNames, unknownOption } from '../src/index.js';

interface Options {
  readonly k: number;
  readonly filter?: Uint8Array | undefined;
}

describe('unknownOption', () => {
  const names = optionNames<Options>({ k: true, filter: true });

  it('names the field that is none of those', () => {
    expect(unknownOption({ k: 1 }, names)).toBeUndefined();
    expect(unknownOption({ k: 1, filters: [] }, names)).toBe('filters');
    expect(unknownOption({ k: 1, toString: 1 }, names)).toBe('toString');
  });

  it('lets pass what is undefined and, where they are spare, columns', () => {
    expect(unknownOption({ filters: undefined }, names)).toBeUndefined();
    const more = { k: 1, z: new Float64Array(1) };
    expect(unknownOption(more, names)).toBe('z');
    expect(unknownOption(more, names, 'columns')).toBeUndefined();
    expect(unknownOption({ ...more, seeds: 1 }, names, 'columns')).toBe('seeds');
  });
});
