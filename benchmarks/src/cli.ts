/** What the command line asks for. */
export type Command =
  | { readonly kind: 'help' }
  | {
      readonly kind: 'suites';
      readonly suites: readonly string[];
      readonly quick: boolean;
      readonly full: boolean;
      readonly seed: number;
      readonly only: readonly string[];
      readonly jsonFile?: string;
    }
  | {
      readonly kind: 'report';
      /** Folders of results; all of them when empty, and then without prices. */
      readonly folders: readonly string[];
      readonly costCpuHour?: number;
      readonly costGpuHour?: number;
    };

export class UsageError extends Error {
  override readonly name = 'UsageError';
}

export function usage(suites: readonly string[]): string {
  return `usage: npm run bench -- SUITE… [--quick | --full] [--case CASE]… [--seed N] [--json FILE]
       npm run bench -- report [FOLDER…] [--cost-cpu-hour X] [--cost-gpu-hour Y]

suites: ${suites.join(', ')}

  --quick           the cases that targets name, few runs: two to three minutes a suite
  --full            every size that memory holds
  --case CASE       only this case and those below it (f32/q1, or topk/f32/q1, has f32/q1/n10k below it); may be given again
  --seed N          of all generated data (default 1)
  --json FILE       where the records go (default: stdout)
  report            draws result folders (default: all in benchmarks/results) as SVG and Markdown; several that are
                    named are laid side by side on stdout, other machines and what native_bench wrote included
  --cost-…-hour X   price of an hour of the machines named, without and with their GPU, for the cost of a million rankings
`;
}

/** @throws UsageError naming what was wrong */
export function parseCommand(args: readonly string[], suites: readonly string[]): Command {
  const names: string[] = [];
  const only: string[] = [];
  const flags = new Set<string>();
  const values = new Map<string, string>();
  for (let i = 0; i < args.length; i++) {
    const arg = args[i]!;
    switch (arg) {
      case '--help':
      case '-h':
        return { kind: 'help' };
      case '--quick':
      case '--full':
        flags.add(arg);
        break;
      case '--case':
      case '--seed':
      case '--json':
      case '--cost-cpu-hour':
      case '--cost-gpu-hour': {
        const value = args[++i];
        if (value === undefined || value === '') throw new UsageError(`${arg} needs a value`);
        if (arg === '--case') only.push(value);
        else if (values.has(arg)) throw new UsageError(`${arg} is given twice`);
        else values.set(arg, value);
        break;
      }
      default:
        if (arg.startsWith('-')) throw new UsageError(`unknown option ${arg}`);
        names.push(arg);
    }
  }
  const number = (name: string): number | undefined => {
    const text = values.get(name);
    if (text === undefined) return undefined;
    const value = Number(text);
    if (!Number.isFinite(value) || value < 0) {
      throw new UsageError(`${name} ${text}: not a number of at least 0`);
    }
    return value;
  };
  if (names[0] === 'report') {
    for (const name of ['--quick', '--full', '--case', '--seed', '--json']) {
      if (flags.has(name) || values.has(name) || (name === '--case' && only.length > 0)) {
        throw new UsageError(`${name} does not go with report`);
      }
    }
    const [costCpuHour, costGpuHour] = [number('--cost-cpu-hour'), number('--cost-gpu-hour')];
    if (names.length === 1 && (costCpuHour ?? costGpuHour) !== undefined) {
      throw new UsageError('a price is of a machine: name its folder');
    }
    return {
      kind: 'report',
      folders: names.slice(1),
      ...(costCpuHour === undefined ? {} : { costCpuHour }),
      ...(costGpuHour === undefined ? {} : { costGpuHour }),
    };
  }
  for (const name of ['--cost-cpu-hour', '--cost-gpu-hour']) {
    if (values.has(name)) throw new UsageError(`${name} goes with report only`);
  }
  if (names.length === 0) throw new UsageError('no suite is named');
  for (const name of names) {
    if (!suites.includes(name)) throw new UsageError(`no suite is called ${name}`);
  }
  if (flags.size > 1) throw new UsageError('--quick and --full exclude each other');
  const seed = number('--seed') ?? 1;
  if (!Number.isSafeInteger(seed)) throw new UsageError(`--seed ${seed}: not an integer`);
  const jsonFile = values.get('--json');
  return {
    kind: 'suites',
    suites: names,
    quick: flags.has('--quick'),
    full: flags.has('--full'),
    seed,
    // Reports and targets name a case with its suite before it.
    only: only.map((id) => {
      const suite = names.find((name) => id.startsWith(`${name}/`));
      return suite === undefined ? id : id.slice(suite.length + 1);
    }),
    ...(jsonFile === undefined ? {} : { jsonFile }),
  };
}
