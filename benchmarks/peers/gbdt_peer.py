"""LightGBM and XGBoost, one library per process: predicting with the same ensemble, learning from the same rows."""

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


def resident(name):
    """VmRSS or VmHWM of this process in bytes (Linux)."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(name + ":"))


def learn(x, y, categorical, s, trials=None):
    """Rows to a model, binning included, with the settings that all have; the others are the library's own.

    Successes of trials are shares with weights, which is the same loss.
    """
    if trials is not None:
        y = y / trials
    if library == "xgboost":
        types = ["c" if f in categorical else "q" for f in range(x.shape[1])]
        data = module.QuantileDMatrix(x, y, weight=trials, feature_types=types, enable_categorical=True, max_bin=s["maxBins"],
                                      nthread=s["threads"])
        settings = {
            "objective": "binary:logistic", "tree_method": "hist", "grow_policy": "lossguide", "max_depth": 0,
            "max_leaves": s["maxLeaves"], "eta": s["learningRate"], "max_bin": s["maxBins"],
            "min_child_weight": s["minChildWeight"], "lambda": s["l2"], "seed": s["seed"], "nthread": s["threads"],
        }
        return module.train(settings, data, s["nTrees"])
    settings = {
        "objective": "binary" if trials is None else "cross_entropy", "num_leaves": s["maxLeaves"], "learning_rate": s["learningRate"],
        "max_bin": s["maxBins"], "min_sum_hessian_in_leaf": s["minChildWeight"],
        "min_data_in_leaf": s["minChildRows"], "lambda_l2": s["l2"], "seed": s["seed"], "num_threads": s["threads"],
        "verbosity": -1,
    }
    data = module.Dataset(x, y, weight=trials, categorical_feature=categorical, params=settings)
    return module.train(settings, data, s["nTrees"])


def answer(model, x, categorical, s):
    if library == "xgboost":
        types = ["c" if f in categorical else "q" for f in range(x.shape[1])]
        return model.predict(module.DMatrix(x, feature_types=types, enable_categorical=True, nthread=s["threads"]))
    return model.predict(x, num_threads=s["threads"])


def fit(x, y, categorical, settings, test, save):
    rows, labels = arrays[x], arrays[y].reshape(-1)
    with open("/proc/self/clear_refs", "w") as refs:
        refs.write("5")  # the peak starts here: the inputs are loaded
    before = resident("VmRSS")
    ms, model = timed(lambda: learn(rows, labels, categorical, settings))
    peak = resident("VmHWM")
    np.asarray(answer(model, arrays[test], categorical, settings), np.float32).tofile(save)
    return {"ms": ms, "bytes": peak - before}


def cross_fit(x, y, categorical, settings, folds, nFolds, save, trials=None):
    rows, labels, fold = arrays[x], arrays[y].reshape(-1), arrays[folds].reshape(-1)
    of = None if trials is None else arrays[trials].reshape(-1)
    out = np.zeros(len(rows), np.float32)
    for f in range(nFolds):
        held = fold == f
        model = learn(rows[~held], labels[~held], categorical, settings, None if of is None else of[~held])
        out[held] = answer(model, rows[held], categorical, settings)
    out.tofile(save)


serve(library, module.__version__, {"load": arrays.resident, "open": open_model, "trees": trees, "fit": fit,
                                    "crossFit": cross_fit})
