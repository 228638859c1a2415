import { describe, expect, it } from 'vitest';
import {
  coreError,
  defineErrors,
  isWaggleError,
  reviveError,
  toWaggleError,
  WaggleError,
} from '../src/index.js';

describe('errors', () => {
  it('of another copy of the package are known', async () => {
    // What a bundler makes of the one, beside packages that bring the other.
    const copy = (await import(
      `${new URL('../src/errors.ts', import.meta.url).href}?copy`
    )) as typeof import('../src/errors.js');
    expect(copy.WaggleError).not.toBe(WaggleError);
    const error = new copy.WaggleError('WAGGLE_EXAMPLE', 'broken');
    expect(error).toBeInstanceOf(WaggleError);
    expect(isWaggleError(error)).toBe(true);
    expect(toWaggleError(error)).toBe(error);
    class Own extends WaggleError {}
    expect(error).not.toBeInstanceOf(Own);
    expect(new Own('WAGGLE_EXAMPLE', 'mine')).toBeInstanceOf(Own);
    expect(isWaggleError(Object.assign(new Error('x'), { code: 'WAGGLE_EXAMPLE' }))).toBe(false);
  });

  it('carry the remedy of their registry', () => {
    const { error } = defineErrors({
      WAGGLE_EXAMPLE: { summary: 'It broke.', remedy: 'Mend it.' },
    });
    expect(error('WAGGLE_EXAMPLE', 'broken at 3').remedy).toBe('Mend it.');
    expect(error('WAGGLE_EXAMPLE', 'broken', { remedy: 'Better.' }).remedy).toBe('Better.');
  });

  it('survive a thread boundary as data', () => {
    const cause = new Error('disk');
    const original = coreError('WAGGLE_INTERNAL', 'went wrong', { cause, details: { n: 3 } });
    const revived = reviveError(JSON.parse(JSON.stringify(original)));
    expect(revived).toBeInstanceOf(WaggleError);
    expect(revived.toJSON()).toEqual(original.toJSON());
    expect(original.cause).toBe(cause);
  });

  it('wrap anything thrown and keep their own', () => {
    const own = coreError('WAGGLE_ABORTED', 'stop');
    expect(toWaggleError(own)).toBe(own);
    expect(toWaggleError('text')).toMatchObject({ code: 'WAGGLE_INTERNAL', message: 'text' });
  });
});
