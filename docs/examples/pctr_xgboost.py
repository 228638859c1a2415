"""pCTR by XGBoost: python pctr_xgboost.py rows.parquet → pctr.ubj, pctr.contract.json"""

import sys

import numpy as np
import xgboost as xgb
from waggle_rows import log_loss, read_rows, weight, write_contract


def matrix(rows):
    """Shares of deliveries with what these count as weight; the score is what is added to the prior's logit."""
    return xgb.DMatrix(rows.x, label=rows.clicks / rows.delivered, weight=rows.delivered * weight(rows), base_margin=rows.prior)


rows = read_rows(sys.argv[1])
train, later = rows.split(0.8)
settings = {
    "objective": "binary:logistic",
    "tree_method": "hist",
    "base_score": 0.5,  # a score of 0: the prior is the start
    "eta": 0.05,
    "max_depth": 4,
    "min_child_weight": 20,
    "lambda": 10,
    "nthread": 2,
}
booster = xgb.train(settings, matrix(train), 300, evals=[(matrix(later), "later")], early_stopping_rounds=20,
                    verbose_eval=False)
booster = booster[: booster.best_iteration + 1]
booster.save_model("pctr.ubj")
examples = later.part(0, 200)
write_contract(
    "pctr.contract.json", rows, (examples.x, booster.predict(matrix(examples))),
    name="pctr_xgboost", producer=f"xgboost {xgb.__version__}", format="xgboost-ubj", missing="nan",
    offsetFeature="prior_logit_ctr",
)
prior = xgb.DMatrix(later.x, base_margin=later.prior)
print(f"{booster.num_boosted_rounds()} trees; log-loss of {len(later)} later rows {log_loss(booster.predict(prior), later):.6f}, "
      f"of the prior alone {log_loss(1 / (1 + np.exp(-later.prior)), later):.6f}")
