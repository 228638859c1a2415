export {
  type CalibrationPlot,
  type CalibrationSeries,
  calibrationPlot,
} from './calibration-plot.js';
export {
  type CurvePlot,
  type CurveSeries,
  gainPlot,
  liftPlot,
  precisionRecallPlot,
  rocPlot,
} from './curve-plots.js';
export { type ResidualPlot, type ResidualSeries, residualPlot } from './residual-plot.js';
export {
  CHART_WIDTH,
  drawFrame,
  escapeXml,
  type Frame,
  legendLine,
  makeScale,
  N_CHART_COLOURS,
  openChart,
  pixels,
  type Scale,
  shortNumber,
} from './svg.js';
