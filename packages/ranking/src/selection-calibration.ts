/**
 * What the best of many candidates promises too much or too little, see `fitSelectionCalibration` of @waggle/training:
 * logit' = z + level + edge·advantage, where advantage is the logit minus the mean logit of the slot's candidates. With
 * edge > −1 the order of a slot's candidates stays as it was.
 */
export interface SelectionCalibration {
  readonly level: number;
  /** Slope between candidates minus 1. */
  readonly edge: number;
}

/** Logit after correction. @param advantage logit minus the mean logit of the candidates of its slot */
export function selectedLogit(
  { level, edge }: SelectionCalibration,
  logit: number,
  advantage: number,
): number {
  return logit + level + edge * advantage;
}
