import { writeFileSync } from 'node:fs';
import {
  type BenchRecord,
  currentCommit,
  type Measurement,
  machineFacts,
  type SuiteOptions,
} from './record.js';

type Suite = (options: SuiteOptions) => Promise<readonly Measurement[]>;

/** Suites load lazily: each pulls in its own peers. */
const SUITES: Readonly<Record<string, () => Promise<Suite>>> = {
  rank: async () => (await import('./suites/rank.js')).rankSuite,
  embed: async () => (await import('./suites/embed.js')).embedSuite,
  pctr: async () => (await import('./suites/pctr.js')).measurePctr,
  pipeline: async () => (await import('./suites/pipeline.js')).pipelineSuite,
};

const USAGE = `usage: npm run bench -- <suite> [--quick] [--seed N] [--json FILE]

suites: ${Object.keys(SUITES).join(', ')}
`;

function format(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  return Math.abs(value) >= 1000 ? Math.round(value).toLocaleString('en') : value.toPrecision(4);
}

async function main(args: readonly string[]): Promise<number> {
  const names: string[] = [];
  let quick = false;
  let seed = 1;
  let jsonFile: string | undefined;
  for (let i = 0; i < args.length; i++) {
    const arg = args[i]!;
    if (arg === '--quick') quick = true;
    else if (arg === '--seed') seed = Number(args[++i]);
    else if (arg === '--json') jsonFile = args[++i];
    else if (arg === '--help' || arg === '-h') {
      process.stdout.write(USAGE);
      return 0;
    } else names.push(arg);
  }
  if (names.length === 0 || !Number.isSafeInteger(seed) || names.some((n) => !(n in SUITES))) {
    process.stderr.write(USAGE);
    return 2;
  }
  const machine = machineFacts();
  const commit = currentCommit();
  const records: BenchRecord[] = [];
  for (const name of names) {
    const suite = await SUITES[name]!();
    for (const measurement of await suite({ quick, seed })) {
      const record: BenchRecord = { ...measurement, machine, commit };
      records.push(record);
      const beside = [
        record.peer === undefined
          ? ''
          : `  ${record.peer.name} ${record.peer.version}: ${format(record.peer.value)} (ratio ${format(record.ratio ?? Number.NaN)})`,
        record.limit === undefined
          ? ''
          : `  limit ${record.limit.name}: ${format(record.limit.value)} (fraction ${format(record.fractionOfLimit ?? Number.NaN)})`,
      ].join('');
      process.stderr.write(
        `${record.suite}/${record.case} ${record.metric} = ${format(record.value)} ${record.unit} (±${format(record.iqr / 2)}, ${record.runs} runs)${beside}\n`,
      );
    }
  }
  const text = `${JSON.stringify(records, null, 2)}\n`;
  if (jsonFile === undefined) process.stdout.write(text);
  else writeFileSync(jsonFile, text);
  return 0;
}

process.exitCode = await main(process.argv.slice(2));
