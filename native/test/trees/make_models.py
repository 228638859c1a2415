"""Trains small models with LightGBM and XGBoost, writes random ONNX ensembles, and records what those libraries and
ONNX Runtime predict for rows that meet thresholds exactly.

    pip install lightgbm xgboost onnx onnxruntime
    python make_models.py models/

For each model `name.<format>` there is `name.rows`, little-endian: int32 n_rows, n_features, n_outputs, then float32
x [n_rows × n_features], then float32 expected [n_rows × n_outputs].
"""
import json
import os
import re
import sys

import lightgbm as lgb
import numpy as np
import onnx
import onnxruntime as ort
import xgboost as xgb
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

OUT = sys.argv[1]
ROWS = 160
rng = np.random.default_rng(20260101)
INF = np.float32(np.inf)
SPECIAL = np.array([0.0, -0.0, 1e-45, -1e-45, 1e-35, -1e-35, 2e-35, 3e38, -3e38], np.float32)


def near(thresholds):
    """Each threshold as a float, and its neighbours: where < and ≤ differ."""
    t = np.asarray(thresholds, np.float64)
    t = t[np.isfinite(t) & (np.abs(t) < 3e38)].astype(np.float32)
    return np.concatenate([t, np.nextafter(t, INF), np.nextafter(t, -INF), SPECIAL])


def rows(thresholds, n_features, categorical=(), nan=True, values=None):
    """Random rows, two thirds of whose numbers sit on or beside a threshold of their feature."""
    x = rng.normal(size=(ROWS, n_features)).astype(np.float32)
    for f in range(n_features):
        pool = near(thresholds.get(f, [0.0]))
        if f in categorical:
            odd = [-1, -0.5, -0.0, 0.5, 7.25, 31, 32, 33, 63, 64, 1000, 16777216, 3e9, -7]
            pool = np.concatenate([np.arange(40), odd]).astype(np.float32)
        if values is not None:
            pool = np.concatenate([pool, np.asarray(values, np.float32)])
        pick = rng.random(ROWS) < (1.0 if f in categorical else 0.66)
        x[pick, f] = rng.choice(pool, pick.sum())
    if nan:
        x[rng.random(x.shape) < 0.12] = np.nan
    return x


def save(name, x, expected):
    expected = np.asarray(expected, np.float32).reshape(len(x), -1)
    with open(os.path.join(OUT, name + ".rows"), "wb") as f:
        f.write(np.array([len(x), x.shape[1], expected.shape[1]], "<i4").tobytes())
        f.write(x.astype("<f4").tobytes())
        f.write(expected.astype("<f4").tobytes())
    print(name, x.shape, expected.shape)


def data(n=600, categorical=False):
    x = rng.normal(size=(n, 5)).astype(np.float32)
    x[:, 3] = np.round(x[:, 3] * 2) / 2  # many exact zeros
    x[:, 4] = rng.integers(0, 36, n) if categorical else x[:, 4]
    x[rng.random(x.shape) < 0.1] = np.nan
    z = np.nan_to_num(x)
    y = z[:, 0] + 0.7 * z[:, 1] * (z[:, 3] > 0) + np.isin(x[:, 4], [1, 4, 7, 30]) + 0.3 * rng.normal(size=n)
    return x, y


# ---- LightGBM ------------------------------------------------------------------------------------------------


def lightgbm_model(name, params, target, rounds=6, categorical=False):
    x, y = data(categorical=categorical)
    cat = [4] if categorical else []
    settings = dict(verbosity=-1, num_leaves=9, min_data_in_leaf=5, min_data_per_group=2, cat_smooth=0, max_cat_to_onehot=2,
                    num_threads=1, deterministic=True, seed=1)
    booster = lgb.train({**settings, **params}, lgb.Dataset(x, target(y), categorical_feature=cat), rounds)
    path = os.path.join(OUT, name + ".lightgbm.txt")
    booster.save_model(path)
    text = open(path).read()
    # Only what describes the model: the training parameters would only fill the file.
    text = re.sub(r"\nfeature_importances:.*?pandas_categorical", "\npandas_categorical", text, flags=re.S)
    open(path, "w").write(text)
    booster = lgb.Booster(model_file=path)
    thresholds = {}
    frame = booster.trees_to_dataframe()
    for feature, kind, t in zip(frame.split_feature, frame.decision_type, frame.threshold):
        if kind == "<=":
            thresholds.setdefault(int(feature.split("_")[1]), []).append(float(t))
    test = rows(thresholds, 5, cat)
    save(name + ".lightgbm.txt", test, booster.predict(test.astype(np.float64)))


