import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Clock, idFactory, type Logger, systemClock } from '@waggle/core';
import { migrate, openLocalStore, openServerStore, type Store } from '@waggle/store';
import { pino } from 'pino';
import { type PipelineConfig, pipelineConfigFromEnv, unreadVariables } from './config.js';
import { commandOutput, type Output } from './output.js';
import { type StepReporter, stepReporter } from './progress.js';

/** What every command receives: the only place where the environment, pools, stores and loggers are made. */
export interface CommandContext {
  readonly config: PipelineConfig;
  /** Absolute path of Waggle's folder (`.waggle`). */
  readonly dir: string;
  readonly projectRoot: string;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly output: Output;
  readonly steps: StepReporter;
  readonly newId: ReturnType<typeof idFactory>;
  /** Fires on SIGINT and SIGTERM. */
  readonly signal: AbortSignal;
  /** A migrated store: the running owner's, one started for this command, or a server by URL. */
  withStore<T>(work: (store: Store) => Promise<T>): Promise<T>;
}

/** `dist/` or `src/` of this package; the project root is three levels up. */
const PROJECT_ROOT = fileURLToPath(new URL('../../../', import.meta.url));

export function commandContext(options: {
  readonly json: boolean;
  readonly signal: AbortSignal;
  readonly env: Readonly<Record<string, string | undefined>>;
}): CommandContext {
  const config = pipelineConfigFromEnv(options.env, PROJECT_ROOT);
  const logger = pino(
    { level: config.logLevel, base: null },
    pino.destination({ dest: 2, sync: true }),
  );
  const unread = unreadVariables(options.env);
  if (unread.length > 0) {
    logger.warn({ variables: unread }, 'nothing reads these variables; correct or remove them');
  }
  const dir = resolve(config.dir);
  const steps = stepReporter(process.stderr, () => systemClock.monotonicMs());
  return {
    config,
    dir,
    projectRoot: PROJECT_ROOT,
    clock: systemClock,
    logger,
    output: commandOutput(options.json, (text) => process.stdout.write(text)),
    steps,
    newId: idFactory(() => systemClock.nowMs()),
    signal: options.signal,
    async withStore(work) {
      const store = await openStore(config, dir, logger);
      try {
        await migrate(store, { logger });
        return await work(store);
      } finally {
        await store.close();
      }
    },
  };
}

/** How any process of Waggle starts the store's owner: this command line's own `store` command. */
export function storeOwnerCommand(dir: string): { command: string; args: string[] } {
  return {
    command: process.execPath,
    args: [fileURLToPath(new URL('../bin/waggle.mjs', import.meta.url)), 'store', '--dir', dir],
  };
}

export async function openStore(
  config: PipelineConfig,
  dir: string,
  logger: Logger,
): Promise<Store> {
  if (config.clickhouseUrl !== undefined) {
    return openServerStore({
      url: config.clickhouseUrl,
      ...(config.clickhouseUser === undefined ? {} : { username: config.clickhouseUser }),
      ...(config.clickhousePassword === undefined ? {} : { password: config.clickhousePassword }),
      ...(config.clickhouseDatabase === undefined ? {} : { database: config.clickhouseDatabase }),
      logger,
    });
  }
  return openLocalStore({ dataDir: dir, logger, startOwner: storeOwnerCommand(dir) });
}
