import { readFileSync, writeFileSync } from 'node:fs';
import { setPriority } from 'node:os';
import type { Logger } from '@waggle/core';

/** Of −20 … 19: a third of the share of a process that has not stepped back. */
const WAITED_FOR = 5;
/** A tenth of it: merging parts and taking in what is forwarded. */
const UNATTENDED = 10;
/** Between two changes: Linux takes ten a second of an ordinary user, and statements come in runs. */
const SETTLE_MS = 250;

/** Value of the setting `log_comment` that says: nobody waits for this statement. Servers only log it. */
export const IN_THE_BACKGROUND = 'waggle:background';

/** How far the store's process has stepped back. */
export interface Standing {
  /** Somebody waits for a statement until the function that is returned is called. */
  attend(): () => void;
}

/**
 * Makes this process step back where processors are scarce: who ranks is waited for within milliseconds, who merges
 * parts is not. Somebody who waits for a statement is in between, and must not wait for a minute because a machine is
 * busy. Alone on the machine the process loses nothing. Call it before threads are started, which inherit the niceness.
 *
 * Linux weighs sessions against each other first (autogroups) and looks at niceness within a session only, so a
 * process that leads a session of its own, as an owner started by a command does, must say it for the session too. A
 * session's niceness may be taken back, a process's may not: there it stays at what statements need. In a shared
 * session the session's must stay as it is: the user's shell would step back with it. Whatever the system refuses is
 * left as it is.
 */
export function stepBack(logger: Logger): Standing {
  try {
    setPriority(WAITED_FOR);
    if (process.platform === 'linux' && leadsSession()) return new SessionStanding(logger);
  } catch (err) {
    logger.debug({ err }, 'the system does not let the store step back');
  }
  return { attend: () => () => {} };
}

class SessionStanding implements Standing {
  readonly #logger: Logger;
  #waiting = 0;
  #niceness = Number.NaN;
  #timer: NodeJS.Timeout | undefined;

  constructor(logger: Logger) {
    this.#logger = logger;
    this.#settle();
  }

  attend(): () => void {
    this.#waiting++;
    if (this.#timer === undefined) this.#settle();
    let over = false;
    return () => {
      if (over) return;
      over = true;
      this.#waiting--;
      if (this.#waiting === 0 && this.#timer === undefined) this.#settleLater();
    };
  }

  #settle(): void {
    const niceness = this.#waiting > 0 ? WAITED_FOR : UNATTENDED;
    if (niceness === this.#niceness) return;
    try {
      writeFileSync('/proc/self/autogroup', String(niceness));
      this.#niceness = niceness;
    } catch (err) {
      // Asked too often, or a kernel without autogroups: then there is nothing to be settled.
      if ((err as NodeJS.ErrnoException).code !== 'EAGAIN') {
        this.#niceness = niceness;
        this.#logger.debug({ err }, 'the system does not let the session step back');
      }
    }
    this.#settleLater();
  }

  #settleLater(): void {
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#settle();
    }, SETTLE_MS);
    this.#timer.unref();
  }
}

function leadsSession(): boolean {
  // Fields after the parenthesised name: state, parent, process group, session.
  const stat = readFileSync('/proc/self/stat', 'latin1');
  const session = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[3];
  return Number(session) === process.pid;
}
