import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type { ErrorRegistry } from '@waggle/core';
import { beforeAll, describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const page = join(root, 'docs', 'errors.md');

/** Rooms in reading order, each with its folder of sources. */
const rooms = [
  ['core', 'packages/core/src'],
  ['native', 'native/ts'],
  ...[
    'store',
    'models',
    'releases',
    'simulator',
    'features',
    'content',
    'forecasting',
    'retrieval',
    'ranking',
    'measurement',
    'training',
    'engine',
  ].map((room) => [room, `packages/${room}/src`] as const),
  ['gateway', 'apps/gateway/src'],
  ['pipeline', 'apps/pipeline/src'],
] as const;

const registries = new Map<string, ErrorRegistry>();

beforeAll(async () => {
  for (const [room, dir] of rooms) {
    const file = join(root, dir, 'errors.ts');
    if (!existsSync(file)) continue;
    const module = (await import(pathToFileURL(file).href)) as Record<string, unknown>;
    for (const [name, value] of Object.entries(module)) {
      if (!/Errors$/.test(name) || typeof value !== 'object' || value === null) continue;
      const specs = Object.entries(value as ErrorRegistry).filter(([code]) =>
        code.startsWith('WAGGLE_'),
      );
      registries.set(room, { ...registries.get(room), ...Object.fromEntries(specs) });
    }
  }
});

function render(): string {
  const lines = [
    '# Errors',
    '',
    'Every error Waggle raises on purpose has a stable code, a message that names what was wrong, and a remedy. Over HTTP it is the body',
    '`{"error":{"code","message","remedy","request_id"}}`; on the command line it is printed on stderr, with `--json` also as `{"error":…}` on stdout.',
    'This page is compared with the registries in the code, both ways, by a test.',
    '',
  ];
  for (const [room, specs] of registries) {
    if (Object.keys(specs).length === 0) continue;
    lines.push(`## ${room}`, '', '| code | what happened | what to do |', '|---|---|---|');
    for (const code of Object.keys(specs).sort()) {
      const spec = specs[code as keyof typeof specs]!;
      lines.push(
        `| \`${code}\` | ${spec.summary.replaceAll('|', '\\|')} | ${spec.remedy.replaceAll('|', '\\|')} |`,
      );
    }
    lines.push('');
  }
  return `${lines.join('\n').trimEnd()}\n`;
}

function sources(dir: string): string[] {
  return readdirSync(dir, { withFileTypes: true }).flatMap((entry) => {
    const path = join(dir, entry.name);
    if (entry.isDirectory()) return sources(path);
    return path.endsWith('.ts') ? [path] : [];
  });
}

describe('docs/errors.md', () => {
  it('lists every registered code with its summary and remedy, and no other', () => {
    // WAGGLE_UPDATE_DOCS=1 rewrites the page from the registries.
    if (process.env['WAGGLE_UPDATE_DOCS'] === '1') writeFileSync(page, render());
    expect(readFileSync(page, 'utf8')).toBe(render());
  });

  it('no two rooms register the same code', () => {
    const seen = new Map<string, string>();
    for (const [room, specs] of registries) {
      for (const code of Object.keys(specs)) {
        expect(seen.get(code), `${code} in ${room}`).toBeUndefined();
        seen.set(code, room);
      }
    }
  });

  it('every code raised in the sources is registered in its room or a room below', () => {
    const all = new Set([...registries.values()].flatMap((specs) => Object.keys(specs)));
    for (const [, dir] of rooms) {
      for (const file of sources(join(root, dir))) {
        const text = readFileSync(file, 'utf8');
        for (const match of text.matchAll(/rror\(\s*'(WAGGLE_[A-Z0-9_]+)'/g)) {
          expect(all.has(match[1]!), `${match[1]} raised in ${file}`).toBe(true);
        }
      }
    }
  });
});
