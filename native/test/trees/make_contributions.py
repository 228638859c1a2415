"""Records how LightGBM and XGBoost explain the recorded rows of their models (Shapley values by covers).

    pip install lightgbm xgboost
    python make_contributions.py models/ contributions/

For each model of theirs (UBJSON apart, which holds what JSON does) there is `contributions/name.contributions`,
little-endian: int32 n_rows, n_targets, n_features + 1, then
float32 [n_rows × n_targets × (n_features + 1)], the expected score last.
"""
import os
import sys

import lightgbm as lgb
import numpy as np
import xgboost as xgb

MODELS, OUT = sys.argv[1:3]


def rows(name):
    raw = open(os.path.join(MODELS, name + ".rows"), "rb").read()
    n, f, _ = np.frombuffer(raw, "<i4", 3)
    return np.frombuffer(raw, "<f4", n * f, 12).reshape(n, f)


def save(name, values, n_rows, n_columns):
    values = np.asarray(values, "<f4").reshape(n_rows, -1, n_columns)
    with open(os.path.join(OUT, name + ".contributions"), "wb") as f:
        f.write(np.array(values.shape, "<i4").tobytes() + values.tobytes())
    print(name, values.shape)


for name in sorted(os.listdir(MODELS)):
    path = os.path.join(MODELS, name)
    if name.endswith(".lightgbm.txt"):
        x = rows(name)
        booster = lgb.Booster(model_file=path)
        values = booster.predict(x.astype(np.float64), pred_contrib=True)
        if "\naverage_output\n" in open(path).read():
            # LightGBM explains the sum of a random forest's trees, and predicts their mean.
            values /= booster.num_trees()
        save(name, values, len(x), x.shape[1] + 1)
    elif name.endswith(".xgboost.json"):
        x = rows(name)
        booster = xgb.Booster(model_file=path)
        types = booster.feature_types
        matrix = xgb.DMatrix(x, feature_types=types, enable_categorical=True)
        save(name, booster.predict(matrix, pred_contribs=True), len(x), x.shape[1] + 1)
