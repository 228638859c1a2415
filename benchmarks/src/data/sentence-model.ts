import { homedir } from 'node:os';
import { join } from 'node:path';
import { type ResolvedModel, resolveModel } from '@waggle/content';
import { dataFolder } from './vectors.js';

/** The sentence model of this installation. @throws WAGGLE_MODEL_UNAVAILABLE */
export async function benchModel(): Promise<ResolvedModel> {
  const given = (name: string): string | undefined => process.env[name] || undefined;
  const cacheRoot =
    given('WAGGLE_CACHE_DIR') ??
    join(given('XDG_CACHE_HOME') ?? join(homedir(), '.cache'), 'waggle');
  const modelDir = given('WAGGLE_MODEL_DIR');
  return resolveModel({
    cacheDir: join(cacheRoot, 'models'),
    dataDir: dataFolder(),
    ...(modelDir === undefined ? {} : { modelDir }),
  });
}
