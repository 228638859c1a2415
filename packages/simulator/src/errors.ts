import { defineErrors } from '@waggle/core';

const simulator = defineErrors({
  WAGGLE_SIMULATOR_OPTION: {
    summary: 'A world was asked for with a size, date or scale that the simulator cannot make.',
    remedy: 'Use one of the named scales, or sizes within the limits that the message states.',
  },
  WAGGLE_SIMULATOR_WORLD: {
    summary: 'A world directory is missing, half-written, altered or of another simulator version.',
    remedy: 'Delete the directory and simulate the world again.',
  },
  WAGGLE_SIMULATOR_WRITE: {
    summary: 'A world could not be written to disk.',
    remedy: 'Check free space and permissions of the target directory, then run again.',
  },
});

export const simulatorErrors = simulator.specs;
export const simulatorError = simulator.error;
