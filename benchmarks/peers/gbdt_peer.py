"""LightGBM and XGBoost predicting with the same ensemble, one library per process."""

import os

import numpy as np
from protocol import Arrays, serve, skip, threads_wanted, timed

library = os.environ.get("WAGGLE_BENCH_GBDT", "lightgbm")
arrays = Arrays()
state = {}

try:
    if library == "xgboost":
        import xgboost as module
    else:
        import lightgbm as module
except (ImportError, OSError) as error:
    skip(f"{library} is not installed: {error}")


def open_model(path):
    if library == "xgboost":
        state["model"] = module.Booster({"nthread": threads_wanted()}, model_file=path)
    else:
        state["model"] = module.Booster(model_file=path)


def trees(x, save=None):
    rows = np.ascontiguousarray(arrays[x])
    model = state["model"]
    if library == "xgboost":
        model.set_param({"nthread": threads_wanted()})
        run = lambda: model.inplace_predict(rows, predict_type="margin")
    else:
        run = lambda: model.predict(rows, raw_score=True, num_threads=threads_wanted())
    ms, y = timed(run)
    if save is not None:
        np.asarray(y, np.float32).tofile(save)
    return {"ms": ms}


serve(library, module.__version__, {"load": arrays.resident, "open": open_model, "trees": trees})
