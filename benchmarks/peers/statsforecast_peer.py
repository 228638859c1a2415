"""StatsForecast's automatic models on the same series, one thread, each model fitted to each series by itself."""

import warnings

import numpy as np
from protocol import serve, skip, timed

try:
    import statsforecast
    from statsforecast.models import MSTL, AutoETS, AutoTheta
except (ImportError, OSError) as error:
    skip(f"statsforecast is not installed: {error}")

warnings.filterwarnings("ignore")
state = {}


def model_of(name, seasons):
    # As the documentation has them: the shorter season where a model takes one, both for the decomposition, whose
    # remainder AutoETS without season (its default) continues.
    if name == "AutoETS":
        return AutoETS(season_length=seasons[0])
    if name == "AutoTheta":
        return AutoTheta(season_length=seasons[0])
    return MSTL(season_length=seasons)


def load(values, lengths):
    all_values = np.fromfile(values, np.float64)
    ends = np.cumsum(np.fromfile(lengths, np.int32))
    state["series"] = np.split(all_values, ends[:-1])


def forecast(model, seasons, horizon, save):
    def run():
        # The first use of a model compiles what it needs; that is not counted.
        return np.stack([model_of(model, seasons).forecast(y=y, h=horizon)["mean"] for y in state["series"]])

    model_of(model, seasons).forecast(y=state["series"][0], h=horizon)
    ms, means = timed(run)
    np.ascontiguousarray(means, np.float64).tofile(save)
    return {"ms": ms}


serve("StatsForecast", statsforecast.__version__, {"load": load, "forecast": forecast})
