import { defineWaggleConfig } from '../../scripts/vitest-config.ts';

export default defineWaggleConfig(import.meta.url);
