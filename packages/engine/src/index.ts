export { answerJson } from './answer.js';
export type { BudgetState } from './budget-view.js';
export * from './catalog.js';
export type { DrawMoney, LoggedItems } from './decision.js';
export * from './duals.js';
export * from './embeddings.js';
export * from './engine.js';
export { engineErrors } from './errors.js';
export { decisionSeed, propensityOf } from './exploration.js';
export * from './policy.js';
export * from './ports.js';
export { type RanAd, type ScoredAds, scoreRanAds } from './ran-ads.js';
export {
  type ClickRelease,
  type LoadDependencies,
  ledgerBudgets,
  loadClickRelease,
  loadRankingRelease,
  PRICING_CODES,
  type RankingRelease,
} from './ranking-release.js';
export * from './release-files.js';
export * from './replay.js';
export { expectedSpend } from './scored-block.js';
export { countServable, type ServableCount } from './servable.js';
export { checkServable, type ImportedModel } from './served-model.js';
