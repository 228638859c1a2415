"""Rows that `waggle features --out rows.parquet` wrote, and what a model of them declares when Waggle imports it."""

import json
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow.parquet as pq


@dataclass
class Rows:
    """Decisions in time order: features, clicks of deliveries, and the logit of the prior that a model is fitted around."""

    about: dict
    x: np.ndarray  # float32 [n × features]
    clicks: np.ndarray
    delivered: np.ndarray
    prior: np.ndarray

    def __len__(self):
        return len(self.x)

    def part(self, begin, end):
        return Rows(self.about, *(a[begin:end] for a in (self.x, self.clicks, self.delivered, self.prior)))

    def split(self, share):
        """The later rows judge what the earlier ones taught."""
        cut = int(len(self) * share)
        return self.part(0, cut), self.part(cut, len(self))


def read_rows(path, prior="prior_logit_ctr"):
    table = pq.read_table(path)
    about = json.loads(table.schema.metadata[b"waggle"])
    # Clicks go on for three days. Younger rows would teach that late ads are not clicked.
    final = np.asarray(table["maturity"]) == 1
    # The latest rows are for `waggle models gate`: a model that has seen them cannot be judged on them.
    until = datetime.fromisoformat(about["learn_until"].replace("Z", "+00:00")).timestamp() * 1000
    table = table.filter(final & (np.asarray(table["decision_ts_ms"]) <= until))
    x = np.column_stack([np.asarray(table[name]) for name in about["features"]]).astype(np.float32)
    column = lambda name: np.asarray(table[name], np.float64)
    return Rows(about, x, column("successes"), column("trials"), x[:, about["features"].index(prior)])


# Clicks of one send share its luck: by this variance of its log click rate, a row says no more than 1 / SHARED_LUCK clicks would.
# `waggle train --json` tells it of your data: pctr.summary.dispersion, its two variances together.
SHARED_LUCK = 0.2


def weight(rows):
    """What a delivery counts: without this one giant send would be a million independent opinions, and a model of its luck."""
    return 1 / (1 + SHARED_LUCK * rows.delivered / (1 + np.exp(-rows.prior)))


def log_loss(p, rows):
    p = np.clip(np.asarray(p, np.float64), 1e-12, 1 - 1e-12)
    return -np.sum(rows.clicks * np.log(p) + (rows.delivered - rows.clicks) * np.log1p(-p)) / np.sum(rows.delivered)


def write_contract(path, rows, examples, *, name, producer, **more):
    """`examples`: rows and what the model answers for them; Waggle holds its own answers against these."""
    x, p = examples
    contract = {
        "contractVersion": 1,
        "name": name,
        "producer": producer,
        "features": [{"name": feature, "dtype": "float32"} for feature in rows.about["features"]],
        "featureSetFingerprint": rows.about["fingerprint"],
        "featureParams": rows.about["params"],
        "output": {"meaning": "probability"},
        "examples": {"rows": x.astype(float).tolist(), "outputs": np.asarray(p, float).tolist(), "tolerance": 1e-5},
        "dataRange": {"from": rows.about["from"], "to": rows.about["gate_from"]},
        **more,
    }
    with open(path, "w") as file:
        json.dump(contract, file)