binary = lambda y: (y > 0.4).astype(int)
three = lambda y: np.digitize(y, [0, 0.8])
positive = lambda y: np.exp(y / 2)
plain = lambda y: y
lightgbm_model("regression", dict(objective="regression"), plain)
lightgbm_model("binary-categorical", dict(objective="binary", sigmoid=0.7), binary, categorical=True)
lightgbm_model("zero-as-missing", dict(objective="regression", zero_as_missing=True), plain)
lightgbm_model("no-missing", dict(objective="regression_l1", use_missing=False), plain)
lightgbm_model("multiclass", dict(objective="multiclass", num_class=3), three, rounds=3, categorical=True)
lightgbm_model("ova", dict(objective="multiclassova", num_class=3), three, rounds=2)
lightgbm_model("poisson", dict(objective="poisson"), positive, rounds=3)
lightgbm_model("sqrt", dict(objective="regression", reg_sqrt=True), plain, rounds=3)
lightgbm_model("forest", dict(objective="binary", boosting="rf", bagging_freq=1, bagging_fraction=0.6), binary)
lightgbm_model("dart", dict(objective="cross_entropy", boosting="dart", drop_rate=0.5), binary)
lightgbm_model("lambda", dict(objective="cross_entropy_lambda"), binary, rounds=3)

# ---- XGBoost -------------------------------------------------------------------------------------------------


def xgboost_model(name, params, target, rounds=5, categorical=False, raw_json=None):
    x, y = data(categorical=categorical)
    types = ["q", "q", "q", "q", "c" if categorical else "q"]
    settings = dict(max_depth=4, nthread=1, seed=1, max_cat_to_onehot=3, tree_method="hist")
    matrix = xgb.DMatrix(x, target(y), feature_types=types, enable_categorical=True)
    booster = xgb.train({**settings, **params}, matrix, rounds)
    thresholds = {}
    model = json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]
    for tree in model.get("gbtree", model)["model"]["trees"]:
        for left, feature, t in zip(tree["left_children"], tree["split_indices"], tree["split_conditions"]):
            if left != -1:
                thresholds.setdefault(feature, []).append(t)
    test = rows(thresholds, 5, [4] if categorical else [])
    expected = booster.predict(xgb.DMatrix(test, feature_types=types, enable_categorical=True))
    for extension in ("json", "ubj"):
        full = f"{name}.xgboost.{extension}"
        booster.save_model(os.path.join(OUT, "tmp." + extension))
        os.replace(os.path.join(OUT, "tmp." + extension), os.path.join(OUT, full))
        save(full, test, expected)


xgboost_model("squared", dict(objective="reg:squarederror"), plain)
xgboost_model("logistic-categorical", dict(objective="binary:logistic"), binary, categorical=True)
xgboost_model("softprob", dict(objective="multi:softprob", num_class=3), three, rounds=2, categorical=True)
xgboost_model("dart", dict(objective="binary:logitraw", booster="dart", rate_drop=0.5, seed=3), binary)
xgboost_model("gamma", dict(objective="reg:gamma", max_depth=3, gamma=0.5), positive, rounds=3)
xgboost_model("hinge", dict(objective="binary:hinge", max_depth=3), binary, rounds=3)
xgboost_model("one-hot", dict(objective="count:poisson", max_cat_to_onehot=100), positive, rounds=3, categorical=True)

