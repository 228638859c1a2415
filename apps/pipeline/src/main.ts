import { onStopSignal, WaggleError } from '@waggle/core';
import { cac } from 'cac';
import { type CommandContext, commandContext } from './context.js';
import { pipelineError } from './errors.js';
import { errorText } from './output.js';
import { CODE_VERSION } from './version.js';

type Run = (
  context: CommandContext,
  options: Record<string, unknown>,
  args: readonly string[],
) => Promise<number | undefined>;

/** Runs one command. @returns the exit status: 0 done, 1 failed, 2 used wrongly, 130 interrupted */
export async function runCli(argv: readonly string[]): Promise<number> {
  const cli = cac('waggle');
  let exitCode: number | undefined;
  const abort = new AbortController();
  const deaf = onStopSignal((signal) => abort.abort(new Error(signal)));

  // Commands load when they are called: no job waits for another's libraries.
  const bind =
    (load: () => Promise<Run>) =>
    async (...received: unknown[]): Promise<void> => {
      const options = received.at(-1) as Record<string, unknown>;
      const args = received
        .slice(0, -1)
        .flat()
        .filter((a): a is string => typeof a === 'string');
      if (typeof options['dir'] === 'string') process.env['WAGGLE_DIR'] = options['dir'];
      const context = commandContext({
        json: options['json'] === true,
        signal: abort.signal,
        env: process.env,
      });
      const run = await load();
      exitCode = (await run(context, options, args)) ?? 0;
    };

  cli.option('--json', 'One JSON document on stdout instead of tables');
  cli.option('--dir <path>', 'Folder that holds everything Waggle keeps (default .waggle)');
  cli
    .command('doctor', 'Check this machine and this installation')
    .action(bind(async () => (await import('./commands/doctor.js')).doctorCommand));
  cli
    .command('store', 'Run the process that owns the local store')
    .option('--port <port>', 'Loopback port (default: any free)')
    .action(bind(async () => (await import('./commands/store.js')).storeCommand));
  cli
    .command('simulate', 'Create a sample newsletter ad network with hidden truth')
    .option('--scale <name>', 'tiny, ci, demo, serving or base', { default: 'ci' })
    .option('--seed <n>', 'Seed of everything random', { default: 1 })
    .option('--out <dir>', 'Where to write it (default <dir>/worlds/<scale>-<seed>)')
    .action(bind(async () => (await import('./commands/simulate.js')).simulateCommand));
  cli
    .command('ingest [...paths]', 'Load events and entities from Parquet or NDJSON into the store')
    .action(bind(async () => (await import('./commands/ingest.js')).ingestCommand));
  cli
    .command('features', 'Build the training rows and show every feature')
    .option('--set <name>', 'ctr, accept or sent', { default: 'ctr' })
    .option('--as-of <time>', 'Use nothing later than this (RFC 3339; default: end of the data)')
    .option(
      '--out <file>',
      'Also write the rows: as Parquet where it ends so, else as a column file',
    )
    .action(bind(async () => (await import('./commands/features.js')).featuresCommand));
  cli
    .command('forecast', 'Forecast deliveries, opens and clicks of the sends that are planned')
    .option('--days <n>', 'How far ahead', { default: 7 })
    .option('--as-of <time>', 'Use nothing later than this (RFC 3339; default: end of the data)')
    .action(bind(async () => (await import('./commands/forecast.js')).forecastCommand));
  cli
    .command('embed', 'Embed the texts of publications, campaigns and creatives')
    .option('--hashed', 'Use the hashed n-gram embedder on purpose')
    .action(bind(async () => (await import('./commands/embed.js')).embedCommand));
  cli
    .command('train', 'Train, calibrate and gate pCTR and p(accept), or the models that are named')
    .option(
      '--model <names>',
      'pctr, accept, sent, human, pcvr, answers, content_fit, content_quality; several between commas (default pctr,accept). With human, pctr learns from people in expectation',
    )
    .option(
      '--head <form>',
      'Of pctr, accept and sent: linear, or trees, which take its place where they are no worse',
      { default: 'linear' },
    )
    .option('--as-of <time>', 'Use nothing later than this (RFC 3339; default: end of the data)')
    .option('--seed <n>', 'Seed of the bootstrap', { default: 1 })
    .action(bind(async () => (await import('./commands/train.js')).trainCommand));
  cli
    .command(
      'models [verb] [target]',
      'List the registry; import <file> brings a model of another tool, gate <version> judges it; show <version>; a name stands for its last version',
    )
    .option('--contract <file>', 'What the imported model takes and gives, as JSON')
    .option(
      '--as-of <time>',
      'Gate on nothing later than this (RFC 3339; default: end of the data)',
    )
    .option('--seed <n>', 'Seed of the gate’s bootstrap', { default: 1 })
    .action(bind(async () => (await import('./commands/models.js')).modelsCommand));
  cli
    .command(
      'release [verb] [id]',
      'Build and activate a release; or list, show, activate <id>, rollback, history',
    )
    .option('--no-activate', 'Build it without activating it')
    .option('--prior-only', 'Release the hierarchical prior instead of the trained models')
    .option(
      '--pctr <version>',
      'Answer clicks with this imported model (a version, or the last one of a name)',
    )
    .option('--accept <version>', 'Answer acceptances with this imported model')
    .option('--ungated', 'Release an imported model that has not passed its gate; answers say so')
    .option(
      '--policy <file>',
      'Take rate, weights, exploration, lifetimes and limits, as JSON; fields left out have their defaults',
    )
    .option('--as-of <time>', 'Use nothing later than this (RFC 3339; default: end of the data)')
    .action(bind(async () => (await import('./commands/release.js')).releaseCommand));
  cli
    .command('run', 'All of it: features, embed, train, release')
    .option('--seed <n>', 'Seed of the bootstrap', { default: 1 })
    .option('--as-of <time>', 'Use nothing later than this (RFC 3339; default: end of the data)')
    .option(
      '--policy <file>',
      'Take rate, weights, exploration, lifetimes and limits, as JSON; fields left out have their defaults',
    )
    .action(bind(async () => (await import('./commands/run.js')).runCommand));
  cli
    .command('serve', 'Serve the active release over HTTP')
    .option('--port <port>', 'Port (default 8080, WAGGLE_PORT)')
    .option('--host <host>', 'Address (default 127.0.0.1; others need WAGGLE_API_KEYS)')
    .option(
      '--clock <name>',
      'system, or data: start at the release’s own date (default for sample networks)',
    )
    .action(bind(async () => (await import('./commands/serve.js')).serveCommand));
  cli
    .command('rank', 'Ask a running gateway for a ranking')
    .option('--url <url>', 'Gateway; its API key is read from WAGGLE_API_KEY', {
      default: 'http://127.0.0.1:8080',
    })
    .option('--publication <id>', 'Publication (default: one of the active release)')
    .option('--mode <mode>', 'offers or fill', { default: 'offers' })
    .option('--k <n>', 'How many items', { default: 5 })
    .option('--explain <level>', 'none, summary or full', { default: 'summary' })
    .action(bind(async () => (await import('./commands/rank.js')).rankCommand));
  cli
    .command('bench [...suites]', 'Measure Waggle against its peers and the machine’s limits')
    .option('--quick', 'Fewer and shorter runs')
    .option('--seed <n>', 'Seed', { default: 1 })
    .option('--out <file>', 'Write the records there')
    .action(bind(async () => (await import('./commands/bench.js')).benchCommand));
  cli
    .command('start', 'Create, learn and serve a sample network (what `npm start` does)')
    .option('--scale <name>', 'tiny, ci or demo', { default: 'ci' })
    .option('--seed <n>', 'Seed of the sample network', { default: 1 })
    .option('--once', 'Answer one request, then stop')
    .option('--fresh', 'Forget what exists and begin anew')
    .option('--port <port>', 'Port (default 8080; with --once any free one)')
    .action(bind(async () => (await import('./commands/start.js')).startCommand));
  cli.help();
  cli.version(CODE_VERSION);

  try {
    cli.parse(['node', 'waggle', ...argv], { run: false });
    if (cli.options['help'] === true || cli.options['version'] === true) return 0;
    if (cli.matchedCommand === undefined) {
      if (argv.length === 0) {
        cli.outputHelp();
        return 2;
      }
      throw pipelineError('WAGGLE_USAGE', `there is no command "${argv[0]}"`);
    }
    await cli.runMatchedCommand();
    return exitCode ?? 0;
  } catch (thrown) {
    const usage = thrown instanceof Error && thrown.name === 'CACError';
    const error = usage ? pipelineError('WAGGLE_USAGE', thrown.message, { cause: thrown }) : thrown;
    if (argv.includes('--json')) {
      const data =
        error instanceof WaggleError
          ? error.toJSON()
          : { code: 'WAGGLE_INTERNAL', message: String(error) };
      process.stdout.write(`${JSON.stringify({ error: data })}\n`);
    }
    process.stderr.write(`${errorText(error)}\n`);
    if (abort.signal.aborted) return 130;
    return error instanceof WaggleError && error.code === 'WAGGLE_USAGE' ? 2 : 1;
  } finally {
    deaf();
  }
}
