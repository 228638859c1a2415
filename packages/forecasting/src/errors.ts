import { defineErrors } from '@waggle/core';

const forecasting = defineErrors({
  WAGGLE_FORECASTING_SERIES: {
    summary: 'A series holds NaN or infinity, or a value that the model cannot take.',
    remedy: 'Fill or cut what the message names; counts that are mostly zero go to intermittent().',
  },
  WAGGLE_FORECASTING_TOO_SHORT: {
    summary: 'A series is shorter than the model needs.',
    remedy: 'Use a longer history, shorter seasons, or a simpler model.',
  },
  WAGGLE_FORECASTING_ARGUMENT: {
    summary: 'A horizon, season, level or other setting is outside its documented domain.',
    remedy: 'Correct the named setting; the message says what is allowed.',
  },
  WAGGLE_FORECASTING_SHAPE: {
    summary:
      'Columns of one inventory table have different lengths, or lack what the model was fitted on.',
    remedy: 'Pass columns with one entry per send, the same features as at fitting.',
  },
  WAGGLE_FORECASTING_TOO_FEW_SENDS: {
    summary: 'There are too few finished sends to fit or to calibrate quantiles.',
    remedy: 'Use a longer window; until then forecast with the cold-start levels.',
  },
});

export const forecastingErrors = forecasting.specs;
export const forecastingError = forecasting.error;
