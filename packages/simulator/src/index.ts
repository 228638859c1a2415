export { type Batch, type BatchColumn, type CellValue, MemoryTable } from './batches.js';
export { simulatorErrors } from './errors.js';
export {
  DEFAULT_END_MS,
  resolveWorld,
  SCALE_NAMES,
  SCALES,
  type ScaleName,
  type ScaleSpec,
  type WorldConfig,
  type WorldOptions,
} from './scales.js';
export { type ColumnKind, TABLES, type TableSpec } from './tables.js';
export { SIMULATOR_VERSION, simulateWorld, tinyWorld, type World } from './world.js';
export {
  MANIFEST_NAME,
  readManifest,
  type WorldFile,
  type WorldManifest,
  type WriteWorldOptions,
  writeWorld,
} from './write-world.js';
