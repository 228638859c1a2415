import { readFileSync, writeFileSync } from 'node:fs';
import { setPriority } from 'node:os';
import type { Logger } from '@waggle/core';

/** Of −20 … 19: about a tenth of the share of a process that has not stepped back. */
const NICENESS = 10;

/**
 * Makes this process step back where processors are scarce: who ranks is waited for within milliseconds, who merges
 * parts is not. Alone on the machine it loses nothing. Call it before threads are started, which inherit the niceness.
 *
 * Linux weighs sessions against each other first (autogroups) and looks at niceness within a session only, so a
 * process that leads a session of its own, as an owner started by a command does, must say it for the session too. In a
 * shared session it must not: the user's shell would step back with it. Whatever the system refuses is left as it is.
 */
export function stepBack(logger: Logger): void {
  try {
    setPriority(NICENESS);
    if (process.platform === 'linux' && leadsSession()) {
      writeFileSync('/proc/self/autogroup', String(NICENESS));
    }
  } catch (err) {
    logger.debug({ err }, 'the system does not let the store step back');
  }
}

function leadsSession(): boolean {
  // Fields after the parenthesised name: state, parent, process group, session.
  const stat = readFileSync('/proc/self/stat', 'latin1');
  const session = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[3];
  return Number(session) === process.pid;
}
