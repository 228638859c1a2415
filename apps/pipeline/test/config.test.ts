import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { pipelineConfigFromEnv, unreadVariables } from '../src/config.js';
import { portOption } from '../src/port-option.js';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const read = (env: Record<string, string>) => () => pipelineConfigFromEnv(env, root);

describe('the environment of the command line', () => {
  it.each([
    ['WAGGLE_LOG_LEVEL', 'warning', 'must be one of trace, debug, info, warn, error, silent'],
    ['WAGGLE_OFFLINE', 'yes', 'must be boolean'],
    ['WAGGLE_CLICKHOUSE_URL', 'localhost:8123', 'must match pattern "^https?://"'],
  ])('%s=%s is refused under its own name', (name, value, problem) => {
    expect(read({ [name]: value })).toThrow(`environment: ${name}: ${problem}`);
  });

  it('names what nothing reads, and leaves the variables of others alone', () => {
    expect(
      unreadVariables({
        WAGGLE_DIR: 'x',
        WAGGLE_APIKEYS: 'k',
        WAGGLE_HSOT: '::',
        WAGGLE_GATEWAY_DRAIN_MS: '5',
        PATH: '/bin',
      }),
    ).toEqual(['WAGGLE_APIKEYS', 'WAGGLE_HSOT']);
  });

  it('knows every variable that any part reads', () => {
    const found = new Set<string>();
    const rooms = ['apps', 'packages'].flatMap((floor) =>
      readdirSync(join(root, floor)).map((room) => join(floor, room, 'src')),
    );
    const native = ['addon', 'cpu', 'cuda', 'src', 'ts'].map((part) => join('native', part));
    for (const folder of [...rooms, ...native, join('benchmarks', 'src'), 'scripts']) {
      for (const file of readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })) {
        if (!/\.(ts|mjs|cpp|cu)$/.test(file)) continue;
        const source = readFileSync(join(root, folder, file), 'utf8');
        const reads = file.endsWith('config.ts')
          ? /(?:^ {2}|: ')(WAGGLE_[A-Z_]+)\b/gm
          : /(?:getenv\("|env\.|env\[\s*')(WAGGLE_[A-Z_]+)\b/g;
        for (const [, name] of source.matchAll(reads)) found.add(name!);
      }
    }
    expect(found).toContain('WAGGLE_CLICKHOUSE_PASSWORD');
    expect(found).toContain('WAGGLE_API_KEYS');
    expect(found).toContain('WAGGLE_BACKEND_DIR');
    expect(unreadVariables(Object.fromEntries([...found].map((name) => [name, '1'])))).toEqual([]);
  });

  it.each(['', ' ', 'http', '-1', '80.5', '65536', true])('--port %j is refused', (value) => {
    expect(() => portOption(value)).toThrow(expect.objectContaining({ code: 'WAGGLE_USAGE' }));
  });
});
