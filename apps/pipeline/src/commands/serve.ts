import { setFlagsFromString } from 'node:v8';
import { gatewayConfigFromEnv, type RunningGateway, startGateway } from '@waggle/gateway';
import type { CommandContext } from '../context.js';
import { storeOwnerCommand } from '../context.js';
import { pipelineError } from '../errors.js';
import { errorText } from '../output.js';
import { portOption } from '../port-option.js';

export interface ServeOptions {
  readonly port?: number;
  readonly host?: string;
  readonly clock?: 'system' | 'data';
}

/**
 * How much the old generation may grow, in percent of what lives, before it is marked again. A gateway keeps some 40 MB
 * alive and promotes little. By itself V8 then leaves less room above it than its young generation takes, takes that for
 * being short of memory, and marks every second or two; each time requests wait 20 to 50 ms. With more room, which costs
 * some 100 MB, a marking comes every 20 s under full load.
 */
const HEAP_GROWING_PERCENT = 300;

/** Starts the gateway on the active release, in a process that is there to serve. */
export async function serve(
  context: CommandContext,
  options: ServeOptions,
): Promise<RunningGateway> {
  const config = gatewayConfigFromEnv(process.env, {
    dir: context.dir,
    ...(options.port === undefined ? {} : { port: options.port }),
    ...(options.host === undefined ? {} : { host: options.host }),
    ...(options.clock === undefined ? {} : { clock: options.clock }),
  });
  setFlagsFromString(`--heap-growing-percent=${HEAP_GROWING_PERCENT}`);
  return startGateway({
    config,
    logger: context.logger,
    storeOwner: storeOwnerCommand(context.dir),
  });
}

/** Resolves when the process is told to stop. */
export function untilAborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) =>
    signal.addEventListener('abort', () => resolve(), { once: true }),
  );
}

export async function serveCommand(
  context: CommandContext,
  options: Record<string, unknown>,
): Promise<number> {
  const clock = options['clock'];
  if (clock !== undefined && clock !== 'system' && clock !== 'data') {
    throw pipelineError('WAGGLE_USAGE', `--clock must be system or data, got "${String(clock)}"`);
  }
  const port = portOption(options['port']);
  const gateway = await serve(context, {
    ...(port === undefined ? {} : { port }),
    ...(typeof options['host'] === 'string' ? { host: options['host'] } : {}),
    ...(clock === undefined ? {} : { clock }),
  });
  const { url, releaseId, unserved } = gateway;
  context.output.result(
    unserved === undefined
      ? { url, release: releaseId }
      : { url, release: null, error: unserved.toJSON() },
    () =>
      unserved === undefined
        ? `Serving ${releaseId} on ${url} (Ctrl-C stops it)`
        : [
            errorText(unserved),
            `No release is served on ${url}; one that loads will be, without a restart, once it is active (Ctrl-C stops it)`,
          ].join('\n'),
  );
  await untilAborted(context.signal);
  // What had to be cut or left behind is in the log.
  return (await gateway.close()) ? 0 : 1;
}
