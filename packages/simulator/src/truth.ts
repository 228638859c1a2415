export { TRUTH_TABLES, type TruthName } from './tables.js';
