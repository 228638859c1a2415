import { describe, expect, it } from 'vitest';
import { Absent, startContender } from '../src/contenders/protocol.js';

/** A contender in a few lines of JavaScript. */
const script = (body: string) =>
  startContender({ command: process.execPath, args: ['-e', body], label: 'test contender' });

const ECHO = `
console.log(JSON.stringify({ name: 'echo', version: '1', threads: 1 }));
console.log('libraries print what they like');
require('node:readline').createInterface({ input: process.stdin }).on('line', (text) => {
  const { op, ...args } = JSON.parse(text);
  if (op === 'die') process.exit(3);
  console.log(JSON.stringify(op === 'fail' ? { error: 'no' } : op === 'time' ? { ms: args.ms } : args));
});`;

describe('a contender', () => {
  it('answers one call after the other', async () => {
    const echo = await script(ECHO);
    expect(echo.hello).toEqual({ name: 'echo', version: '1', threads: 1 });
    const answers = await Promise.all([1, 2, 3].map((n) => echo.call('echo', { n })));
    expect(answers).toEqual([{ n: 1 }, { n: 2 }, { n: 3 }]);
    expect(await echo.time('time', { ms: 4.5 })).toBe(4.5);
    await echo.close();
  });

  it('reports its own errors, and goes on', async () => {
    const echo = await script(ECHO);
    await expect(echo.call('fail')).rejects.toThrow('test contender: fail: no');
    await expect(echo.time('time', { ms: 0 })).rejects.toThrow('gave no time');
    expect(await echo.call('echo', { n: 1 })).toEqual({ n: 1 });
    await echo.close();
  });

  it('is absent when it says so, does not start, or dies', async () => {
    await expect(script(`console.log('{"skip":"not installed"}')`)).rejects.toThrow(
      new Absent('not installed'),
    );
    await expect(script('process.exit(1)')).rejects.toBeInstanceOf(Absent);
    await expect(
      startContender({ command: '/nonexistent', args: [], label: 'nothing' }),
    ).rejects.toBeInstanceOf(Absent);
    const echo = await script(ECHO);
    await expect(echo.call('die')).rejects.toThrow('ended during die');
    await expect(echo.call('echo')).rejects.toThrow('exit 3');
    await echo.close();
  });
});
