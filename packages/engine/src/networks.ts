import type { Logger } from '@waggle/core';
import type { Runner } from '@waggle/models';

/**
 * The threads that a release's networks run in. Decisions hold them while they are being made, so that a release that is retired
 * meanwhile still answers them; afterwards its threads end.
 */
export class Networks {
  readonly runner: Runner;
  readonly #logger: Logger;
  #holders = 0;
  #closing: Promise<void> | undefined;
  #free: (() => void) | undefined;
  #failing = false;

  constructor(runner: Runner, logger: Logger) {
    this.runner = runner;
    this.#logger = logger;
  }

  /** True once the release is retired: begin nothing that nobody waits for. */
  get retired(): boolean {
    return this.#closing !== undefined;
  }

  /** Keeps the threads until the returned function is called, once. */
  hold(): () => void {
    this.#holders++;
    return () => {
      this.#holders--;
      if (this.#holders === 0) this.#free?.();
    };
  }

  /** Work that holds the threads until it settles. */
  async during<T>(work: () => Promise<T>): Promise<T> {
    const free = this.hold();
    try {
      return await work();
    } finally {
      free();
    }
  }

  /** Says that the networks answer, or why they do not: once per outage, not once per request. */
  report(cause?: unknown): void {
    const failed = cause !== undefined;
    if (failed && !this.#failing) {
      this.#logger.warn({ err: cause }, 'a network does not answer; prior rates stand in');
    }
    this.#failing = failed;
  }

  /** Ends the threads as soon as nobody holds them. Safe to repeat. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    if (this.#holders > 0) {
      await new Promise<void>((resolve) => {
        this.#free = resolve;
      });
    }
    await this.runner.close();
  }
}

/** What `work` gives within `timeMs` (any length of time, Infinity included); undefined when it takes longer. */
export async function within<T>(
  timeMs: number,
  work: Promise<T>,
): Promise<{ readonly value: T } | undefined> {
  if (timeMs === Number.POSITIVE_INFINITY) return { value: await work };
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(resolve, timeMs, undefined);
  });
  try {
    return await Promise.race([work.then((value) => ({ value })), late]);
  } finally {
    clearTimeout(timer);
  }
}
