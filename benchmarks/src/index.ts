import { accessSync, constants, mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { say, sayWithoutGpu, warnUnlessQuiet } from './bench-context.js';
import { type Command, parseCommand, UsageError, usage } from './cli.js';
import {
  type BenchRecord,
  currentCommit,
  type Measurement,
  machineFacts,
  type SuiteOptions,
  wanted,
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
  const { quick, full, seed, only, jsonFile } = command;
  // Before anything is measured: a figure of minutes is not lost to a folder that is not there.
  if (jsonFile !== undefined) {
    try {
      mkdirSync(dirname(jsonFile), { recursive: true });
      accessSync(dirname(jsonFile), constants.W_OK);
    } catch (error) {
      throw new Error(`--json ${jsonFile} cannot be written: ${(error as Error).message}`, {
        cause: error,
      });
    }
  }
  const records = new Map<Measurement, BenchRecord>();
  const onRecord = (measurement: Measurement): void => {
    if (records.has(measurement)) return;
    const { on, ...rest } = measurement;
    const record: BenchRecord = { ...rest, machine: { ...machine, ...on }, commit };
    process.stderr.write(lineOf(record));
    records.set(measurement, record);
  };
  const write = (): void => {
    const text = `${JSON.stringify([...records.values()], null, 2)}\n`;
    if (jsonFile === undefined) process.stdout.write(text);
    // What an earlier run wrote is not replaced by nothing.
    else if (records.size > 0) writeFileSync(jsonFile, text);
  };
  // Whoever stops a long suite, or loses it to its last case, keeps what was measured until then.
  for (const [signal, status] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    process.once(signal, () => {
      say(`bench: stopped; ${records.size} figures were measured until then`);
      write();
      process.exit(status);
    });
  }
  sayWithoutGpu();
  try {
    for (const name of command.suites) {
      warnUnlessQuiet();
      const suite = await SUITES[name]!();
      const measured = await suite({ quick, full, seed, only, onRecord });
      measured.forEach(onRecord);
    }
  } finally {
    write();
  }
  const found = [...records.values()];
  const missing = only.filter((id) => !found.some((one) => wanted({ only: [id] }, one.case)));
  if (missing.length > 0) {
    const leftOut = full ? '' : `${quick ? '--quick leaves it out' : 'only --full has it'}, `;
    throw new Error(
      `nothing was measured for --case ${missing.join(', ')}: ${leftOut}it needs what was skipped above, or it is called otherwise (the pages in benchmarks/results name every case)`,
    );
  }
}

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
      const { files, beside } = writeReports(RESULTS, command);
      for (const file of files) process.stdout.write(`${file}\n`);
      if (beside !== '') process.stdout.write(`\n${beside}`);
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
