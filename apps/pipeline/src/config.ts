import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseConfig } from '@waggle/core';
import { type Static, Type } from 'typebox';

/** Everything the command line reads from the environment. */
const PipelineConfig = Type.Object(
  {
    /** Folder of everything Waggle keeps on this machine. */
    dir: Type.String({ default: '.waggle' }),
    dataDir: Type.String(),
    cacheDir: Type.String(),
    modelDir: Type.Optional(Type.String()),
    clickhouseUrl: Type.Optional(Type.String({ pattern: '^https?://' })),
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

const VARIABLES: Readonly<Record<keyof PipelineConfig, string>> = {
  dir: 'WAGGLE_DIR',
  dataDir: 'WAGGLE_DATA_DIR',
  cacheDir: 'WAGGLE_CACHE_DIR',
  modelDir: 'WAGGLE_MODEL_DIR',
  clickhouseUrl: 'WAGGLE_CLICKHOUSE_URL',
  clickhouseUser: 'WAGGLE_CLICKHOUSE_USER',
  clickhousePassword: 'WAGGLE_CLICKHOUSE_PASSWORD',
  clickhouseDatabase: 'WAGGLE_CLICKHOUSE_DATABASE',
  apiKey: 'WAGGLE_API_KEY',
  tenantId: 'WAGGLE_TENANT',
  logLevel: 'WAGGLE_LOG_LEVEL',
  offline: 'WAGGLE_OFFLINE',
};

/** Read elsewhere: by the gateway, the engine, builds, benches and tests. */
const OTHERS =
  /^WAGGLE_(HOST|PORT|CLOCK|API_KEYS|BACKEND|BACKEND_DIR|SIMD|CUDA|CUDA_\w+|SETUP_MS|UPDATE_DOCS|EMULATOR_SEED|(GATEWAY|BENCH|PROPERTY|REQUIRE)_\w+)$/;

export function pipelineConfigFromEnv(
  env: Readonly<Record<string, string | undefined>>,
  projectRoot: string,
): PipelineConfig {
  const given = (name: string): string | undefined => (env[name] === '' ? undefined : env[name]);
  const input: Record<string, unknown> = {};
  for (const [key, name] of Object.entries(VARIABLES)) {
    if (given(name) !== undefined) input[key] = given(name);
  }
  input['dataDir'] = resolve(given('WAGGLE_DATA_DIR') ?? join(projectRoot, '..', 'shared', 'data'));
  input['cacheDir'] = resolve(
    given('WAGGLE_CACHE_DIR') ??
      join(given('XDG_CACHE_HOME') ?? join(homedir(), '.cache'), 'waggle'),
  );
  return parseConfig(PipelineConfig, input, 'environment', {
    nameOf: (key) => VARIABLES[key as keyof PipelineConfig] ?? key,
  });
}

/** Variables that look like Waggle's and that nothing reads: misspelt, they leave a setting at its default. */
export function unreadVariables(
  env: Readonly<Record<string, string | undefined>>,
): readonly string[] {
  const read = new Set(Object.values(VARIABLES));
  return Object.keys(env).filter(
    (name) => name.startsWith('WAGGLE_') && !read.has(name) && !OTHERS.test(name),
  );
}
