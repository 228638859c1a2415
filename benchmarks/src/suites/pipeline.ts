import { join } from 'node:path';
import { waggle } from '../local-store.js';
import { measureCommand, type Usage } from '../process-tree.js';
import { type Measurement, type SuiteOptions, summarize, touched } from '../record.js';
import { openScratch, removeScratch } from '../scratch.js';
import { measurePctr } from './pctr.js';

/**
 * The offline jobs as their users run them: whole processes, a fresh folder each, memory summed over the process tree
 * (command line and store owner). `--quick` uses the `ci` network instead of `demo` and says so in the case name.
 */
export async function pipelineSuite(options: SuiteOptions): Promise<readonly Measurement[]> {
  const { quick } = options;
  const scale = quick ? 'ci' : 'demo';
  const measurements = touched(options, `simulate-${scale}`, scale)
    ? await measureCommands(options, scale)
    : [];
  return touched(options, 'pctr')
    ? [...measurements, ...(await measurePctr(options))]
    : measurements;
}

async function measureCommands(
  { quick, seed }: SuiteOptions,
  scale: string,
): Promise<readonly Measurement[]> {
  const runs = quick ? 1 : 3;
  const measurements: Measurement[] = [];
  const simulated: Usage[] = [];
  const pipelined: Usage[] = [];
  for (let run = 0; run < runs; run++) {
    const dir = openScratch('waggle-bench-');
    try {
      const env = { ...process.env, WAGGLE_DIR: dir };
      const cli = (...args: string[]) =>
        measureCommand(process.execPath, [waggle, ...args], { env });
      simulated.push(await cli('simulate', '--scale', scale, '--seed', String(seed)));
      await cli('ingest', join(dir, 'worlds', `${scale}-${seed}`));
      pipelined.push(await cli('run', '--json'));
    } finally {
      removeScratch(dir);
    }
  }
  const record = (
    name: string,
    metric: string,
    unit: string,
    values: number[],
    limit?: number,
  ): void => {
    const summary = summarize(values);
    measurements.push({
      suite: 'pipeline',
      case: name,
      metric,
      unit,
      better: 'lower',
      seed,
      ...summary,
      ...(limit === undefined
        ? {}
        : { limit: { name: 'target', value: limit }, fractionOfLimit: limit / summary.value }),
    });
  };
  const target = (value: number): number | undefined => (quick ? undefined : value);
  record(
    `simulate-${scale}`,
    's',
    's',
    simulated.map((u) => u.seconds),
    target(25),
  );
  record(
    `simulate-${scale}`,
    'peak_mib',
    'MiB',
    simulated.map((u) => u.peakMib),
    target(2048),
  );
  record(
    scale,
    's',
    's',
    pipelined.map((u) => u.seconds),
    target(90),
  );
  record(
    scale,
    'peak_mib',
    'MiB',
    pipelined.map((u) => u.peakMib),
    target(3072),
  );
  return measurements;
}
