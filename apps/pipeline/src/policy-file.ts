import { readFile } from 'node:fs/promises';
import { type EnginePolicy, parsePolicy } from '@waggle/engine';
import { pipelineError } from './errors.js';

/** The `--policy` option: what that file says, completed by the defaults. @throws WAGGLE_POLICY_INVALID */
export async function policyOption(option: unknown): Promise<Readonly<EnginePolicy>> {
  if (option === undefined) return parsePolicy();
  const path = String(option);
  const invalid = (why: string, cause: unknown) =>
    pipelineError('WAGGLE_POLICY_INVALID', why, { cause, details: { path } });
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    throw invalid(`${path} cannot be read`, cause);
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw invalid(`${path} is not valid JSON`, cause);
  }
  try {
    return parsePolicy(value, path);
  } catch (cause) {
    throw invalid((cause as Error).message, cause);
  }
}
