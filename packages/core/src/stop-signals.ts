/**
 * Signals that come so close together are one: a terminal's goes to every process of the group, and npm and start scripts pass
 * theirs on besides.
 */
const TOGETHER_MS = 1_000;

/**
 * Calls `stop` once, at the first SIGINT or SIGTERM. Who insists, by another one a second later, ends the process at once.
 * @returns stops listening
 */
export function onStopSignal(stop: (signal: NodeJS.Signals) => void): () => void {
  let told = false;
  const heard = (signal: NodeJS.Signals): void => {
    if (told) return;
    told = true;
    setTimeout(deaf, TOGETHER_MS).unref();
    stop(signal);
  };
  const deaf = (): void => {
    process.off('SIGINT', heard);
    process.off('SIGTERM', heard);
  };
  process.on('SIGINT', heard);
  process.on('SIGTERM', heard);
  return deaf;
}
