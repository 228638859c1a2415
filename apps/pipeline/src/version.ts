import { readFileSync } from 'node:fs';

/** Version of this build, recorded in the lineage of everything it makes. */
export const CODE_VERSION: string = (
  JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
    version: string;
  }
).version;
