import { move, transferableSymbol, valueSymbol, workerData } from 'piscina';
import type { WorkerReply, WorkerTask } from './messages.js';
import { SessionCache, type SessionOptions } from './sessions.js';
import { runTask, serializeFailure } from './tasks.js';

/** Entry of a worker thread: one task at a time, sessions kept between tasks. */
const sessions = new SessionCache(workerData as SessionOptions);

/** Piscina's name for a value together with the buffers in it that move instead of being copied. */
type Movable = Parameters<typeof move>[0];

export async function handleTask(task: WorkerTask): Promise<unknown> {
  try {
    const { value, transfer } = await runTask(task, sessions);
    const reply: WorkerReply<unknown> = { ok: true, value };
    if (transfer.length === 0) return reply;
    return move({
      [transferableSymbol]: [...new Set(transfer)],
      [valueSymbol]: reply,
    } as unknown as Movable);
  } catch (thrown) {
    const reply: WorkerReply<never> = { ok: false, error: serializeFailure(thrown) };
    return reply;
  }
}
