import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseCommand, UsageError, usage } from '../src/cli.js';
import { touched, wanted } from '../src/record.js';

const suites = ['topk', 'trees'];
const parse = (text: string) => parseCommand(text.split(' ').filter(Boolean), suites);

describe('the command line', () => {
  it('names suites with their options', () => {
    expect(parse('topk --quick --seed 7 --json out.json --case f32/q1 --case int8')).toEqual({
      kind: 'suites',
      suites: ['topk'],
      quick: true,
      full: false,
      seed: 7,
      only: ['f32/q1', 'int8'],
      jsonFile: 'out.json',
    });
    expect(parse('topk trees --full')).toMatchObject({
      suites: ['topk', 'trees'],
      full: true,
      seed: 1,
    });
  });

  it('draws reports, with prices', () => {
    expect(parse('report')).toEqual({ kind: 'report', folders: [] });
    expect(parse('report a --cost-cpu-hour 0.1 --cost-gpu-hour 4')).toEqual({
      kind: 'report',
      folders: ['a'],
      costCpuHour: 0.1,
      costGpuHour: 4,
    });
  });

  it.each([
    ['', 'no suite'],
    ['topkk', 'no suite is called topkk'],
    ['toString', 'no suite is called toString'],
    ['topk --fast', 'unknown option --fast'],
    ['topk --json', '--json needs a value'],
    ['topk --seed x', '--seed x'],
    ['topk --seed 1.5', 'not an integer'],
    ['topk --seed -1', '--seed -1'],
    ['topk --seed 1 --seed 2', 'given twice'],
    ['topk --quick --full', 'exclude each other'],
    ['topk --cost-cpu-hour 1', 'goes with report only'],
    ['report --quick', 'does not go with report'],
    ['report --case f32', 'does not go with report'],
    ['report --json x', 'does not go with report'],
    ['report --cost-gpu-hour free', '--cost-gpu-hour free'],
    ['report --cost-cpu-hour 1', 'name its folder'],
  ])('refuses "%s"', (text, why) => {
    expect(() => parse(text)).toThrow(UsageError);
    expect(() => parse(text)).toThrow(why);
  });

  it('says a usage error or gives a command, whatever it is given', () => {
    const words = fc.constantFrom(
      'topk',
      'report',
      '--quick',
      '--full',
      '--seed',
      '3',
      '--json',
      '',
      '-',
      '--case',
    );
    fc.assert(
      fc.property(fc.array(words), (args) => {
        try {
          expect(['help', 'suites', 'report']).toContain(parseCommand(args, suites).kind);
        } catch (error) {
          expect(error).toBeInstanceOf(UsageError);
        }
      }),
    );
  });

  it('has help that names every suite', () => {
    expect(parse('--help')).toEqual({ kind: 'help' });
    for (const name of suites) expect(usage(suites)).toContain(name);
  });
});

describe('cases asked for', () => {
  const asked = { only: ['f32/q1'] };

  it('take those below along, and no others', () => {
    expect(wanted(asked, 'f32/q1')).toBe(true);
    expect(wanted(asked, 'f32/q1/n10k')).toBe(true);
    expect(wanted(asked, 'f32')).toBe(false);
    expect(wanted(asked, 'f32/q1024')).toBe(false);
    expect(wanted({ only: [] }, 'anything')).toBe(true);
  });

  it('touch the groups that they are in', () => {
    expect(touched(asked, 'f32')).toBe(true);
    expect(touched(asked, 'int8', 'f32/q1/n10k')).toBe(true);
    expect(touched(asked, 'f32/q64', 'int8')).toBe(false);
    expect(touched({ only: [] }, 'anything')).toBe(true);
  });
});
