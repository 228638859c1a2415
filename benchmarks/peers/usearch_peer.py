"""USearch: exact search and its HNSW, inner product."""

import numpy as np
from protocol import Arrays, save_rows, serve, skip, threads_wanted, timed

try:
    import usearch
    from usearch.index import Index, MetricKind, search as exact_search
except ImportError as error:
    skip(f"usearch is not installed: {error}")

arrays = Arrays()
indexes = {}


def topk(queries, matrix, k, metric=None, save=None):
    q, x = arrays[queries], arrays[matrix]
    ms, found = timed(lambda: exact_search(x, q, k, MetricKind.IP, exact=True, threads=threads_wanted()))
    save_rows(save, np.asarray(found.keys).reshape(len(q), -1))
    return {"ms": ms}


def build_hnsw(matrix, m, efConstruction, dtype="f32"):
    x = arrays[matrix]
    index = Index(ndim=x.shape[1], metric="ip", dtype=dtype, connectivity=m, expansion_add=efConstruction)
    keys = np.arange(len(x))
    ms, _ = timed(lambda: index.add(keys, x, threads=threads_wanted()))
    indexes["hnsw"] = index
    return {"ms": ms}


def search(queries, k, ef, save=None):
    q, index = arrays[queries], indexes["hnsw"]
    index.expansion_search = ef
    ms, found = timed(lambda: index.search(q, k, threads=threads_wanted()))
    save_rows(save, np.asarray(found.keys).reshape(len(q), -1))
    return {"ms": ms}


serve(
    "usearch",
    usearch.__version__,
    {"load": arrays.resident, "topk": topk, "build_hnsw": build_hnsw, "search": search},
)
