import { type Logger, toWaggleError } from '@waggle/core';
import { migrate, type Store } from '@waggle/store';

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 30_000;

/**
 * The way to the store, found in the background: rankings and events need none to be answered, so a store
 * that is down delays forwarding and nothing else.
 */
export class StoreLink {
  readonly #open: () => Promise<Store>;
  readonly #onOpen: (store: Store) => void;
  readonly #logger: Logger;
  #store: Store | undefined;
  #timer: NodeJS.Timeout | undefined;
  #attempt: Promise<void> | undefined;
  #closed = false;

  constructor(o: { open: () => Promise<Store>; onOpen: (store: Store) => void; logger: Logger }) {
    this.#open = o.open;
    this.#onOpen = o.onOpen;
    this.#logger = o.logger;
  }

  get connected(): boolean {
    return this.#store !== undefined;
  }

  start(): void {
    this.#try(FIRST_PAUSE_MS);
  }

  /** Ends the search and closes what it found. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#attempt;
    await this.#store?.close();
  }

  #try(pauseMs: number): void {
    this.#attempt = this.#connect().catch((thrown: unknown) => {
      if (this.#closed) return;
      const error = toWaggleError(thrown);
      this.#logger.warn(
        { code: error.code, err: thrown, retry_ms: pauseMs },
        `the store cannot be reached, events wait in the log; ${error.remedy ?? 'it is tried again'}`,
      );
      this.#timer = setTimeout(() => this.#try(Math.min(LONGEST_PAUSE_MS, pauseMs * 2)), pauseMs);
    });
  }

  async #connect(): Promise<void> {
    const store = await this.#open();
    try {
      await migrate(store, { logger: this.#logger });
    } catch (cause) {
      await store.close().catch(() => {});
      throw cause;
    }
    this.#store = store;
    if (!this.#closed) this.#onOpen(store);
  }
}
