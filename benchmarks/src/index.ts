import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { warnUnlessQuiet } from './bench-context.js';
import { type Command, parseCommand, UsageError, usage } from './cli.js';
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
  topk: async () => (await import('./suites/topk.js')).topkSuite,
  filter: async () => (await import('./suites/filter.js')).filterSuite,
  ivf: async () => (await import('./suites/ivf.js')).ivfSuite,
  trees: async () => (await import('./suites/trees.js')).treesSuite,
  'rank-batch': async () => (await import('./suites/rank-batch.js')).rankBatchSuite,
  train: async () => (await import('./suites/train.js')).trainSuite,
  rank: async () => (await import('./suites/rank.js')).rankSuite,
  embed: async () => (await import('./suites/embed.js')).embedSuite,
  forecast: async () => (await import('./suites/forecast.js')).forecastSuite,
  pctr: async () => (await import('./suites/pctr.js')).measurePctr,
  pipeline: async () => (await import('./suites/pipeline.js')).pipelineSuite,
};

const RESULTS = fileURLToPath(new URL('../results', import.meta.url));

function format(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  return Math.abs(value) >= 1000 ? Math.round(value).toLocaleString('en') : value.toPrecision(4);
}

function lineOf(record: BenchRecord): string {
  const beside = [
    record.peer === undefined
      ? ''
      : `  ${record.peer.name} ${record.peer.version}: ${format(record.peer.value)} (ratio ${format(record.ratio ?? Number.NaN)})`,
    record.limit === undefined
      ? ''
      : `  limit ${record.limit.name}: ${format(record.limit.value)} (fraction ${format(record.fractionOfLimit ?? Number.NaN)})`,
  ].join('');
  return `${record.suite}/${record.case} ${record.metric} = ${format(record.value)} ${record.unit} (±${format(record.iqr / 2)}, ${record.runs} runs)${beside}\n`;
}

async function runSuites(command: Extract<Command, { kind: 'suites' }>): Promise<void> {
  const machine = machineFacts();
  const commit = currentCommit();
  const { quick, full, seed, only } = command;
  const records: BenchRecord[] = [];
  for (const name of command.suites) {
    warnUnlessQuiet();
    const suite = await SUITES[name]!();
    const said = new Set<Measurement>();
    const onRecord = (measurement: Measurement): BenchRecord => {
      const { on, ...rest } = measurement;
      const record: BenchRecord = { ...rest, machine: { ...machine, ...on }, commit };
      if (!said.has(measurement)) process.stderr.write(lineOf(record));
      said.add(measurement);
      return record;
    };
    records.push(...(await suite({ quick, full, seed, only, onRecord })).map(onRecord));
    // After every suite: what was measured is not lost to what comes later.
    if (command.jsonFile !== undefined) writeFileSync(command.jsonFile, textOf(records));
  }
  if (command.jsonFile === undefined) process.stdout.write(textOf(records));
}

const textOf = (records: readonly BenchRecord[]): string => `${JSON.stringify(records, null, 2)}\n`;

async function main(args: readonly string[]): Promise<number> {
  const names = Object.keys(SUITES);
  let command: Command;
  try {
    command = parseCommand(args, names);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    process.stderr.write(`bench: ${error.message}\n\n${usage(names)}`);
    return 2;
  }
  switch (command.kind) {
    case 'help':
      process.stdout.write(usage(names));
      break;
    case 'suites':
      await runSuites(command);
      break;
    case 'report': {
      const { writeReports } = await import('./report/write.js');
      for (const file of writeReports(RESULTS, command)) process.stdout.write(`${file}\n`);
    }
  }
  return 0;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`bench: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
