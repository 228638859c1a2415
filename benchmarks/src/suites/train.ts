import { type Measurement, Recorder, type SuiteOptions } from '../record.js';

/** Learning: each case in a file of its own. */
const CASES = [
  // one per line
  async (o: SuiteOptions, r: Recorder) => (await import('./train-trees.js')).measureTrees(o, r),
  async (o: SuiteOptions, r: Recorder) =>
    (await import('./train-selection.js')).measureSelectionCalibration(o, r),
  async (o: SuiteOptions, r: Recorder) => (await import('./train-ftrl.js')).measureFtrl(o, r),
  async (o: SuiteOptions, r: Recorder) => (await import('./train-ffm.js')).measureFfm(o, r),
  async (o: SuiteOptions, r: Recorder) => (await import('./train-pctr.js')).measurePctr(o, r),
  async (o: SuiteOptions, r: Recorder) =>
    (await import('./train-neighbours.js')).measureNeighbours(o, r),
];

export async function trainSuite(options: SuiteOptions): Promise<readonly Measurement[]> {
  const recorder = new Recorder(options);
  for (const measure of CASES) await measure(options, recorder);
  return recorder.records;
}
