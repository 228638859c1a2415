import { describe, expect, it } from 'vitest';
import { coreError, defineErrors, reviveError, toWaggleError, WaggleError } from '../src/index.js';

describe('errors', () => {
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
