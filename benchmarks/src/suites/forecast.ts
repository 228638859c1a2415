import { type Measurement, Recorder, type SuiteOptions } from '../record.js';
import { measureInventory } from './forecast-inventory.js';
import { measureM4 } from './forecast-m4.js';

/** `forecast/*`: series against their competition, inventory against what chance leaves. */
export async function forecastSuite(options: SuiteOptions): Promise<readonly Measurement[]> {
  const recorder = new Recorder(options);
  await measureM4(options, recorder);
  await measureInventory(options, recorder);
  return recorder.records;
}
