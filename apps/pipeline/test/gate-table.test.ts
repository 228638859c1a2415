import { expect, it } from 'vitest';
import { withVerdict } from '../src/commands/train.js';

it('says beside the gate that nothing is corrected for selection, and why', () => {
  const verdict = { nRows: 9, relativeLogLoss: null, winners: null };
  const explanation = 'not corrected for being selected: too little ran';
  expect(withVerdict('pctr passed its gate.', { ...verdict, passed: false, explanation })).toBe(
    'pctr passed its gate. It is not corrected for being selected: too little ran.',
  );
  const kept = { ...verdict, passed: true, explanation: 'corrected for being selected: so much' };
  for (const selection of [kept, undefined]) {
    expect(withVerdict('pctr passed its gate.', selection)).toBe('pctr passed its gate.');
  }
});
