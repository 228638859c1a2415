import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseConfig } from '@waggle/core';
import { type Static, Type } from 'typebox';

/** Everything the command line reads from the environment; unknown WAGGLE_ names are left to other parts. */
const PipelineConfig = Type.Object(
  {
    /** Folder of everything Waggle keeps on this machine. */
    dir: Type.String({ default: '.waggle' }),
    dataDir: Type.String(),
    cacheDir: Type.String(),
    modelDir: Type.Optional(Type.String()),
    clickhouseUrl: Type.Optional(Type.String()),
    clickhouseUser: Type.Optional(Type.String()),
    clickhousePassword: Type.Optional(Type.String()),
    clickhouseDatabase: Type.Optional(Type.String()),
    /** Sent by client commands (`waggle rank`) as a bearer token. */
    apiKey: Type.Optional(Type.String()),
    tenantId: Type.String({ default: 'ten_sample' }),
    logLevel: Type.Union(
      [
        Type.Literal('trace'),
        Type.Literal('debug'),
        Type.Literal('info'),
        Type.Literal('warn'),
        Type.Literal('error'),
        Type.Literal('silent'),
      ],
      { default: 'warn' },
    ),
    /** Stay offline: never fetch the embedding model. */
    offline: Type.Boolean({ default: false }),
  },
  { additionalProperties: false },
);

export type PipelineConfig = Readonly<Static<typeof PipelineConfig>>;

export function pipelineConfigFromEnv(
  env: Readonly<Record<string, string | undefined>>,
  projectRoot: string,
): PipelineConfig {
  const given = (name: string): string | undefined => (env[name] === '' ? undefined : env[name]);
  const input: Record<string, unknown> = {
    dir: given('WAGGLE_DIR'),
    dataDir: resolve(given('WAGGLE_DATA_DIR') ?? join(projectRoot, '..', 'shared', 'data')),
    cacheDir: resolve(
      given('WAGGLE_CACHE_DIR') ??
        join(given('XDG_CACHE_HOME') ?? join(homedir(), '.cache'), 'waggle'),
    ),
    modelDir: given('WAGGLE_MODEL_DIR'),
    clickhouseUrl: given('WAGGLE_CLICKHOUSE_URL'),
    clickhouseUser: given('WAGGLE_CLICKHOUSE_USER'),
    clickhousePassword: given('WAGGLE_CLICKHOUSE_PASSWORD'),
    clickhouseDatabase: given('WAGGLE_CLICKHOUSE_DATABASE'),
    apiKey: given('WAGGLE_API_KEY'),
    tenantId: given('WAGGLE_TENANT'),
    logLevel: given('WAGGLE_LOG_LEVEL'),
    offline: given('WAGGLE_OFFLINE'),
  };
  for (const key of Object.keys(input)) if (input[key] === undefined) delete input[key];
  return parseConfig(PipelineConfig, input, 'environment');
}
