import { join } from 'node:path';
import { startStoreServer, stepBack } from '@waggle/store/server';
import type { CommandContext } from '../context.js';
import { portOption } from '../port-option.js';

/** `waggle store`: the one process that opens the local chDB directory. Runs until it is told to stop. */
export async function storeCommand(
  context: CommandContext,
  options: Record<string, unknown>,
): Promise<undefined> {
  const port = portOption(options['port']) ?? 0;
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
