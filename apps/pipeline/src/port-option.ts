import { pipelineError } from './errors.js';

/** `--port` of a command. @throws WAGGLE_USAGE */
export function portOption(value: unknown): number | undefined {
  if (value === undefined) return undefined;
  const port = /^\d+$/.test(String(value)) ? Number(value) : Number.NaN;
  if (!(port <= 65_535)) {
    throw pipelineError('WAGGLE_USAGE', `--port must be 0 … 65535, got "${String(value)}"`);
  }
  return port;
}
