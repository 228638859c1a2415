const EVERY_MS = 100;

/** Calls `look` ten times a second until the returned function is called; does not keep the process alive. */
export function watchProgress(look: () => void): () => void {
  const timer = setInterval(look, EVERY_MS);
  timer.unref();
  return () => clearInterval(timer);
}