# ---- ONNX ----------------------------------------------------------------------------------------------------

MODES = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]
VALUES = np.round(np.linspace(-1.2, 1.2, 13), 1).astype(np.float32)


def random_tree(depth):
    """Nested (feature, mode, value, tracks_missing, yes, no), or a leaf: None."""
    if depth == 0 or rng.random() < 0.15:
        return None
    return (int(rng.integers(4)), int(rng.integers(6)), float(rng.choice(VALUES)), int(rng.integers(2)),
            random_tree(depth - 1), random_tree(depth - 1))


def model_of(nodes, outputs, opset):
    graph = helper.make_graph(nodes, "trees", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("ai.onnx.ml", opset), helper.make_opsetid("", 21)])
    model.ir_version = 10
    return model


def run(name, model, output, whole=False):
    path = os.path.join(OUT, name + ".onnx")
    onnx.save(model, path)
    x = rows({}, 4, values=np.concatenate([VALUES, near(VALUES), *([np.arange(-2, 42)] * (16 if whole else 0))]))
    expected = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run([output], {"x": x})[0]
    if whole:
        # ONNX Runtime takes 3.5 for a member of {1, 3, 40}; the standard and its reference implementation do not.
        reference = ReferenceEvaluator(model).run(None, {"x": x})[0]
        clean = np.all(np.isnan(x) | (x == np.round(x)), axis=1)
        assert clean.sum() > 20 and np.allclose(reference[clean], expected[clean], atol=1e-5)
        expected = reference
    save(name + ".onnx", x, expected)


def flat(trees, n_targets, weights, only=None):
    a = {k: [] for k in ("nodes_treeids nodes_nodeids nodes_featureids nodes_modes nodes_values nodes_truenodeids "
                         "nodes_falsenodeids nodes_missing_value_tracks_true").split()}
    leaves = []
    for number, tree in enumerate(trees):
        count = [0]

        def add(node):
            own = count[0]
            count[0] += 1
            at = len(a["nodes_treeids"])
            for k in a:
                a[k].append(0)
            a["nodes_treeids"][at] = number
            a["nodes_nodeids"][at] = own
            if node is None:
                a["nodes_modes"][at] = "LEAF"
                a["nodes_values"][at] = 0.0
                for target in range(n_targets) if only is None else [only]:
                    if only is not None or rng.random() < 0.8:
                        leaves.append((number, own, target, float(weights())))
            else:
                a["nodes_featureids"][at], mode, a["nodes_values"][at], tracks, yes, no = node
                a["nodes_modes"][at] = MODES[mode]
                a["nodes_missing_value_tracks_true"][at] = tracks
                a["nodes_truenodeids"][at] = add(yes)
                a["nodes_falsenodeids"][at] = add(no)
            return own

        add(tree)
    return a, leaves


def ensemble_v1(name, classifier, n_targets, weights, only=None, depth=4, n_trees=6, **more):
    trees = [random_tree(depth) or random_tree(depth) for _ in range(n_trees)]
    attributes, leaves = flat(trees, n_targets, weights, only)
    prefix = "class" if classifier else "target"
    for i, part in enumerate(("treeids", "nodeids", "ids", "weights")):
        attributes[f"{prefix}_{part}"] = [leaf[i] for leaf in leaves]
    attributes.update(more)
    if classifier:
        attributes["classlabels_int64s"] = list(range(n_targets))
        node = helper.make_node("TreeEnsembleClassifier", ["x"], ["label", "scores"], domain="ai.onnx.ml", **attributes)
        outputs = [helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
                   helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, n_targets])]
        run(name, model_of([node], outputs, 3), "scores")
    else:
        attributes["n_targets"] = n_targets
        node = helper.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", **attributes)
        run(name, model_of([node], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, n_targets])], 3), "y")


