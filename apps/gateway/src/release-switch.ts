import { type Clock, type Logger, toWaggleError, type WaggleError } from '@waggle/core';
import type { RejectedRelease, ReleaseStatus, ReleasesPort, ServedRelease } from './ports.js';

/** A release ready to serve: what HTTP asks of it, and what the engine ranks with. */
export interface LoadedForServing<R> {
  readonly served: ServedRelease;
  readonly ranking: R;
}

export interface ReleaseSwitchOptions<R> {
  /** Opens, verifies and builds a release completely, or throws. Nothing of it is served before it returns. */
  load(id: string): Promise<LoadedForServing<R>>;
  /** Runs right before the swap, in the same turn of the event loop. */
  onSwap?(next: LoadedForServing<R>): void;
  /** Runs when a release can no longer be asked for: requests that began with it may still be on their way. */
  onRetire?(retired: LoadedForServing<R>): void;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** A refused release is tried again after this long, then after twice as long, and so on up to `RETRY_MAX_MS`. */
const RETRY_FIRST_MS = 5_000;
const RETRY_MAX_MS = 300_000;

/**
 * Holds the release in service and replaces it by another one as a whole. Requests read one reference, so
 * each sees one release from start to end, and none waits for a swap. A release that does not load is
 * reported, the one in service stays, and it is tried again: files still being copied, or too many open at once, pass.
 */
export class ReleaseSwitch<R> implements ReleasesPort {
  readonly #options: ReleaseSwitchOptions<R>;
  #current: LoadedForServing<R> | undefined;
  #previous: LoadedForServing<R> | undefined;
  #loadedAtMs: number | undefined;
  #swaps = 0;
  #rejected: RejectedRelease | undefined;
  #wanted: string | undefined;
  #working: Promise<void> | undefined;
  #retry: NodeJS.Timeout | undefined;
  /** Tries of the wanted release that failed since it was asked for. */
  #failures = 0;
  #closed = false;

  constructor(options: ReleaseSwitchOptions<R>) {
    this.#options = options;
  }

  current(): ServedRelease | undefined {
    return this.#current?.served;
  }

  ranking(): R | undefined {
    return this.#current?.ranking;
  }

  /** The release in service or the one before it, for requests that pin one. */
  byId(id: string): R | undefined {
    if (this.#current?.served.id === id) return this.#current.ranking;
    return this.#previous?.served.id === id ? this.#previous.ranking : undefined;
  }

  status(): ReleaseStatus {
    return {
      release: this.#current?.served.id,
      loadedAtMs: this.#loadedAtMs,
      swaps: this.#swaps,
      ...(this.#rejected === undefined ? {} : { rejected: this.#rejected }),
    };
  }

  /**
   * Asks for a release; resolves when it, or a later one asked for meanwhile, is in service or was refused.
   * Releases asked for while another loads are skipped but the last: only that one is wanted any more. One that was
   * refused is tried at once when it is asked for again.
   */
  request(id: string): Promise<void> {
    this.#failures = 0;
    return this.#ask(id);
  }

  /** Notes why what is asked for is not served and not known, until something is asked for that loads. */
  refuse(error: WaggleError): void {
    clearTimeout(this.#retry);
    this.#reject(error);
  }

  /** Resolves when nothing is being loaded. */
  async settled(): Promise<void> {
    await this.#working;
  }

  /** Retires what is held; nothing is current afterwards. A release that is being loaded is retired when it is there. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#retry);
    this.#wanted = undefined;
    for (const held of [this.#current, this.#previous]) {
      if (held !== undefined) this.#options.onRetire?.(held);
    }
    this.#current = undefined;
    this.#previous = undefined;
  }

  #ask(id: string): Promise<void> {
    clearTimeout(this.#retry);
    this.#wanted = id;
    this.#working ??= this.#work();
    return this.#working;
  }

  #reject(
    { code, message, remedy = 'Build the release again.' }: WaggleError,
    id?: string,
  ): RejectedRelease {
    this.#rejected = { ...(id !== undefined && { release: id }), code, message, remedy };
    return this.#rejected;
  }

  /** @returns the pause before the next try; undefined when there will be none */
  #retryLater(id: string): number | undefined {
    if (this.#closed || this.#wanted !== undefined) return undefined;
    const pauseMs = Math.min(RETRY_FIRST_MS * 2 ** this.#failures++, RETRY_MAX_MS);
    this.#retry = setTimeout(() => void this.#ask(id), pauseMs);
    this.#retry.unref();
    return pauseMs;
  }

  async #work(): Promise<void> {
    // After this turn `#working` is set; it is unset in the same turn that finds nothing more wanted.
    await Promise.resolve();
    const { logger, clock } = this.#options;
    for (;;) {
      if (this.#wanted === undefined) {
        this.#working = undefined;
        return;
      }
      const id = this.#wanted;
      this.#wanted = undefined;
      if (id === this.#current?.served.id) {
        this.#rejected = undefined;
        continue;
      }
      const startedMs = clock.monotonicMs();
      try {
        const previous = this.#previous;
        const kept = previous?.served.id === id ? previous : undefined;
        const next = kept ?? (await this.#options.load(id));
        if (this.#closed) {
          if (next !== kept) this.#options.onRetire?.(next);
          continue;
        }
        try {
          this.#options.onSwap?.(next);
        } catch (thrown) {
          if (next !== kept) this.#options.onRetire?.(next);
          throw thrown;
        }
        this.#previous = this.#current;
        this.#current = next;
        if (previous !== undefined && previous !== next) this.#options.onRetire?.(previous);
        this.#loadedAtMs = clock.nowMs();
        this.#swaps++;
        this.#rejected = undefined;
        logger.info(
          {
            release: id,
            previous: this.#previous?.served.id,
            duration_ms: Math.round(clock.monotonicMs() - startedMs),
          },
          'release in service',
        );
      } catch (thrown) {
        const known = this.#rejected;
        const { code, remedy } = this.#reject(toWaggleError(thrown), id);
        const kept = this.#current?.served.id;
        const retry_in_ms = this.#retryLater(id);
        if (known?.release === id && known.code === code) {
          logger.debug({ release: id, kept, code, retry_in_ms }, 'release refused again');
          continue;
        }
        logger.error(
          { release: id, kept, code, retry_in_ms, err: thrown },
          `release refused, ${kept === undefined ? 'none is served' : 'the previous one stays in service'}; ${remedy}`,
        );
      }
    }
  }
}
