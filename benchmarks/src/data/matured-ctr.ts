import {
  add,
  CTR_OFFSET_TERMS,
  coalesce,
  ctrFeatures,
  defineFeatureSet,
  type Expression,
  effect,
  exp,
  type FeatureSet,
  logit,
  min,
  mul,
  param,
  sub,
} from '@waggle/features';

/** Levels and text terms that pCTR has gained since the model that this set keeps runnable. */
const LATER_LEVELS = ['publication_category', 'campaign_category_here', 'campaign_language'];
const LATER_TERMS = [
  'cosine_english',
  'fit_english',
  'cosine_square_english',
  'fit_square_english',
  'cosine_other',
  'fit_other',
  'same_category_other',
  'tag_match',
];

/** Offset of the earlier prior: one weight for the centred cosine, whatever the language. */
export const MATURED_OFFSET_TERMS = [
  { feature: 'fit_publication_campaign', center: 0, weight: 'ctr_weight_fit', default: 1.9 },
  ...CTR_OFFSET_TERMS.filter((t) => !LATER_TERMS.includes(t.feature)),
];

const before = ctrFeatures.fits[0]!;
const levels = before.levels.filter((l) => !LATER_LEVELS.includes(l.name));
const sum = (terms: readonly Expression[]) => terms.reduce((all, next) => add(all, next));
const offset = sum(
  MATURED_OFFSET_TERMS.map(({ feature, center, weight }) => {
    const found = ctrFeatures.features.find((f) => f.name === feature)!;
    return mul(param(weight), sub(coalesce(found.value, found.default), center));
  }),
);
const logRate = sum([effect('ctr', 'base'), ...levels.map((l) => effect('ctr', l.name)), offset]);

/**
 * The baseline of `train/pctr`: prior and logistic correction as they were before clicks were counted in instalments and text
 * fit by language. Effects come from matured outcomes alone, 72 h late.
 */
export const maturedCtrFeatures: FeatureSet = defineFeatureSet({
  ...ctrFeatures,
  params: {
    ...ctrFeatures.params,
    ctr_weight_fit: 1.9,
    ctr_category_pair_strength: 8,
    ctr_publication_campaign_strength: 8,
  },
  fits: [{ ...before, source: 'placement_outcomes', levels, offset }],
  features: ctrFeatures.features
    .filter((f) => !LATER_TERMS.includes(f.name) || f.name === 'tag_match')
    .filter((f) => !f.name.endsWith('_neighbours'))
    .map((feature) =>
      feature.name === 'prior_logit_ctr'
        ? { ...feature, value: logit(min(exp(logRate), 0.5)) }
        : feature.name === 'described_log_odds'
          ? { ...feature, value: offset }
          : feature,
    ),
});
