import { Type } from 'typebox';
import { describe, expect, it } from 'vitest';
import { clockStartingAt, manualClock, parseConfig, redactConfig } from '../src/index.js';

const Schema = Type.Object(
  {
    port: Type.Integer({ default: 8080, minimum: 0, maximum: 65535 }),
    host: Type.String({ default: '127.0.0.1' }),
  },
  { additionalProperties: false },
);

describe('configuration', () => {
  it('applies defaults, converts text, freezes', () => {
    const config = parseConfig(Schema, { port: '9000' }, 'environment');
    expect(config).toEqual({ port: 9000, host: '127.0.0.1' });
    expect(Object.isFrozen(config)).toBe(true);
  });

  it.each([[{ prot: 1 }], [{ port: 'x' }], [{ port: 70000 }]])(
    'refuses %j and names the problem',
    (input) => {
      expect(() => parseConfig(Schema, input, 'environment')).toThrow(
        expect.objectContaining({
          code: 'WAGGLE_CONFIG_INVALID',
          message: expect.stringContaining('environment'),
        }),
      );
    },
  );

  it('names an unknown key once, and leaves the types of a document alone', () => {
    expect(() => parseConfig(Schema, { prot: 1 }, 'file')).toThrow(/^file: \/prot: is not known$/);
    const strict = () => parseConfig(Schema, { port: '9000' }, 'file', { convert: false });
    expect(strict).toThrow('/port: must be integer');
  });

  it.each(['8.5', 8.5, 'true', 'tcp://10.0.0.1:80'])('takes no number for %j', (port) => {
    expect(() => parseConfig(Schema, { port }, 'environment')).toThrow('/port: must be integer');
  });

  it('says a name, the words that are allowed, and each problem once', () => {
    const Words = Type.Object(
      { level: Type.Union([Type.Literal('low'), Type.Literal('high')]), deep: Type.Integer() },
      { additionalProperties: false },
    );
    const nameOf = (key: string) => `X_${key.toUpperCase()}`;
    expect(() =>
      parseConfig(Words, { level: 'mid', deep: 'x' }, 'environment', { nameOf }),
    ).toThrow(/^environment: X_LEVEL: must be one of low, high; X_DEEP: must be integer$/);
  });

  it('hides secrets when printed', () => {
    expect(
      redactConfig({ apiKeys: '', clickhousePassword: 'x', clickhouseUrl: 'u', port: 1 }),
    ).toEqual({
      apiKeys: '',
      clickhousePassword: '[redacted]',
      clickhouseUrl: '[redacted]',
      port: 1,
    });
  });
});

describe('clocks', () => {
  it('a shifted clock starts where told and advances with its base', () => {
    const base = manualClock(0);
    const clock = clockStartingAt(1_000_000, base);
    expect(clock.nowMs()).toBe(1_000_000);
    base.advance(250);
    expect(clock.nowMs()).toBe(1_000_250);
  });
});
