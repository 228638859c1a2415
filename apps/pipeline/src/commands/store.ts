import { join } from 'node:path';
import { startStoreServer, stepBack } from '@waggle/store/server';
import type { CommandContext } from '../context.js';
import { pipelineError } from '../errors.js';

/** `waggle store`: the one process that opens the local chDB directory. Runs until it is told to stop. */
export async function storeCommand(
  context: CommandContext,
  options: Record<string, unknown>,
): Promise<undefined> {
  const port = options['port'] === undefined ? 0 : Number(options['port']);
  if (!Number.isInteger(port) || port < 0 || port > 65_535) {
    throw pipelineError('WAGGLE_USAGE', `--port must be 0 … 65535, got ${String(options['port'])}`);
  }
  const standing = stepBack(context.logger);
  const server = await startStoreServer({
    dir: join(context.dir, 'store'),
    host: '127.0.0.1',
    port,
    logger: context.logger,
    clock: context.clock,
    standing,
  });
  context.output.result(
    { url: server.url },
    () => `The store answers at ${server.url} (Ctrl-C stops it)`,
  );
  await new Promise<void>((resolve) => {
    if (context.signal.aborted) resolve();
    else context.signal.addEventListener('abort', () => resolve(), { once: true });
  });
  await server.close();
  return undefined;
}