signed = lambda: rng.normal()
unsigned = lambda: rng.random() * 0.1
ensemble_v1("regressor", False, 1, signed, base_values=[0.25])
ensemble_v1("regressor-logistic", False, 1, signed, post_transform="LOGISTIC")
ensemble_v1("regressor-targets", False, 3, signed, base_values=[0.5, -1.0, 2.0], aggregate_function="AVERAGE")
ensemble_v1("regressor-targets-logistic", False, 2, signed, post_transform="LOGISTIC")
ensemble_v1("regressor-probit", False, 2, lambda: rng.random() * 0.15, post_transform="PROBIT")
ensemble_v1("classifier-softmax", True, 3, signed, post_transform="SOFTMAX")
ensemble_v1("classifier-softmax-zero", True, 3, signed, post_transform="SOFTMAX_ZERO", n_trees=1, depth=5)
ensemble_v1("classifier-two", True, 2, signed)
ensemble_v1("classifier-first-positive", True, 2, unsigned, only=0)
ensemble_v1("classifier-first-signed", True, 2, signed, only=0, base_values=[-0.2])
ensemble_v1("classifier-first-logistic", True, 2, signed, only=0, post_transform="LOGISTIC")
ensemble_v1("classifier-first-positive-logistic", True, 2, unsigned, only=0, post_transform="LOGISTIC", base_values=[0.5])
ensemble_v1("classifier-second", True, 2, signed, only=1)
ensemble_v1("classifier-second-logistic", True, 2, unsigned, only=1, post_transform="LOGISTIC")
ensemble_v1("classifier-base", True, 4, signed, post_transform="LOGISTIC", base_values=[0.5, 0.1, -0.2, 1.0])


def ensemble_v5(name, n_targets, n_trees=5, depth=4, transform=0, aggregate=1, double=False):
    columns = {k: [] for k in ("featureids modes splits truenodeids trueleafs falsenodeids falseleafs "
                               "missing_value_tracks_true").split()}
    targets, weights, members, roots = [], [], [], []

    def leaf():
        targets.append(int(rng.integers(n_targets)))
        weights.append(float(rng.normal()))
        return len(targets) - 1, 1

    def add(node):
        if node is None:
            return leaf()
        own = len(columns["modes"])
        for k in columns:
            columns[k].append(0)
        columns["featureids"][own], mode, columns["splits"][own], tracks, yes, no = node
        columns["missing_value_tracks_true"][own] = tracks
        if rng.random() < 0.3:
            mode = 6
            # (ONNX Runtime knows sets of whole numbers from 1 alone.)
            chosen = rng.choice(np.arange(1, 40), int(rng.integers(1, 9)), replace=False)
            members.extend([*chosen.astype(float).tolist(), float("nan")])
            columns["splits"][own] = 0.0
        columns["modes"][own] = mode
        columns["truenodeids"][own], columns["trueleafs"][own] = add(yes)
        columns["falsenodeids"][own], columns["falseleafs"][own] = add(no)
        return own, 0

    for _ in range(n_trees):
        tree = None
        while tree is None:
            tree = random_tree(depth)
        roots.append(add(tree)[0])
    kind = TensorProto.DOUBLE if double else TensorProto.FLOAT
    attributes = {f"nodes_{k}": v for k, v in columns.items() if k not in ("modes", "splits")}
    node = helper.make_node(
        "TreeEnsemble", ["x"], ["y"], domain="ai.onnx.ml", n_targets=n_targets, aggregate_function=aggregate,
        post_transform=transform, tree_roots=roots, leaf_targetids=targets,
        leaf_weights=helper.make_tensor("w", kind, [len(weights)], weights),
        membership_values=helper.make_tensor("m", kind, [len(members)], members),
        nodes_modes=helper.make_tensor("modes", TensorProto.UINT8, [len(columns["modes"])], columns["modes"]),
        nodes_splits=helper.make_tensor("splits", kind, [len(columns["splits"])], columns["splits"]), **attributes)
    run(name, model_of([node], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, n_targets])], 5), "y",
        whole=True)


ensemble_v5("ensemble", 1)
ensemble_v5("ensemble-targets", 4, n_trees=9, aggregate=0)
